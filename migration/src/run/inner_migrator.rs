//! SeaORM's own way to apply and undo migrations, which the commands use.

use sea_orm_migration::{MigrationTrait, MigratorTrait, async_trait, sea_orm::DynIden};

use crate::migrations::{MIGRATIONS_TABLE, migrations};

/// This program's migrations, with SeaORM's own `up`, `down` and `uninstall`, which run in the command's transaction.
pub(super) struct InnerMigrator;

#[async_trait::async_trait]
impl MigratorTrait for InnerMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        migrations()
    }

    fn migration_table_name() -> DynIden {
        MIGRATIONS_TABLE.into()
    }
}
