//! The statements with which users and jobs write: the specification's, and the service's, which are captured by
//! calling its operations. Identifiers call the service's statements `ours`.
//!
//! Each write adds equally many events in both schemas, of similar size. Where a trigger of this project's schema
//! writes an event, the specification's client writes one with made-up values.

mod accounts_and_jobs;

use sea_orm::TransactionTrait;
use service::{JoinCode, Operations, events::NewEvent};
use uuid::Uuid;

use crate::{
    argument_sets::ArgumentSet,
    capture::StatementCapture,
    failure::Failure,
    measure::StatementPair,
    overhead,
    roll::{ROLL_EVENT_PAYLOAD, new_roll, roll_values},
    sql_values::{NEW_UUID, quote_literal},
    workload::{Execution, Role, Workload, single_statement_workload},
};

/// The specification's statement that writes an event. It is prepared under the name `event`.
const INSERT_EVENT: &str =
    "INSERT INTO session_events (session_id, event_type, payload) VALUES ($1, $2, $3) RETURNING *";

/// Returns the specification's workload: prepared statements, and the SQL that executes them one after another.
/// `user_and_sql` returns the user and that SQL for an argument set.
fn specification_workload(
    prepared: &[(&str, &str)],
    argument_sets: &[ArgumentSet],
    user_and_sql: impl Fn(&ArgumentSet) -> (String, String),
) -> Workload {
    Workload {
        prepared: prepared.iter().map(|(name, sql)| ((*name).to_owned(), (*sql).to_owned())).collect(),
        executions: argument_sets
            .iter()
            .map(|argument_set| {
                let (user, timed_sql) = user_and_sql(argument_set);
                Execution { user, setup_sql: String::new(), timed_sql }
            })
            .collect(),
    }
}

/// Returns the EXECUTE statement for the prepared statement [`INSERT_EVENT`].
fn insert_event_sql(session: impl std::fmt::Display, event_type: &str, payload: &str) -> String {
    format!("EXECUTE event({}, '{event_type}', {})", quote_literal(session), quote_literal(payload))
}

/// The statuses from which the service's statement starts a session. `active` is among them because starting is
/// idempotent.
const STARTABLE_STATUSES: [&str; 3] = ["waiting", "starting_soon", "active"];

/// The payload of the events `player_joined` and `player_left`, with made-up values.
const SEAT_EVENT_PAYLOAD: &str =
    r#"{"user_id": "0", "display_name": "Player", "character_name": "Hero", "character_class": "rogue"}"#;

/// Captures the service's statements. Returns all writes, each paired with the specification's, and the bare INSERTs of
/// `overhead`, which run without triggers and policies in both schemas.
pub async fn capture_writes(
    capture: &mut StatementCapture,
    argument_sets: &[ArgumentSet],
) -> Result<Vec<StatementPair>, Failure> {
    let mut pairs = capture_rolls_and_events(capture, argument_sets).await?;
    pairs.extend(overhead::bare_inserts(argument_sets));
    pairs.extend(capture_seats_and_statuses(capture, argument_sets).await?);
    pairs.extend(accounts_and_jobs::capture_sign_up_and_jobs(capture, argument_sets).await?);
    Ok(pairs)
}

