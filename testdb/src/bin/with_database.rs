//! `cargo with-database COMMAND [ARGUMENT]...`, as in `cargo with-database sh -c 'psql $DATABASE_URL'`: runs the
//! command with `DATABASE_URL` set to the URL of a new migrated database, which is removed when the command ends. If
//! `DATABASE_URL` is already set, the command gets the database of that URL instead, which is migrated first and kept
//! afterwards.

use std::{
    env,
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("The command to run is missing: cargo with-database sh -c 'psql $DATABASE_URL'");
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let database = match runtime.map(|runtime| runtime.block_on(testdb::Database::open_and_migrate())) {
        Ok(Ok(database)) => database,
        Ok(Err(error)) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut command = Command::new(&program);
    command.args(arguments).env("DATABASE_URL", database.url());
    match command.status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("{} could not be run: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}
