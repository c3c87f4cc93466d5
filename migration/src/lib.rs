#![doc = include_str!("../README.md")]

pub use sea_orm_migration;
use sea_orm_migration::prelude::*;

mod check;
pub mod connect;
mod dependents;
mod failure;
mod manifest;
mod preflight;
mod query;
mod record;
mod renames;
mod repair;
mod rows;
mod rules;
mod run;
mod script;
mod statements;
mod tables;

mod m20261101_000001_platform;
mod m20261101_000002_tables;

pub use check::{Difference, Report};
pub use connect::{ConnectError, connect};
pub use failure::user_message;
pub use manifest::{MANIFEST, object};
pub use preflight::PreflightError;
pub use run::{Command, Status, Step, accounts, dry_run, run, status};
pub use script::sql;

/// What always holds, as one query that must return no row: a tool for operators, and for tests.
pub const INVARIANTS: &str = include_str!("../sql/invariants.sql");

/// Sets every counter to what the rows say, for rows that came while triggers were off. To be run in a transaction.
pub const RECOUNT: &str = include_str!("../sql/recount.sql");

/// The schema: numbered migrations for its structure, and the rules that `up` applies after them, and again whenever the
/// database differs from what this program carries.
///
/// Use it as any SeaORM migrator, through [`MigratorTrait`]. Beyond what SeaORM does, every command
///
/// - is one transaction, and waits for whoever else is migrating the same database, so that all replicas of a service may
///   migrate at start;
/// - looks first whether the server, the role and what stands in the database allow it, and says in one sentence what
///   does not (a [`PreflightError`], as [`DbErr::Migration`]), with nothing changed;
/// - takes away only what it made: `fresh` and `reset` undo the migrations instead of dropping all of `public`, and refuse
///   where something of an operator's would go with them;
/// - records what is applied in `sparc_migrations`, beside whatever other migrators record.
#[derive(Clone, Copy, Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261101_000001_platform::Migration), Box::new(m20261101_000002_tables::Migration)]
    }

    fn migration_table_name() -> DynIden {
        "sparc_migrations".into_iden()
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
        run(&db.into_database_executor(), Command::Refresh).await?;
        Ok(())
    }
}

/// Compares the database with what this program carries. Reading the catalog suffices; nothing is changed or locked.
///
/// # Errors
///
/// [`DbErr::Migration`] with the sentence of a [`PreflightError`] where the database records a migration that this program
/// does not know; else what the database said.
pub async fn check<'c, C>(db: C) -> Result<Report, DbErr>
where
    C: IntoSchemaManagerConnection<'c>,
{
    Ok(run::read_state(&db.into_database_executor()).await?.report())
}

/// The manifest of the database: what it holds, and, for what does not apply in it (the stand-in on a platform, jobs
/// without `pg_cron`), what this program carries.
///
/// # Errors
///
/// What the database said.
pub async fn manifest<'c, C>(db: C) -> Result<String, DbErr>
where
    C: IntoSchemaManagerConnection<'c>,
{
    Ok(run::read_state(&db.into_database_executor()).await?.manifest())
}

/// The same without what this program carries: for making the manifest anew.
///
/// # Errors
///
/// What the database said.
#[doc(hidden)]
pub async fn actual_manifest<'c, C>(db: C) -> Result<String, DbErr>
where
    C: IntoSchemaManagerConnection<'c>,
{
    Ok(manifest::print(&run::read_state(&db.into_database_executor()).await?.actual()))
}