async fn capture_rolls_and_events(
    capture: &mut StatementCapture,
    argument_sets: &[ArgumentSet],
) -> Result<Vec<StatementPair>, Failure> {
    let argument_set = &argument_sets[0];
    let caller = capture.sparc.as_user(argument_set.player);

    let tx = caller.begin().await?;
    let event = NewEvent {
        id: None,
        session_id: argument_set.session,
        kind: "wave".to_owned(),
        payload: serde_json::json!({}),
    };
    tx.events().send(event).await?;
    tx.rollback().await?;
    let ours = capture.last_new_statement().await?;
    let one_event = StatementPair {
        name: "one event",
        role: Role::Authenticated,
        is_repeatable: true,
        specification: specification_workload(&[("event", INSERT_EVENT)], argument_sets, |argument_set| {
            (argument_set.player.to_string(), insert_event_sql(argument_set.session, "client.wave", "{}"))
        }),
        ours: single_statement_workload("ours", ours.sql.clone(), argument_sets, |argument_set| {
            let values = [
                NEW_UUID.to_owned(),
                quote_literal(argument_set.session),
                quote_literal("client.wave"),
                quote_literal("{}"),
            ];
            (argument_set.player.to_string(), values.to_vec())
        }),
    };

    let tx = caller.begin().await?;
    tx.dice().roll(new_roll(argument_set)?).await?;
    tx.rollback().await?;
    let ours = capture.last_new_statement().await?;
    let insert_roll_sql =
        "INSERT INTO dice_rolls (session_id, character_id, character_name, attribute, dice_count, difficulty,
            roll_type, results, total, modified_total, success, outcome, margin, animation_seed)
        VALUES ($1, $2, 'Hero', 'might', 3, 9, 'attribute_check', '{4,2,6}', 12, 12, true, 'success', 3, 4711)
        RETURNING *";
    let one_roll = StatementPair {
        name: "one roll, with its event",
        role: Role::Authenticated,
        is_repeatable: true,
        specification: specification_workload(
            &[("roll", insert_roll_sql), ("event", INSERT_EVENT)],
            argument_sets,
            |argument_set| {
                let execute_roll_sql = format!(
                    "EXECUTE roll({}, {})",
                    quote_literal(argument_set.session),
                    quote_literal(argument_set.character)
                );
                (
                    argument_set.player.to_string(),
                    format!(
                        "{execute_roll_sql}; {}",
                        insert_event_sql(argument_set.session, "dice_rolled", ROLL_EVENT_PAYLOAD)
                    ),
                )
            },
        ),
        ours: single_statement_workload("ours", ours.sql.clone(), argument_sets, |argument_set| {
            (argument_set.player.to_string(), roll_values(argument_set))
        }),
    };
    Ok(vec![one_event, one_roll])
}

