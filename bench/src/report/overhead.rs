//! What triggers and policies add to the time of a roll and of an event.

use serde::{Deserialize, Serialize};

/// The median times of a roll and of an event, in milliseconds, with and without triggers and policies.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Overhead {
    /// A roll by a player: with policies and triggers, which refuse invalid rolls, throw the dice, write the event and
    /// clean up expired events.
    pub roll_ms: f64,
    /// INSERTs of the roll's two rows (the roll and its event) by the owner, with keys, CHECK constraints and indexes,
    /// without triggers and policies. Old reports call it `bare_roll_ms`.
    #[serde(alias = "bare_roll_ms")]
    pub bare_roll_and_event_ms: f64,
    /// `roll_ms` divided by `bare_roll_and_event_ms`.
    pub roll_ratio: f64,
    /// An event sent by a player.
    pub event_ms: f64,
    /// The bare INSERT of an event: a lower bound for an event, whatever its policies and triggers.
    pub bare_event_ms: f64,
}
