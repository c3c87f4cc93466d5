#![doc = include_str!("../README.md")]

pub use sea_orm_migration;
use sea_orm_migration::prelude::*;

mod check;
pub mod connect;
mod db_error;
mod dependents;
mod error;
mod manifest;
#[cfg(test)]
mod next_release;
mod preflight;
mod printable;
mod query;
mod record;
mod renames;
mod repair;
mod repeatable;
mod run;
mod script;
mod statements;
mod tables;
mod violations;

mod m20261101_000001_platform;
mod m20261101_000002_tables;

pub use check::{Difference, Report};
pub use connect::{ConnectError, connect};
pub use db_error::operator_message;
pub use error::MigrationError;
pub use manifest::{MANIFEST, object_of_line};
pub use run::{Command, SchemaChange, Status, count_accounts_losing_data, dry_run, run, status};
pub use script::install_script;

/// The query that checks the schema's invariants, for operators and tests. It returns one row for each violation.
pub const INVARIANTS: &str = include_str!("../sql/invariants.sql");

/// SQL that recomputes, from the rows, the counters on which limits depend, and, in `private.account_gates`, the flag
/// that says whether an account is open (may write). It also inserts the rows that `private.account_gates` lacks. It is
/// needed after rows were written with triggers disabled. Run it in one transaction, at a time when nobody writes, as a
/// role that may set `session_replication_role`.
pub const RECOUNT: &str = include_str!("../sql/recount.sql");

/// Compares the database with the manifest. It needs only read access to the catalog, changes nothing and blocks no
/// writer.
///
/// # Errors
///
/// [`DbErr::Migration`] with the message of a [`MigrationError`] if the server is older than PostgreSQL 15, if
/// `public.sparc_migrations` lists a migration that this program does not know, or if another database session holds a
/// lock for which the call waits too long; otherwise the error of the database.
pub async fn check<'c, C>(db: C) -> Result<Report, DbErr>
where
    C: IntoSchemaManagerConnection<'c>,
{
    Ok(run::read_state(&db.into_database_executor()).await?.report())
}

/// Lists the objects of the database in the form of the manifest. Lines of objects that this database cannot have are
/// taken from the committed manifest: for example, on Supabase those of the stand-in for Supabase's schema `auth`, and
/// elsewhere those of the policies on `realtime.messages`. The lines of the jobs are always taken from
/// `sql/jobs/schedule.sql`.
///
/// # Errors
///
/// Those of [`check()`].
pub async fn full_manifest_of<'c, C>(db: C) -> Result<String, DbErr>
where
    C: IntoSchemaManagerConnection<'c>,
{
    Ok(run::read_state(&db.into_database_executor()).await?.full_manifest())
}

/// Lists the objects of the database in the form of the manifest, with no line from the committed manifest. The lines
/// of the jobs are taken from `sql/jobs/schedule.sql`. `cargo manifest` writes the lines of a plain database and of a
/// Supabase project to `manifest.txt`.
///
/// # Errors
///
/// Those of [`check()`].
#[doc(hidden)]
pub async fn partial_manifest_of<'c, C>(db: C) -> Result<String, DbErr>
where
    C: IntoSchemaManagerConnection<'c>,
{
    Ok(manifest::format_lines(&run::read_state(&db.into_database_executor()).await?.found_definitions()))
}

// This program's command `generate` edits this file. It replaces everything from the list of migrations to the last
// closing square bracket that ends a line, so no line below the list may end with one.

/// The schema: numbered migrations for its structure, and repeatable objects (functions, triggers, policies, views,
/// privileges, jobs), which `up` creates after the migrations, and again when they differ from the manifest.
///
/// Use it like any SeaORM migrator, through [`MigratorTrait`]. It differs from other SeaORM migrators in that each of
/// `up`, `down`, `reset`, `refresh` and `fresh`
///
/// - runs in one transaction, and waits for other migrators of the same database, so that all instances of a service
///   may migrate when they start;
/// - first checks that the server, the role and the objects in the database permit it; if not, it changes nothing and
///   reports the cause and the remedy (a [`MigrationError`], as [`DbErr::Migration`]);
/// - drops only what these migrations created: it fails if an object that somebody else has added to the database would
///   be dropped too, and `fresh` undoes the migrations instead of dropping all of `public`;
/// - lists the applied migrations in the table `sparc_migrations`, not in SeaORM's default `seaql_migrations`.
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
        // Nothing else in `public` is dropped: see above.
        run(&db.into_database_executor(), Command::Refresh).await?;
        Ok(())
    }
}
