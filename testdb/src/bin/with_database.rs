//! Runs a command with `DATABASE_URL` naming a fresh database with the whole schema, which is gone when the command is:
//! `cargo with-database sh -c 'psql $DATABASE_URL'`.

use std::{
    env,
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    let mut words = env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("Give a command to run with DATABASE_URL set: cargo with-database sh -c 'psql $DATABASE_URL'");
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let database = match runtime.map(|runtime| runtime.block_on(testdb::Database::open_migrated())) {
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
    command.args(words).env("DATABASE_URL", database.url());
    match command.status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("{} does not run: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}
