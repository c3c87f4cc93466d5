//! Rows, as COPY takes them, and the two databases filled with them.

use std::{fmt::Write, time::Instant};

use chrono::{DateTime, Duration, Utc};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    Failure,
    client::Client,
    world::{self, EVENTS, Kind, State, World, draw, id, part},
};

/// Which schema a database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The specification's own SQL.
    Specification,
    /// This project's.
    Ours,
}

/// How long an index took to build, and how big it is.
#[derive(Clone, Debug, Serialize)]
pub struct Built {
    /// Its name.
    pub index: String,
    /// Milliseconds.
    pub ms: f64,
    /// Bytes.
    pub bytes: f64,
}

/// Rows of one chunk.
const CHUNK: u64 = 5000;

/// One table's rows.
struct Table {
    into: &'static str,
    count: u64,
    /// Appends the lines of one number; several for what belongs to a session.
    line: fn(&mut String, &Filling, u64),
}

struct Filling {
    world: World,
    side: Side,
    now: DateTime<Utc>,
}

/// Fills a database, builds its indexes, and makes its statistics.
///
/// Triggers and foreign keys rest meanwhile: the rows keep the rules by how they are made, and checks and unique
/// constraints do not rest.
pub async fn fill(url: &str, side: Side, world: World, now: DateTime<Utc>) -> Result<Vec<Built>, Failure> {
    let mut client = Client::open(url).await?;
    let filling = Filling { world, side, now };
    client.run("SET session_replication_role = replica; SET maintenance_work_mem = '1GB'").await?;
    let indexes = client
        .rows(
            "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid)
             FROM pg_index
             JOIN pg_class ON oid = indrelid
             WHERE relnamespace = 'public'::regnamespace
               AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
             ORDER BY 1",
        )
        .await?;
    for index in &indexes {
        client.run(&format!("DROP INDEX {}", index[0])).await?;
    }

    let tables = tables(&filling);
    let bar = bar(tables.iter().map(|table| table.count).sum(), side);
    for table in &tables {
        bar.set_message(table.into.split(' ').next().unwrap_or_default().to_owned());
        let chunks = (0..table.count.div_ceil(CHUNK)).map(|chunk| {
            let mut lines = String::new();
            for number in chunk * CHUNK..table.count.min((chunk + 1) * CHUNK) {
                (table.line)(&mut lines, &filling, number);
            }
            bar.inc(CHUNK);
            lines
        });
        client.copy(table.into, chunks).await?;
    }

    let mut built = Vec::new();
    for index in &indexes {
        bar.set_message(index[0].clone());
        let begun = Instant::now();
        client.run(&index[1]).await?;
        let ms = begun.elapsed().as_secs_f64() * 1000.0;
        let bytes = client.number(&format!("SELECT pg_relation_size('{}')", index[0])).await?;
        built.push(Built { index: index[0].clone(), ms, bytes });
    }
    bar.set_message("VACUUM ANALYZE");
    client.run("VACUUM ANALYZE").await?;
    client.run("CHECKPOINT").await?;
    bar.finish_and_clear();
    client.close().await?;
    Ok(built)
}

fn bar(rows: u64, side: Side) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>13} {bar:40} {percent:>3} % {msg}").ok();
    let bar = ProgressBar::new(rows).with_prefix(match side {
        Side::Specification => "specification",
        Side::Ours => "ours",
    });
    match style {
        Some(style) => bar.with_style(style),
        None => bar,
    }
}

fn tables(filling: &Filling) -> [Table; 7] {
    let world = &filling.world;
    [
        Table { into: "auth.users (id, email)", count: world.users, line: account },
        Table { into: "users (id, email, display_name, bio, created_at)", count: world.users, line: user },
        Table {
            into: "characters (id, user_id, name, class, might, grace, wit, heart, special_ability, created_at)",
            count: world.characters(),
            line: character,
        },
        Table {
            into: "adventures (id, creator_id, name, description, difficulty, estimated_duration, content, status, \
                   published_at, is_valid, times_played, average_rating, created_at)",
            count: world.adventures,
            line: adventure,
        },
        Table {
            into: match filling.side {
                Side::Specification => {
                    "sessions (id, seer_id, adventure_id, code, is_public, max_players, looking_for, scheduled_start, \
                     status, started_at, ended_at, created_at)"
                }
                Side::Ours => {
                    "sessions (id, seer_id, adventure_id, code, is_public, max_players, looking_for, scheduled_start, \
                     status, started_at, ended_at, created_at, seats_taken)"
                }
            },
            count: world.sessions(),
            line: session,
        },
        Table {
            into: "session_players (session_id, user_id, character_id, joined_at)",
            count: world.sessions(),
            line: seats,
        },
        Table {
            into: "dice_rolls (id, session_id, character_id, character_name, attribute, dice_count, difficulty, \
                   roll_type, results, total, modified_total, success, outcome, margin, animation_seed, created_at)",
            count: world.sessions(),
            line: rolls,
        },
    ]
}

