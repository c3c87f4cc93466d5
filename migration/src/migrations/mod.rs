//! The numbered migrations, in order. The program's command `generate` adds a file to this folder, and edits this file:
//! it declares the new module, and replaces everything from the list of migrations to the last closing square bracket
//! that ends a line. So no line below the list may end with one.

mod m20261101_000001_platform;
mod m20261101_000002_tables;
mod sql;

use sea_orm_migration::{MigrationName, MigrationTrait};

pub(crate) use sql::migrations_sql;

/// The name of the table in schema `public` that lists the applied migrations.
pub(crate) const MIGRATIONS_TABLE: &str = "sparc_migrations";

/// Returns this program's migrations, in order; in a unit test that uses the next release (`next_release`), also its
/// migration.
pub(crate) fn migrations() -> Vec<Box<dyn MigrationTrait>> {
    let migrations = listed();
    #[cfg(test)]
    let migrations = crate::next_release::add_migration_if_next_release(migrations);
    migrations
}

/// Returns the names of this program's migrations, in order.
pub(crate) fn migration_names() -> Vec<String> {
    migrations().iter().map(|migration| migration.name().to_owned()).collect()
}

/// Returns the name of the migration that creates the tables of the game.
pub(crate) fn name_of_tables_migration() -> &'static str {
    MigrationName::name(&m20261101_000002_tables::Migration)
}

/// The list of migrations, which `generate` edits.
fn listed() -> Vec<Box<dyn MigrationTrait>> {
    vec![Box::new(m20261101_000001_platform::Migration), Box::new(m20261101_000002_tables::Migration)]
}
