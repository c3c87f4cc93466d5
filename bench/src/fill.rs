//! Fills a database with the rows of a data set.

use std::time::Instant;

use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    client::Client,
    data_set::{DataSet, EVENTS_PER_SESSION_WITH_EVENTS},
    failure::Failure,
    report::IndexBuild,
    rows::{
        FillContext, append_account, append_adventure, append_character, append_events, append_rolls, append_seats,
        append_session, append_user,
    },
    schema::Schema,
};

/// The number of calls of [`TableRows::append_lines`] whose lines are sent to COPY in one chunk.
const APPENDS_PER_CHUNK: u64 = 5000;

/// The rows to generate for one table.
struct TableRows {
    /// The table and its columns, as COPY expects both.
    copy_target: &'static str,
    /// The number of calls of `append_lines`.
    append_calls: u64,
    /// Appends the row that has the given number; for seats and rolls, all rows of the session that has that number.
    append_lines: fn(&mut String, &FillContext, u64),
}

/// Drops the indexes, except those of constraints; fills the database with everything but events; then builds the
/// dropped indexes again and gathers statistics. Returns the builds of the indexes.
///
/// Triggers and foreign keys are disabled while rows are loaded, because the generated rows satisfy them. Checks and
/// unique constraints stay enabled.
pub async fn fill(
    url: &str,
    schema: Schema,
    data_set: DataSet,
    now: DateTime<Utc>,
) -> Result<Vec<IndexBuild>, Failure> {
    let mut client = Client::open(url).await?;
    let context = FillContext { data_set, schema, now };
    client.run("SET session_replication_role = replica; SET maintenance_work_mem = '1GB'").await?;
    let indexes = client
        .fetch_rows(
            "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid)
             FROM pg_index
             JOIN pg_class ON oid = indrelid
             WHERE relnamespace = 'public'::regnamespace
               AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
             ORDER BY 1",
        )
        .await?;
    let indexes: Vec<[String; 2]> = indexes.into_iter().filter_map(|row| row.try_into().ok()).collect();
    for [name, _] in &indexes {
        client.run(&format!("DROP INDEX {name}")).await?;
    }

    let tables = tables_to_fill(&context);
    let bar = progress_bar(tables.iter().map(|table| table.append_calls).sum(), schema);
    for table in &tables {
        bar.set_message(table.copy_target.split(' ').next().unwrap_or_default().to_owned());
        let chunks = (0..table.append_calls.div_ceil(APPENDS_PER_CHUNK)).map(|chunk| {
            let mut lines = String::new();
            let numbers = chunk * APPENDS_PER_CHUNK..table.append_calls.min((chunk + 1) * APPENDS_PER_CHUNK);
            bar.inc(numbers.end - numbers.start);
            for number in numbers {
                (table.append_lines)(&mut lines, &context, number);
            }
            lines
        });
        client.copy_in(table.copy_target, chunks).await?;
    }

    // The disabled triggers did not maintain the counters, so these are computed now. This updates many users and
    // characters; VACUUM FULL removes the old versions of these rows.
    if schema == Schema::Ours {
        bar.set_message("counters");
        client.run(&format!("BEGIN; {}; COMMIT", migration::RECOUNT)).await?;
        client.run("VACUUM FULL users").await?;
        client.run("VACUUM FULL characters").await?;
    }

    let mut builds = Vec::new();
    for [name, definition] in &indexes {
        bar.set_message(name.clone());
        let start = Instant::now();
        client.run(definition).await?;
        let ms = start.elapsed().as_secs_f64() * 1000.0;
        let bytes = client.fetch_number(&format!("SELECT pg_relation_size('{name}')")).await?;
        builds.push(IndexBuild { index: name.clone(), ms, bytes });
    }
    bar.set_message("VACUUM ANALYZE");
    client.run("VACUUM ANALYZE").await?;
    client.run("CHECKPOINT").await?;
    bar.finish_and_clear();
    client.close().await?;
    Ok(builds)
}

fn progress_bar(length: u64, schema: Schema) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>13} {bar:40} {percent:>3} % {msg}").ok();
    let bar = ProgressBar::new(length).with_prefix(match schema {
        Schema::Specification => "specification",
        Schema::Ours => "ours",
    });
    match style {
        Some(style) => bar.with_style(style),
        None => bar,
    }
}

fn tables_to_fill(context: &FillContext) -> [TableRows; 7] {
    let data_set = &context.data_set;
    [
        TableRows { copy_target: "auth.users (id, email)", append_calls: data_set.users, append_lines: append_account },
        TableRows {
            copy_target: "users (id, email, display_name, bio, created_at)",
            append_calls: data_set.users,
            append_lines: append_user,
        },
        TableRows {
            copy_target: "characters (id, user_id, name, class, might, grace, wit, heart, special_ability, created_at)",
            append_calls: data_set.characters(),
            append_lines: append_character,
        },
        TableRows {
            copy_target: "adventures (id, creator_id, name, description, difficulty, estimated_duration, content, \
                   status, published_at, is_valid, times_played, average_rating, created_at)",
            append_calls: data_set.adventures,
            append_lines: append_adventure,
        },
        TableRows {
            copy_target: match context.schema {
                Schema::Specification => {
                    "sessions (id, seer_id, adventure_id, code, is_public, max_players, looking_for, scheduled_start, \
                     status, started_at, ended_at, created_at)"
                }
                Schema::Ours => {
                    "sessions (id, seer_id, adventure_id, code, is_public, max_players, looking_for, scheduled_start, \
                     status, started_at, ended_at, created_at, seats_taken)"
                }
            },
            append_calls: data_set.sessions(),
            append_lines: append_session,
        },
        TableRows {
            copy_target: "session_players (session_id, user_id, character_id, joined_at)",
            append_calls: data_set.sessions(),
            append_lines: append_seats,
        },
        TableRows {
            copy_target: "dice_rolls (id, session_id, character_id, character_name, attribute, dice_count, difficulty, \
                   roll_type, results, total, modified_total, success, outcome, margin, animation_seed, created_at)",
            append_calls: data_set.sessions(),
            append_lines: append_rolls,
        },
    ]
}

/// Fills the table of events. Only the command `compare` needs these rows.
pub async fn fill_events(url: &str, data_set: DataSet, now: DateTime<Utc>) -> Result<(), Failure> {
    let mut client = Client::open(url).await?;
    client.run("SET session_replication_role = replica").await?;
    // The rows of events do not depend on the schema.
    let context = FillContext { data_set, schema: Schema::Ours, now };
    let sessions = data_set.sessions_with_events();
    // A call of `append_events` appends many lines, so there are fewer calls per chunk.
    let sessions_per_chunk = APPENDS_PER_CHUNK / EVENTS_PER_SESSION_WITH_EVENTS;
    let chunks = (0..sessions.div_ceil(sessions_per_chunk)).map(|chunk| {
        let mut lines = String::new();
        for index in chunk * sessions_per_chunk..sessions.min((chunk + 1) * sessions_per_chunk) {
            append_events(&mut lines, &context, index);
        }
        lines
    });
    client.copy_in("session_events (id, session_id, event_type, payload, created_at)", chunks).await?;
    client.run("VACUUM ANALYZE session_events").await?;
    client.close().await
}
