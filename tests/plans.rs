//! Plans of the most frequent statements, exactly as the crate `service` sends them, on tables of thousands of rows and
//! in the caller's role. Each statement is explained with a custom and with a generic plan, and with outdated and with
//! current statistics.

use std::future::Future;

use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, Statement, TransactionTrait};
use serde_json::Value;
use sparc::{
    entity::sea_orm_active_enums::{DifficultyLevel, RollType},
    service::{
        Cursor, Error, IdentityConnection, Operations, Page,
        adventures::{CatalogueFilter, CatalogueOrder},
        dice::{HistoryFilter, RollScope},
        sessions::LobbyFilter,
    },
};
use testdb::prepared_statements;
use uuid::Uuid;

use crate::world::World;

/// Fills the tables: 4,000 users with a character each, 3,000 adventures, 20,000 waiting sessions with two events each,
/// and 20,000 ended sessions with two rolls each. Each session has two rows in `session_players`. Of the first 5,000
/// waiting sessions, which begin soonest or have no scheduled start, four in five are full. One of the ended sessions
/// has 5,000 more rolls and 5,000 events. Thousands of sessions begin at the same moment, and more than a thousand
/// adventures have equal keys in each order of the catalogue. Most rows do not concern the user whose statements are
/// explained.
///
/// `{operator}` stands for `=`, which inserts every fiftieth row, or `<>`, which inserts the others.
const FILL_TABLES: &str = "SET LOCAL session_replication_role = replica;
    INSERT INTO auth.users (id, email) SELECT md5('u' || i)::uuid, i || '@x.org' FROM generate_series(0, 3999) AS i WHERE i % 50 {operator} 0;
    INSERT INTO users (id, email, display_name)
    SELECT md5('u' || i)::uuid, i || '@x.org', 'Player ' || i FROM generate_series(0, 3999) AS i WHERE i % 50 {operator} 0;
    INSERT INTO private.account_gates (account_id)
    SELECT md5('u' || i)::uuid FROM generate_series(0, 3999) AS i WHERE i % 50 {operator} 0;
    INSERT INTO characters (id, user_id, name, class, might, grace, wit, heart, special_ability)
    SELECT md5('c' || i)::uuid, md5('u' || i)::uuid, 'Hero ' || i, 'rogue', 2, 5, 3, 2, '{}' FROM generate_series(0, 3999) AS i WHERE i % 50 {operator} 0;
    INSERT INTO adventures (id, creator_id, name, status, is_valid, published_at, times_played, average_rating, difficulty,
      estimated_duration)
    SELECT md5('a' || i)::uuid, md5('u' || i)::uuid, 'The mill of ' || i, 'published', true,
      now() - i / 1500 * INTERVAL '1 day', i / 1500, 5 - i / 1500, (enum_range(NULL::difficulty_level))[1 + i % 3],
      30 + i % 7 * 30
    FROM generate_series(0, 2999) AS i WHERE i % 50 {operator} 0;
    INSERT INTO sessions (id, seer_id, adventure_id, code, is_public, status, max_players, seats_taken, scheduled_start,
      started_at, ended_at, created_at)
    SELECT md5('s' || i)::uuid, md5('u' || i % 4000)::uuid, md5('a' || i % 3000)::uuid,
      translate(lpad(i::text, 6, '0'), '01', 'XY'), i % 10 < 9,
      (CASE WHEN i < 20000 THEN 'waiting' ELSE 'completed' END)::session_status, 4,
      CASE WHEN i < 5000 AND i % 5 > 0 THEN 4 ELSE 2 END, CASE WHEN i % 10 > 0 THEN now() + i / 2500 * INTERVAL '1 day' END,
      CASE WHEN i >= 20000 THEN now() - i * INTERVAL '1 minute' END,
      CASE WHEN i >= 20000 THEN now() - i * INTERVAL '1 minute' END, now() - i * INTERVAL '1 second'
    FROM generate_series(0, 39999) AS i WHERE i % 50 {operator} 0;
    INSERT INTO session_players (session_id, user_id, character_id)
    SELECT md5('s' || i)::uuid, md5('u' || (i + seat) % 4000)::uuid, md5('c' || (i + seat) % 4000)::uuid
    FROM generate_series(0, 39999) AS i, generate_series(1, 2) AS seat WHERE i % 50 {operator} 0;
    INSERT INTO dice_rolls (id, session_id, character_id, character_name, attribute, dice_count, difficulty, roll_type,
      results, total, modified_total, success, outcome, margin, created_at)
    SELECT md5('r' || i)::uuid, md5('s' || i / 2)::uuid, md5('c' || (i / 2 + 1 + i % 2) % 4000)::uuid, 'Hero', 'might', 2, 5,
      'attack', '{2,3}', 5, 5, true, 'success', 0, now() - i * INTERVAL '1 second'
    FROM generate_series(40000, 79999) AS i WHERE i % 50 {operator} 0;
    INSERT INTO dice_rolls (session_id, character_id, character_name, attribute, dice_count, difficulty, roll_type, results,
      total, modified_total, success, outcome, margin, created_at)
    SELECT md5('s20006')::uuid, md5('c8')::uuid, 'Hero', 'might', 2, 5,
      (CASE i % 9 WHEN 0 THEN 'attack' ELSE 'damage' END)::roll_type, '{2,3}', 5, 5, true, 'success', 0, now() - i * INTERVAL '1 second'
    FROM generate_series(1, 5000) AS i WHERE i % 50 {operator} 0;
    INSERT INTO session_events (session_id, event_type) OVERRIDING USER VALUE
    SELECT md5('s20006')::uuid, 'dice_rolled' FROM generate_series(1, 5000) AS i WHERE i % 50 {operator} 0;
    INSERT INTO session_events (session_id, event_type) OVERRIDING USER VALUE
    SELECT md5('s' || i)::uuid, 'dice_rolled' FROM generate_series(0, 19999) AS i, generate_series(1, 2) WHERE i % 50 {operator} 0";

