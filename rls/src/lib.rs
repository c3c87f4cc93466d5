#![doc = include_str!("../README.md")]

pub mod connect;
mod connection;
mod database;
mod error;
mod identity;
mod inherent;
mod inner;
#[cfg(test)]
mod interleavings;
mod pool;
mod pooler;
mod position;
mod released_connection;
mod runtime;
mod servers;
mod shared_transaction;
mod sqlstate;
mod statement_kind;
mod statements;
mod transaction;
mod transaction_server;
pub mod unchecked;
mod unlocked_state;
mod wire;

// Imported so that its features select the TLS implementation of the driver under SeaORM.
use sqlx as _;

pub use connect::ConnectError;
pub use connection::IdentityConnection;
pub use database::{Database, Options};
pub use error::{Error, pg_error, sqlx_error};
pub use identity::{Identity, supabase};
pub use pool::PoolStatus;
pub use position::{InvalidPosition, Position};
pub use servers::{ServerRole, ServerStatus};
pub use statements::RowStream;
pub use transaction::{Transaction, UncheckedTransaction};
