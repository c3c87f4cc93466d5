//! The rows of both databases, the specification's and this project's, as a function of the scale.
//!
//! Every row is computed from its number, so both databases are filled with the same rows, and a measurement knows the
//! rows' ids without a query. Scale 1 is 200 thousand users, 300 thousand sessions (100 thousand have not started),
//! 700 thousand seats, a million rolls and a million events. The rows per user and per session do not grow with the
//! scale.
//!
//! What varies between rows comes from [`draw`], a pseudorandom function. Its first argument differs from
//! property to property, so that the values drawn for one row are independent of each other.

use std::ops::Range;

use uuid::Uuid;

/// The number of sessions that can be archived, because they ended more than 90 days ago. It does not grow with the
/// scale.
pub const SESSIONS_TO_ARCHIVE: u64 = 1000;

/// The number of rolls of each active session.
pub const ROLLS_PER_ACTIVE_SESSION: u64 = 400;

/// The number of events of each session that is active or that ended within the last day.
pub const EVENTS_PER_SESSION_WITH_EVENTS: u64 = 100;

/// The minutes of a day.
pub const MINUTES_PER_DAY: u64 = 24 * 60;

/// How many rows of each kind a database has. All its rows are computed from these counts.
#[derive(Clone, Copy, Debug)]
pub struct DataSet {
    /// Accounts.
    pub users: u64,
    /// Adventures; four fifths are published.
    pub adventures: u64,
    /// Active sessions, with six players each.
    pub active_sessions: u64,
    /// Sessions that have not started. Nine tenths are public, and three quarters have a free seat.
    pub unstarted_sessions: u64,
    /// Ended sessions. The first [`SESSIONS_TO_ARCHIVE`] ended more than 90 days ago, the next ones within the last
    /// day, and the others on the days between.
    pub ended_sessions: u64,
}

/// The kind of a row. Rows of different kinds never have the same id.
#[derive(Clone, Copy, Debug)]
pub enum RowKind {
    /// An account.
    User,
    /// A character.
    Character,
    /// An adventure.
    Adventure,
    /// A session.
    Session,
    /// A roll.
    Roll,
    /// An event.
    Event,
}

/// The state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Being played.
    Active,
    /// Waiting for its start.
    Waiting,
    /// Waiting, and about to start.
    StartingSoon,
    /// Completed, the given number of minutes ago.
    Completed(u64),
    /// Cancelled, the given number of minutes ago.
    Cancelled(u64),
}

/// A generated session.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Its number, from which everything else is computed.
    pub number: u64,
    /// Its state.
    pub state: SessionState,
    /// Whether it is public.
    pub is_public: bool,
    /// The maximum number of players.
    pub max_players: u64,
    /// The number of taken seats.
    pub seats_taken: u64,
    /// The number of its Seer's account.
    pub seer: u64,
    /// The number of its adventure.
    pub adventure: u64,
}

impl DataSet {
    /// Returns the data set at a scale. At small scales, minimums keep it usable.
    #[must_use]
    pub fn at_scale(scale: f64) -> Self {
        let scaled = |count: u32| (f64::from(count) * scale).round().max(1.0) as u64;
        let (active_sessions, unstarted_sessions) = (scaled(1000), scaled(100_000));
        Self {
            users: scaled(200_000).max(1000),
            adventures: scaled(10_000).max(100),
            active_sessions,
            unstarted_sessions,
            ended_sessions: scaled(300_000)
                .saturating_sub(active_sessions + unstarted_sessions)
                .max(2 * SESSIONS_TO_ARCHIVE),
        }
    }

