//! Plans of the most frequent statements, as the service sends them, on large tables and as the caller's role: with
//! custom and with generic plans, with outdated and with current statistics.

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

/// Fills the tables, mostly with other users' rows: 4,000 users, 20,000 waiting sessions (of the soonest 5,000, four in
/// five are full) and 20,000 that have ended, two seats each, a few rolls and events, and one session with thousands.
/// Thousands begin at the same moment, and adventures come in groups of a thousand with equal keys in each order of the
/// catalogue.
const FILL: &str = "SET LOCAL session_replication_role = replica;
    INSERT INTO auth.users (id, email) SELECT md5('u' || i)::uuid, i || '@x.org' FROM generate_series(0, 3999) AS i WHERE i % 50 {part} 0;
    INSERT INTO users (id, email, display_name)
    SELECT md5('u' || i)::uuid, i || '@x.org', 'Player ' || i FROM generate_series(0, 3999) AS i WHERE i % 50 {part} 0;
    INSERT INTO private.account_gates (account_id)
    SELECT md5('u' || i)::uuid FROM generate_series(0, 3999) AS i WHERE i % 50 {part} 0;
    INSERT INTO characters (id, user_id, name, class, might, grace, wit, heart, special_ability)
    SELECT md5('c' || i)::uuid, md5('u' || i)::uuid, 'Hero ' || i, 'rogue', 2, 5, 3, 2, '{}' FROM generate_series(0, 3999) AS i WHERE i % 50 {part} 0;
    INSERT INTO adventures (id, creator_id, name, status, is_valid, published_at, times_played, average_rating, difficulty,
      estimated_duration)
    SELECT md5('a' || i)::uuid, md5('u' || i)::uuid, 'The mill of ' || i, 'published', true,
      now() - i / 1500 * INTERVAL '1 day', i / 1500, 5 - i / 1500, (enum_range(NULL::difficulty_level))[1 + i % 3],
      30 + i % 7 * 30
    FROM generate_series(0, 2999) AS i WHERE i % 50 {part} 0;
    INSERT INTO sessions (id, seer_id, adventure_id, code, is_public, status, max_players, seats_taken, scheduled_start,
      ended_at, created_at)
    SELECT md5('s' || i)::uuid, md5('u' || i % 4000)::uuid, md5('a' || i % 3000)::uuid,
      translate(lpad(i::text, 6, '0'), '01', 'XY'), i % 10 < 9,
      (CASE WHEN i < 20000 THEN 'waiting' ELSE 'completed' END)::session_status, 4,
      CASE WHEN i < 5000 AND i % 5 > 0 THEN 4 ELSE 2 END, CASE WHEN i % 10 > 0 THEN now() + i / 2500 * INTERVAL '1 day' END,
      CASE WHEN i >= 20000 THEN now() - i * INTERVAL '1 minute' END, now() - i * INTERVAL '1 second'
    FROM generate_series(0, 39999) AS i WHERE i % 50 {part} 0;
    INSERT INTO session_players (session_id, user_id, character_id)
    SELECT md5('s' || i)::uuid, md5('u' || (i + seat) % 4000)::uuid, md5('c' || (i + seat) % 4000)::uuid
    FROM generate_series(0, 39999) AS i, generate_series(1, 2) AS seat WHERE i % 50 {part} 0;
    INSERT INTO dice_rolls (id, session_id, character_id, character_name, attribute, dice_count, difficulty, roll_type,
      results, total, modified_total, success, outcome, margin, created_at)
    SELECT md5('r' || i)::uuid, md5('s' || i / 2)::uuid, md5('c' || (i / 2 + 1 + i % 2) % 4000)::uuid, 'Hero', 'might', 2, 5,
      'attack', '{2,3}', 5, 5, true, 'success', 0, now() - i * INTERVAL '1 second'
    FROM generate_series(40000, 79999) AS i WHERE i % 50 {part} 0;
    INSERT INTO dice_rolls (session_id, character_id, character_name, attribute, dice_count, difficulty, roll_type, results,
      total, modified_total, success, outcome, margin, created_at)
    SELECT md5('s20006')::uuid, md5('c8')::uuid, 'Hero', 'might', 2, 5,
      (CASE i % 9 WHEN 0 THEN 'attack' ELSE 'damage' END)::roll_type, '{2,3}', 5, 5, true, 'success', 0, now() - i * INTERVAL '1 second'
    FROM generate_series(1, 5000) AS i WHERE i % 50 {part} 0;
    INSERT INTO session_events (session_id, event_type) OVERRIDING USER VALUE
    SELECT md5('s20006')::uuid, 'dice_rolled' FROM generate_series(1, 5000) AS i WHERE i % 50 {part} 0;
    INSERT INTO session_events (session_id, event_type) OVERRIDING USER VALUE
    SELECT md5('s' || i)::uuid, 'dice_rolled' FROM generate_series(0, 19999) AS i, generate_series(1, 2) WHERE i % 50 {part} 0";

