//! The schema as a SeaORM migrator.

use sea_orm_migration::prelude::*;

use crate::{
    migrations::{MIGRATIONS_TABLE, migrations},
    run::{Command, run},
};

/// The schema: numbered migrations for its structure, and repeatable objects (functions, triggers, policies, views,
/// privileges, jobs), which `up` creates after the migrations, and again when they differ from the manifest.
///
/// Use it like any SeaORM migrator, through [`MigratorTrait`]. It differs from other SeaORM migrators in that each of
/// `up`, `down`, `reset`, `refresh` and `fresh`
///
/// - runs in one transaction, and waits for other migrators of the same database, so that all instances of a service
///   may migrate when they start;
/// - first checks that the server, the role and the objects in the database permit it; if not, it changes nothing and
///   reports the cause and the remedy (a [`MigrationError`](crate::MigrationError), as [`DbErr::Migration`]);
/// - drops only what these migrations created: it fails if an object that somebody else has added to the database would
///   be dropped too, and `fresh` undoes the migrations instead of dropping all of `public`;
/// - lists the applied migrations in the table `sparc_migrations`, not in SeaORM's default `seaql_migrations`.
#[derive(Clone, Copy, Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        migrations()
    }

    fn migration_table_name() -> DynIden {
        MIGRATIONS_TABLE.into_iden()
    }

    async fn up<'c, C>(db: C, steps: Option<u32>) -> Result<(), DbErr>
    where
        C: IntoSchemaManagerConnection<'c>,
    {
        run(&db.into_database_executor(), Command::Up(steps)).await?;
        Ok(())
    }

    async fn down<'c, C>(db: C, steps: Option<u32>) -> Result<(), DbErr>
    where
        C: IntoSchemaManagerConnection<'c>,
    {
        run(&db.into_database_executor(), Command::Down(steps)).await?;
        Ok(())
    }

    async fn reset<'c, C>(db: C) -> Result<(), DbErr>
    where
        C: IntoSchemaManagerConnection<'c>,
    {
        run(&db.into_database_executor(), Command::Reset).await?;
        Ok(())
    }

    async fn refresh<'c, C>(db: C) -> Result<(), DbErr>
    where
        C: IntoSchemaManagerConnection<'c>,
    {
        run(&db.into_database_executor(), Command::Refresh).await?;
        Ok(())
    }

    async fn fresh<'c, C>(db: C) -> Result<(), DbErr>
    where
        C: IntoSchemaManagerConnection<'c>,
    {
        // Nothing else in `public` is dropped: see above.
        run(&db.into_database_executor(), Command::Refresh).await?;
        Ok(())
    }
}
