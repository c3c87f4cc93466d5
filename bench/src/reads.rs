//! The statements with which users read: the specification's, and the service's, which are captured by calling its
//! operations. Identifiers call the service's statements `ours`.

mod list;
mod lobby;

use service::{
    Operations,
    adventures::{CatalogueFilter, CatalogueOrder},
    dice::{HistoryFilter, RollScope},
};
use testdb::PreparedStatement;

use self::list::Reads;
use crate::{
    argument_sets::ArgumentSet, capture::StatementCapture, failure::Failure, measure::StatementPair,
    sql_values::quote_literal, workload::Role,
};

/// Captures the service's statements, and returns all reads, each paired with the specification's.
pub async fn capture_reads(
    capture: &mut StatementCapture,
    argument_sets: &[ArgumentSet],
) -> Result<Vec<StatementPair>, Failure> {
    let mut reads = Reads { argument_sets, pairs: Vec::new() };
    lobby::add_lobby_reads(&mut reads, capture).await?;
    add_game_and_profile_reads(&mut reads, capture).await?;
    add_catalogue_reads(&mut reads, capture).await?;
    Ok(reads.pairs)
}

/// Adds the reads of rolls, sessions, events and profiles. In this function and the next one, `sql` is the
/// specification's statement and `ours` is the service's.
async fn add_game_and_profile_reads(reads: &mut Reads<'_>, capture: &mut StatementCapture) -> Result<(), Failure> {
    let argument_set = reads.argument_sets[0].clone();
    let caller = capture.sparc.as_user(argument_set.player);
    // `with_value` and `with_value_and_limit` return functions that can be passed to `add`.
    let with_value = |value: fn(&ArgumentSet) -> String| {
        move |argument_set: &ArgumentSet| (argument_set.player.to_string(), vec![quote_literal(value(argument_set))])
    };
    // The limit: fifty rolls, and one more to see whether there is a next page.
    let with_value_and_limit = |value: fn(&ArgumentSet) -> String| {
        move |argument_set: &ArgumentSet| {
            (argument_set.player.to_string(), vec![quote_literal(value(argument_set)), "51".to_owned()])
        }
    };

    caller.dice().history(RollScope::Session(argument_set.session), &HistoryFilter::default(), None).await?;
    let ours = capture.last_new_statement().await?;
    let sql = "SELECT * FROM dice_rolls WHERE session_id = $1 ORDER BY created_at DESC LIMIT 51";
    let session_id = |argument_set: &ArgumentSet| argument_set.session.to_string();
    reads.add(
        "a session's rolls",
        Role::Authenticated,
        sql,
        with_value(session_id),
        &ours,
        with_value_and_limit(session_id),
    );

    caller.dice().history(RollScope::Character(argument_set.character), &HistoryFilter::default(), None).await?;
    let ours = capture.last_new_statement().await?;
    let sql = "SELECT * FROM dice_rolls WHERE character_id = $1 ORDER BY created_at DESC LIMIT 51";
    let character_id = |argument_set: &ArgumentSet| argument_set.character.to_string();
    // The five parameters between the character and the limit are the filter's and the cursor's, which are not set.
    let unfiltered = |argument_set: &ArgumentSet| {
        let mut values = vec!["NULL".to_owned(); 7];
        values[0] = quote_literal(argument_set.character);
        values[6] = "51".to_owned();
        (argument_set.player.to_string(), values)
    };
    reads.add("a character's rolls", Role::Authenticated, sql, with_value(character_id), &ours, unfiltered);

    let sql = "SELECT count(*) FROM dice_rolls";
    // No operation of the service counts all rolls, so both schemas run the same query.
    let count_statement = PreparedStatement { sql: sql.to_owned(), types: String::new() };
    let no_values = |argument_set: &ArgumentSet| (argument_set.player.to_string(), Vec::new());
    reads.add("count of all visible rolls", Role::Authenticated, sql, no_values, &count_statement, no_values);

    caller.sessions().my_live(None).await?;
    let ours = capture.last_new_statement().await?;
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
    let player_id = |argument_set: &ArgumentSet| argument_set.player.to_string();
    reads.add("own sessions", Role::Authenticated, sql, with_value(player_id), &ours, with_value(player_id));

    caller.sessions().details(argument_set.session).await?;
    let ours = capture.last_new_statement().await?;
    let sql = "SELECT * FROM get_session_details($1)";
    reads.add("session details", Role::Authenticated, sql, with_value(session_id), &ours, with_value(session_id));

    caller.events().after(argument_set.session, 0).await?;
    let ours = capture.last_new_statement().await?;
    let sql = "SELECT * FROM session_events
        WHERE session_id = $1
          AND created_at > (SELECT created_at FROM session_events WHERE id = $2)
        ORDER BY created_at
        LIMIT 200";
    let after_event = |argument_set: &ArgumentSet| {
        (argument_set.player.to_string(), vec![quote_literal(argument_set.session), quote_literal(argument_set.event)])
    };
    let after_seq = |argument_set: &ArgumentSet| {
        (
            argument_set.player.to_string(),
            vec![quote_literal(argument_set.session), argument_set.event_seq.to_string(), "200".to_owned()],
        )
    };
    reads.add("events after a given one", Role::Authenticated, sql, after_event, &ours, after_seq);

    caller.users().profile(argument_set.newcomer).await?;
    let ours = capture.last_new_statement().await?;
    let sql = "SELECT id, display_name, avatar_url, bio, is_verified, games_played, games_run, created_at, updated_at
        FROM users
        WHERE id = $1";
    let profile_id = |argument_set: &ArgumentSet| argument_set.newcomer.to_string();
    let with_id_and_limit = move |argument_set: &ArgumentSet| {
        (argument_set.player.to_string(), vec![quote_literal(profile_id(argument_set)), "1".to_owned()])
    };
    reads.add("a profile", Role::Authenticated, sql, with_value(profile_id), &ours, with_id_and_limit);
    Ok(())
}

