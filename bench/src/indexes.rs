//! What each index is for, and what it costs: the measured statements that read it, and the time that it adds to a row.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{Failure, client::Client, measure::quantile};

/// An index, in the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Index {
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Bytes on disk.
    pub bytes: f64,
    /// What reads it: measured statements, a constraint, or what else there is.
    pub used_by: Vec<String>,
    /// Microseconds that it adds to a row which is written; none where it cannot be left out, or the table is too small to tell.
    pub write_us: Option<f64>,
}

/// What no measured statement does, and reads an index.
const ALSO: [(&str, &str); 17] = [
    ("idx_adventures_creator_id", "one's own adventures (`adventures.mine`)"),
    ("idx_archived_sessions_seer", "the archive of a Seer"),
    ("idx_archived_session_players_user", "the archive of a player"),
    ("idx_archived_dice_rolls_session", "the rolls of an archived session"),
    ("idx_characters_user_id", "one's own characters (`characters.list`), and how many there are"),
    ("idx_creatures_adventure_id", "the creatures of an adventure"),
    ("idx_dice_rolls_original", "one save a roll"),
    ("idx_dice_rolls_type", "a table's rolls of one kind"),
    ("idx_session_events_cleanup", "the clean-up with each event"),
    ("idx_session_events_seq", "events after a point; one number once a session"),
    ("idx_session_players_active", "who sits there now, for clients of the API"),
    ("idx_session_players_character", "where a character sits"),
    ("idx_sessions_ended", "what may be archived"),
    ("idx_sessions_public_waiting", "the lobby as clients of the API sort it, full tables included"),
    ("idx_sessions_seer_id", "what one runs: in every policy of sessions, rolls and events"),
    ("idx_session_players_user", "where one sits: in every policy of sessions, rolls and events"),
    ("idx_users_display_name", "finding a person by name (`users.by_display_name`)"),
];

/// Rows that are written to see what an index costs.
const ROWS: u32 = 2000;
/// Turns, of which the median counts.
const TURNS: usize = 5;

/// How often each index was read.
#[derive(Debug, Default)]
pub struct Uses {
    reads: HashMap<String, u64>,
    by: HashMap<String, Vec<String>>,
}

impl Uses {
    /// From now on.
    pub async fn since_now(client: &mut Client) -> Result<Self, Failure> {
        Ok(Self { reads: reads(client).await?, by: HashMap::new() })
    }

    /// Notes which were read by what was just measured.
    pub async fn note(&mut self, client: &mut Client, name: &str) -> Result<(), Failure> {
        let reads = reads(client).await?;
        for (index, count) in &reads {
            if self.reads.get(index) != Some(count) {
                self.by.entry(index.clone()).or_default().push(name.to_owned());
            }
        }
        self.reads = reads;
        Ok(())
    }
}

async fn reads(client: &mut Client) -> Result<HashMap<String, u64>, Failure> {
    client.run("SELECT pg_stat_force_next_flush()").await?;
    let rows =
        client.rows("SELECT indexrelname, idx_scan FROM pg_stat_user_indexes WHERE schemaname = 'public'").await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| <[String; 2]>::try_from(row).ok())
        .map(|[index, count]| (index, count.parse().unwrap_or_default()))
        .collect())
}

const LIST: &str = "SELECT indexed.relname, index.relname, pg_relation_size(index.oid),
    coalesce((
      SELECT CASE contype WHEN 'p' THEN 'primary key' ELSE 'unique' END
      FROM pg_constraint
      WHERE conindid = index.oid AND contype IN ('p', 'u')
      LIMIT 1
    ), ''),
    coalesce((
      SELECT 'foreign key to `' || confrelid::regclass || '`'
      FROM pg_constraint
      WHERE conrelid = indexed.oid AND contype = 'f' AND conkey[1] = indkey[0] AND indpred IS NULL
      LIMIT 1
    ), '')
  FROM pg_index
  JOIN pg_class AS index ON index.oid = indexrelid
  JOIN pg_class AS indexed ON indexed.oid = indrelid
  WHERE indexed.relnamespace = 'public'::regnamespace
    AND indexed.relname NOT LIKE 'seaql%'
  ORDER BY 1, 2";

/// All indexes.
pub async fn indexes(client: &mut Client, uses: &Uses) -> Result<Vec<Index>, Failure> {
    let mut indexes = Vec::new();
    for row in client.rows(LIST).await? {
        let Ok([table, name, bytes, constraint, foreign]) = <[String; 5]>::try_from(row) else { continue };
        let also = ALSO.iter().filter(|(index, _)| *index == name).map(|(_, what)| (*what).to_owned());
        let is_needed = !constraint.is_empty();
        let used_by = [constraint, foreign].into_iter().filter(|what| !what.is_empty()).chain(also);
        let used_by = used_by.chain(uses.by.get(&name).into_iter().flatten().cloned()).collect();
        let write_us = if is_needed { None } else { cost(client, &table, &name).await? };
        indexes.push(Index { table, bytes: bytes.parse().unwrap_or_default(), used_by, write_us, name });
    }
    Ok(indexes)
}

/// The same rows are written again, with the index and without it.
async fn cost(client: &mut Client, table: &str, index: &str) -> Result<Option<f64>, Failure> {
    let rows = client.number(&format!("SELECT count(*) FROM (SELECT FROM {table} LIMIT {ROWS}) AS these")).await?;
    if rows < f64::from(ROWS) / 10.0 {
        return Ok(None);
    }
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        for (times, leave_out) in [(&mut with, ""), (&mut without, "DROP INDEX public.")] {
            let leave_out = if leave_out.is_empty() { String::new() } else { format!("{leave_out}{index};") };
            client
                .run(&format!(
                    "BEGIN; SET LOCAL session_replication_role = replica; SET LOCAL lock_timeout = '5s'; {leave_out}
                     CREATE TEMPORARY TABLE places ON COMMIT DROP AS SELECT ctid AS place FROM {table} LIMIT {ROWS};
                     CREATE TEMPORARY TABLE rewritten ON COMMIT DROP AS
                     SELECT again.* FROM {table} AS again JOIN places ON again.ctid = place;
                     DELETE FROM {table} USING places WHERE {table}.ctid = place"
                ))
                .await?;
            let again = format!("INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM rewritten");
            times.push(client.time(&again).await?.0);
            client.run("ROLLBACK").await?;
        }
    }
    Ok(Some((quantile(&mut with, 0.5) - quantile(&mut without, 0.5)).max(0.0) * 1000.0 / rows))
}
