//! `cargo run -p migration`: creates and upgrades the schema of a database, and reports differences.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use migration::{
    Command, connect,
    sea_orm_migration::{
        IntoSchemaManagerConnection, SchemaManagerConnection,
        sea_orm::{DatabaseConnection, DbErr},
    },
};

/// Creates, checks and upgrades the SPARC schema in a database: Supabase, or plain PostgreSQL 15 or newer.
#[derive(Parser)]
#[command(
    name = "migration",
    version,
    after_help = "The default command is up. sslmode and sslrootcert in the URL have the same meaning as for psql, \
                  except that certificates of public authorities are always accepted too, and that a server's \
                  certificate that is marked as a CA certificate is refused.\n\
                  Exit status: 0 success, 1 failure or differences, 2 wrong arguments."
)]
struct Arguments {
    /// URL of the database: postgres://USER:PASSWORD@HOST:PORT/DATABASE
    #[arg(short = 'u', long, global = true, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,

    #[command(subcommand)]
    subcommand: Option<CliCommand>,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Apply pending migrations, then repair what differs from the manifest (the list of every object of the schema);
    /// print each change
    Up {
        /// Number of migrations to apply; all by default
        #[arg(short, long)]
        num: Option<u32>,
        /// Print the SQL instead of running it
        #[arg(long, conflicts_with = "num")]
        dry_run: bool,
    },
    /// Compare the database with the manifest; print each difference, and exit with 1 if there is one
    Check,
    /// Show which migrations are applied and, if all are, how many differences from the manifest there are
    Status,
    /// Print the whole schema as one SQL script, for psql or supabase/migrations; needs no database
    Sql,
    /// Print the database's objects in the form of the manifest, one per line; lines of objects that this database
    /// cannot have are taken from the committed manifest
    Manifest,
    /// Undo applied migrations, the last one first
    Down {
        /// Number of migrations to undo
        #[arg(short, long, default_value_t = 1)]
        num: u32,
        #[command(flatten)]
        consent: DeleteConsent,
    },
    /// Undo all migrations, and drop the list of migrations
    Reset {
        #[command(flatten)]
        consent: DeleteConsent,
    },
    /// Same as refresh: unlike SeaORM's own fresh, it keeps objects that these migrations did not create
    Fresh {
        #[command(flatten)]
        consent: DeleteConsent,
    },
    /// Undo all migrations, then apply them again
    Refresh {
        #[command(flatten)]
        consent: DeleteConsent,
    },
    /// Add a new, empty migration to this crate
    Generate {
        /// Its name, in snake_case
        name: String,
    },
}