    /// Returns the number of sessions.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.active_sessions + self.unstarted_sessions + self.ended_sessions
    }

    /// Returns the number of sessions with events: those that are active, and nine times as many that ended within the
    /// last day.
    #[must_use]
    pub fn sessions_with_events(&self) -> u64 {
        self.active_sessions * 10
    }

    /// Returns the number of characters: one per user, which has the user's number, and a second one for every fifth
    /// user.
    #[must_use]
    pub fn characters(&self) -> u64 {
        self.users + self.users / 5
    }

    /// Returns the account number of the owner of a character.
    #[must_use]
    pub fn owner(&self, character: u64) -> u64 {
        if character < self.users { character } else { (character - self.users) * 5 }
    }

    /// Returns the status of an adventure and the account number of its creator.
    #[must_use]
    pub fn adventure_status_and_creator(&self, number: u64) -> (&'static str, u64) {
        let status = match number % 20 {
            0..16 => "published",
            16..19 => "draft",
            _ => "archived",
        };
        (status, self.pick_seer(draw(40, number)))
    }

    /// Returns the account numbers of the newcomers: users who neither have a seat in any session nor are Seers.
    /// Players have smaller numbers ([`Self::player`]), Seers greater ones.
    #[must_use]
    pub fn newcomer_numbers(&self) -> Range<u64> {
        self.users * 7 / 10..self.users * 9 / 10
    }

    /// Returns the account number of a Seer. `drawn`, which may be any number, selects the Seer. One account in twenty
    /// is a Seer.
    fn pick_seer(&self, drawn: u64) -> u64 {
        self.users * 9 / 10 + drawn % (self.users / 20)
    }

    /// Returns the account number of the Seer of a live session (one that is active or has not started). Live sessions
    /// are distributed evenly among the Seers; if their Seers were drawn at random, some would exceed the limit of
    /// twenty live sessions.
    fn seer_of_live_session(&self, session: u64) -> u64 {
        let seers = self.users / 20;
        // 7919 is a large prime, so the Seers of consecutive sessions have distant numbers.
        self.pick_seer(session % seers * 7919 + session / seers)
    }

    /// Returns a session by its number: first the active ones, then the unstarted ones, then the ended ones.
    #[must_use]
    pub fn session(&self, number: u64) -> Session {
        let (state, max_players) = if number < self.active_sessions {
            (SessionState::Active, 6)
        } else if number < self.active_sessions + self.unstarted_sessions {
            let is_starting_soon = draw(1, number).is_multiple_of(7);
            (if is_starting_soon { SessionState::StartingSoon } else { SessionState::Waiting }, 2 + draw(2, number) % 5)
        } else {
            let index_among_ended = number - self.active_sessions - self.unstarted_sessions;
            // How many minutes ago the session ended: a little more than 91 days, less than 1000 minutes (within the
            // last day), or 1 to 86 days.
            let minutes = if index_among_ended < SESSIONS_TO_ARCHIVE {
                91 * MINUTES_PER_DAY + index_among_ended
            } else if index_among_ended < SESSIONS_TO_ARCHIVE + self.sessions_with_events() - self.active_sessions {
                draw(3, number) % 1000
            } else {
                MINUTES_PER_DAY + draw(3, number) % (85 * MINUTES_PER_DAY)
            };
            let is_cancelled = index_among_ended >= SESSIONS_TO_ARCHIVE && draw(4, number).is_multiple_of(15);
            (
                if is_cancelled { SessionState::Cancelled(minutes) } else { SessionState::Completed(minutes) },
                2 + draw(2, number) % 5,
            )
        };
        let seats_taken = match state {
            SessionState::Active => 6,
            // A quarter of the unstarted sessions are full; the others have a free seat.
            SessionState::Waiting | SessionState::StartingSoon if draw(5, number).is_multiple_of(4) => max_players,
            SessionState::Waiting | SessionState::StartingSoon => draw(6, number) % max_players,
            SessionState::Completed(_) | SessionState::Cancelled(_) => (1 + draw(6, number) % 4).min(max_players),
        };
        // All sessions use published adventures: those whose number has a remainder of at most 15 modulo 20.
        let adventure = draw(7, number) % self.adventures / 20 * 20 + draw(8, number) % 16;
        let adventure = if adventure < self.adventures { adventure } else { 0 };
        Session {
            number,
            state,
            is_public: state == SessionState::Active || !draw(9, number).is_multiple_of(10),
            max_players,
            seats_taken,
            seer: if number < self.active_sessions + self.unstarted_sessions {
                self.seer_of_live_session(number)
            } else {
                self.pick_seer(draw(10, number))
            },
            adventure,
        }
    }

    /// Returns the account number of the player in a seat of a session. The frequent players, the first fifth of all
    /// accounts, have four fifths of the seats. The accounts between one fifth and seven tenths have the other seats.
    #[must_use]
    pub fn player(&self, session: u64, seat: u64) -> u64 {
        let frequent_players = self.users / 5;
        // The numbers drawn for the (at most six) seats of a session differ by less than the size of each group, so no
        // user gets two seats of a session.
        let drawn = draw(11, session) + seat * 7;
        if (session + seat) % 5 < 4 {
            drawn % frequent_players
        } else {
            frequent_players + drawn % (self.users * 7 / 10 - frequent_players)
        }
    }

    /// Returns the session number of the `number`th session that ended within the last day.
    #[must_use]
    pub fn nth_recently_ended_session(&self, number: u64) -> u64 {
        self.active_sessions + self.unstarted_sessions + SESSIONS_TO_ARCHIVE + number
    }

    /// Returns the session number of the `number`th session with events: first the active ones, then those that ended
    /// within the last day.
    #[must_use]
    pub fn nth_session_with_events(&self, number: u64) -> u64 {
        if number < self.active_sessions {
            number
        } else {
            self.nth_recently_ended_session(number - self.active_sessions)
        }
    }

    /// Returns the number of rolls of a session.
    #[must_use]
    pub fn rolls(&self, session: &Session) -> u64 {
        match session.state {
            SessionState::Active => ROLLS_PER_ACTIVE_SESSION,
            SessionState::Completed(_) => 1 + draw(12, session.number) % 6,
            SessionState::Waiting | SessionState::StartingSoon | SessionState::Cancelled(_) => 0,
        }
    }
}

