//! The reading statements of users: the specification's and the service's.

use chrono::{Duration, Utc};
use service::{
    Operations,
    adventures::{CatalogueFilter, CatalogueOrder},
    dice::{HistoryFilter, RollScope},
    sessions::LobbyFilter,
};
use testdb::PreparedStatement;

use crate::{
    Failure,
    capture::StatementCapture,
    measure::Measure,
    samples::Sample,
    workload::{Execution, Role, Workload},
};

/// Returns the user and the values of a statement for a sample.
type Values<'a> = Box<dyn Fn(&Sample) -> (String, Vec<String>) + 'a>;

/// A filter of the lobby: its name, the service's filter, the specification's query, and the value.
type Filter<'a> = (&'static str, LobbyFilter, String, &'a dyn Fn(&Sample) -> String);

/// The list of reads, built while the service's statements are captured.
pub struct Reads<'a> {
    samples: &'a [Sample],
    measures: Vec<Measure>,
}

/// Quotes a value as an SQL literal.
pub fn quoted(value: impl std::fmt::Display) -> String {
    format!("'{}'", value.to_string().replace('\'', "''"))
}

/// Returns the workload of one prepared statement, with the values of each sample.
pub fn workload(name: &str, sql: String, samples: &[Sample], values: &Values<'_>) -> Workload {
    let executions = samples
        .iter()
        .map(|sample| {
            let (user, values) = values(sample);
            let values = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
            Execution { user, before: String::new(), timed: format!("EXECUTE {name}{values}") }
        })
        .collect();
    Workload { prepared: vec![(name.to_owned(), sql)], executions }
}

