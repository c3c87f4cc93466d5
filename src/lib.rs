//! The data layer of the SPARC role-playing game in one dependency: PostgreSQL with every rule of the game in force,
//! and the game's operations, typed, on top.
//!
//! ```no_run
//! use sparc::service::{Operations, Sparc, sessions::LobbyFilter};
//!
//! # async fn lobby(url: &str) -> Result<(), sparc::service::Error> {
//! let sparc = Sparc::connect(url).await?;
//! let page = sparc.as_anon().sessions().lobby(&LobbyFilter::default(), None).await?;
//! for session in page.items {
//!     println!("{} looks for {}", session.seer_name, session.looking_for.as_deref().unwrap_or("anybody"));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`service`] has the operations, [`entity`] the models for queries of your own, [`migration`] the schema.

pub use entity;
pub use migration;
pub use service;

/// Compiles what the README shows.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// Compiles what the guide shows.
#[cfg(doctest)]
#[doc = include_str!("../docs/guide.md")]
pub struct Guide;
