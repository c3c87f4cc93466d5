//! The game that both databases hold, as a function of the scale: who there is, who sits where, what was rolled.
//!
//! Every row follows from its number, so both databases are filled with the same, and a measure knows its people without
//! asking. Scale 1: 200 thousand users, 300 thousand sessions (100 thousand wait in the lobby), 600 thousand seats, a
//! million rolls, a million events. What one person or one table has does not grow with it.

use uuid::Uuid;

/// Sessions that ended longer than 90 days ago: what a month leaves to the archive, at any scale.
pub const TO_ARCHIVE: u64 = 1000;

/// Rolls of each of the busy tables.
pub const BUSY_ROLLS: u64 = 400;

/// Events of each table that plays or played within the day.
pub const EVENTS: u64 = 100;

/// How many there are of each.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// Accounts.
    pub users: u64,
    /// Adventures; four fifths are published.
    pub adventures: u64,
    /// Sessions that play now, with six players each.
    pub busy: u64,
    /// Sessions in the lobby.
    pub open: u64,
    /// Sessions that are over; the first [`TO_ARCHIVE`] long ago, those after it within the day.
    pub ended: u64,
}

/// What a row is of: rows of different kinds never share an id.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
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

/// What became of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It plays.
    Active,
    /// It waits in the lobby.
    Waiting,
    /// It waits, and will begin soon.
    StartingSoon,
    /// It was played to its end, so many minutes ago.
    Completed(u64),
    /// It was called off, so many minutes ago.
    Cancelled(u64),
}

/// One session.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Its number.
    pub number: u64,
    /// What became of it.
    pub state: State,
    /// Whether strangers see it.
    pub is_public: bool,
    /// Places.
    pub places: u64,
    /// Places that are taken.
    pub seats: u64,
    /// Who runs it: the number of the account.
    pub seer: u64,
    /// What is played: its number.
    pub adventure: u64,
}

impl World {
    /// The world at that scale.
    #[must_use]
    pub fn at(scale: f64) -> Self {
        let times = |count: u32| (f64::from(count) * scale).round().max(1.0) as u64;
        let (busy, open) = (times(1000), times(100_000));
        Self {
            users: times(200_000).max(1000),
            adventures: times(10_000).max(100),
            busy,
            open,
            ended: times(300_000).saturating_sub(busy + open).max(2 * TO_ARCHIVE),
        }
    }