/// The tables that no plan may scan sequentially.
const LARGE_TABLES: [&str; 7] =
    ["users", "characters", "adventures", "sessions", "session_players", "dice_rolls", "session_events"];

/// Explains the statements that the crate `service` has prepared on one connection.
struct Explainer {
    /// A pool of that one connection.
    db: DatabaseConnection,
    /// The user who sends the statements.
    user_id: Uuid,
    /// How many statements were prepared before the operation that is explained next.
    known_statement_count: usize,
    /// The setting `random_page_cost` for the plans.
    random_page_cost: &'static str,
}

/// The `random_page_cost` of an SSD. With the cost for a spinning disk, the planner would prefer sequential scans,
/// because the tables of a test are small.
const SSD_PAGE_COST: &str = "1.1";
/// A `random_page_cost` so high that on these small tables the planner prefers a full sort to any index scan, as it
/// does on large tables with PostgreSQL's default of 4.
const HIGH_PAGE_COST: &str = "40";

impl Explainer {
    /// Awaits `call`, the call of an operation, and checks the custom and the generic plan of the last statement that
    /// the operation prepared (apart from statements that change only the role). `values` are SQL literals for the
    /// statement's parameters. `label` names the statement in panic messages. Panics if a plan reads more than
    /// `max_rows` rows, has a sort that returns more, or scans one of [`LARGE_TABLES`] sequentially.
    async fn run_and_check_plans<'a, T, F>(&mut self, label: &str, max_rows: u64, values: &[&str], call: F) -> T
    where
        F: Future<Output = Result<T, Error>> + 'a,
    {
        let answer = call.await.unwrap();
        let mut all_statements = prepared_statements(&self.db).await.unwrap();
        let new_statements = all_statements.split_off(self.known_statement_count);
        self.known_statement_count += new_statements.len();
        let statement =
            new_statements.iter().rfind(|statement| !statement.changes_only_role()).expect("a new statement");
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let (plan, rows_read_in_three_tables) =
                self.explain_analyze(&statement.prepare_sql("explained"), mode, values).await;
            let mut rows_read_by_scans = 0;
            check_nodes_and_sum_rows(&plan, label, mode, max_rows, &mut rows_read_by_scans);
            assert!(rows_read_by_scans <= max_rows, "{label}, {mode}: {rows_read_by_scans} rows are read\n{plan:#}");
            // `rows_read_in_three_tables` also includes rows that the planner itself reads: it sometimes looks up the
            // first or last entry of an index. So ten more rows are allowed.
            assert!(
                rows_read_in_three_tables <= max_rows as i64 + 10,
                "{label}, {mode}: {rows_read_in_three_tables} rows are read, including those read in functions\n{plan:#}"
            );
        }
        answer
    }

    /// Executes the statement that `prepare_sql` prepares under the name `explained`. Returns its plan, and how many
    /// rows were read according to [`count_rows_read_in_three_tables`]. That number includes the rows that functions
    /// read, which a plan does not show.
    async fn explain_analyze(&self, prepare_sql: &str, mode: &str, values: &[&str]) -> (Value, i64) {
        let transaction = self.db.begin().await.unwrap();
        let claims = format!("{{\"role\": \"authenticated\", \"sub\": \"{}\"}}", self.user_id);
        let prepare_and_set_identity_sql =
            format!("{prepare_sql}; SET LOCAL ROLE authenticated; SET LOCAL request.jwt.claims = '{claims}'");
        transaction.execute_unprepared(&prepare_and_set_identity_sql).await.unwrap();
        let cost = self.random_page_cost;
        let set_planner_sql = format!("SET LOCAL plan_cache_mode = {mode}; SET LOCAL random_page_cost = {cost}");
        transaction.execute_unprepared(&set_planner_sql).await.unwrap();
        let values = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
        let rows_before = count_rows_read_in_three_tables(&transaction).await;
        let explain_sql = format!("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE explained{values}");
        let row = transaction.query_one_raw(Statement::from_string(DbBackend::Postgres, explain_sql)).await;
        let plan: Value = row.unwrap().unwrap().try_get_by_index(0).unwrap();
        transaction.execute_unprepared("DEALLOCATE explained").await.unwrap();
        let rows_after = count_rows_read_in_three_tables(&transaction).await;
        transaction.rollback().await.unwrap();
        (plan[0]["Plan"].clone(), rows_after - rows_before)
    }
}