/// Captures joining, leaving, starting and completing a session.
async fn capture_seats_and_statuses(
    capture: &mut StatementCapture,
    argument_sets: &[ArgumentSet],
) -> Result<Vec<StatementPair>, Failure> {
    let argument_set = &argument_sets[0];

    let tx = capture.sparc.as_user(argument_set.newcomer).begin().await?;
    tx.sessions().join(&argument_set.open_session_code.parse::<JoinCode>()?, argument_set.newcomer_character).await?;
    tx.rollback().await?;
    let ours = capture.last_new_statement().await?;
    let insert_seat_sql = "INSERT INTO session_players (session_id, user_id, character_id)
        SELECT id, $2, $3 FROM sessions WHERE code = $1
        RETURNING *";
    let join = StatementPair {
        name: "joining by code, with its event",
        role: Role::Authenticated,
        is_repeatable: false,
        specification: specification_workload(
            &[("take_seat", insert_seat_sql), ("event", INSERT_EVENT)],
            argument_sets,
            |argument_set| {
                let [code, character, newcomer] = [
                    quote_literal(&argument_set.open_session_code),
                    quote_literal(argument_set.newcomer_character),
                    quote_literal(argument_set.newcomer),
                ];
                let execute_take_seat_sql = format!("EXECUTE take_seat({code}, {newcomer}, {character})");
                (
                    argument_set.newcomer.to_string(),
                    format!(
                        "{execute_take_seat_sql}; {}",
                        insert_event_sql(argument_set.open_session, "player_joined", SEAT_EVENT_PAYLOAD)
                    ),
                )
            },
        ),
        ours: single_statement_workload("ours", ours.sql.clone(), argument_sets, |argument_set| {
            (
                argument_set.newcomer.to_string(),
                vec![quote_literal(&argument_set.open_session_code), quote_literal(argument_set.newcomer_character)],
            )
        }),
    };

    let tx = capture.sparc.as_user(argument_set.open_session_player).begin().await?;
    tx.sessions().leave(argument_set.open_session).await?;
    tx.rollback().await?;
    let ours = capture.last_new_statement().await?;
    let update_seat_sql = "UPDATE session_players SET is_active = false, left_at = now()
        WHERE session_id = $1 AND user_id = $2
        RETURNING *";
    let leave = StatementPair {
        name: "leaving, with its event",
        role: Role::Authenticated,
        is_repeatable: false,
        specification: specification_workload(
            &[("leave_seat", update_seat_sql), ("event", INSERT_EVENT)],
            argument_sets,
            |argument_set| {
                let execute_leave_seat_sql = format!(
                    "EXECUTE leave_seat({}, {})",
                    quote_literal(argument_set.open_session),
                    quote_literal(argument_set.open_session_player)
                );
                (
                    argument_set.open_session_player.to_string(),
                    format!(
                        "{execute_leave_seat_sql}; {}",
                        insert_event_sql(argument_set.open_session, "player_left", SEAT_EVENT_PAYLOAD)
                    ),
                )
            },
        ),
        ours: single_statement_workload("ours", ours.sql.clone(), argument_sets, |argument_set| {
            // The new value of `is_active`, and the two ids in the conditions.
            let values = [
                "false".to_owned(),
                quote_literal(argument_set.open_session),
                quote_literal(argument_set.open_session_player),
            ];
            (argument_set.open_session_player.to_string(), values.to_vec())
        }),
    };

    let tx = capture.sparc.as_user(argument_set.open_session_seer).begin().await?;
    tx.sessions().start(argument_set.open_session).await?;
    tx.rollback().await?;
    let our_start_statement = capture.last_new_statement().await?;
    let tx = capture.sparc.as_user(argument_set.seer).begin().await?;
    tx.sessions().complete(argument_set.session).await?;
    tx.rollback().await?;
    let our_completion_statement = capture.last_new_statement().await?;
    let update_status_sql = |new_status: &str, time_column: &str| {
        format!("UPDATE sessions SET status = '{new_status}', {time_column} = now() WHERE id = $1 RETURNING *")
    };
    let specification_start_sql = update_status_sql("active", "started_at");
    let specification_completion_sql = update_status_sql("completed", "ended_at");
    // `allowed_old_statuses` are the last parameters of the captured statement that starts a session: the database does
    // not distinguish starting from resuming, so the statement itself excludes paused sessions. The statement that
    // completes a session has no such parameters, because the database's own check of the old status is enough.
    let status_change_pair =
        |name,
         specification_sql: &str,
         ours_sql: &str,
         (old_status, new_status): (&str, &str),
         allowed_old_statuses: &[&str],
         session_and_seer: fn(&ArgumentSet) -> (Uuid, Uuid)| StatementPair {
            name,
            role: Role::Authenticated,
            is_repeatable: false,
            specification: specification_workload(
                &[("change_status", specification_sql), ("event", INSERT_EVENT)],
                argument_sets,
                |argument_set| {
                    let (session, seer) = session_and_seer(argument_set);
                    let execute_change_status_sql = format!("EXECUTE change_status({})", quote_literal(session));
                    let payload = format!(
                        r#"{{"from": "{old_status}", "to": "{new_status}", "started_at": null, "ended_at": null}}"#
                    );
                    let event_sql = insert_event_sql(session, "session_status", &payload);
                    (seer.to_string(), format!("{execute_change_status_sql}; {event_sql}"))
                },
            ),
            ours: single_statement_workload("ours", ours_sql.to_owned(), argument_sets, |argument_set| {
                let (session, seer) = session_and_seer(argument_set);
                let old_statuses = allowed_old_statuses.iter().map(quote_literal);
                (
                    seer.to_string(),
                    [quote_literal(new_status), quote_literal(session)].into_iter().chain(old_statuses).collect(),
                )
            }),
        };
    Ok(vec![
        join,
        leave,
        status_change_pair(
            "starting a session, with its event",
            &specification_start_sql,
            &our_start_statement.sql,
            ("waiting", "active"),
            &STARTABLE_STATUSES,
            |argument_set| (argument_set.open_session, argument_set.open_session_seer),
        ),
        status_change_pair(
            "completing a session of six players, with its event",
            &specification_completion_sql,
            &our_completion_statement.sql,
            ("active", "completed"),
            &[],
            |argument_set| (argument_set.session, argument_set.seer),
        ),
    ])
}
