//! The numbered migrations, in order. The program's command `generate` adds a file to this folder, and edits this file:
//! it declares the new module, and adds the migration to the list in `listed`. For that, it replaces the text from
//! `vec!` to the last `]` at the end of a line. So no line after the list may end with `]`.

mod m20261101_000001_platform;
mod m20261101_000002_tables;
mod sql;

use sea_orm_migration::{MigrationName, MigrationTrait};

pub(crate) use sql::migrations_sql;

/// The name of the table in schema `public` that lists the applied migrations.
pub(crate) const MIGRATIONS_TABLE: &str = "sparc_migrations";

/// Returns this program's migrations, in order. In a unit test that plays a later release (`next_release.rs`), also the
/// migration of that release.
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