/// Returns how many rows of adventures, rolls and events the transaction has read so far, including those read in
/// functions.
async fn count_rows_read_in_three_tables(transaction: &DatabaseTransaction) -> i64 {
    let sql = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint FROM pg_stat_xact_user_tables
        WHERE relname IN ('adventures', 'dice_rolls', 'session_events')";
    let row = transaction.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await;
    row.unwrap().unwrap().try_get_by_index(0).unwrap()
}

/// Adds to `rows_read` how many rows the scans of a plan read, including those that they discard. Panics on a
/// sequential scan of one of [`LARGE_TABLES`] and on a sort that returns more than `max_rows` rows.
fn check_nodes_and_sum_rows(node: &Value, label: &str, mode: &str, max_rows: u64, rows_read: &mut u64) {
    let number = |name: &str| node[name].as_f64().unwrap_or_default();
    let node_type = node["Node Type"].as_str().unwrap_or_default();
    let loops = number("Actual Loops");
    if let Some(table) = node["Relation Name"].as_str() {
        assert!(
            node_type != "Seq Scan" || !LARGE_TABLES.contains(&table),
            "{label}, {mode}: sequential scan of {table}\n{node:#}"
        );
        let rows = number("Actual Rows") + number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
        *rows_read += (rows * loops) as u64;
    }
    if node_type.contains("Sort") {
        let rows = number("Actual Rows") * loops;
        assert!(rows <= max_rows as f64, "{label}, {mode}: a sort returns {rows} rows\n{node:#}");
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        check_nodes_and_sum_rows(child, label, mode, max_rows, rows_read);
    }
}

fn quoted(value: impl std::fmt::Display) -> String {
    format!("'{value}'")
}

#[tokio::test]
async fn frequent_statements_read_few_rows_with_outdated_and_with_current_statistics() {
    let world = World::new().await;
    let (owner, superuser) = (world.owner(), world.superuser().await);
    // The first statistics are collected when only a fiftieth of the rows exists, so they are outdated afterwards.
    superuser.execute(&FILL_TABLES.replace("{operator}", "=")).await.unwrap();
    owner.execute("ANALYZE").await.unwrap();
    superuser.execute(&FILL_TABLES.replace("{operator}", "<>")).await.unwrap();
    let user_id: Uuid = owner.fetch_value("SELECT md5('u7')::uuid").await.unwrap();
    for statistics in ["outdated statistics", "current statistics"] {
        // Each pass needs a new connection: on an old one, the driver would reuse the statements that it has prepared,
        // and the explainer would find no new statement.
        let single_connection_world = world.with_single_connection().await;
        let db = single_connection_world.pool.clone();
        let mut explainer = Explainer { db, user_id, known_statement_count: 0, random_page_cost: SSD_PAGE_COST };
        let ada = single_connection_world.sparc.as_user(user_id);
        // This connection reads the pages whose statements are not explained.
        let other_connection = world.sparc.as_user(user_id);
        check_lobby(&mut explainer, &ada, &other_connection, statistics).await;
        check_statements_during_play(&mut explainer, &ada, statistics).await;
        check_catalogue(&mut explainer, &ada, &other_connection, statistics).await;
        owner.execute("ANALYZE").await.unwrap();
    }
}