/// The tables that grow with use.
const BIG: [&str; 7] =
    ["users", "characters", "adventures", "sessions", "session_players", "dice_rolls", "session_events"];

/// Explains the statements that the service has prepared on one connection.
struct Explainer {
    db: DatabaseConnection,
    user: Uuid,
    known: usize,
    random_page_cost: &'static str,
}

/// `random_page_cost` for an SSD. With the cost for a spinning disk, the planner would scan tables as small as a
/// test's.
const SSD_PAGE_COST: &str = "1.1";
/// A `random_page_cost` so high that on these small tables the planner prefers a full sort to any index scan, as it
/// does on large tables with PostgreSQL's default of 4.
const HIGH_PAGE_COST: &str = "40";

impl Explainer {
    /// Runs an operation and explains its statement; no plan may read more than `most` rows of [`BIG`] tables.
    async fn explain<'a, T, F>(&mut self, what: &str, most: u64, values: &[&str], operation: F) -> T
    where
        F: Future<Output = Result<T, Error>> + 'a,
    {
        let answer = operation.await.unwrap();
        let mut all = prepared_statements(&self.db).await.unwrap();
        let new = all.split_off(self.known);
        self.known += new.len();
        let statement = new.iter().rfind(|statement| !statement.sets_identity()).expect("a new statement");
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let (plan, fetched) = self.plan(&statement.prepare_statement("hot"), mode, values).await;
            let mut read = 0;
            walk(&plan, what, mode, most, &mut read);
            assert!(read <= most, "{what}, {mode}: {read} rows are read\n{plan:#}");
            // The planner itself reads the ends of an index.
            assert!(fetched <= most as i64 + 10, "{what}, {mode}: {fetched} rows are read, by functions too\n{plan:#}");
        }
        answer
    }

    /// Returns the plan, and how many rows of the long lists were read, including by functions, which plans do not
    /// show.
    async fn plan(&self, prepare: &str, mode: &str, values: &[&str]) -> (Value, i64) {
        let transaction = self.db.begin().await.unwrap();
        let claims = format!("{{\"role\": \"authenticated\", \"sub\": \"{}\"}}", self.user);
        let wear = format!("{prepare}; SET LOCAL ROLE authenticated; SET LOCAL request.jwt.claims = '{claims}'");
        transaction.execute_unprepared(&wear).await.unwrap();
        let cost = self.random_page_cost;
        let host = format!("SET LOCAL plan_cache_mode = {mode}; SET LOCAL random_page_cost = {cost}");
        transaction.execute_unprepared(&host).await.unwrap();
        let values = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
        let before = fetched(&transaction).await;
        let explain = format!("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE hot{values}");
        let row = transaction.query_one_raw(Statement::from_string(DbBackend::Postgres, explain)).await;
        let plan: Value = row.unwrap().unwrap().try_get_by_index(0).unwrap();
        transaction.execute_unprepared("DEALLOCATE hot").await.unwrap();
        let after = fetched(&transaction).await;
        transaction.rollback().await.unwrap();
        (plan[0]["Plan"].clone(), after - before)
    }
}

async fn fetched(transaction: &DatabaseTransaction) -> i64 {
    let sql = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint FROM pg_stat_xact_user_tables
        WHERE relname IN ('adventures', 'dice_rolls', 'session_events')";
    let row = transaction.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await;
    row.unwrap().unwrap().try_get_by_index(0).unwrap()
}

