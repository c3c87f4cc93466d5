//! The data layer of the SPARC role-playing game: a PostgreSQL schema that enforces every rule of the game, and the
//! game's operations as a typed API. This crate re-exports three others, so that a service needs only one dependency.
//!
//! One game is a *session*, and its *Seer* is the game master. The *lobby* lists public sessions that wait for players:
//!
//! ```no_run
//! use sparc::service::{Operations, Sparc, sessions::LobbyFilter};
//!
//! # async fn lobby(url: &str) -> Result<(), sparc::service::Error> {
//! let sparc = Sparc::connect(url).await?;
//! let page = sparc.as_anon().sessions().lobby(&LobbyFilter::default(), None).await?;
//! for session in page.items {
//!     println!("{} is looking for {}", session.seer_name, session.looking_for.as_deref().unwrap_or("anyone"));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`service`] has the operations, [`entity`] the models for your own queries, and [`migration`] the schema.

pub use entity;
pub use migration;
pub use service;

/// Compiles the README's examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// Compiles the guide's examples.
#[cfg(doctest)]
#[doc = include_str!("../docs/guide.md")]
pub struct Guide;
