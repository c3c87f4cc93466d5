//! Plans of what is asked most, on full tables, as the role that asks: each statement is the one that the service sent.
//! With the values known and with one plan for all, before the statistics are made and after.

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
use testdb::prepared;
use uuid::Uuid;

use crate::world::World;

/// Thousands of everything, most of it other people's: 4,000 users, 20,000 sessions that wait (of the soonest 5,000 four in
/// five are full) and 20,000 that are over, two seats each, a few rolls and events, and one table with thousands. Thousands begin
/// at the same moment, and a thousand adventures at a time are equal in each order of the catalogue.
const FILL: &str = "SET LOCAL session_replication_role = replica;
    INSERT INTO auth.users (id, email) SELECT md5('u' || i)::uuid, i || '@x.org' FROM generate_series(0, 3999) AS i WHERE i % 50 {part} 0;
    INSERT INTO users (id, email, display_name)
    SELECT md5('u' || i)::uuid, i || '@x.org', 'Player ' || i FROM generate_series(0, 3999) AS i WHERE i % 50 {part} 0;
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

/// Tables that grow with the game.
const BIG: [&str; 7] =
    ["users", "characters", "adventures", "sessions", "session_players", "dice_rolls", "session_events"];

/// A statement of the service that is asked again.
struct Hot {
    db: DatabaseConnection,
    user: Uuid,
    known: usize,
    random_page_cost: &'static str,
}

/// As a host with a solid disk has it; the tables of a test fit in a few pages, which a spinning one would read whole.
const SOLID: &str = "1.1";
/// So dear that the planner prefers a sort of all to any walk: on these small tables, as PostgreSQL's own 4 on large ones.
const DEAR: &str = "40";

impl Hot {
    /// Asks the service, and then for the plans of what it sent; none may read more than so many rows of big tables.
    async fn ask<'a, T, F>(&mut self, what: &str, most: u64, values: &[&str], operation: F) -> T
    where
        F: Future<Output = Result<T, Error>> + 'a,
    {
        let answer = operation.await.unwrap();
        let mut all = prepared(&self.db).await.unwrap();
        let new = all.split_off(self.known);
        self.known += new.len();
        let statement = new.iter().rfind(|statement| !statement.is_identity()).expect("a new statement");
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let (plan, fetched) = self.plan(&statement.again("hot"), mode, values).await;
            let mut read = 0;
            walk(&plan, what, mode, most, &mut read);
            assert!(read <= most, "{what}, {mode}: {read} rows are read\n{plan:#}");
            // The planner looks at the ends of an index for itself.
            assert!(fetched <= most as i64 + 10, "{what}, {mode}: {fetched} rows are read, by functions too\n{plan:#}");
        }
        answer
    }

    /// The plan, and how many rows of the long lists were read, also by functions, into which no plan looks.
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