/// Counts the rows that scans read; fails on a sequential scan of a [`BIG`] table and on a sort of more than `most`
/// rows.
fn walk(node: &Value, what: &str, mode: &str, most: u64, read: &mut u64) {
    let number = |name: &str| node[name].as_f64().unwrap_or_default();
    let kind = node["Node Type"].as_str().unwrap_or_default();
    let loops = number("Actual Loops");
    if let Some(table) = node["Relation Name"].as_str() {
        assert!(kind != "Seq Scan" || !BIG.contains(&table), "{what}, {mode}: sequential scan of {table}\n{node:#}");
        let rows = number("Actual Rows") + number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
        *read += (rows * loops) as u64;
    }
    if kind.contains("Sort") {
        let rows = number("Actual Rows") * loops;
        assert!(rows <= most as f64, "{what}, {mode}: {rows} rows are sorted\n{node:#}");
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        walk(child, what, mode, most, read);
    }
}

fn quoted(value: impl std::fmt::Display) -> String {
    format!("'{value}'")
}

#[tokio::test]
async fn frequent_statements_read_little_more_than_they_return_whatever_the_statistics() {
    let world = World::new().await;
    let (owner, administrator) = (world.owner(), world.administrator().await);
    // Statistics from when a fiftieth of the rows existed, then current ones.
    administrator.exec(&FILL.replace("{part}", "=")).await.unwrap();
    owner.exec("ANALYZE").await.unwrap();
    administrator.exec(&FILL.replace("{part}", "<>")).await.unwrap();
    let user: Uuid = owner.value("SELECT md5('u7')::uuid").await.unwrap();
    for moment in ["before ANALYZE", "after it"] {
        // A separate connection each time, because the driver caches prepared statements.
        let (alone, db) = world.single_connection().await;
        let mut explainer = Explainer { db, user, known: 0, random_page_cost: SSD_PAGE_COST };
        let ada = alone.sparc.as_user(user);
        let scout = world.sparc.as_user(user);
        lobby(&mut explainer, &ada, &scout, moment).await;
        session_lists(&mut explainer, &ada, moment).await;
        catalogue(&mut explainer, &ada, &scout, moment).await;
        owner.exec("ANALYZE").await.unwrap();
    }
}

/// Returns the last row of page number `pages` and the cursor after it, among rows with equal sort keys.
async fn nth_page<T>(pages: u32, page: impl AsyncFn(Option<Cursor>) -> Result<Page<T>, Error>) -> (T, Cursor) {
    let mut there = page(None).await.unwrap();
    for _ in 1..pages {
        there = page(there.next).await.unwrap();
    }
    (there.items.pop().unwrap(), there.next.unwrap())
}

async fn lobby(explainer: &mut Explainer, ada: &IdentityConnection, scout: &IdentityConnection, moment: &str) {
    // A page and one more row, each with its Seer and its adventure.
    let page = 3 * 21;
    let all = LobbyFilter::default();
    // The scan of undated sessions also begins: one row.
    explainer.explain(&format!("lobby, {moment}"), page + 1, &[], ada.sessions().lobby(&all, None)).await;
    let (last, next) = nth_page(8, async |after| scout.sessions().lobby(&all, after.as_ref()).await).await;
    let key = [quoted(last.created_at), quoted(last.id), quoted(last.scheduled_start.unwrap())];
    let key: Vec<&str> = key.iter().map(String::as_str).collect();
    // Sessions with the same start, later ones and undated ones: up to a page of each may be scanned.
    let ninth = ada.sessions().lobby(&all, Some(&next));
    explainer.explain(&format!("lobby, ninth page, {moment}"), page + 2 * 21, &key, ninth).await;
    let hard = LobbyFilter { difficulty: Some(DifficultyLevel::Hard), ..Default::default() };
    explainer
        .explain(&format!("lobby, one in three, {moment}"), 6 * page, &["'hard'"], ada.sessions().lobby(&hard, None))
        .await;
    let nowhere = LobbyFilter { search: Some("nowhere".to_owned()), ..Default::default() };
    let missed = ada.sessions().lobby(&nowhere, None);
    explainer.explain(&format!("lobby, without a hit, {moment}"), 4 * 1000 + 2, &["'%nowhere%'"], missed).await;
    let seer = LobbyFilter { seer_id: Some(explainer.user), ..Default::default() };
    let user = quoted(explainer.user);
    explainer.explain(&format!("lobby, of a Seer, {moment}"), page, &[&user], ada.sessions().lobby(&seer, None)).await;
}

