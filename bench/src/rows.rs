//! Generates rows in the text format of COPY: columns are separated by tabs, and `\N` is NULL.
//!
//! Values that look random come from [`draw`], a pseudorandom function. Its first argument, the *purpose*, is a
//! different number for each property, so that the values drawn for one row are independent of each other.

use std::fmt::Write;

use chrono::{DateTime, Duration, Utc};

use crate::{
    data_set::{
        DataSet, EVENTS_PER_SESSION_WITH_EVENTS, MINUTES_PER_DAY, RowKind, SessionState, draw, id_within_session,
        join_code, row_id,
    },
    schema::Schema,
};

const MINUTES_PER_YEAR: u64 = 365 * MINUTES_PER_DAY;

/// What the content of a row depends on, in addition to the row's number.
#[derive(Clone, Copy, Debug)]
pub struct FillContext {
    /// How many rows there are of each kind.
    pub data_set: DataSet,
    /// The schema to fill.
    pub schema: Schema,
    /// The moment to which all times are relative.
    pub now: DateTime<Utc>,
}

impl FillContext {
    /// Returns the time `minutes` before `now`, as text.
    fn minutes_ago(&self, minutes: u64) -> String {
        (self.now - Duration::minutes(i64::try_from(minutes).unwrap_or_default())).to_rfc3339()
    }
}

/// Appends an account, a row of `auth.users`.
pub fn append_account(lines: &mut String, _: &FillContext, number: u64) {
    let _ = writeln!(lines, "{}\tuser{number}@mail.example", row_id(RowKind::User, number));
}

/// Appends a profile, a row of `users`.
pub fn append_user(lines: &mut String, context: &FillContext, number: u64) {
    let created_at = context.minutes_ago(draw(20, number) % (2 * MINUTES_PER_YEAR));
    let _ = writeln!(
        lines,
        "{}\tuser{number}@mail.example\tPlayer {number}\tPlays on {} evenings and likes long stories.\t{created_at}",
        row_id(RowKind::User, number),
        number % 7
    );
}

/// The classes of the generated characters, four of the game's seven, each with the values of its attributes: might,
/// grace, wit and heart.
const CLASSES: [(&str, [u64; 4]); 4] =
    [("warrior", [5, 3, 2, 2]), ("rogue", [2, 5, 3, 2]), ("wizard", [1, 2, 5, 4]), ("cleric", [2, 2, 3, 5])];

/// Appends a character.
pub fn append_character(lines: &mut String, context: &FillContext, number: u64) {
    let (class, [might, grace, wit, heart]) = CLASSES[(number % 4) as usize];
    let _ = writeln!(
        lines,
        "{}\t{}\tHero {number}\t{class}\t{might}\t{grace}\t{wit}\t{heart}\t{{\"name\": \"Second wind\"}}\t{}",
        row_id(RowKind::Character, number),
        row_id(RowKind::User, context.data_set.owner(number)),
        context.minutes_ago(draw(21, number) % MINUTES_PER_YEAR)
    );
}

/// Each adventure has one of these words in its name, so a search for `Lighthouse` matches about one adventure in
/// forty-eight.
const PLACES: [&str; 48] = [
    "Mill",
    "Tower",
    "Marsh",
    "Crypt",
    "Harbor",
    "Forest",
    "Mine",
    "Bridge",
    "Temple",
    "Castle",
    "Cave",
    "Desert",
    "Garden",
    "Library",
    "Market",
    "Prison",
    "Ruins",
    "Shrine",
    "Swamp",
    "Tavern",
    "Theatre",
    "Valley",
    "Village",
    "Volcano",
    "Well",
    "Windmill",
    "Woods",
    "Abbey",
    "Bazaar",
    "Canyon",
    "Citadel",
    "Cliff",
    "Dungeon",
    "Farm",
    "Fjord",
    "Glacier",
    "Grotto",
    "Island",
    "Keep",
    "Lagoon",
    "Lighthouse",
    "Manor",
    "Meadow",
    "Oasis",
    "Orchard",
    "Palace",
    "Quarry",
    "Reef",
];

