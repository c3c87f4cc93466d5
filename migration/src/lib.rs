#![doc = include_str!("../README.md")]

pub use sea_orm_migration;
use sea_orm_migration::prelude::*;

mod connect;
mod functions;
mod guard;
mod lock;
mod tables;

mod m20261101_000001_platform;
mod m20261101_000002_tables;
mod m20261101_000003_rules;
mod m20261101_000004_access;
mod m20261101_000005_live;
mod m20261101_000006_upkeep;

pub use connect::{ConnectError, connect};
pub use guard::{Refusal, check_known};

/// What always holds, as one query that must return no row: a tool for operators, and for tests.
pub const INVARIANTS: &str = include_str!("../sql/invariants.sql");

/// Sets every counter to what the rows say, for rows that came while triggers were off. To be run in a transaction.
pub const RECOUNT: &str = include_str!("../sql/recount.sql");

/// The schema's migrations, in the order in which they tell its story: the platform that it stands on, types and
/// tables, the rules that they keep, who may touch them, what everyone sees at once, and the jobs that keep it tidy.
///
/// Use it as any SeaORM migrator, through [`MigratorTrait`]. Beyond what SeaORM does, every command
///
/// - waits for whoever else is migrating the same database, so that all replicas of a service may migrate at start;
/// - looks first whether the server, the role and what stands in the database allow it, and says in one sentence what
///   does not (a [`Refusal`], as [`DbErr::Migration`]), with nothing changed;
/// - takes away only what it made: `fresh` and `reset` undo the migrations instead of dropping all of `public`.
#[derive(Clone, Copy, Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261101_000001_platform::Migration),
            Box::new(m20261101_000002_tables::Migration),
            Box::new(m20261101_000003_rules::Migration),
            Box::new(m20261101_000004_access::Migration),
            Box::new(m20261101_000005_live::Migration),
            Box::new(m20261101_000006_upkeep::Migration),
        ]
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

/// What to do with the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Apply so many pending migrations, or all.
    Up(Option<u32>),
    /// Undo so many applied migrations, the last first, or all.
    Down(Option<u32>),
    /// Undo all, and forget that there were any.
    Reset,
    /// Undo all, then apply all.
    Refresh,
}

/// One migration that was applied or undone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Applied, by name.
    Applied(String),
    /// Undone, by name.
    Undone(String),
}

/// Does what `command` says, alone on this database, and tells which migrations were applied or undone.
///
/// # Errors
///
/// [`DbErr::Migration`] with the sentence of a [`Refusal`], before anything is changed; else what the database said.
pub async fn run(db: &SchemaManagerConnection<'_>, command: Command) -> Result<Vec<Step>, DbErr> {
    match db {
        SchemaManagerConnection::Connection(pool) => {
            let lock = lock::Lock::take(pool).await?;
            let done = run_locked(*pool, command).await;
            lock.release().await;
            done
        }
        SchemaManagerConnection::Transaction(transaction) => {
            lock::take_in(*transaction).await?;
            run_locked(*transaction, command).await
        }
        SchemaManagerConnection::OwnedTransaction(transaction) => {
            lock::take_in(transaction).await?;
            run_locked(transaction, command).await
        }
    }
}

async fn run_locked<'c, C>(db: &'c C, command: Command) -> Result<Vec<Step>, DbErr>
where
    C: ConnectionTrait,
    &'c C: IntoSchemaManagerConnection<'c>,
{
    let mut done = Vec::new();
    guard::check_known(db).await?;
    let up = match command {
        Command::Up(steps) => Some(steps.unwrap_or(u32::MAX)),
        Command::Refresh => Some(u32::MAX),
        Command::Down(_) | Command::Reset => None,
    };
    let down = match command {
        Command::Down(steps) => steps.unwrap_or(u32::MAX),
        Command::Reset | Command::Refresh => u32::MAX,
        Command::Up(_) => 0,
    };
    if up.is_some() {
        guard::check_ready(db).await?;
    }

    for name in names(Story::get_applied_migrations_read_only(db).await?).into_iter().rev().take(down as usize) {
        Story::down(db, Some(1)).await?;
        done.push(Step::Undone(name));
    }
    if command == Command::Reset {
        Story::uninstall(db).await?;
    }
    if let Some(up) = up {
        for name in names(Story::get_pending_migrations_read_only(db).await?).into_iter().take(up as usize) {
            Story::up(db, Some(1)).await?;
            done.push(Step::Applied(name));
        }
    }
    Ok(done)
}

fn names(migrations: Vec<sea_orm_migration::Migration>) -> Vec<String> {
    migrations.iter().map(|migration| migration.name().to_owned()).collect()
}

/// SeaORM's own commands over the same migrations, for what [`Migrator`] wraps around them.
struct Story;

#[async_trait::async_trait]
impl MigratorTrait for Story {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Migrator::migrations()
    }
}

/// Prepares a migration's transaction: unqualified names mean `public` whatever the role's settings say, and whoever
/// takes over from a killed migrator waits until the server has noticed its death. A table that somebody holds is waited
/// for no longer than ten seconds: everybody else would queue behind.
async fn begin(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    execute(manager, "SET LOCAL search_path = public").await?;
    execute(manager, lock::WORK).await?;
    execute(manager, "SET LOCAL lock_timeout = '10s'").await
}

async fn execute(manager: &SchemaManager<'_>, sql: &str) -> Result<(), DbErr> {
    manager.get_connection().execute_unprepared(sql).await.map(|_| ())
}