async fn session_lists(explainer: &mut Explainer, ada: &IdentityConnection, moment: &str) {
    let (session, mate) = (md5(&explainer.db, "s20006").await, md5(&explainer.db, "c8").await);
    let all = HistoryFilter::default();
    let rolls = || ada.dice().history(RollScope::Session(session), &all, None);
    explainer.explain(&format!("a session's rolls, {moment}"), 51, &[&quoted(session), "51"], rolls()).await;
    let kind = HistoryFilter { kind: Some(RollType::Attack), ..Default::default() };
    // One roll in nine matches. Comparing an enum is not leakproof, so the session's rolls are scanned until the page
    // is full.
    let values = [&quoted(session), "'attack'", "51"];
    let attacks = ada.dice().history(RollScope::Session(session), &kind, None);
    explainer.explain(&format!("a session's attacks, {moment}"), 9 * 51, &values, attacks).await;
    // Another participant's character with thousands of rolls, in the caller's own session.
    let values = [&quoted(mate), "NULL", "NULL", "NULL", "NULL", "NULL", "51"];
    let rolls = ada.dice().history(RollScope::Character(mate), &all, None);
    explainer.explain(&format!("a character's rolls, {moment}"), 51, &values, rolls).await;
    let events = ada.events().after(session, 0);
    explainer.explain(&format!("events, {moment}"), 200, &[&quoted(session), "0", "200"], events).await;
    let newest = ada.events().newest(session);
    explainer.explain(&format!("the newest event, {moment}"), 1, &[&quoted(session), "1"], newest).await;
    // Thirty sessions, each with its Seer, its adventure and the caller's seat.
    let user = quoted(explainer.user);
    explainer.explain(&format!("own sessions, {moment}"), 4 * 30, &[&user], ada.sessions().mine(None)).await;
    // The plan does not show what the function reads; outside it, only the Seer is looked up.
    let details = ada.sessions().details(session);
    explainer.explain(&format!("details, {moment}"), 1, &[&quoted(session)], details).await;
    explainer.explain(&format!("a profile, {moment}"), 1, &[&user, "1"], ada.users().profile(explainer.user)).await;
}

async fn catalogue(explainer: &mut Explainer, ada: &IdentityConnection, scout: &IdentityConnection, moment: &str) {
    let all = CatalogueFilter::default();
    for order in [CatalogueOrder::Newest, CatalogueOrder::MostPlayed, CatalogueOrder::BestRated] {
        let what = format!("catalogue, {order:?}, {moment}");
        explainer.explain(&what, 21, &[], ada.adventures().catalogue(&all, order, None)).await;
        let pages = async |after: Option<Cursor>| scout.adventures().catalogue(&all, order, after.as_ref()).await;
        let (last, next) = nth_page(30, pages).await;
        let place = match order {
            CatalogueOrder::MostPlayed => last.times_played.to_string(),
            CatalogueOrder::BestRated => quoted(last.average_rating.unwrap()),
            _ => quoted(last.published_at.unwrap()),
        };
        let next = ada.adventures().catalogue(&all, order, Some(&next));
        let values = [place.as_str(), &quoted(last.id)];
        // The best rated adventures are found by id first and then looked up.
        explainer.explain(&format!("{what}, page 31"), 2 * 21, &values, next).await;
        // A function forces the index scan, whatever the disk, and a single one even if the page does not fill.
        explainer.random_page_cost = HIGH_PAGE_COST;
        let hard = CatalogueFilter { difficulty: Some(DifficultyLevel::Hard), ..Default::default() };
        explainer
            .explain(&format!("{what}, hard"), 100, &["'hard'"], ada.adventures().catalogue(&hard, order, None))
            .await;
        let nowhere = CatalogueFilter { search: Some("nowhere".to_owned()), ..Default::default() };
        let missed = ada.adventures().catalogue(&nowhere, order, None);
        // A short scan, and the long one.
        explainer.explain(&format!("{what}, without a hit"), 1100, &["'%nowhere%'"], missed).await;
        explainer.random_page_cost = SSD_PAGE_COST;
    }
}

async fn md5(db: &DatabaseConnection, of: &str) -> Uuid {
    let sql = format!("SELECT md5('{of}')::uuid");
    let row = db.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await;
    row.unwrap().unwrap().try_get_by_index(0).unwrap()
}
