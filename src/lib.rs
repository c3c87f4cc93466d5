//! The data layer of the SPARC role-playing game in one dependency: PostgreSQL with every rule of the game in force,
//! and the game's operations, typed, on top.
//!
//! Ten lines that most services need:
//!
//! ```no_run
//! use sparc::{
//!     migration::{Migrator, sea_orm_migration::MigratorTrait},
//!     service::{Error, JoinCode, Operations, Sparc},
//! };
//! # async fn night(url: &str, id: uuid::Uuid, character: uuid::Uuid) -> Result<(), Box<dyn std::error::Error>> {
//! Migrator::up(&sparc::migration::connect(url).await?, None).await?;
//! let sparc = Sparc::connect(url).await?;
//! let code: JoinCode = "abc 234".parse()?;
//! match sparc.as_user(id).sessions().join(&code, character).await {
//!     Ok(seat) => println!("seated since {}", seat.joined_at),
//!     Err(Error::SessionFull) => println!("no seat left"),
//!     Err(other) => return Err(other.into()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`service`] has the operations, [`entity`] the models for queries of your own, [`migration`] the schema.

pub use entity;
pub use migration;
pub use service;
