//! The users and sessions that statements are measured with, the same in both schemas.

use uuid::Uuid;

use crate::world::{Kind, State, World, child_id, code, id};

/// The number of samples, which are used one after another.
pub const SAMPLES: u64 = 64;

/// The users, sessions and values of one execution of each statement.
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
    /// Filters of the lobby: difficulty, maximum duration in minutes, free seats. They vary between samples, because
    /// how many of the first sessions in the lobby match is chance.
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
    /// The `seq` of `event`, which is read from the database after the events are filled.
    pub seq: i64,
}

/// Returns the samples, spread over the world.
#[must_use]
pub fn samples(world: &World) -> Vec<Sample> {
    (0..SAMPLES.min(world.active))
        .map(|number| {
            let active = world.session(number * 31 % world.active);
            let player = world.player(active.number, number % 6);
            let open =
                (0..).map(|step| world.session(world.active + (number * 1009 + step) % world.open)).find(|open| {
                    open.is_public && open.state == State::Waiting && (1..open.max_players).contains(&open.seats)
                });
            let open = open.unwrap_or(active);
            let index = number as usize;
            let newcomer = world.users * 8 / 10 + number;
            Sample {
                session: id(Kind::Session, active.number),
                seer: id(Kind::User, active.seer),
                player: id(Kind::User, player),
                hero: id(Kind::Character, player),
                adventure: id(Kind::Adventure, open.adventure),
                looking_for: (
                    ["easy", "medium", "hard"][index % 3],
                    [60, 90, 120, 150][index % 4],
                    [2, 3, 4][index % 3],
                ),
                open: id(Kind::Session, open.number),
                open_code: code(open.number),
                open_seer: id(Kind::User, open.seer),
                open_player: id(Kind::User, world.player(open.number, 0)),
                newcomer: id(Kind::User, newcomer),
                newcomer_hero: id(Kind::Character, newcomer),
                event: child_id(Kind::Event, active.number, 90),
                seq: 0,
            }
        })
        .collect()
}