/// Returns the last row of the page with this number, counted from 1, and the cursor after that row. Callers choose the
/// number so that the next page begins with rows that equal that row in the first column of the sort order.
async fn end_of_page<T>(
    page_number: u32,
    fetch: impl AsyncFn(Option<Cursor>) -> Result<Page<T>, Error>,
) -> (T, Cursor) {
    let mut page = fetch(None).await.unwrap();
    for _ in 1..page_number {
        page = fetch(page.next).await.unwrap();
    }
    (page.items.pop().unwrap(), page.next.unwrap())
}

async fn check_lobby(
    explainer: &mut Explainer,
    ada: &IdentityConnection,
    other_connection: &IdentityConnection,
    statistics: &str,
) {
    // The statement fetches the twenty rows of a page and one more, each with its Seer and its adventure.
    let rows_read_per_page = 3 * 21;
    let no_filter = LobbyFilter::default();
    // A second scan, of the sessions without a scheduled start, reads one row before the page is full.
    explainer
        .run_and_check_plans(
            &format!("lobby, {statistics}"),
            rows_read_per_page + 1,
            &[],
            ada.sessions().lobby(&no_filter, None),
        )
        .await;
    let (last_session, cursor) =
        end_of_page(8, async |after| other_connection.sessions().lobby(&no_filter, after.as_ref()).await).await;
    let cursor_values =
        [quoted(last_session.created_at), quoted(last_session.id), quoted(last_session.scheduled_start.unwrap())];
    let cursor_values: Vec<&str> = cursor_values.iter().map(String::as_str).collect();
    // There is one scan of the sessions with the same scheduled start as the cursor, one of those with a later start,
    // and one of those without a scheduled start. Each scan may read up to a page.
    let ninth_page_call = ada.sessions().lobby(&no_filter, Some(&cursor));
    explainer
        .run_and_check_plans(
            &format!("lobby, ninth page, {statistics}"),
            rows_read_per_page + 2 * 21,
            &cursor_values,
            ninth_page_call,
        )
        .await;
    // One adventure in three is hard, so about three times as many rows are read. Twice that many are allowed.
    let hard_only = LobbyFilter { difficulty: Some(DifficultyLevel::Hard), ..Default::default() };
    explainer
        .run_and_check_plans(
            &format!("lobby, one in three, {statistics}"),
            6 * rows_read_per_page,
            &["'hard'"],
            ada.sessions().lobby(&hard_only, None),
        )
        .await;
    let no_match = LobbyFilter { search: Some("nowhere".to_owned()), ..Default::default() };
    let empty_page_call = ada.sessions().lobby(&no_match, None);
    // A filtered page scans at most a thousand sessions, each with its Seer and its adventure, and the same sessions
    // once more to find the end of the scan. Each of the two scans also reads one session without a scheduled start.
    explainer
        .run_and_check_plans(&format!("lobby, no match, {statistics}"), 4 * 1000 + 2, &["'%nowhere%'"], empty_page_call)
        .await;
    let one_seer_only = LobbyFilter { seer_id: Some(explainer.user_id), ..Default::default() };
    let quoted_user_id = quoted(explainer.user_id);
    explainer
        .run_and_check_plans(
            &format!("lobby, of a Seer, {statistics}"),
            rows_read_per_page,
            &[&quoted_user_id],
            ada.sessions().lobby(&one_seer_only, None),
        )
        .await;
}

