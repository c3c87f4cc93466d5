//! The uses and the cost of each index: the statements that read it, and the time that it adds to each written row.

use std::collections::HashMap;

use crate::{client::Client, failure::Failure, quantile::quantile_ms, report::Index};

/// Indexes that have other uses than by the measured statements, each with a description of these uses.
const OTHER_USES: [(&str, &str); 17] = [
    ("idx_adventures_creator_id", "the caller's adventures (`adventures.mine`)"),
    ("idx_archived_sessions_seer", "archived sessions of a Seer"),
    ("idx_archived_session_players_user", "archived sessions of a player"),
    ("idx_archived_dice_rolls_session", "the rolls of an archived session"),
    ("idx_characters_user_id", "the caller's characters (`characters.living`) and their number"),
    ("idx_creatures_adventure_id", "the creatures of an adventure"),
    ("idx_dice_rolls_original", "uniqueness: a roll is repeated by at most one heroic save"),
    ("idx_dice_rolls_type", "a session's rolls of one type"),
    ("idx_session_events_cleanup", "deletion of expired events with each new event"),
    ("idx_session_events_seq", "events after a given number (`seq`); uniqueness of the number within a session"),
    ("idx_session_players_active", "active seats, for clients of the platform's API"),
    ("idx_session_players_character", "seats of a character"),
    ("idx_sessions_ended", "sessions that can be archived"),
    ("idx_sessions_public_waiting", "the lobby as clients of the platform's API sort it, full sessions included"),
    ("idx_sessions_seer_id", "sessions of a Seer: in the policies for reading sessions, rolls and events"),
    ("idx_session_players_user", "seats of a user: in the policies for reading sessions, rolls and events"),
    ("idx_users_display_name", "finding a user by name (`users.by_display_name`)"),
];

/// The maximum number of rows that are written to measure the cost of an index.
const MAX_WRITTEN_ROWS: u32 = 2000;
/// The minimum number of these rows. The indexes of a table with fewer rows are not measured.
const MIN_WRITTEN_ROWS: u32 = MAX_WRITTEN_ROWS / 10;
/// The number of times that the rows are written with the index, and again without it. The medians are compared.
const ROUNDS: usize = 5;

/// The indexes that the measured statements read.
#[derive(Debug, Default)]
pub struct IndexUses {
    /// The number of scans of each index so far.
    scan_counts: HashMap<String, u64>,
    /// The names of the statements that read each index.
    statement_names_by_index: HashMap<String, Vec<String>>,
}

impl IndexUses {
    /// Starts recording: reads how often each index has been scanned so far.
    pub async fn start(client: &mut Client) -> Result<Self, Failure> {
        Ok(Self { scan_counts: read_scan_counts(client).await?, statement_names_by_index: HashMap::new() })
    }

    /// Records that the statement with this name read the indexes that have been scanned since the previous call of
    /// this method or of [`start`](Self::start).
    pub async fn record(&mut self, client: &mut Client, statement_name: &str) -> Result<(), Failure> {
        let scan_counts = read_scan_counts(client).await?;
        for (index, count) in &scan_counts {
            if self.scan_counts.get(index) != Some(count) {
                self.statement_names_by_index.entry(index.clone()).or_default().push(statement_name.to_owned());
            }
        }
        self.scan_counts = scan_counts;
        Ok(())
    }
}

/// Returns the number of scans of each index, including those that this connection has not reported yet.
async fn read_scan_counts(client: &mut Client) -> Result<HashMap<String, u64>, Failure> {
    client.run("SELECT pg_stat_force_next_flush()").await?;
    let rows = client
        .fetch_rows("SELECT indexrelname, idx_scan FROM pg_stat_user_indexes WHERE schemaname = 'public'")
        .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| <[String; 2]>::try_from(row).ok())
        .map(|[index, count]| (index, count.parse().unwrap_or_default()))
        .collect())
}

