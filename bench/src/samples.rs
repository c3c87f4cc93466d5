//! The users, sessions and values that statements are measured with, the same in both schemas.

use uuid::Uuid;

use crate::data_set::{DataSet, EVENTS_PER_SESSION, RowKind, SessionState, id_within_session, join_code, row_id};

/// The maximum number of samples.
const MAX_SAMPLES: u64 = 64;

/// The users, sessions and values that a statement is executed with once. Every statement is executed with every
/// sample, one sample after another.
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
    /// A filter of the lobby by difficulty. The three filters vary between samples, because it is a matter of chance
    /// how many of the lobby's first sessions match a filter.
    pub filter_difficulty: &'static str,
    /// A filter of the lobby by maximum duration, in minutes.
    pub filter_max_minutes: u32,
    /// A filter of the lobby by free seats.
    pub filter_free_seats: u32,
    /// A public session of the lobby with at least one player and at least one free seat.
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
    /// The event of `session` that is followed by nine more; the measured statement reads these.
    pub event: Uuid,
    /// The `seq` of `event`, which the database assigns. [`choose_samples`] leaves it 0; `compare` sets it after
    /// filling the table of events.
    pub event_seq: i64,
}

/// Returns the samples, spread over the sessions of the data set.
#[must_use]
pub fn choose_samples(data_set: &DataSet) -> Vec<Sample> {
    (0..MAX_SAMPLES.min(data_set.active_sessions))
        .map(|number| {
            // The factors 31 and 1009 spread the samples over the sessions.
            let active = data_set.session(number * 31 % data_set.active_sessions);
            let player = data_set.player(active.number, number % 6);
            let open = (0..data_set.open_sessions)
                .map(|step| {
                    data_set.session(data_set.active_sessions + (number * 1009 + step) % data_set.open_sessions)
                })
                .find(|open| {
                    open.is_public
                        && open.state == SessionState::Waiting
                        && (1..open.max_players).contains(&open.taken_seats)
                });
            // If the lobby has no such session, statements about `open_session` meet an active session and fail.
            let open = open.unwrap_or(active);
            let index = number as usize;
            let seatless = data_set.users_without_sessions();
            let newcomer = seatless.start.midpoint(seatless.end) + number;
            Sample {
                session: row_id(RowKind::Session, active.number),
                seer: row_id(RowKind::User, active.seer),
                player: row_id(RowKind::User, player),
                character: row_id(RowKind::Character, player),
                adventure: row_id(RowKind::Adventure, open.adventure),
                filter_difficulty: ["easy", "medium", "hard"][index % 3],
                filter_max_minutes: [60, 90, 120, 150][index % 4],
                filter_free_seats: [2, 3, 4][index % 3],
                open_session: row_id(RowKind::Session, open.number),
                open_code: join_code(open.number),
                open_seer: row_id(RowKind::User, open.seer),
                open_player: row_id(RowKind::User, data_set.player(open.number, 0)),
                newcomer: row_id(RowKind::User, newcomer),
                newcomer_character: row_id(RowKind::Character, newcomer),
                event: id_within_session(RowKind::Event, active.number, EVENTS_PER_SESSION - 10),
                event_seq: 0,
            }
        })
        .collect()
}