#[derive(clap::Args)]
struct DeleteConsent {
    /// Do not ask before deleting accounts' data
    #[arg(long)]
    yes: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run_program(Arguments::parse()).await {
        Ok(code) => code,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

async fn run_program(arguments: Arguments) -> Result<ExitCode, String> {
    let subcommand = arguments.subcommand.unwrap_or(CliCommand::Up { num: None, dry_run: false });
    match &subcommand {
        CliCommand::Generate { name } => return generate(name).map(|()| ExitCode::SUCCESS),
        CliCommand::Sql => return print(&migration::install_script()),
        _ => {}
    }
    let url = arguments
        .database_url
        .filter(|url| !url.is_empty())
        .ok_or("No database URL: pass --database-url or set the environment variable DATABASE_URL.")?;
    let db = connect(&url).await.map_err(|error| error.to_string())?;
    let result = run_subcommand(&db, subcommand).await;
    // The command has ended, so an error on closing the connection does not matter.
    let _ = db.close().await;
    result
}

/// Does the same as [`migration::operator_message`], but takes the error by value, as `map_err` needs.
fn operator_message(error: DbErr) -> String {
    migration::operator_message(&error)
}

async fn run_subcommand(db: &DatabaseConnection, subcommand: CliCommand) -> Result<ExitCode, String> {
    let executor = db.into_database_executor();
    let command = match subcommand {
        CliCommand::Check => return print_check(db).await,
        CliCommand::Status => return print_status(&executor).await,
        CliCommand::Manifest => return print(&migration::full_manifest_of(db).await.map_err(operator_message)?),
        CliCommand::Up { dry_run: true, .. } => {
            let sql = migration::dry_run(&executor).await.map_err(operator_message)?;
            return print(if sql.is_empty() { "-- nothing to do\n" } else { &sql });
        }
        CliCommand::Up { num, .. } => Command::Up(num),
        CliCommand::Down { num, consent } => confirm(&executor, &consent, Command::Down(Some(num))).await?,
        CliCommand::Reset { consent } => confirm(&executor, &consent, Command::Reset).await?,
        CliCommand::Fresh { consent } | CliCommand::Refresh { consent } => {
            confirm(&executor, &consent, Command::Refresh).await?
        }
        // `run_program` has executed these already, because they need no database.
        CliCommand::Generate { .. } | CliCommand::Sql => return Ok(ExitCode::SUCCESS),
    };
    let changes = migration::run(&executor, command).await.map_err(operator_message)?;
    let mut text = String::new();
    for change in &changes {
        text += &format!("{change}\n");
    }
    print(if changes.is_empty() { "nothing to do\n" } else { &text })
}

/// Prints the text, and returns exit status 0. It is not an error if the program that reads the output closes the pipe
/// early, as `head` does.
fn print(text: &str) -> Result<ExitCode, String> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("Writing to standard output failed: {error}."))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Returns the command if it would delete no account's data, or if the operator agrees.
async fn confirm(
    db: &SchemaManagerConnection<'_>,
    consent: &DeleteConsent,
    command: Command,
) -> Result<Command, String> {
    if consent.yes {
        return Ok(command);
    }
    let account_count = migration::count_accounts_losing_data(db, command).await.map_err(operator_message)?;
    if account_count == 0 {
        return Ok(command);
    }
    let warning = format!(
        "The database has {account_count} account{}, and this command deletes all their game data",
        if account_count == 1 { "" } else { "s" }
    );
    if !io::stdin().is_terminal() {
        return Err(format!("{warning}: pass --yes to do it."));
    }
    eprint!("{warning}. Type \"yes\" to continue: ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|error| format!("Reading the answer failed: {error}."))?;
    if answer.trim() == "yes" { Ok(command) } else { Err("Nothing was changed.".to_owned()) }
}

/// Prints the result of [`migration::check`]. Returns exit status 1 if migrations are pending or anything differs.
async fn print_check(db: &DatabaseConnection) -> Result<ExitCode, String> {
    let report = migration::check(db).await.map_err(operator_message)?;
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
        text += "the database has the schema of this version\n";
    }
    print(&text)?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn print_status(db: &SchemaManagerConnection<'_>) -> Result<ExitCode, String> {
    let status = migration::status(db).await.map_err(operator_message)?;
    let mut text = String::new();
    for (name, is_applied) in &status.migrations {
        text += &format!("{:8} {name}\n", if *is_applied { "applied" } else { "pending" });
    }
    if status.report.pending.is_empty() {
        text += &match status.report.differences.len() {
            0 => "no differences from the manifest\n".to_owned(),
            1 => "1 difference from the manifest: `check` shows it, `up` repairs it\n".to_owned(),
            count => format!("{count} differences from the manifest: `check` shows them, `up` repairs them\n"),
        };
    }
    print(&text)
}

fn generate(name: &str) -> Result<(), String> {
    let is_module_name =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !is_module_name {
        return Err(format!(
            "\"{name}\" is not a valid name for a migration: use lower-case letters, digits and underscores."
        ));
    }
    let crate_folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| ".".to_owned());
    let migrations_folder = format!("{crate_folder}/src/migrations");
    let use_utc = true; // for the time in the name of the file
    sea_orm_cli::run_migrate_generate(&migrations_folder, name, use_utc)
        .map_err(|error| format!("Writing the migration in {migrations_folder} failed: {error}."))
}
