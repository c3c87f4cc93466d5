//! The commands that change nothing: `check`, `status`, and the lists of a database's objects.

use sea_orm_migration::{IntoSchemaManagerConnection, SchemaManagerConnection, sea_orm::DbErr};

use super::transaction::in_read_only_transaction;
use crate::{check::Report, manifest::format_lines, migrations::migration_names, state::State};

/// The query that checks the schema's invariants, for operators and tests. It returns one row for each violation.
pub const INVARIANTS: &str = include_str!("../../sql/invariants.sql");

/// Compares the database with the manifest. It needs only read access to the catalog, changes nothing and blocks no
/// writer.
///
/// # Errors
///
/// [`DbErr::Migration`] with the message of a [`MigrationError`](crate::MigrationError) if the server is older than
/// PostgreSQL 15, if `public.sparc_migrations` lists a migration that this program does not know, or if another
/// database session holds a lock for which the call waits too long; otherwise the error of the database.
pub async fn check<'c, C>(db: C) -> Result<Report, DbErr>
where
    C: IntoSchemaManagerConnection<'c>,
{
    Ok(read_state(&db.into_database_executor()).await?.report())
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
    Ok(read_state(&db.into_database_executor()).await?.full_manifest())
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
    Ok(format_lines(&read_state(&db.into_database_executor()).await?.found_definitions()))
}

/// What the command `status` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The name of each migration, and whether it is applied.
    pub migrations: Vec<(String, bool)>,
    /// The result of [`check()`].
    pub report: Report,
}

/// Reads which migrations are applied, and compares the database with the manifest.
///
/// # Errors
///
/// Those of [`check()`].
pub async fn status(db: &SchemaManagerConnection<'_>) -> Result<Status, DbErr> {
    let state = read_state(db).await?;
    let pending = state.pending_migrations();
    let migrations = migration_names().into_iter().map(|name| (name.clone(), !pending.contains(&name))).collect();
    Ok(Status { migrations, report: state.report() })
}

/// Reads the state of the database, in a read-only transaction.
async fn read_state(db: &SchemaManagerConnection<'_>) -> Result<State, DbErr> {
    in_read_only_transaction(db, async |transaction| State::read(transaction).await).await
}