/// Counts the rows that scans look at, and stops at a scan of a whole big table and at a sort of more than is asked for.
fn walk(node: &Value, what: &str, mode: &str, most: u64, read: &mut u64) {
    let number = |name: &str| node[name].as_f64().unwrap_or_default();
    let kind = node["Node Type"].as_str().unwrap_or_default();
    let loops = number("Actual Loops");
    if let Some(table) = node["Relation Name"].as_str() {
        assert!(kind != "Seq Scan" || !BIG.contains(&table), "{what}, {mode}: {table} is read whole\n{node:#}");
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
async fn what_is_asked_most_reads_what_it_shows_whatever_the_statistics_say() {
    let world = World::new().await;
    let (owner, administrator) = (world.owner(), world.administrator().await);
    // Statistics of when there was a fiftieth, then what came since.
    administrator.exec(&FILL.replace("{part}", "=")).await.unwrap();
    owner.exec("ANALYZE").await.unwrap();
    administrator.exec(&FILL.replace("{part}", "<>")).await.unwrap();
    let user: Uuid = owner.value("SELECT md5('u7')::uuid").await.unwrap();
    for moment in ["before ANALYZE", "after it"] {
        // Statements are known to the driver from before: a connection of its own for each.
        let (alone, db) = world.single_connection().await;
        let mut hot = Hot { db, user, known: 0, random_page_cost: SOLID };
        let ada = alone.sparc.as_user(user);
        let scout = world.sparc.as_user(user);
        lobby(&mut hot, &ada, &scout, moment).await;
        table(&mut hot, &ada, moment).await;
        catalogue(&mut hot, &ada, &scout, moment).await;
        owner.exec("ANALYZE").await.unwrap();
    }
}

/// The page after so many others: among rows that are equal in what the list is ordered by.
async fn later<T>(pages: u32, page: impl AsyncFn(Option<Cursor>) -> Result<Page<T>, Error>) -> (T, Cursor) {
    let mut there = page(None).await.unwrap();
    for _ in 1..pages {
        there = page(there.next).await.unwrap();
    }
    (there.items.pop().unwrap(), there.next.unwrap())
}

async fn lobby(hot: &mut Hot, ada: &IdentityConnection, scout: &IdentityConnection, moment: &str) {
    // A page and one, each with its Seer and its adventure.
    let page = 3 * 21;
    let all = LobbyFilter::default();
    // The walk of undated sessions is begun, too: one row.
    hot.ask(&format!("lobby, {moment}"), page + 1, &[], ada.sessions().lobby(&all, None)).await;
    let (last, next) = later(8, async |after| scout.sessions().lobby(&all, after.as_ref()).await).await;
    let key = [quoted(last.created_at), quoted(last.id), quoted(last.scheduled_start.unwrap())];
    let key: Vec<&str> = key.iter().map(String::as_str).collect();
    // Those of the same moment, the later and the undated, of which a page each may be walked.
    let ninth = ada.sessions().lobby(&all, Some(&next));
    hot.ask(&format!("lobby, ninth page, {moment}"), page + 2 * 21, &key, ninth).await;
    let hard = LobbyFilter { difficulty: Some(DifficultyLevel::Hard), ..Default::default() };
    hot.ask(&format!("lobby, one in three, {moment}"), 6 * page, &["'hard'"], ada.sessions().lobby(&hard, None)).await;
    let nowhere = LobbyFilter { search: Some("nowhere".to_owned()), ..Default::default() };
    let missed = ada.sessions().lobby(&nowhere, None);
    hot.ask(&format!("lobby, without a hit, {moment}"), 4 * 1000 + 2, &["'%nowhere%'"], missed).await;
    let seer = LobbyFilter { seer_id: Some(hot.user), ..Default::default() };
    let user = quoted(hot.user);
    hot.ask(&format!("lobby, of a Seer, {moment}"), page, &[&user], ada.sessions().lobby(&seer, None)).await;
}

async fn table(hot: &mut Hot, ada: &IdentityConnection, moment: &str) {
    let (session, mate) = (md5(&hot.db, "s20006").await, md5(&hot.db, "c8").await);
    let all = HistoryFilter::default();
    let rolls = || ada.dice().history(RollScope::Session(session), &all, None);
    hot.ask(&format!("a table's rolls, {moment}"), 51, &[&quoted(session), "51"], rolls()).await;
    let kind = HistoryFilter { kind: Some(RollType::Attack), ..Default::default() };
    // One in nine: comparing an enum is not leakproof either, so the table's rolls are walked until the page is full.
    let values = [&quoted(session), "'attack'", "51"];
    let attacks = ada.dice().history(RollScope::Session(session), &kind, None);
    hot.ask(&format!("a table's attacks, {moment}"), 9 * 51, &values, attacks).await;
    // A mate of thousands of rolls, at a table that is one's own.
    let values = [&quoted(mate), "NULL", "NULL", "NULL", "NULL", "NULL", "51"];
    let rolls = ada.dice().history(RollScope::Character(mate), &all, None);
    hot.ask(&format!("a character's rolls, {moment}"), 51, &values, rolls).await;
    let events = ada.events().after(session, 0);
    hot.ask(&format!("events, {moment}"), 200, &[&quoted(session), "0", "200"], events).await;
    let newest = ada.events().newest(session);
    hot.ask(&format!("the newest event, {moment}"), 1, &[&quoted(session), "1"], newest).await;
    // Thirty tables, each with its Seer, its adventure and the own seat.
    let user = quoted(hot.user);
    hot.ask(&format!("own sessions, {moment}"), 4 * 30, &[&user], ada.sessions().mine(None)).await;
    hot.ask(&format!("a profile, {moment}"), 1, &[&user, "1"], ada.users().profile(hot.user)).await;
}

async fn catalogue(hot: &mut Hot, ada: &IdentityConnection, scout: &IdentityConnection, moment: &str) {
    let all = CatalogueFilter::default();
    for order in [CatalogueOrder::Newest, CatalogueOrder::MostPlayed, CatalogueOrder::BestRated] {
        let what = format!("catalogue, {order:?}, {moment}");
        hot.ask(&what, 21, &[], ada.adventures().catalogue(&all, order, None)).await;
        let pages = async |after: Option<Cursor>| scout.adventures().catalogue(&all, order, after.as_ref()).await;
        let (last, next) = later(30, pages).await;
        let place = match order {
            CatalogueOrder::MostPlayed => last.times_played.to_string(),
            CatalogueOrder::BestRated => quoted(last.average_rating.unwrap()),
            _ => quoted(last.published_at.unwrap()),
        };
        let next = ada.adventures().catalogue(&all, order, Some(&next));
        let values = [place.as_str(), &quoted(last.id)];
        // The best rated are found first, and then looked up.
        hot.ask(&format!("{what}, page 31"), 2 * 21, &values, next).await;
        // A function insists on the walk, so that it is one on any disk, and one alone where the page is not full too.
        hot.random_page_cost = DEAR;
        let hard = CatalogueFilter { difficulty: Some(DifficultyLevel::Hard), ..Default::default() };
        hot.ask(&format!("{what}, hard"), 1000, &["'hard'"], ada.adventures().catalogue(&hard, order, None)).await;
        let nowhere = CatalogueFilter { search: Some("nowhere".to_owned()), ..Default::default() };
        let missed = ada.adventures().catalogue(&nowhere, order, None);
        hot.ask(&format!("{what}, without a hit"), 1000, &["'%nowhere%'"], missed).await;
        hot.random_page_cost = SOLID;
    }
}

async fn md5(db: &DatabaseConnection, of: &str) -> Uuid {
    let sql = format!("SELECT md5('{of}')::uuid");
    let row = db.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await;
    row.unwrap().unwrap().try_get_by_index(0).unwrap()
}
