//! The users and sessions that statements are measured with, the same in both schemas.

use uuid::Uuid;

use crate::world::{Kind, State, World, child_id, id, join_code};

/// The maximum number of samples. Executions use them one after another.
const MAX_SAMPLES: u64 = 64;

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
    pub character: Uuid,
    /// A published adventure.
    pub adventure: Uuid,
    /// A filter of the lobby by difficulty. The three filters vary between samples, because how many of the first
    /// sessions in the lobby match a filter is chance.
    pub filter_difficulty: &'static str,
    /// A filter of the lobby by maximum duration, in minutes.
    pub filter_max_minutes: u32,
    /// A filter of the lobby by free seats.
    pub filter_free_seats: u32,
    /// A public session of the lobby with a player and a free seat.
    pub open_session: Uuid,
    /// The join code of `open_session`.
    pub open_code: String,
    /// The Seer of `open_session`.
    pub open_seer: Uuid,
    /// A player of `open_session`.
    pub open_player: Uuid,
    /// A user without a seat in `open_session`.
    pub newcomer: Uuid,
    /// The newcomer's character.
    pub newcomer_character: Uuid,
    /// An event of `session`, one of the last ten; the measured statement reads the events after it.
    pub event: Uuid,
    /// The `seq` of `event`, which is read from the database after the events have been filled.
    pub event_seq: i64,
}

/// Returns the samples, spread over the world.
#[must_use]
pub fn choose_samples(world: &World) -> Vec<Sample> {
    (0..MAX_SAMPLES.min(world.active_sessions))
        .map(|number| {
            let active = world.session(number * 31 % world.active_sessions);
            let player = world.player(active.number, number % 6);
            let open = (0..)
                .map(|step| world.session(world.active_sessions + (number * 1009 + step) % world.open_sessions))
                .find(|open| {
                    open.is_public && open.state == State::Waiting && (1..open.max_players).contains(&open.seats)
                });
            let open = open.unwrap_or(active);
            let index = number as usize;
            let newcomer = world.users * 8 / 10 + number;
            Sample {
                session: id(Kind::Session, active.number),
                seer: id(Kind::User, active.seer),
                player: id(Kind::User, player),
                character: id(Kind::Character, player),
                adventure: id(Kind::Adventure, open.adventure),
                filter_difficulty: ["easy", "medium", "hard"][index % 3],
                filter_max_minutes: [60, 90, 120, 150][index % 4],
                filter_free_seats: [2, 3, 4][index % 3],
                open_session: id(Kind::Session, open.number),
                open_code: join_code(open.number),
                open_seer: id(Kind::User, open.seer),
                open_player: id(Kind::User, world.player(open.number, 0)),
                newcomer: id(Kind::User, newcomer),
                newcomer_character: id(Kind::Character, newcomer),
                event: child_id(Kind::Event, active.number, 90),
                event_seq: 0,
            }
        })
        .collect()
}