async fn add_catalogue_reads(reads: &mut Reads<'_>, capture: &mut StatementCapture) -> Result<(), Failure> {
    let argument_set = reads.argument_sets[0].clone();
    let caller = capture.sparc.as_user(argument_set.player);
    let no_values = |argument_set: &ArgumentSet| (argument_set.player.to_string(), Vec::new());
    let specification_catalogue = |condition: &str, order_by: &str| {
        format!(
            "SELECT id, creator_id, name, description, thumbnail_url, difficulty, estimated_duration, min_players,
                max_players, status, published_at, is_valid, times_played, average_rating, created_at
            FROM adventures
            WHERE status = 'published' {condition}
            ORDER BY {order_by}
            LIMIT 21"
        )
    };
    let no_filter = CatalogueFilter::default();
    for (name, order, order_by) in [
        ("catalogue, newest", CatalogueOrder::Newest, "published_at DESC"),
        ("catalogue, most played", CatalogueOrder::MostPlayed, "times_played DESC"),
        ("catalogue, best rated", CatalogueOrder::BestRated, "average_rating DESC NULLS LAST"),
    ] {
        caller.adventures().catalogue(&no_filter, order, None).await?;
        let ours = capture.last_new_statement().await?;
        reads.add(name, Role::Authenticated, &specification_catalogue("", order_by), no_values, &ours, no_values);
    }

    let mut page = caller.adventures().catalogue(&no_filter, CatalogueOrder::BestRated, None).await?;
    // Reads up to 18 more pages; the cursor after the nineteenth page leads to the twentieth.
    for _ in 0..18 {
        let Some(cursor) = page.next.take() else { break };
        let next_page = caller.adventures().catalogue(&no_filter, CatalogueOrder::BestRated, Some(&cursor)).await?;
        // Adventures without a rating come last, and `cursor_values` (below) needs a rating. In a small catalogue, this
        // loop therefore ends before the nineteenth page, and an earlier page is measured instead of the twentieth.
        if next_page.items.last().is_none_or(|last| last.average_rating.is_none()) {
            break;
        }
        page = next_page;
    }
    let last_adventure = page.items.last().ok_or(Failure::Message("the catalogue is empty".into()))?.clone();
    let ours = capture.last_new_statement().await?;
    // If the page ends with an adventure without a rating, it is the first: the loop stores no later page that does.
    let rating = last_adventure
        .average_rating
        .map(quote_literal)
        .ok_or(Failure::Message("the first page of the catalogue ends with an adventure without a rating".into()))?;
    let cursor_values = vec![rating, quote_literal(last_adventure.id)];
    let after_cursor = move |argument_set: &ArgumentSet| (argument_set.player.to_string(), cursor_values.clone());
    // The specification's clients skip 19 pages of twenty adventures.
    let sql = format!("{} OFFSET 380", specification_catalogue("", "average_rating DESC NULLS LAST"));
    reads.add("catalogue, best rated, twentieth page", Role::Authenticated, &sql, no_values, &ours, after_cursor);

    let filter = CatalogueFilter { search: Some("Lighthouse".to_owned()), ..Default::default() };
    caller.adventures().catalogue(&filter, CatalogueOrder::Newest, None).await?;
    let ours = capture.last_new_statement().await?;
    let sql = specification_catalogue("AND (name ILIKE $1 OR description ILIKE $1)", "published_at DESC");
    for (name, pattern) in [("catalogue, search", "%Lighthouse%"), ("catalogue, search without a hit", "%Nowhere%")] {
        let with_pattern =
            move |argument_set: &ArgumentSet| (argument_set.player.to_string(), vec![quote_literal(pattern)]);
        reads.add(name, Role::Authenticated, &sql, with_pattern, &ours, with_pattern);
    }
    Ok(())
}