/// Returns the id of the `number`th row of a kind, which is the same in each run: a version 4 UUID.
#[must_use]
pub fn row_id(kind: RowKind, number: u64) -> Uuid {
    let (high, low) = (draw(100 + kind as u64, number), draw(200 + kind as u64, number));
    uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes()).into_uuid()
}

/// Returns the id of the `number`th roll or event of a session. A session has fewer than 100 thousand of each.
#[must_use]
pub fn id_within_session(kind: RowKind, session: u64, number: u64) -> Uuid {
    row_id(kind, session * 100_000 + number)
}

/// Returns a pseudorandom number that is always the same for a purpose and a row number (splitmix64).
///
/// Each drawn property has a `purpose` of its own, so that the values drawn for one row are independent of each other.
#[must_use]
pub fn draw(purpose: u64, number: u64) -> u64 {
    let mut mixed =
        number.wrapping_add(purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Returns the join code of a session, different for each number.
#[must_use]
pub fn join_code(session: u64) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHJKMNPQRSTUVWXYZ23456789";
    let base = ALPHABET.len() as u64;
    // The multiplier, a power of 3, is coprime to the modulus, a power of 31, so no code occurs twice.
    let mut remaining = session * 387_420_489 % base.pow(6);
    (0..6)
        .map(|_| {
            let letter = ALPHABET[(remaining % base) as usize];
            remaining /= base;
            char::from(letter)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The database's limit for each account: this many live sessions as their Seer, and this many seats in live
    /// sessions.
    const MAX_LIVE_PER_ACCOUNT: u64 = 20;

    #[test]
    fn no_account_exceeds_the_limits_of_live_sessions_and_seats_at_scale_1() {
        let data_set = DataSet::at_scale(1.0);
        let mut live_sessions_by_seer = std::collections::HashMap::new();
        let mut seats_by_player = std::collections::HashMap::new();
        for number in 0..data_set.active_sessions + data_set.unstarted_sessions {
            let session = data_set.session(number);
            *live_sessions_by_seer.entry(session.seer).or_insert(0) += 1;
            for seat in 0..session.seats_taken {
                *seats_by_player.entry(data_set.player(number, seat)).or_insert(0) += 1;
            }
        }
        for counts in [live_sessions_by_seer, seats_by_player] {
            assert!(counts.values().max() <= Some(&MAX_LIVE_PER_ACCOUNT), "{:?}", counts.values().max());
        }
    }

    #[test]
    fn no_user_has_two_seats_in_a_session_and_join_codes_are_unique() {
        let data_set = DataSet::at_scale(0.01);
        let mut codes = std::collections::HashSet::new();
        for number in 0..data_set.sessions() {
            let session = data_set.session(number);
            let players: std::collections::HashSet<u64> =
                (0..session.seats_taken).map(|seat| data_set.player(number, seat)).collect();
            assert_eq!(players.len() as u64, session.seats_taken, "{session:?}");
            assert!(codes.insert(join_code(number)));
        }
    }
}