    /// Sessions in all.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.busy + self.open + self.ended
    }

    /// Tables that have events: those that play, and those that ended within the day.
    #[must_use]
    pub fn lively(&self) -> u64 {
        self.busy * 10
    }

    /// Everyone has a character, every fifth a second.
    #[must_use]
    pub fn characters(&self) -> u64 {
        self.users + self.users / 5
    }

    /// The owner of a character.
    #[must_use]
    pub fn owner(&self, character: u64) -> u64 {
        if character < self.users { character } else { (character - self.users) * 5 }
    }

    /// The state of an adventure, and who made it.
    #[must_use]
    pub fn adventure(&self, number: u64) -> (&'static str, u64) {
        let status = match number % 20 {
            0..16 => "published",
            16..19 => "draft",
            _ => "archived",
        };
        (status, self.seer(draw(40, number)))
    }

    /// One account in twenty runs games.
    fn seer(&self, drawn: u64) -> u64 {
        self.users * 9 / 10 + drawn % (self.users / 20)
    }

    /// A session by its number: first those that play, then the lobby, then those that are over.
    #[must_use]
    pub fn session(&self, number: u64) -> Session {
        let (state, places) = if number < self.busy {
            (State::Active, 6)
        } else if number < self.busy + self.open {
            let soon = draw(1, number).is_multiple_of(7);
            (if soon { State::StartingSoon } else { State::Waiting }, 2 + draw(2, number) % 5)
        } else {
            let since = number - self.busy - self.open;
            let minutes = if since < TO_ARCHIVE {
                91 * 1440 + since
            } else if since < TO_ARCHIVE + self.sessions_with_events() - self.busy {
                draw(3, number) % 1000
            } else {
                1440 + draw(3, number) % (85 * 1440)
            };
            let is_cancelled = since >= TO_ARCHIVE && draw(4, number).is_multiple_of(15);
            (if is_cancelled { State::Cancelled(minutes) } else { State::Completed(minutes) }, 2 + draw(2, number) % 5)
        };
        let seats = match state {
            State::Active => 6,
            // A quarter of the lobby is full; the others have a seat free.
            State::Waiting | State::StartingSoon if draw(5, number).is_multiple_of(4) => places,
            State::Waiting | State::StartingSoon => draw(6, number) % places,
            State::Completed(_) | State::Cancelled(_) => (1 + draw(6, number) % 4).min(places),
        };
        // Drafts are nobody's but their author's: sessions play what is published.
        let adventure = draw(7, number) % self.adventures / 20 * 20 + draw(8, number) % 16;
        let adventure = if adventure < self.adventures { adventure } else { 0 };
        Session {
            number,
            state,
            is_public: state == State::Active || !draw(9, number).is_multiple_of(10),
            places,
            seats,
            seer: self.seer(draw(10, number)),
            adventure,
        }
    }

    /// Who sits on a seat of a session: four in five are of the fifth of all accounts that play often.
    #[must_use]
    pub fn player(&self, session: u64, seat: u64) -> u64 {
        let often = self.users / 5;
        // Neighbours differ by less than a group, so nobody sits at a table twice.
        let drawn = draw(11, session) + seat * 7;
        if (session + seat) % 5 < 4 { drawn % often } else { often + drawn % (self.users * 7 / 10 - often) }
    }

    /// The session among those that are over whose row has that number, counted from the recent ones.
    #[must_use]
    pub fn recent(&self, number: u64) -> u64 {
        self.busy + self.open + TO_ARCHIVE + number
    }

    /// The tables with events: those that play, then the recent ones.
    #[must_use]
    pub fn session_with_events(&self, number: u64) -> u64 {
        if number < self.busy { number } else { self.recent(number - self.busy) }
    }

    /// Rolls of a session.
    #[must_use]
    pub fn rolls(&self, session: &Session) -> u64 {
        match session.state {
            State::Active => BUSY_ROLLS,
            State::Completed(_) => 1 + draw(12, session.number) % 6,
            State::Waiting | State::StartingSoon | State::Cancelled(_) => 0,
        }
    }
}

/// The id of a row: as random as any, and always the same.
#[must_use]
pub fn id(kind: Kind, number: u64) -> Uuid {
    let (high, low) = (draw(100 + kind as u64, number), draw(200 + kind as u64, number));
    uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes()).into_uuid()
}

/// The id of a part of a row: a roll of a session, an event of one.
#[must_use]
pub fn part(kind: Kind, of: u64, number: u64) -> Uuid {
    id(kind, of * 100_000 + number)
}

/// A random number that is always the same for the same purpose and number (splitmix64).
#[must_use]
pub fn draw(purpose: u64, number: u64) -> u64 {
    let mut mixed =
        number.wrapping_add(purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The code of a session: six of the alphabet, another for each number.
#[must_use]
pub fn code(session: u64) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHJKMNPQRSTUVWXYZ23456789";
    let base = ALPHABET.len() as u64;
    // A multiplier without a factor of the modulus visits every code once.
    let mut left = session * 387_420_489 % base.pow(6);
    (0..6)
        .map(|_| {
            let letter = ALPHABET[(left % base) as usize];
            left /= base;
            char::from(letter)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_sits_twice_and_no_code_comes_twice() {
        let world = World::at_scale(0.01);
        let mut codes = std::collections::HashSet::new();
        for number in 0..world.sessions() {
            let session = world.session(number);
            let players: std::collections::HashSet<u64> =
                (0..session.seats).map(|seat| world.player(number, seat)).collect();
            assert_eq!(players.len() as u64, session.seats, "{session:?}");
            assert!(codes.insert(code(number)));
        }
    }
}
