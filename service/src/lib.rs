#![doc = include_str!("../README.md")]

pub mod adventures;
mod binds;
pub mod characters;
mod connection;
mod content;
pub mod creatures;
pub mod dice;
mod error;
pub mod events;
mod identity;
mod join_code;
mod json;
mod limited_scan;
pub mod maintenance;
mod operation;
mod page;
mod rows;
pub mod sessions;
mod sparc;
pub mod tutorial;
pub mod users;
mod values;

pub use connection::{
    Executor, IdentityConnection, InvalidLogPosition, LogPosition, RowStream, ServerRole, ServerStatus, Transaction,
};
pub use error::Error;
pub use join_code::JoinCode;
pub use page::{Cursor, Page};
pub use rls::PoolStatus;
pub use sparc::{Options, Sparc};
pub use values::{AttributeValue, Difficulty, Level, MaxHitPoints, MaxPlayers, RollsPageSize};

/// The game's operations, grouped by aggregate (users, characters, adventures and so on). They are called on the
/// connection of an identity, or on a transaction that was begun on such a connection.
pub trait Operations: Executor + Sized {
    /// Accounts and profiles.
    fn users(&self) -> users::Users<'_, Self> {
        users::Users { executor: self }
    }

    /// Characters.
    fn characters(&self) -> characters::Characters<'_, Self> {
        characters::Characters { executor: self }
    }

    /// Adventures.
    fn adventures(&self) -> adventures::Adventures<'_, Self> {
        adventures::Adventures { executor: self }
    }

    /// Creatures.
    fn creatures(&self) -> creatures::Creatures<'_, Self> {
        creatures::Creatures { executor: self }
    }

    /// Sessions and their seats.
    fn sessions(&self) -> sessions::Sessions<'_, Self> {
        sessions::Sessions { executor: self }
    }

    /// Dice rolls.
    fn dice(&self) -> dice::Dice<'_, Self> {
        dice::Dice { executor: self }
    }

    /// Events of sessions.
    fn events(&self) -> events::Events<'_, Self> {
        events::Events { executor: self }
    }

    /// The tutorial.
    fn tutorial(&self) -> tutorial::Tutorial<'_, Self> {
        tutorial::Tutorial { executor: self }
    }

    /// Maintenance jobs.
    fn maintenance(&self) -> maintenance::Maintenance<'_, Self> {
        maintenance::Maintenance { executor: self }
    }
}

impl<C: Executor> Operations for C {}
