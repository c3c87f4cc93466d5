//! The reads of the lobby.

use chrono::{Duration, Utc};
use service::{Operations, sessions::LobbyFilter};

use super::list::Reads;
use crate::{
    argument_sets::ArgumentSet, capture::StatementCapture, failure::Failure, sql_values::quote_literal, workload::Role,
};

/// A measured filter of the lobby: its name, the service's filter, the specification's query, and the function that
/// returns the filter's value for an argument set.
type MeasuredFilter<'a> = (&'static str, LobbyFilter, String, &'a dyn Fn(&ArgumentSet) -> String);

/// Returns the specification's query of the lobby with these additional clauses, each of which may be empty.
fn specification_lobby(join: &str, condition: &str, having: &str, offset: &str) -> String {
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

/// Adds the reads of the lobby. Each pairs a statement of the specification with the service's, which is captured by
/// calling the operation.
pub(super) async fn add_lobby_reads(reads: &mut Reads<'_>, capture: &mut StatementCapture) -> Result<(), Failure> {
    let argument_set = reads.argument_sets[0].clone();
    // Both return the user who executes a statement, and the statement's values.
    let as_player = |argument_set: &ArgumentSet| (argument_set.player.to_string(), Vec::new());
    let as_visitor = |_: &ArgumentSet| (String::new(), Vec::new());
    let caller = capture.sparc.as_user(argument_set.player);

    let mut page = caller.sessions().lobby(&LobbyFilter::default(), None).await?;
    let first_page_statement = capture.last_new_statement().await?;
    reads.add(
        "lobby, first page",
        Role::Authenticated,
        &specification_lobby("", "", "", ""),
        as_player,
        &first_page_statement,
        as_player,
    );
    reads.add(
        "lobby, first page, visitor",
        Role::Anon,
        &specification_lobby("", "", "", ""),
        as_visitor,
        &first_page_statement,
        as_visitor,
    );

    // Reads up to 48 more pages; the cursor after the forty-ninth page leads to the fiftieth.
    for _ in 0..48 {
        let Some(cursor) = page.next.take() else { break };
        let next_page = caller.sessions().lobby(&LobbyFilter::default(), Some(&cursor)).await?;
        // Sessions without a start time come last, and the cursor below needs a start time. In a small lobby, this loop
        // therefore ends before the forty-ninth page, and an earlier page is measured instead of the fiftieth.
        if next_page.items.last().is_none_or(|last| last.scheduled_start.is_none()) {
            break;
        }
        page = next_page;
    }
    let last_session = page.items.last().ok_or(Failure::Message("the lobby is empty".into()))?.clone();
    // The second and all later pages that the loop reads use one statement, because each is read from a cursor with a
    // start time. It was prepared for the second page.
    let later_page_statement = capture.last_new_statement().await?;
    // If the page ends with a session without a start time, it is the first: the loop stores no later page that does.
    let start_time = last_session
        .scheduled_start
        .map(quote_literal)
        .ok_or(Failure::Message("the first page of the lobby ends with a session without a start time".into()))?;
    let cursor_values = [quote_literal(last_session.created_at), quote_literal(last_session.id), start_time];
    let after_cursor = move |argument_set: &ArgumentSet| (argument_set.player.to_string(), cursor_values.to_vec());
    // The specification's clients skip 49 pages of twenty sessions.
    reads.add(
        "lobby, fiftieth page",
        Role::Authenticated,
        &specification_lobby("", "", "", "OFFSET 980"),
        as_player,
        &later_page_statement,
        after_cursor,
    );

    let in_a_week = Utc::now() + Duration::days(7);
    let filters: [MeasuredFilter<'_>; 8] = [
        (
            "lobby, by difficulty",
            LobbyFilter { difficulty: Some(entity::sea_orm_active_enums::DifficultyLevel::Hard), ..Default::default() },
            specification_lobby("", "AND a.difficulty = $1::difficulty_level", "", ""),
            &|argument_set: &ArgumentSet| quote_literal(argument_set.filter_difficulty),
        ),
        (
            "lobby, by duration",
            LobbyFilter { max_minutes: Some(60), ..Default::default() },
            specification_lobby("", "AND a.estimated_duration <= $1::int", "", ""),
            &|argument_set: &ArgumentSet| argument_set.filter_max_minutes.to_string(),
        ),
        (
            "lobby, starting before a date",
            LobbyFilter { starts_before: Some(in_a_week), ..Default::default() },
            specification_lobby("", "AND s.scheduled_start < $1::timestamptz", "", ""),
            &|_: &ArgumentSet| quote_literal(in_a_week),
        ),
        (
            "lobby, starting from a date",
            LobbyFilter { starts_from: Some(in_a_week), ..Default::default() },
            specification_lobby("", "AND s.scheduled_start >= $1::timestamptz", "", ""),
            &|_: &ArgumentSet| quote_literal(in_a_week),
        ),
        (
            "lobby, by free seats",
            LobbyFilter { min_free_seats: Some(4), ..Default::default() },
            specification_lobby("", "", "AND s.max_players - COUNT(sp.user_id) >= $1::int", ""),
            &|argument_set: &ArgumentSet| argument_set.filter_free_seats.to_string(),
        ),
        (
            "lobby, by Seer",
            LobbyFilter { seer_id: Some(argument_set.open_session_seer), ..Default::default() },
            specification_lobby("", "AND s.seer_id = $1::uuid", "", ""),
            &|argument_set: &ArgumentSet| quote_literal(argument_set.open_session_seer),
        ),
        (
            "lobby, by adventure",
            LobbyFilter { adventure_id: Some(argument_set.open_session_adventure), ..Default::default() },
            specification_lobby("", "AND s.adventure_id = $1::uuid", "", ""),
            &|argument_set: &ArgumentSet| quote_literal(argument_set.open_session_adventure),
        ),
        (
            // One adventure in forty-eight has "Lighthouse" in its name; none has "Nowhere".
            "lobby, search",
            LobbyFilter { search: Some("Lighthouse".to_owned()), ..Default::default() },
            specification_lobby(
                "JOIN users u ON u.id = s.seer_id",
                "AND (a.name ILIKE $1 OR u.display_name ILIKE $1)",
                "",
                "",
            ),
            &|_: &ArgumentSet| quote_literal("%Lighthouse%"),
        ),
    ];
    // In both schemas, the filter's value is the only parameter of the statement.
    for (name, filter, specification_sql, value) in filters {
        caller.sessions().lobby(&filter, None).await?;
        let ours = capture.last_new_statement().await?;
        let with_filter_value =
            move |argument_set: &ArgumentSet| (argument_set.player.to_string(), vec![value(argument_set)]);
        reads.add(name, Role::Authenticated, &specification_sql, with_filter_value, &ours, with_filter_value);
        if name == "lobby, search" {
            let no_match =
                |argument_set: &ArgumentSet| (argument_set.player.to_string(), vec![quote_literal("%Nowhere%")]);
            reads.add(
                "lobby, search without a hit",
                Role::Authenticated,
                &specification_sql,
                no_match,
                &ours,
                no_match,
            );
        }
    }
    Ok(())
}
