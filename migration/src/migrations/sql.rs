//! The SQL of each migration, for the commands that print SQL.

use sea_orm_migration::MigrationName;

use super::{m20261101_000001_platform as platform, m20261101_000002_tables as tables};

/// Returns the name of each migration, with its SQL. The first creates what Supabase would provide and the database
/// lacks; the second creates the tables.
pub(crate) fn migrations_sql() -> Vec<(String, Vec<String>)> {
    let migrations = vec![
        (platform::Migration.name().to_owned(), platform::up_sql()),
        (tables::Migration.name().to_owned(), tables::up_sql()),
    ];
    #[cfg(test)]
    let migrations = migrations.into_iter().chain(crate::next_release::migration_sql()).collect();
    migrations
}
