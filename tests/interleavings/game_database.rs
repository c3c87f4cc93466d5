//! The rows of `game_database.sql`, created once per database and restored whenever a case has changed them.

use sea_orm::sqlx::{AssertSqlSafe, Connection, PgConnection, query_as, query_scalar, raw_sql};
use testdb::Database;

use crate::world::server;

/// Every `@name` in `game_database.sql` and in the statements. A row's id ends with the position of its name here, so
/// that the order of the ids is known.
const NAMES: &[&str] = &[
    "ada",
    "bob",
    "eve",
    "seer",
    "zoe",
    "new_account",
    "ada1",
    "ada2",
    "ada3",
    "ada_retired",
    "bob1",
    "bob2",
    "eve1",
    "seer1",
    "zoe1",
    "new_row_1",
    "new_row_2",
    "ford",
    "draft",
    "mill",
    "tower",
    "zoe_draft",
    "wolf",
    "rat",
    "active",
    "one_seat_free",
    "private",
    "left_by_ada_and_eve",
    "completed",
    "zoe_paused",
    "zoe_waiting",
    "zoe_draft_session",
    "empty_cancelled",
    "abandoned",
    "failed_roll_1",
    "failed_roll_2",
    "new_row_3",
];

/// The tables in which [`GameDatabase::locked_rows`] looks for rows that a statement has locked, with the columns that
/// identify a row.
pub const LOCKABLE_TABLES: &[(&str, &str)] = &[
    ("auth.users", "id"),
    ("private.account_gates", "account_id"),
    ("public.users", "id"),
    ("public.characters", "id"),
    ("public.adventures", "id"),
    ("public.creatures", "id"),
    ("public.sessions", "id"),
    ("public.session_players", "session_id, user_id"),
    ("public.dice_rolls", "id"),
    ("public.tutorial_progress", "user_id"),
];

/// Returns the id of the row with this name.
pub fn id(name: &str) -> String {
    let index = NAMES.iter().position(|known| *known == name).unwrap_or_else(|| panic!("{name} must be in NAMES"));
    format!("00000000-0000-4000-8000-{:012x}", index + 1)
}

/// Returns the `@name` of the row with this id, for [`with_ids`]. If the row has no name, returns the id as an SQL
/// literal.
fn name_or_literal(id: &str) -> String {
    let position = id.rsplit('-').next().and_then(|digits| usize::from_str_radix(digits, 16).ok());
    match position.and_then(|position| NAMES.get(position.wrapping_sub(1))) {
        Some(name) => format!("@{name}"),
        None => format!("'{id}'"),
    }
}

/// Replaces each `@name` by the row's id. An `@` before other text, as in an email address, stays.
pub fn with_ids(sql: &str) -> String {
    let mut replaced = String::with_capacity(sql.len() * 2);
    let mut parts = sql.split('@');
    replaced.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let length = part.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(part.len());
        let (name, rest) = part.split_at(length);
        match NAMES.contains(&name) {
            true => replaced.push_str(&format!("'{}'{rest}", id(name))),
            false => replaced.push_str(&format!("@{part}")),
        }
    }
    replaced
}

pub async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

pub async fn execute(connection: &mut PgConnection, sql: &str) -> u64 {
    raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{error}: {sql}"))
        .rows_affected()
}

/// A database with the rows of `game_database.sql`, and a connection of its owner.
pub struct GameDatabase {
    pub owner: PgConnection,
    pub url: String,
    /// Statements that delete every row and insert the saved ones again.
    restore_sql: String,
    /// A query that returns a line of text for each row that breaks an invariant.
    invariants_sql: String,
    _database: Database,
}

