//! `cargo run -p migration`: brings a database to the schema and back.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use migration::{
    Command, Migrator, Step, connect,
    sea_orm_migration::{
        IntoSchemaManagerConnection,
        prelude::*,
        sea_orm::{DatabaseConnection, RuntimeErr},
    },
};

/// Brings a database to the SPARC schema, on Supabase or plain PostgreSQL 15 and newer.
#[derive(Parser)]
#[command(name = "migration", version, after_help = "Without a command, all pending migrations are applied.")]
struct Arguments {
    /// Address of the database: postgres://USER:PASSWORD@HOST:PORT/DATABASE
    #[arg(short = 'u', long, global = true, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,

    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Apply pending migrations
    Up {
        /// So many, instead of all
        #[arg(short, long)]
        num: Option<u32>,
    },
    /// Undo applied migrations, the last first
    Down {
        /// So many
        #[arg(short, long, default_value_t = 1)]
        num: u32,
    },
    /// Undo all that these migrations made, then apply them again; nothing else in the database is touched
    Fresh,
    /// Undo all migrations, then apply them again
    Refresh,
    /// Undo all migrations
    Reset,
    /// Show which migrations are applied
    Status,
    /// Begin a new migration in this crate
    Generate {
        /// What it does, in snake_case
        name: String,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let command = match arguments.task.unwrap_or(Task::Up { num: None }) {
        Task::Generate { name } => return generate(&name),
        Task::Status => None,
        Task::Up { num } => Some(Command::Up(num)),
        Task::Down { num } => Some(Command::Down(Some(num))),
        Task::Reset => Some(Command::Reset),
        Task::Fresh | Task::Refresh => Some(Command::Refresh),
    };
    let url = arguments
        .database_url
        .filter(|url| !url.is_empty())
        .ok_or("No database address: give one with --database-url or in the environment variable DATABASE_URL.")?;
    let db = connect(&url).await.map_err(|error| error.to_string())?;
    let done = match command {
        None => status(&db).await,
        Some(command) => migrate(&db, command).await,
    };
    // The sentence matters more than a farewell that did not go through.
    let _ = db.close().await;
    done.map_err(sentence)
}

async fn migrate(db: &DatabaseConnection, command: Command) -> Result<(), DbErr> {
    let steps = migration::run(&db.into_database_executor(), command).await?;
    for step in &steps {
        match step {
            Step::Applied(name) => println!("applied {name}"),
            Step::Undone(name) => println!("undone  {name}"),
            _ => {}
        }
    }
    if steps.is_empty() {
        println!("nothing to do");
    }
    Ok(())
}

async fn status(db: &DatabaseConnection) -> Result<(), DbErr> {
    migration::check_known(db).await?;
    for migration in Migrator::get_migration_with_status_read_only(db).await? {
        let status = migration.status().to_string().to_lowercase();
        println!("{status:8} {}", migration.name());
    }
    Ok(())
}

fn generate(name: &str) -> Result<(), String> {
    let is_module_name =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !is_module_name {
        return Err(format!("\"{name}\" cannot name a migration: use lower-case letters, digits and underscores."));
    }
    let crate_folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| ".".to_owned());
    sea_orm_cli::run_migrate_generate(&crate_folder, name, true)
        .map_err(|error| format!("The migration could not be written in {crate_folder}: {error}."))
}

/// What a person is told of an error: the database's own words without the layers around them.
fn sentence(error: DbErr) -> String {
    match error {
        DbErr::Migration(sentence) => sentence,
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => {
            let said = match error.as_database_error() {
                Some(refusal) => refusal.message().to_owned(),
                None => error.to_string(),
            };
            format!("The migration stopped, and what it had begun was undone: {said}.")
        }
        other => format!("The migration stopped, and what it had begun was undone: {other}."),
    }
}
