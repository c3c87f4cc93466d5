//! The integration tests of the crate, in one executable.

#![allow(missing_docs)]

mod outcomes;
mod prepared_statements;
mod proxies;
mod raw_commits;
mod replicas;
mod sea_orm;
mod silent_servers;
mod streams;
mod tenants;

use ::sea_orm::{DbBackend, DbErr, Statement};
use rls::Error;

fn statement(sql: impl Into<String>) -> Statement {
    Statement::from_string(DbBackend::Postgres, sql)
}

/// Returns the code of the error, or "done".
fn outcome_code<T>(outcome: Result<T, DbErr>) -> &'static str {
    outcome.map_or_else(|error| Error::from(error).code(), |_| "done")
}