/// Appends an adventure with a short story.
pub fn append_adventure(lines: &mut String, context: &FillContext, number: u64) {
    let (status, creator) = context.data_set.adventure_status_and_creator(number);
    let place = PLACES[(draw(22, number) % PLACES.len() as u64) as usize];
    let published_at =
        if status == "published" { context.minutes_ago(draw(23, number) % MINUTES_PER_YEAR) } else { "\\N".to_owned() };
    let rating = if number.is_multiple_of(3) {
        "\\N".to_owned()
    } else {
        format!("{}.{:02}", 1 + draw(24, number) % 4, draw(25, number) % 100)
    };
    let nodes: Vec<String> = (0..8)
        .map(|node| {
            format!(
                "{{\"id\": \"n{node}\", \"kind\": \"{}\", \"text\": \"What happens at the {place}, part {node}.\"}}",
                ["story", "decision", "challenge", "combat"][node % 4]
            )
        })
        .collect();
    let _ = writeln!(
        lines,
        "{}\t{}\tThe {place} of {number}\tA story about the {place}.\t{}\t{}\t{{\"start\": \"n0\", \"nodes\": [{}], \
         \"connections\": []}}\t{status}\t{published_at}\t{}\t{}\t{rating}\t{}",
        row_id(RowKind::Adventure, number),
        row_id(RowKind::User, creator),
        ["easy", "medium", "hard"][(draw(26, number) % 3) as usize],
        30 + draw(27, number) % 10 * 30,
        nodes.join(", "),
        status == "published",
        draw(28, number) % 500,
        context.minutes_ago(MINUTES_PER_YEAR + draw(29, number) % MINUTES_PER_YEAR),
    );
}

/// Appends a session. Only this project's schema ([`Schema::Ours`]) stores the number of taken seats.
pub fn append_session(lines: &mut String, context: &FillContext, number: u64) {
    let session = context.data_set.session(number);
    let null = || "\\N".to_owned();
    let (status, started_at, ended_at, age_minutes) = match session.state {
        SessionState::Active => ("active", context.minutes_ago(180), null(), MINUTES_PER_DAY),
        SessionState::Waiting => ("waiting", null(), null(), draw(30, number) % 20_000),
        SessionState::StartingSoon => ("starting_soon", null(), null(), draw(30, number) % 20_000),
        SessionState::Completed(minutes) => {
            ("completed", context.minutes_ago(minutes + 180), context.minutes_ago(minutes), minutes + 3000)
        }
        SessionState::Cancelled(minutes) => ("cancelled", null(), context.minutes_ago(minutes), minutes + 3000),
    };
    // One in ten unstarted sessions has no scheduled start; the others start in five hours to two weeks.
    let scheduled_start = match session.state {
        SessionState::Waiting | SessionState::StartingSoon if draw(31, number).is_multiple_of(10) => null(),
        SessionState::Waiting | SessionState::StartingSoon => {
            let minutes = i64::try_from(300 + draw(32, number) % 19_800).unwrap_or_default();
            (context.now + Duration::minutes(minutes)).to_rfc3339()
        }
        _ => context.minutes_ago(age_minutes / 2),
    };
    let _ = write!(
        lines,
        "{}\t{}\t{}\t{}\t{}\t{}\tBeginners are welcome\t{scheduled_start}\t{status}\t{started_at}\t{ended_at}\t{}",
        row_id(RowKind::Session, number),
        row_id(RowKind::User, session.seer),
        row_id(RowKind::Adventure, session.adventure),
        join_code(number),
        session.is_public,
        session.max_players,
        context.minutes_ago(age_minutes),
    );
    if context.schema == Schema::Ours {
        let _ = write!(lines, "\t{}", session.seats_taken);
    }
    lines.push('\n');
}

/// Appends the seats of a session. Each player plays their first character, which has the same number as the player's
/// account.
pub fn append_seats(lines: &mut String, context: &FillContext, number: u64) {
    let session = context.data_set.session(number);
    let joined_at = match session.state {
        SessionState::Completed(minutes) | SessionState::Cancelled(minutes) => context.minutes_ago(minutes + 1000),
        SessionState::Active | SessionState::Waiting | SessionState::StartingSoon => context.minutes_ago(300),
    };
    for seat in 0..session.seats_taken {
        let player = context.data_set.player(number, seat);
        let _ = writeln!(
            lines,
            "{}\t{}\t{}\t{joined_at}",
            row_id(RowKind::Session, number),
            row_id(RowKind::User, player),
            row_id(RowKind::Character, player)
        );
    }
}