/// Lists all indexes: the table, the name, the size, the kind of the constraint to which the index belongs, and a
/// foreign key that the index serves. Either of the last two is empty if there is none.
const LIST_INDEXES: &str = "SELECT indexed_table.relname, index.relname, pg_relation_size(index.oid),
    coalesce((
      SELECT CASE contype WHEN 'p' THEN 'primary key' ELSE 'unique' END
      FROM pg_constraint
      WHERE conindid = index.oid AND contype IN ('p', 'u')
      LIMIT 1
    ), ''),
    coalesce((
      SELECT 'foreign key to `' || confrelid::regclass || '`'
      FROM pg_constraint
      WHERE conrelid = indexed_table.oid AND contype = 'f' AND conkey[1] = indkey[0] AND indpred IS NULL
      LIMIT 1
    ), '')
  FROM pg_index
  JOIN pg_class AS index ON index.oid = indexrelid
  JOIN pg_class AS indexed_table ON indexed_table.oid = indrelid
  WHERE indexed_table.relnamespace = 'public'::regnamespace
    AND indexed_table.relname <> 'sparc_migrations'
  ORDER BY 1, 2";

/// Measures the cost of each index, and returns all indexes with their uses and costs.
pub async fn measure_indexes(client: &mut Client, uses: &IndexUses) -> Result<Vec<Index>, Failure> {
    let mut indexes = Vec::new();
    for row in client.fetch_rows(LIST_INDEXES).await? {
        let Ok([table, name, bytes, constraint, foreign_key]) = <[String; 5]>::try_from(row) else { continue };
        let other_uses =
            OTHER_USES.iter().filter(|(index, _)| *index == name).map(|(_, other_use)| (*other_use).to_owned());
        let belongs_to_constraint = !constraint.is_empty();
        let constraints = [constraint, foreign_key].into_iter().filter(|text| !text.is_empty());
        let statement_names = uses.statement_names_by_index.get(&name).into_iter().flatten().cloned();
        let used_by = statement_names.chain(constraints).chain(other_uses).collect();
        let write_cost_us =
            if belongs_to_constraint { None } else { measure_write_cost_us(client, &table, &name).await? };
        indexes.push(Index { table, bytes: bytes.parse().unwrap_or_default(), used_by, write_cost_us, name });
    }
    Ok(indexes)
}

/// Writes the same rows with and without the index, in transactions that are rolled back. Returns the difference per
/// row in microseconds, or `None` if the table has too few rows.
async fn measure_write_cost_us(client: &mut Client, table: &str, index: &str) -> Result<Option<f64>, Failure> {
    let row_count = client
        .fetch_number(&format!("SELECT count(*) FROM (SELECT FROM {table} LIMIT {MAX_WRITTEN_ROWS}) AS existing"))
        .await?;
    if row_count < f64::from(MIN_WRITTEN_ROWS) {
        return Ok(None);
    }
    let (mut times_with_index, mut times_without_index) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (times, drop_index_sql) in
            [(&mut times_with_index, String::new()), (&mut times_without_index, format!("DROP INDEX public.{index};"))]
        {
            // Copies some rows and deletes the originals, so that the timed statement can insert them again.
            client
                .run(&format!(
                    "BEGIN; SET LOCAL session_replication_role = replica; SET LOCAL lock_timeout = '5s';
                     {drop_index_sql}
                     CREATE TEMPORARY TABLE chosen ON COMMIT DROP AS
                     SELECT ctid AS row_ctid FROM {table} LIMIT {MAX_WRITTEN_ROWS};
                     CREATE TEMPORARY TABLE copied ON COMMIT DROP AS
                     SELECT original.* FROM {table} AS original JOIN chosen ON original.ctid = row_ctid;
                     DELETE FROM {table} USING chosen WHERE {table}.ctid = row_ctid"
                ))
                .await?;
            let insert_sql = format!("INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM copied");
            times.push(client.run_timed(&insert_sql).await?.0);
            client.run("ROLLBACK").await?;
        }
    }
    let added_ms = quantile_ms(&mut times_with_index, 0.5) - quantile_ms(&mut times_without_index, 0.5);
    Ok(Some(added_ms.max(0.0) * 1000.0 / row_count))
}