/// Events are filled apart, because their times are near the moment of measuring.
pub async fn fill_events(url: &str, world: World, now: DateTime<Utc>) -> Result<(), Failure> {
    let mut client = Client::open(url).await?;
    client.run("SET session_replication_role = replica").await?;
    let filling = Filling { world, side: Side::Ours, now };
    let lively = world.lively();
    let chunk = CHUNK / EVENTS;
    let chunks = (0..lively.div_ceil(chunk)).map(|number| {
        let mut lines = String::new();
        for number in number * chunk..lively.min((number + 1) * chunk) {
            events(&mut lines, &filling, number);
        }
        lines
    });
    client.copy("session_events (id, session_id, event_type, payload, created_at)", chunks).await?;
    client.run("VACUUM ANALYZE session_events").await?;
    client.close().await
}

impl Filling {
    fn ago(&self, minutes: u64) -> String {
        (self.now - Duration::minutes(i64::try_from(minutes).unwrap_or_default())).to_rfc3339()
    }
}

fn account(lines: &mut String, _: &Filling, number: u64) {
    let _ = writeln!(lines, "{}\tuser{number}@mail.example", id(Kind::User, number));
}

fn user(lines: &mut String, filling: &Filling, number: u64) {
    let made = filling.ago(draw(20, number) % (2 * 365 * 1440));
    let _ = writeln!(
        lines,
        "{}\tuser{number}@mail.example\tPlayer {number}\tPlays on {} evenings and likes long stories.\t{made}",
        id(Kind::User, number),
        number % 7
    );
}

/// Class and sheet of a character.
const SHEETS: [(&str, [u64; 4]); 4] =
    [("warrior", [5, 3, 2, 2]), ("rogue", [2, 5, 3, 2]), ("wizard", [1, 2, 5, 4]), ("cleric", [2, 2, 3, 5])];

fn character(lines: &mut String, filling: &Filling, number: u64) {
    let (class, [might, grace, wit, heart]) = SHEETS[(number % 4) as usize];
    let _ = writeln!(
        lines,
        "{}\t{}\tHero {number}\t{class}\t{might}\t{grace}\t{wit}\t{heart}\t{{\"name\": \"Second wind\"}}\t{}",
        id(Kind::Character, number),
        id(Kind::User, filling.world.owner(number)),
        filling.ago(draw(21, number) % (365 * 1440))
    );
}

/// Words of names, so that one name in forty-eight holds a given one.
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

fn adventure(lines: &mut String, filling: &Filling, number: u64) {
    let (status, creator) = filling.world.adventure(number);
    let place = PLACES[(draw(22, number) % 48) as usize];
    let published = if status == "published" { filling.ago(draw(23, number) % (365 * 1440)) } else { "\\N".to_owned() };
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
         \"connections\": []}}\t{status}\t{published}\t{}\t{}\t{rating}\t{}",
        id(Kind::Adventure, number),
        id(Kind::User, creator),
        ["easy", "medium", "hard"][(draw(26, number) % 3) as usize],
        30 + draw(27, number) % 10 * 30,
        nodes.join(", "),
        status == "published",
        draw(28, number) % 500,
        filling.ago(365 * 1440 + draw(29, number) % (365 * 1440)),
    );
}

