#![doc = include_str!("../README.md")]

pub use sea_orm_migration;

mod catalog;
mod check;
pub mod connect;
mod db_error;
mod dependents;
mod error;
mod manifest;
mod migrations;
mod migrator;
#[cfg(test)]
mod next_release;
mod owner;
mod preflight;
mod printable;
mod query;
mod record;
mod renames;
mod repair;
mod repeatable;
mod run;
mod script;
mod state;
mod statements;
mod table_access;
mod tables;
mod versions;
mod violations;

pub use check::{Difference, Report};
pub use connect::{ConnectError, connect};
pub use db_error::operator_message;
pub use error::MigrationError;
pub use manifest::{MANIFEST, object_of_line};
pub use migrator::Migrator;
pub use repeatable::RECOUNT;
#[doc(hidden)]
pub use run::partial_manifest_of;
pub use run::{
    Command, INVARIANTS, SchemaChange, Status, check, count_accounts_losing_data, dry_run, full_manifest_of, run,
    status,
};
pub use script::install_script;
