//! `cargo run -p migration`: brings a database to the schema, and says what of it is not as it must be.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use migration::{
    Command, Step, connect,
    sea_orm_migration::{
        IntoSchemaManagerConnection, SchemaManagerConnection,
        sea_orm::{DatabaseConnection, DbErr},
    },
};

/// Brings a database to the SPARC schema, on Supabase or plain PostgreSQL 15 and newer.
#[derive(Parser)]
#[command(
    name = "migration",
    version,
    after_help = "Without a command: up. sslmode and sslrootcert in the address mean what they mean to psql.\n\
                  Exit status: 0 done, 1 refused or different, 2 not understood."
)]
struct Arguments {
    /// Address of the database: postgres://USER:PASSWORD@HOST:PORT/DATABASE
    #[arg(short = 'u', long, global = true, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,

    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Apply pending migrations, then repair what differs from the manifest: one transaction, one line per change
    Up {
        /// So many migrations, instead of all
        #[arg(short, long)]
        num: Option<u32>,
        /// Print the SQL, for psql, and change nothing
        #[arg(long, conflicts_with = "num")]
        dry_run: bool,
    },
    /// Compare the database with the manifest: exit 1 and one line per difference. Reads the catalog alone
    Check,
    /// Show which migrations are applied, and whether the rest differs
    Status,
    /// Print the whole schema as one script, for psql and supabase/migrations; needs no database
    Sql,
    /// Print the manifest of the database: one line per object
    Manifest,
    /// Undo applied migrations, the last first
    Down {
        /// So many
        #[arg(short, long, default_value_t = 1)]
        num: u32,
        #[command(flatten)]
        consent: Consent,
    },
    /// Undo all migrations
    Reset {
        #[command(flatten)]
        consent: Consent,
    },
    /// Undo all that these migrations made, then apply them again; nothing else in the database is touched
    Fresh {
        #[command(flatten)]
        consent: Consent,
    },
    /// Undo all migrations, then apply them again
    Refresh {
        #[command(flatten)]
        consent: Consent,
    },
    /// Begin a new migration in this crate
    Generate {
        /// What it does, in snake_case
        name: String,
    },
}

#[derive(clap::Args)]
struct Consent {
    /// Delete what the accounts in the database have, without being asked
    #[arg(long)]
    yes: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode, String> {
    let task = arguments.task.unwrap_or(Task::Up { num: None, dry_run: false });
    match &task {
        Task::Generate { name } => return generate(name).map(|()| ExitCode::SUCCESS),
        Task::Sql => return print(&migration::sql()),
        _ => {}
    }
    let url = arguments
        .database_url
        .filter(|url| !url.is_empty())
        .ok_or("No database address: give one with --database-url or in the environment variable DATABASE_URL.")?;
    let db = connect(&url).await.map_err(|error| error.to_string())?;
    let done = perform(&db, task).await;
    // The sentence matters more than whether the connection ends as it should.
    let _ = db.close().await;
    done
}

async fn perform(db: &DatabaseConnection, task: Task) -> Result<ExitCode, String> {
    let executor = db.into_database_executor();
    let message = |error: DbErr| migration::user_message(&error);
    let command = match task {
        Task::Check => return check(db).await,
        Task::Status => return status(&executor).await,
        Task::Manifest => return print(&migration::manifest(db).await.map_err(message)?),
        Task::Up { dry_run: true, .. } => {
            let sql = migration::dry_run(&executor).await.map_err(message)?;
            return print(if sql.is_empty() { "-- nothing to do\n" } else { &sql });
        }
        Task::Up { num, .. } => Command::Up(num),
        Task::Down { num, consent } => agreed(&executor, &consent, Command::Down(Some(num))).await?,
        Task::Reset { consent } => agreed(&executor, &consent, Command::Reset).await?,
        Task::Fresh { consent } | Task::Refresh { consent } => agreed(&executor, &consent, Command::Refresh).await?,
        Task::Generate { .. } | Task::Sql => return Ok(ExitCode::SUCCESS),
    };
    let steps = migration::run(&executor, command).await.map_err(message)?;
    let mut text = String::new();
    for step in &steps {
        let line = match step {
            Step::Applied(name) => format!("applied {name}"),
            Step::Undone(name) => format!("undone  {name}"),
            Step::Installed(number) => {
                format!("created {number} functions, triggers, policies and views, and their privileges")
            }
            Step::Renamed(now, object) => format!("renamed {now} to {object}"),
            Step::Created(object) => format!("created {object}"),
            Step::Changed(object) => format!("changed {object}"),
            Step::Dropped(object) => format!("dropped {object}"),
            _ => continue,
        };
        text += &line;
        text.push('\n');
    }
    print(if steps.is_empty() { "nothing to do\n" } else { &text })
}

/// A reader that has read enough, such as `head`, is no error.
fn print(text: &str) -> Result<ExitCode, String> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("Standard output takes no text: {error}."))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The command, if what it deletes belongs to nobody, or somebody agrees.
async fn agreed(db: &SchemaManagerConnection<'_>, consent: &Consent, command: Command) -> Result<Command, String> {
    if consent.yes {
        return Ok(command);
    }
    let accounts = migration::accounts(db).await.map_err(|error| migration::user_message(&error))?;
    if accounts == 0 {
        return Ok(command);
    }
    let what = format!(
        "The database holds {accounts} account{}, and this deletes everything that people have in the game",
        if accounts == 1 { "" } else { "s" }
    );
    if !io::stdin().is_terminal() {
        return Err(format!("{what}: give --yes if that is meant."));
    }
    eprint!("{what}. Type \"yes\" to go on: ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|error| format!("No answer can be read: {error}."))?;
    if answer.trim() == "yes" { Ok(command) } else { Err("Nothing was changed.".to_owned()) }
}

async fn check(db: &DatabaseConnection) -> Result<ExitCode, String> {
    let report = migration::check(db).await.map_err(|error| migration::user_message(&error))?;
    let mut text = String::new();
    for name in &report.pending {
        text += &format!("missing: migration {name}\n");
    }
    for difference in &report.differences {
        text += &format!("{difference}\n");
    }
    for hint in &report.hints {
        text += &format!("hint: {hint}\n");
    }
    if report.is_clean() {
        text += "the database is what this program carries\n";
    }
    print(&text)?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn status(db: &SchemaManagerConnection<'_>) -> Result<ExitCode, String> {
    let status = migration::status(db).await.map_err(|error| migration::user_message(&error))?;
    let mut text = String::new();
    for (name, is_applied) in &status.migrations {
        text += &format!("{:8} {name}\n", if *is_applied { "applied" } else { "pending" });
    }
    if status.report.pending.is_empty() {
        text += &match status.report.differences.len() {
            0 => "the rest is as it must be\n".to_owned(),
            number => format!("{number} differences: `check` names them, `up` repairs them\n"),
        };
    }
    print(&text)
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