fn session(lines: &mut String, filling: &Filling, number: u64) {
    let session = filling.world.session(number);
    let none = || "\\N".to_owned();
    let (status, started, ended, age) = match session.state {
        State::Active => ("active", filling.ago(180), none(), 1440),
        State::Waiting => ("waiting", none(), none(), draw(30, number) % 20_000),
        State::StartingSoon => ("starting_soon", none(), none(), draw(30, number) % 20_000),
        State::Completed(minutes) => ("completed", filling.ago(minutes + 180), filling.ago(minutes), minutes + 3000),
        State::Cancelled(minutes) => ("cancelled", none(), filling.ago(minutes), minutes + 3000),
    };
    // One in ten has no date; the others begin within two weeks.
    let start = match session.state {
        State::Waiting | State::StartingSoon if draw(31, number).is_multiple_of(10) => none(),
        State::Waiting | State::StartingSoon => {
            let minutes = i64::try_from(draw(32, number) % 20_000).unwrap_or_default();
            (filling.now + Duration::minutes(minutes + 300)).to_rfc3339()
        }
        _ => filling.ago(age / 2),
    };
    let _ = write!(
        lines,
        "{}\t{}\t{}\t{}\t{}\t{}\tBeginners are welcome\t{start}\t{status}\t{started}\t{ended}\t{}",
        id(Kind::Session, number),
        id(Kind::User, session.seer),
        id(Kind::Adventure, session.adventure),
        world::code(number),
        session.is_public,
        session.places,
        filling.ago(age),
    );
    if filling.side == Side::Ours {
        let _ = write!(lines, "\t{}", session.seats);
    }
    lines.push('\n');
}

fn seats(lines: &mut String, filling: &Filling, number: u64) {
    let session = filling.world.session(number);
    let joined = match session.state {
        State::Completed(minutes) | State::Cancelled(minutes) => filling.ago(minutes + 1000),
        State::Active | State::Waiting | State::StartingSoon => filling.ago(300),
    };
    for seat in 0..session.seats {
        let player = filling.world.player(number, seat);
        let _ = writeln!(
            lines,
            "{}\t{}\t{}\t{joined}",
            id(Kind::Session, number),
            id(Kind::User, player),
            id(Kind::Character, player)
        );
    }
}

fn rolls(lines: &mut String, filling: &Filling, number: u64) {
    let session = filling.world.session(number);
    let begun = match session.state {
        State::Completed(minutes) => minutes + 180,
        _ => 180,
    };
    let count = filling.world.rolls(&session);
    for roll in 0..count {
        let seed = draw(33, number * 1000 + roll);
        let player = filling.world.player(number, roll % session.seats);
        let sheet = SHEETS[(player % 4) as usize].1;
        let attribute = (seed % 4) as usize;
        let dice: Vec<u64> = (0..sheet[attribute]).map(|die| 1 + (seed >> (8 * die + 8)) % 6).collect();
        let total: u64 = dice.iter().sum();
        let difficulty = 3 + (seed >> 3) % 16;
        let outcome = if dice.iter().all(|die| *die == 6) {
            "critical_success"
        } else if dice.iter().all(|die| *die == 1) {
            "critical_failure"
        } else if total >= difficulty {
            "success"
        } else {
            "failure"
        };
        let dice: Vec<String> = dice.iter().map(u64::to_string).collect();
        let _ = writeln!(
            lines,
            "{}\t{}\t{}\tHero {player}\t{}\t{}\t{difficulty}\t{}\t{{{}}}\t{total}\t{total}\t{}\t{outcome}\t{}\t{}\t{}",
            part(Kind::Roll, number, roll),
            id(Kind::Session, number),
            id(Kind::Character, player),
            ["might", "grace", "wit", "heart"][attribute],
            dice.len(),
            ["attribute_check", "attack", "defense", "damage"][(seed >> 5) as usize % 4],
            dice.join(","),
            outcome.ends_with("success"),
            total as i64 - difficulty as i64,
            seed >> 20,
            filling.ago(begun - roll * 170 / count),
        );
    }
}

fn events(lines: &mut String, filling: &Filling, number: u64) {
    let session = filling.world.lively_session(number);
    for event in 0..EVENTS {
        let _ = writeln!(
            lines,
            "{}\t{}\tdice_rolled\t{{\"rollId\": \"{}\", \"characterName\": \"Hero {number}\", \"rollType\": \"attack\", \
             \"attribute\": \"might\", \"difficulty\": 9, \"results\": [4, 2, 6], \"total\": 12, \"outcome\": \
             \"success\", \"success\": true}}\t{}",
            part(Kind::Event, session, event),
            id(Kind::Session, session),
            part(Kind::Roll, session, event),
            filling.ago(1000 - event * 9),
        );
    }
}
