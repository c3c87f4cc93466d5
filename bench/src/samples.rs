//! The users and sessions that statements are measured with, the same in both schemas.

use uuid::Uuid;

use crate::world::{Kind, State, World, code, id, part};

/// The number of samples, which are used in turns.
pub const SAMPLES: u64 = 64;

/// An active session, and a session of the lobby.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// An active session.
    pub session: Uuid,
    /// Its Seer.
    pub seer: Uuid,
    /// One of its players.
    pub player: Uuid,
    /// The player's character.
    pub hero: Uuid,
    /// A published adventure.
    pub adventure: Uuid,
    /// Filters of the lobby: difficulty, maximum duration in minutes, free seats. They vary between samples, so that
    /// the result does not depend on how many sessions of one kind happen to start first.
    pub looking_for: (&'static str, u32, u32),
    /// A public session of the lobby with a player and a free seat.
    pub open: Uuid,
    /// The code of `open`.
    pub open_code: String,
    /// The Seer of `open`.
    pub open_seer: Uuid,
    /// A player of `open`.
    pub open_player: Uuid,
    /// A user without a seat in `open`.
    pub newcomer: Uuid,
    /// The newcomer's character.
    pub newcomer_hero: Uuid,
    /// The event after which events are read.
    pub event: Uuid,
    /// Its `seq`, which is known once the events are stored.
    pub seq: i64,
}

/// Returns the samples, spread over the world.
#[must_use]
pub fn samples(world: &World) -> Vec<Sample> {
    (0..SAMPLES.min(world.busy))
        .map(|number| {
            let busy = world.session(number * 31 % world.busy);
            let player = world.player(busy.number, number % 6);
            let open = (0..).map(|step| world.session(world.busy + (number * 1009 + step) % world.open)).find(|open| {
                open.is_public && open.state == State::Waiting && (1..open.max_players).contains(&open.seats)
            });
            let open = open.unwrap_or(busy);
            let turn = number as usize;
            let newcomer = world.users * 8 / 10 + number;
            Sample {
                session: id(Kind::Session, busy.number),
                seer: id(Kind::User, busy.seer),
                player: id(Kind::User, player),
                hero: id(Kind::Character, player),
                adventure: id(Kind::Adventure, open.adventure),
                looking_for: (["easy", "medium", "hard"][turn % 3], [60, 90, 120, 150][turn % 4], [2, 3, 4][turn % 3]),
                open: id(Kind::Session, open.number),
                open_code: code(open.number),
                open_seer: id(Kind::User, open.seer),
                open_player: id(Kind::User, world.player(open.number, 0)),
                newcomer: id(Kind::User, newcomer),
                newcomer_hero: id(Kind::Character, newcomer),
                event: part(Kind::Event, busy.number, 90),
                seq: 0,
            }
        })
        .collect()
}
