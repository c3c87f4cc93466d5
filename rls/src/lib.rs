#![doc = include_str!("../README.md")]

pub mod connect;
mod connection;
mod connection_to_release;
mod database;
mod error;
mod identity;
mod inherent_methods;
#[cfg(test)]
mod interleavings;
mod pool;
mod pooler;
mod position;
mod runtime;
mod server_process;
mod servers;
mod shared_transaction;
mod sqlstate;
mod statement_kind;
mod statements;
mod streams;
mod text_row;
mod tracked_server;
mod transaction;
mod transaction_state;
mod transaction_trait;
pub mod unguarded;
mod unlocked_state;
mod wire;

// This dependency exists only for its features, which select the TLS implementation of the driver under SeaORM. The
// import shows that the dependency is intended.
use sqlx as _;

pub use connect::ConnectError;
pub use connection::IdentityConnection;
pub use database::{Database, Options};
pub use error::{Error, pg_error, sqlx_error};
pub use identity::{Identity, supabase};
pub use pool::PoolStatus;
pub use position::{InvalidLogPosition, LogPosition};
pub use servers::{ServerRole, ServerStatus};
pub use streams::RowStream;
pub use transaction::{Transaction, UnguardedTransaction};