/// Appends the rolls of a session.
pub fn append_rolls(lines: &mut String, context: &FillContext, number: u64) {
    let session = context.data_set.session(number);
    // A session started 180 minutes before its end, or before `now` if it is active. Its rolls are spread over the
    // first 170 of these minutes.
    let started_minutes_ago = match session.state {
        SessionState::Completed(minutes) => minutes + 180,
        _ => 180,
    };
    let roll_count = context.data_set.rolls(&session);
    for roll in 0..roll_count {
        let draw_property = |purpose| draw(purpose, number * 1000 + roll);
        let player = context.data_set.player(number, roll % session.seats_taken);
        let (_, attributes) = CLASSES[(player % 4) as usize];
        let attribute = (draw_property(33) % 4) as usize;
        // No attribute in `CLASSES` is above 5, so the dice of a roll use the purposes 50 to 54.
        let dice: Vec<u64> = (0..attributes[attribute]).map(|die| 1 + draw_property(50 + die) % 6).collect();
        let total: u64 = dice.iter().sum();
        let difficulty = 3 + draw_property(34) % 16;
        let outcome = if dice.iter().all(|die| *die == 6) {
            "critical_success"
        } else if dice.iter().all(|die| *die == 1) {
            "critical_failure"
        } else if total >= difficulty {
            "success"
        } else {
            "failure"
        };
        let dice_texts: Vec<String> = dice.iter().map(u64::to_string).collect();
        let _ = writeln!(
            lines,
            "{}\t{}\t{}\tHero {player}\t{}\t{}\t{difficulty}\t{}\t{{{}}}\t{total}\t{total}\t{}\t{outcome}\t{}\t{}\t{}",
            id_within_session(RowKind::Roll, number, roll),
            row_id(RowKind::Session, number),
            row_id(RowKind::Character, player),
            ["might", "grace", "wit", "heart"][attribute],
            dice.len(),
            ["attribute_check", "attack", "defense", "damage"][(draw_property(35) % 4) as usize],
            dice_texts.join(","),
            outcome.ends_with("success"),
            total as i64 - difficulty as i64,
            // `animation_seed`, a number of 48 bits.
            draw_property(36) >> 16,
            context.minutes_ago(started_minutes_ago - roll * 170 / roll_count),
        );
    }
}

/// Appends the events of a session. `index` is the session's number among the sessions with events.
pub fn append_events(lines: &mut String, context: &FillContext, index: u64) {
    let session_number = context.data_set.nth_session_with_events(index);
    for event in 0..EVENTS_PER_SESSION_WITH_EVENTS {
        let _ = writeln!(
            lines,
            "{}\t{}\tdice_rolled\t{{\"roll_id\": \"{}\", \"character_name\": \"Hero {index}\", \
             \"roll_type\": \"attack\", \"attribute\": \"might\", \"difficulty\": 9, \"results\": [4, 2, 6], \
             \"total\": 12, \"outcome\": \"success\", \"success\": true}}\t{}",
            id_within_session(RowKind::Event, session_number, event),
            row_id(RowKind::Session, session_number),
            id_within_session(RowKind::Roll, session_number, event),
            context.minutes_ago(1000 - event * 9),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_generated_type_of_roll_occurs_with_each_difficulty() {
        let data_set =
            DataSet { users: 1000, adventures: 100, active_sessions: 20, unstarted_sessions: 0, ended_sessions: 0 };
        let context = FillContext { data_set, schema: Schema::Ours, now: Utc::now() };
        let mut lines = String::new();
        for session in 0..data_set.active_sessions {
            append_rolls(&mut lines, &context, session);
        }
        // The columns are those of `fill`: the seventh is the difficulty, and the eighth the type.
        let pairs = lines.lines().map(|line| line.split('\t').skip(6).take(2).collect::<Vec<_>>());
        assert_eq!(pairs.collect::<HashSet<_>>().len(), 16 * 4);
    }
}