impl GameDatabase {
    pub async fn new() -> Self {
        let database = server().await.create_migrated().await.unwrap();
        let url = database.url().to_owned();
        let mut owner = connect(&url).await;
        execute(&mut owner, &with_ids(include_str!("game_database.sql"))).await;
        let restore_sql = save_rows(&mut owner).await;
        let invariants_sql = format!(
            "SELECT concat_ws(': ', invariant, row, detail) FROM ({}) AS broken",
            sparc::migration::INVARIANTS.trim_end().trim_end_matches(';')
        );
        execute(&mut owner, "SET jit = off").await;
        execute(&mut owner, "VACUUM ANALYZE").await;
        Self { owner, url, restore_sql, invariants_sql, _database: database }
    }

    /// Undoes all changes of rows.
    pub async fn restore(&mut self) {
        execute(&mut self.owner, &self.restore_sql).await;
    }

    pub async fn vacuum(&mut self) {
        execute(&mut self.owner, "VACUUM").await;
    }

    /// Returns every broken invariant, with the row that breaks it.
    pub async fn broken_invariants(&mut self) -> Vec<String> {
        query_scalar(AssertSqlSafe(self.invariants_sql.as_str())).fetch_all(&mut self.owner).await.unwrap()
    }

    /// Returns whether the backend with this process id waits for a lock that another backend holds.
    pub async fn is_blocked(&mut self, pid: i32) -> bool {
        query_scalar("SELECT cardinality(pg_blocking_pids($1)) > 0").bind(pid).fetch_one(&mut self.owner).await.unwrap()
    }

    /// Returns the rows that another transaction has locked, each as a table and a condition for [`with_ids`].
    pub async fn locked_rows(&mut self) -> Vec<String> {
        let mut locked = Vec::new();
        for (table, key_columns) in LOCKABLE_TABLES {
            let key_texts =
                key_columns.split(", ").map(|column| format!("{column}::text")).collect::<Vec<_>>().join(", ");
            let select_all = format!("SELECT ARRAY[{key_texts}] FROM {table} ORDER BY 1");
            let all_keys: Vec<Vec<String>> =
                query_scalar(AssertSqlSafe(select_all)).fetch_all(&mut self.owner).await.unwrap();
            let select_unlocked = format!("SELECT ARRAY[{key_texts}] FROM {table} FOR UPDATE SKIP LOCKED");
            let unlocked_keys: Vec<Vec<String>> =
                query_scalar(AssertSqlSafe(select_unlocked)).fetch_all(&mut self.owner).await.unwrap();
            for key in all_keys.iter().filter(|key| !unlocked_keys.contains(key)) {
                let key_values = key.iter().map(|value| name_or_literal(value)).collect::<Vec<_>>().join(", ");
                locked.push(format!("{table} WHERE ({key_columns}) = ({key_values})"));
            }
        }
        locked
    }
}

/// Copies every row, except those of `sparc_migrations`, to a separate schema, and returns the statements that
/// restore the rows.
async fn save_rows(owner: &mut PgConnection) -> String {
    execute(owner, "CREATE SCHEMA saved").await;
    // Generated columns are left out, because no values can be inserted into them.
    let tables: Vec<(String, String, String)> = query_as(
        "SELECT attrelid::regclass::text, replace(attrelid::regclass::text, '.', '_'),
                string_agg(quote_ident(attname), ', ' ORDER BY attnum)
         FROM pg_attribute JOIN pg_class AS class ON class.oid = attrelid
         WHERE (relnamespace IN ('public'::regnamespace, 'private'::regnamespace) OR attrelid = 'auth.users'::regclass)
           AND relkind = 'r'
           AND relname !~ 'migrations$' AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
         GROUP BY attrelid",
    )
    .fetch_all(&mut *owner)
    .await
    .unwrap();
    // The replication role `replica` disables triggers and foreign keys.
    let mut restore_sql = "BEGIN; SET LOCAL session_replication_role = replica; ".to_owned();
    for (table, copy, columns) in tables {
        execute(owner, &format!("CREATE TABLE saved.{copy} AS SELECT {columns} FROM {table}")).await;
        restore_sql.push_str(&format!(
            "DELETE FROM {table}; INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM saved.{copy}; "
        ));
    }
    restore_sql + "COMMIT"
}
