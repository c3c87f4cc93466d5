//! Argument sets: the users, sessions and values with which statements are measured. They are the same in both schemas
//! that are compared (the specification's and this project's).

use uuid::Uuid;

use crate::data_set::{
    DataSet, EVENTS_PER_SESSION_WITH_EVENTS, RowKind, SessionState, id_within_session, join_code, row_id,
};

/// The maximum number of argument sets.
const MAX_ARGUMENT_SETS: u64 = 64;

/// The users, sessions and values for one execution of a statement. The executions of a statement use one argument set
/// after another.
#[derive(Clone, Debug, Default)]
pub struct ArgumentSet {
    /// An active session.
    pub session: Uuid,
    /// Its Seer.
    pub seer: Uuid,
    /// One of its players.
    pub player: Uuid,
    /// The player's character.
    pub character: Uuid,
    /// The published adventure of the session `open_session` (below).
    pub open_session_adventure: Uuid,
    /// The value of the lobby's filter by difficulty. The values of this and the next two filters vary between argument
    /// sets, so that the measured time does not depend on how many of the lobby's first sessions happen to match one
    /// value.
    pub filter_difficulty: &'static str,
    /// The value of the lobby's filter by maximum duration, in minutes.
    pub filter_max_minutes: u32,
    /// The value of the lobby's filter by free seats.
    pub filter_free_seats: u32,
    /// A waiting public session with at least one player and at least one free seat.
    pub open_session: Uuid,
    /// The join code of `open_session`.
    pub open_session_code: String,
    /// The Seer of `open_session`.
    pub open_session_seer: Uuid,
    /// A player of `open_session`.
    pub open_session_player: Uuid,
    /// A user who has no seat in any session and is no Seer.
    pub newcomer: Uuid,
    /// The newcomer's character.
    pub newcomer_character: Uuid,
    /// The tenth-last event of `session`. The statement *events after a given one* reads the nine events after it.
    pub event: Uuid,
    /// The `seq` of `event`, which the database assigns: 0 until the command `compare` has filled the table of
    /// events.
    pub event_seq: i64,
}

/// Returns the argument sets, spread over the sessions of the data set.
#[must_use]
pub fn choose_argument_sets(data_set: &DataSet) -> Vec<ArgumentSet> {
    let count = MAX_ARGUMENT_SETS.min(data_set.active_sessions);
    (0..count)
        .map(|number| {
            let active_session = data_set.session(number * data_set.active_sessions / count);
            let player = data_set.player(active_session.number, number % 6);
            let first_candidate = number * data_set.unstarted_sessions / count;
            let open_session = (0..data_set.unstarted_sessions)
                .map(|step| {
                    let unstarted_number = (first_candidate + step) % data_set.unstarted_sessions;
                    data_set.session(data_set.active_sessions + unstarted_number)
                })
                .find(|session| {
                    session.is_public
                        && session.state == SessionState::Waiting
                        && (1..session.max_players).contains(&session.seats_taken)
                });
            // If no unstarted session is like that, `open_session` is an active one, and the statements that join or
            // start it fail.
            let open_session = open_session.unwrap_or(active_session);
            let index = number as usize;
            let newcomer = data_set.newcomer_numbers().start + number;
            ArgumentSet {
                session: row_id(RowKind::Session, active_session.number),
                seer: row_id(RowKind::User, active_session.seer),
                player: row_id(RowKind::User, player),
                character: row_id(RowKind::Character, player),
                open_session_adventure: row_id(RowKind::Adventure, open_session.adventure),
                filter_difficulty: ["easy", "medium", "hard"][index % 3],
                filter_max_minutes: [60, 90, 120, 150][index % 4],
                filter_free_seats: [2, 3, 4][index % 3],
                open_session: row_id(RowKind::Session, open_session.number),
                open_session_code: join_code(open_session.number),
                open_session_seer: row_id(RowKind::User, open_session.seer),
                open_session_player: row_id(RowKind::User, data_set.player(open_session.number, 0)),
                newcomer: row_id(RowKind::User, newcomer),
                newcomer_character: row_id(RowKind::Character, newcomer),
                event: id_within_session(RowKind::Event, active_session.number, EVENTS_PER_SESSION_WITH_EVENTS - 10),
                event_seq: 0,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn argument_sets_have_different_sessions_at_small_scales() {
        for thousandths in 1..200 {
            let data_set = DataSet::at_scale(f64::from(thousandths) / 1000.0);
            let argument_sets = choose_argument_sets(&data_set);
            let sessions: HashSet<Uuid> = argument_sets.iter().map(|argument_set| argument_set.session).collect();
            assert_eq!(sessions.len() as u64, data_set.active_sessions.min(MAX_ARGUMENT_SETS), "{thousandths}");
            let open_sessions: HashSet<Uuid> =
                argument_sets.iter().map(|argument_set| argument_set.open_session).collect();
            assert_eq!(open_sessions.len(), sessions.len(), "{thousandths}");
        }
    }
}