/// Checks the statements that clients send during play: rolls, events, own sessions, details and a profile.
async fn check_statements_during_play(explainer: &mut Explainer, ada: &IdentityConnection, statistics: &str) {
    // This session has thousands of rolls and events. The caller (user 7) has one of its two seats, and user 8 has the
    // other, with character 8. A page has fifty rolls, and the statement fetches one more.
    let (session_id, other_character_id) =
        (md5_uuid(&explainer.db, "s20006").await, md5_uuid(&explainer.db, "c8").await);
    let no_filter = HistoryFilter::default();
    let values = [&quoted(session_id), "51"];
    let session_rolls_call = ada.dice().history(RollScope::Session(session_id), &no_filter, None);
    explainer.run_and_check_plans(&format!("a session's rolls, {statistics}"), 51, &values, session_rolls_call).await;
    let attacks_only = HistoryFilter { kind: Some(RollType::Attack), ..Default::default() };
    // One roll in nine matches. Comparing enums is not leakproof, so with row-level security no index can find the
    // matching rolls: the session's rolls are scanned until the page is full.
    let values = [&quoted(session_id), "'attack'", "51"];
    let attacks_call = ada.dice().history(RollScope::Session(session_id), &attacks_only, None);
    explainer.run_and_check_plans(&format!("a session's attacks, {statistics}"), 9 * 51, &values, attacks_call).await;
    // This character belongs to another participant and has thousands of rolls in a session that the caller is in. The
    // parameters that are NULL belong to filters that are not set.
    let values = [&quoted(other_character_id), "NULL", "NULL", "NULL", "NULL", "NULL", "51"];
    let character_rolls_call = ada.dice().history(RollScope::Character(other_character_id), &no_filter, None);
    explainer
        .run_and_check_plans(&format!("a character's rolls, {statistics}"), 51, &values, character_rolls_call)
        .await;
    // A page has 200 events.
    let events_call = ada.events().after(session_id, 0);
    explainer
        .run_and_check_plans(&format!("events, {statistics}"), 200, &[&quoted(session_id), "0", "200"], events_call)
        .await;
    let newest_seq_call = ada.events().newest_seq(session_id);
    explainer
        .run_and_check_plans(
            &format!("the newest event, {statistics}"),
            1,
            &[&quoted(session_id), "1"],
            newest_seq_call,
        )
        .await;
    // The caller takes part in thirty sessions, live and ended. The plan may read each of them, with its Seer, its
    // adventure and the caller's seat.
    let quoted_user_id = quoted(explainer.user_id);
    let own_sessions_call = ada.sessions().my_live(None);
    explainer
        .run_and_check_plans(&format!("own sessions, {statistics}"), 4 * 30, &[&quoted_user_id], own_sessions_call)
        .await;
    // A function collects the details, and the plan does not show what the function reads. Outside of the function, the
    // statement looks up only the Seer.
    let details_call = ada.sessions().details(session_id);
    explainer.run_and_check_plans(&format!("details, {statistics}"), 1, &[&quoted(session_id)], details_call).await;
    explainer
        .run_and_check_plans(
            &format!("a profile, {statistics}"),
            1,
            &[&quoted_user_id, "1"],
            ada.users().profile(explainer.user_id),
        )
        .await;
}

async fn check_catalogue(
    explainer: &mut Explainer,
    ada: &IdentityConnection,
    other_connection: &IdentityConnection,
    statistics: &str,
) {
    let no_filter = CatalogueFilter::default();
    for order in [CatalogueOrder::Newest, CatalogueOrder::MostPlayed, CatalogueOrder::BestRated] {
        let label = format!("catalogue, {order:?}, {statistics}");
        // The statement fetches the twenty adventures of a page and one more.
        explainer.run_and_check_plans(&label, 21, &[], ada.adventures().catalogue(&no_filter, order, None)).await;
        let fetch_page = async |after: Option<Cursor>| {
            other_connection.adventures().catalogue(&no_filter, order, after.as_ref()).await
        };
        let (last_adventure, cursor) = end_of_page(30, fetch_page).await;
        let sort_key = match order {
            CatalogueOrder::MostPlayed => last_adventure.times_played.to_string(),
            CatalogueOrder::BestRated => quoted(last_adventure.average_rating.unwrap()),
            _ => quoted(last_adventure.published_at.unwrap()),
        };
        let page_31_call = ada.adventures().catalogue(&no_filter, order, Some(&cursor));
        let values = [sort_key.as_str(), &quoted(last_adventure.id)];
        // For the best rated adventures, a function first finds the ids, and the rows are then looked up by id.
        explainer.run_and_check_plans(&format!("{label}, page 31"), 2 * 21, &values, page_31_call).await;
        // A filtered page is read by a function that disables sorting, so it scans an index even at a high page cost.
        // One adventure in three is hard, so a single scan of a hundred rows fills the page.
        explainer.random_page_cost = HIGH_PAGE_COST;
        let hard_only = CatalogueFilter { difficulty: Some(DifficultyLevel::Hard), ..Default::default() };
        explainer
            .run_and_check_plans(
                &format!("{label}, hard"),
                100,
                &["'hard'"],
                ada.adventures().catalogue(&hard_only, order, None),
            )
            .await;
        let no_match = CatalogueFilter { search: Some("nowhere".to_owned()), ..Default::default() };
        let empty_page_call = ada.adventures().catalogue(&no_match, order, None);
        // No row matches, so the scan of a hundred rows is followed by a scan of a thousand.
        explainer.run_and_check_plans(&format!("{label}, no match"), 1100, &["'%nowhere%'"], empty_page_call).await;
        explainer.random_page_cost = SSD_PAGE_COST;
    }
}

async fn md5_uuid(db: &DatabaseConnection, text: &str) -> Uuid {
    let sql = format!("SELECT md5('{text}')::uuid");
    let row = db.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await;
    row.unwrap().unwrap().try_get_by_index(0).unwrap()
}