impl<'a> Reads<'a> {
    /// Adds a read: a statement and its values for each schema.
    fn add<'v>(
        &mut self,
        name: &'static str,
        role: Role,
        specification: &str,
        prd_values: impl Fn(&Sample) -> (String, Vec<String>) + 'v,
        ours: &PreparedStatement,
        own_values: impl Fn(&Sample) -> (String, Vec<String>) + 'v,
    ) {
        self.measures.push(Measure {
            name,
            role,
            is_repeatable: true,
            specification: workload(
                "prd",
                specification.to_owned(),
                self.samples,
                &(Box::new(prd_values) as Values<'v>),
            ),
            ours: workload("ours", ours.sql.clone(), self.samples, &(Box::new(own_values) as Values<'v>)),
        });
    }
}

/// Returns the specification's lobby query with additional clauses.
fn lobby(join: &str, condition: &str, having: &str, offset: &str) -> String {
    format!(
        "SELECT s.id, s.code, s.status, a.name, a.thumbnail_url, COUNT(sp.user_id) as player_count, s.max_players
        FROM sessions s
        JOIN adventures a ON s.adventure_id = a.id {join}
        LEFT JOIN session_players sp ON s.id = sp.session_id AND sp.is_active = true
        WHERE s.is_public = true
          AND s.status IN ('waiting', 'starting_soon') {condition}
        GROUP BY s.id, a.id
        HAVING COUNT(sp.user_id) < s.max_players {having}
        ORDER BY s.scheduled_start NULLS LAST, s.created_at DESC
        LIMIT 20 {offset}"
    )
}

/// Returns all reads.
pub async fn reads(capture: &mut StatementCapture, samples: &[Sample]) -> Result<Vec<Measure>, Failure> {
    let mut reads = Reads { samples, measures: Vec::new() };
    lobby_pages(&mut reads, capture).await?;
    session_reads(&mut reads, capture).await?;
    catalogue(&mut reads, capture).await?;
    Ok(reads.measures)
}

async fn lobby_pages(reads: &mut Reads<'_>, capture: &mut StatementCapture) -> Result<(), Failure> {
    let sample = reads.samples[0].clone();
    let nothing = |sample: &Sample| (sample.player.to_string(), Vec::new());
    let ada = capture.sparc.as_user(sample.player);

    let mut page = ada.sessions().lobby(&LobbyFilter::default(), None).await?;
    let first = capture.last_statement().await?;
    reads.add("lobby, first page", Role::Authenticated, &lobby("", "", "", ""), nothing, &first, nothing);
    reads.add("lobby, first page, visitor", Role::Anon, &lobby("", "", "", ""), nothing, &first, nothing);

    for _ in 0..48 {
        let Some(next) = page.next.take() else { break };
        let later = ada.sessions().lobby(&LobbyFilter::default(), Some(&next)).await?;
        // A small lobby has fewer pages; the last one with start times is measured instead.
        if later.items.last().is_none_or(|last| last.scheduled_start.is_none()) {
            break;
        }
        page = later;
    }
    let last = page.items.last().ok_or(Failure::Message("the lobby is empty".into()))?.clone();
    let fiftieth = capture.last_statement().await?;
    let start =
        last.scheduled_start.map(quoted).ok_or(Failure::Message("no session in the lobby has a start time".into()))?;
    let key = [quoted(last.created_at), quoted(last.id), start];
    let after_key = move |sample: &Sample| (sample.player.to_string(), key.to_vec());
    reads.add(
        "lobby, fiftieth page",
        Role::Authenticated,
        &lobby("", "", "", "OFFSET 980"),
        nothing,
        &fiftieth,
        after_key,
    );

    let soon = Utc::now() + Duration::days(7);
    let filters: [Filter<'_>; 8] = [
        (
            "lobby, by difficulty",
            LobbyFilter { difficulty: Some(entity::sea_orm_active_enums::DifficultyLevel::Hard), ..Default::default() },
            lobby("", "AND a.difficulty = $1::difficulty_level", "", ""),
            &|sample: &Sample| quoted(sample.looking_for.0),
        ),
        (
            "lobby, by duration",
            LobbyFilter { max_minutes: Some(60), ..Default::default() },
            lobby("", "AND a.estimated_duration <= $1::int", "", ""),
            &|sample: &Sample| sample.looking_for.1.to_string(),
        ),
        (
            "lobby, starting before a date",
            LobbyFilter { starts_before: Some(soon), ..Default::default() },
            lobby("", "AND s.scheduled_start < $1::timestamptz", "", ""),
            &|_: &Sample| quoted(soon),
        ),
        (
            "lobby, starting from a date",
            LobbyFilter { starts_after: Some(soon), ..Default::default() },
            lobby("", "AND s.scheduled_start >= $1::timestamptz", "", ""),
            &|_: &Sample| quoted(soon),
        ),
        (
            "lobby, by free seats",
            LobbyFilter { free_seats: Some(4), ..Default::default() },
            lobby("", "", "AND s.max_players - COUNT(sp.user_id) >= $1::int", ""),
            &|sample: &Sample| sample.looking_for.2.to_string(),
        ),
        (
            "lobby, by Seer",
            LobbyFilter { seer_id: Some(sample.open_seer), ..Default::default() },
            lobby("", "AND s.seer_id = $1::uuid", "", ""),
            &|sample: &Sample| quoted(sample.open_seer),
        ),
        (
            "lobby, by adventure",
            LobbyFilter { adventure_id: Some(sample.adventure), ..Default::default() },
            lobby("", "AND s.adventure_id = $1::uuid", "", ""),
            &|sample: &Sample| quoted(sample.adventure),
        ),
        (
            "lobby, search",
            LobbyFilter { search: Some("Lighthouse".to_owned()), ..Default::default() },
            lobby("JOIN users u ON u.id = s.seer_id", "AND (a.name ILIKE $1 OR u.display_name ILIKE $1)", "", ""),
            &|_: &Sample| quoted("%Lighthouse%"),
        ),
    ];
    for (name, filter, specification, value) in filters {
        ada.sessions().lobby(&filter, None).await?;
        let ours = capture.last_statement().await?;
        let with = move |sample: &Sample| (sample.player.to_string(), vec![value(sample)]);
        reads.add(name, Role::Authenticated, &specification, with, &ours, with);
        if name == "lobby, search" {
            let none = |sample: &Sample| (sample.player.to_string(), vec![quoted("%Nowhere%")]);
            reads.add("lobby, search without a hit", Role::Authenticated, &specification, none, &ours, none);
        }
    }
    Ok(())
}

async fn session_reads(reads: &mut Reads<'_>, capture: &mut StatementCapture) -> Result<(), Failure> {
    let sample = reads.samples[0].clone();
    let ada = capture.sparc.as_user(sample.player);
    let player =
        |value: fn(&Sample) -> String| move |sample: &Sample| (sample.player.to_string(), vec![quoted(value(sample))]);
    let paged = |value: fn(&Sample) -> String| {
        move |sample: &Sample| (sample.player.to_string(), vec![quoted(value(sample)), "51".to_owned()])
    };

    ada.dice().history(RollScope::Session(sample.session), &HistoryFilter::default(), None).await?;
    let ours = capture.last_statement().await?;
    let sql = "SELECT * FROM dice_rolls WHERE session_id = $1 ORDER BY created_at DESC LIMIT 51";
    let of = |sample: &Sample| sample.session.to_string();
    reads.add("a session's rolls", Role::Authenticated, sql, player(of), &ours, paged(of));

    ada.dice().history(RollScope::Character(sample.hero), &HistoryFilter::default(), None).await?;
    let ours = capture.last_statement().await?;
    let sql = "SELECT * FROM dice_rolls WHERE character_id = $1 ORDER BY created_at DESC LIMIT 51";
    let of = |sample: &Sample| sample.hero.to_string();
    let unfiltered = |sample: &Sample| {
        let mut values = vec!["NULL".to_owned(); 7];
        values[0] = quoted(sample.hero);
        values[6] = "51".to_owned();
        (sample.player.to_string(), values)
    };
    reads.add("a character's rolls", Role::Authenticated, sql, player(of), &ours, unfiltered);

    let sql = "SELECT count(*) FROM dice_rolls";
    let count = PreparedStatement { sql: sql.to_owned(), types: String::new() };
    let nothing = |sample: &Sample| (sample.player.to_string(), Vec::new());
    reads.add("count of all visible rolls", Role::Authenticated, sql, nothing, &count, nothing);

    ada.sessions().mine(None).await?;
    let ours = capture.last_statement().await?;
    let sql = "SELECT s.id, s.code, s.status, s.seer_id, u.display_name, a.id, a.name, sp.character_id, s.max_players,
            s.scheduled_start, s.started_at, s.ended_at, s.created_at,
            (SELECT COUNT(*) FROM session_players c WHERE c.session_id = s.id AND c.is_active)
        FROM sessions s
        JOIN users u ON u.id = s.seer_id
        JOIN adventures a ON a.id = s.adventure_id
        LEFT JOIN session_players sp ON sp.session_id = s.id AND sp.user_id = $1
        WHERE (s.seer_id = $1 OR sp.is_active)
          AND s.status NOT IN ('completed', 'cancelled')
        ORDER BY s.created_at DESC
        LIMIT 51";
    let me = |sample: &Sample| sample.player.to_string();
    reads.add("own sessions", Role::Authenticated, sql, player(me), &ours, player(me));

    ada.sessions().details(sample.session).await?;
    let ours = capture.last_statement().await?;
    let sql = "SELECT * FROM get_session_details($1)";
    let of = |sample: &Sample| sample.session.to_string();
    reads.add("session details", Role::Authenticated, sql, player(of), &ours, player(of));

    ada.events().after(sample.session, 1).await?;
    let ours = capture.last_statement().await?;
    let sql = "SELECT * FROM session_events
        WHERE session_id = $1
          AND created_at > (SELECT created_at FROM session_events WHERE id = $2)
        ORDER BY created_at
        LIMIT 200";
    let prd = |sample: &Sample| (sample.player.to_string(), vec![quoted(sample.session), quoted(sample.event)]);
    let own = |sample: &Sample| {
        (sample.player.to_string(), vec![quoted(sample.session), sample.seq.to_string(), "200".to_owned()])
    };
    reads.add("events after a number", Role::Authenticated, sql, prd, &ours, own);

    ada.users().profile(sample.newcomer).await?;
    let ours = capture.last_statement().await?;
    let sql = "SELECT id, display_name, avatar_url, bio, is_verified, games_played, games_run, created_at, updated_at
        FROM users
        WHERE id = $1";
    let of = |sample: &Sample| sample.newcomer.to_string();
    let one = move |sample: &Sample| (sample.player.to_string(), vec![quoted(of(sample)), "1".to_owned()]);
    reads.add("a profile", Role::Authenticated, sql, player(of), &ours, one);
    Ok(())
}

async fn catalogue(reads: &mut Reads<'_>, capture: &mut StatementCapture) -> Result<(), Failure> {
    let sample = reads.samples[0].clone();
    let ada = capture.sparc.as_user(sample.player);
    let nothing = |sample: &Sample| (sample.player.to_string(), Vec::new());
    let list = |condition: &str, order: &str| {
        format!(
            "SELECT id, creator_id, name, description, thumbnail_url, difficulty, estimated_duration, min_players,
                max_players, status, published_at, is_valid, times_played, average_rating, created_at
            FROM adventures
            WHERE status = 'published' {condition}
            ORDER BY {order}
            LIMIT 21"
        )
    };
    let all = CatalogueFilter::default();
    for (name, order, column) in [
        ("catalogue, newest", CatalogueOrder::Newest, "published_at DESC"),
        ("catalogue, most played", CatalogueOrder::MostPlayed, "times_played DESC"),
        ("catalogue, best rated", CatalogueOrder::BestRated, "average_rating DESC NULLS LAST"),
    ] {
        ada.adventures().catalogue(&all, order, None).await?;
        let ours = capture.last_statement().await?;
        reads.add(name, Role::Authenticated, &list("", column), nothing, &ours, nothing);
    }

    let mut page = ada.adventures().catalogue(&all, CatalogueOrder::BestRated, None).await?;
    for _ in 0..19 {
        let Some(next) = page.next.take() else { break };
        let later = ada.adventures().catalogue(&all, CatalogueOrder::BestRated, Some(&next)).await?;
        if later.items.last().is_none_or(|last| last.average_rating.is_none()) {
            break;
        }
        page = later;
    }
    let last = page.items.last().ok_or(Failure::Message("the catalogue is empty".into()))?.clone();
    let ours = capture.last_statement().await?;
    let rating = last.average_rating.map(quoted).ok_or(Failure::Message("no adventure has a rating".into()))?;
    let key = vec![rating, quoted(last.id)];
    let after_key = move |sample: &Sample| (sample.player.to_string(), key.clone());
    let sql = list("", "average_rating DESC NULLS LAST OFFSET 399")
        .replace("OFFSET 399\n            LIMIT 21", "LIMIT 21 OFFSET 399");
    reads.add("catalogue, best rated, twentieth page", Role::Authenticated, &sql, nothing, &ours, after_key);

    let filter = CatalogueFilter { search: Some("Lighthouse".to_owned()), ..Default::default() };
    ada.adventures().catalogue(&filter, CatalogueOrder::Newest, None).await?;
    let ours = capture.last_statement().await?;
    let sql = list("AND (name ILIKE $1 OR description ILIKE $1)", "published_at DESC");
    for (name, word) in [("catalogue, search", "%Lighthouse%"), ("catalogue, search without a hit", "%Nowhere%")] {
        let with = move |sample: &Sample| (sample.player.to_string(), vec![quoted(word)]);
        reads.add(name, Role::Authenticated, &sql, with, &ours, with);
    }
    Ok(())
}
