#![doc = include_str!("../README.md")]

pub mod adventures;
pub mod characters;
mod connection;
mod create;
pub mod dice;
mod documents;
mod error;
pub mod events;
mod identity;
mod operation;
mod page;
pub mod sessions;
mod sparc;
pub mod users;
mod values;

// Named for the choice of TLS that it makes for the driver under SeaORM.
use sqlx as _;

pub use connection::{As, Caller, RowStream, Transaction};
pub use error::Error;
pub use page::{Cursor, Page};
pub use sparc::{Options, Sparc};
pub use values::{AttributeValue, Difficulty, JoinCode, TableSize};

/// The game's operations, by aggregate: an identity has them, and so has a transaction begun from one.
pub trait Operations: Caller + Sized {
    /// Accounts and profiles.
    fn users(&self) -> users::Users<'_, Self> {
        users::Users { caller: self }
    }

    /// Characters.
    fn characters(&self) -> characters::Characters<'_, Self> {
        characters::Characters { caller: self }
    }

    /// Adventures and their creatures.
    fn adventures(&self) -> adventures::Adventures<'_, Self> {
        adventures::Adventures { caller: self }
    }

    /// Sessions and their seats.
    fn sessions(&self) -> sessions::Sessions<'_, Self> {
        sessions::Sessions { caller: self }
    }

    /// Rolls.
    fn dice(&self) -> dice::Dice<'_, Self> {
        dice::Dice { caller: self }
    }

    /// Events.
    fn events(&self) -> events::Events<'_, Self> {
        events::Events { caller: self }
    }
}

impl<C: Caller> Operations for C {}
