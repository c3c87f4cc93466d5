//! The writing statements of users and jobs. Both schemas end with the same rows: where a trigger of this schema writes
//! an event, the specification's client writes the event.

use std::time::Duration;

use entity::sea_orm_active_enums::Attribute;
use sea_orm::TransactionTrait;
use service::{
    Difficulty, JoinCode, Operations,
    dice::{NewRoll, Roller},
    events::NewEvent,
    maintenance::JobOptions,
    users::NewAccount,
};
use uuid::Uuid;

use crate::{
    Failure,
    capture::StatementCapture,
    measure::Measure,
    overhead,
    reads::{quoted, workload},
    samples::Sample,
    workload::{Execution, Role, Workload},
};

const EVENT: &str = "INSERT INTO session_events (session_id, event_type, payload) VALUES ($1, $2, $3) RETURNING *";

/// Inserts a thousand expired events for the clean-up. They have payloads, so that they are stored together like events
/// written one after another; without payloads, each would fill a gap on one of a thousand scattered pages.
const OLD_EVENTS: &str = "SET LOCAL session_replication_role = replica;
    INSERT INTO session_events (session_id, event_type, payload, created_at)
    SELECT session_id, event_type, payload, now() - INTERVAL '1 day' - INTERVAL '1 minute' * row_number() OVER ()
    FROM (SELECT session_id, event_type, payload FROM session_events LIMIT 1000) AS existing;
    SET LOCAL session_replication_role = origin";

/// Returns the specification's workload: prepared statements, executed one after the other.
fn sequence(
    prepared: &[(&str, &str)],
    samples: &[Sample],
    execution: impl Fn(&Sample) -> (String, String),
) -> Workload {
    Workload {
        prepared: prepared.iter().map(|(name, sql)| ((*name).to_owned(), (*sql).to_owned())).collect(),
        executions: samples
            .iter()
            .map(|sample| {
                let (user, timed) = execution(sample);
                Execution { user, before: String::new(), timed }
            })
            .collect(),
    }
}

fn event(session: impl std::fmt::Display, kind: &str, payload: &str) -> String {
    format!("EXECUTE event({}, '{kind}', {})", quoted(session), quoted(payload))
}

/// The values of a start: the new status, and the statuses from which it is allowed.
const START: [&str; 4] = ["active", "waiting", "starting_soon", "active"];

const JOINED: &str =
    r#"{"user_id": "0", "display_name": "Player", "character_name": "Hero", "character_class": "rogue"}"#;
const STATUS: &str = r#"{"from": "waiting", "to": "active", "started_at": null, "ended_at": null}"#;
/// The payload of a roll's event.
pub const ROLLED: &str = r#"{"roll_id": "0", "character_name": "Hero", "roll_type": "attack", "attribute": "might",
    "difficulty": 9, "results": [4, 2, 6], "total": 12, "outcome": "success", "success": true}"#;

/// Returns all writes.
pub async fn writes(capture: &mut StatementCapture, samples: &[Sample]) -> Result<Vec<Measure>, Failure> {
    let mut measures = rolls_and_events(capture, samples).await?;
    measures.extend(overhead::bare(samples));
    measures.extend(seats(capture, samples).await?);
    measures.extend(jobs(capture, samples).await?);
    Ok(measures)
}

async fn rolls_and_events(capture: &mut StatementCapture, samples: &[Sample]) -> Result<Vec<Measure>, Failure> {
    let sample = &samples[0];
    let ada = capture.sparc.as_user(sample.player);

    let tx = ada.begin().await?;
    let new =
        NewEvent { id: None, session_id: sample.session, kind: "wave".to_owned(), payload: serde_json::json!({}) };
    tx.events().send(new).await?;
    tx.rollback().await?;
    let ours = capture.last_statement().await?;
    let one_event = Measure {
        name: "one event",
        role: Role::Authenticated,
        is_repeatable: true,
        specification: sequence(&[("event", EVENT)], samples, |sample| {
            (sample.player.to_string(), event(sample.session, "client.wave", "{}"))
        }),
        ours: workload(
            "ours",
            ours.sql.clone(),
            samples,
            &(Box::new(|sample: &Sample| {
                let values =
                    ["gen_random_uuid()".to_owned(), quoted(sample.session), quoted("client.wave"), quoted("{}")];
                (sample.player.to_string(), values.to_vec())
            }) as _),
        ),
    };

    let tx = ada.begin().await?;
    tx.dice().roll(check(sample)?).await?;
    tx.rollback().await?;
    let ours = capture.last_statement().await?;
    let roll = "INSERT INTO dice_rolls (session_id, character_id, character_name, attribute, dice_count, difficulty,
            roll_type, results, total, modified_total, success, outcome, margin, animation_seed)
        VALUES ($1, $2, 'Hero', 'might', 3, 9, 'attribute_check', '{4,2,6}', 12, 12, true, 'success', 3, 4711)
        RETURNING *";
    let one_roll = Measure {
        name: "one roll, with its event",
        role: Role::Authenticated,
        is_repeatable: true,
        specification: sequence(&[("roll", roll), ("event", EVENT)], samples, |sample| {
            let roll = format!("EXECUTE roll({}, {})", quoted(sample.session), quoted(sample.hero));
            (sample.player.to_string(), format!("{roll}; {}", event(sample.session, "dice_rolled", ROLLED)))
        }),
        ours: workload(
            "ours",
            ours.sql.clone(),
            samples,
            &(Box::new(|sample: &Sample| (sample.player.to_string(), roll_values(sample))) as _),
        ),
    };
    Ok(vec![one_event, one_roll])
}

/// Returns the roll that the player of a sample makes.
pub fn check(sample: &Sample) -> Result<NewRoll, Failure> {
    Ok(NewRoll::check(sample.session, Roller::Character(sample.hero), Attribute::Might, Difficulty::new(9)?))
}

/// Returns the values of the service's INSERT of a roll, in the order of its parameters.
pub fn roll_values(sample: &Sample) -> Vec<String> {
    let [session, hero] = [sample.session, sample.hero].map(quoted);
    ["gen_random_uuid()", &session, &hero, "NULL", "'might'", "9", "'attribute_check'", "'[]'", "NULL"]
        .map(str::to_owned)
        .to_vec()
}

async fn seats(capture: &mut StatementCapture, samples: &[Sample]) -> Result<Vec<Measure>, Failure> {
    let sample = &samples[0];

    let tx = capture.sparc.as_user(sample.newcomer).begin().await?;
    tx.sessions().join(&sample.open_code.parse::<JoinCode>()?, sample.newcomer_hero).await?;
    tx.rollback().await?;
    let ours = capture.last_statement().await?;
    let take_seat = "INSERT INTO session_players (session_id, user_id, character_id)
        SELECT id, $2, $3 FROM sessions WHERE code = $1
        RETURNING *";
    let join = Measure {
        name: "a join by code, with its event",
        role: Role::Authenticated,
        is_repeatable: false,
        specification: sequence(&[("take_seat", take_seat), ("event", EVENT)], samples, |sample| {
            let [code, hero, me] = [quoted(&sample.open_code), quoted(sample.newcomer_hero), quoted(sample.newcomer)];
            let take_seat = format!("EXECUTE take_seat({code}, {me}, {hero})");
            (sample.newcomer.to_string(), format!("{take_seat}; {}", event(sample.open, "player_joined", JOINED)))
        }),
        ours: workload(
            "ours",
            ours.sql.clone(),
            samples,
            &(Box::new(|sample: &Sample| {
                (sample.newcomer.to_string(), vec![quoted(&sample.open_code), quoted(sample.newcomer_hero)])
            }) as _),
        ),
    };

    let tx = capture.sparc.as_user(sample.open_player).begin().await?;
    tx.sessions().leave(sample.open).await?;
    tx.rollback().await?;
    let ours = capture.last_statement().await?;
    let leave_seat = "UPDATE session_players SET is_active = false, left_at = now()
        WHERE session_id = $1 AND user_id = $2
        RETURNING *";
    let leave = Measure {
        name: "leaving, with its event",
        role: Role::Authenticated,
        is_repeatable: false,
        specification: sequence(&[("leave_seat", leave_seat), ("event", EVENT)], samples, |sample| {
            let leave_seat = format!("EXECUTE leave_seat({}, {})", quoted(sample.open), quoted(sample.open_player));
            (sample.open_player.to_string(), format!("{leave_seat}; {}", event(sample.open, "player_left", JOINED)))
        }),
        ours: workload(
            "ours",
            ours.sql.clone(),
            samples,
            &(Box::new(|sample: &Sample| {
                let values = ["false".to_owned(), quoted(sample.open), quoted(sample.open_player)];
                (sample.open_player.to_string(), values.to_vec())
            }) as _),
        ),
    };

    let tx = capture.sparc.as_user(sample.open_seer).begin().await?;
    tx.sessions().start(sample.open).await?;
    tx.rollback().await?;
    let started = capture.last_statement().await?;
    let tx = capture.sparc.as_user(sample.seer).begin().await?;
    tx.sessions().complete(sample.session).await?;
    tx.rollback().await?;
    let completed = capture.last_statement().await?;
    let status = |to: &str, stamp: &str| {
        format!("UPDATE sessions SET status = '{to}', {stamp} = now() WHERE id = $1 RETURNING *")
    };
    let (start, complete) = (status("active", "started_at"), status("completed", "ended_at"));
    let change = |name, sql: &str, ours: &str, to: &'static [&'static str], of: fn(&Sample) -> (Uuid, Uuid)| Measure {
        name,
        role: Role::Authenticated,
        is_repeatable: false,
        specification: sequence(&[("change_status", sql), ("event", EVENT)], samples, |sample| {
            let (session, seer) = of(sample);
            let change = format!("EXECUTE change_status({})", quoted(session));
            (seer.to_string(), format!("{change}; {}", event(session, "session_status", STATUS)))
        }),
        ours: workload(
            "ours",
            ours.to_owned(),
            samples,
            &(Box::new(move |sample: &Sample| {
                let (session, seer) = of(sample);
                let (to, from) = (quoted(to[0]), to[1..].iter().map(quoted));
                (seer.to_string(), [to, quoted(session)].into_iter().chain(from).collect())
            }) as _),
        ),
    };
    Ok(vec![
        join,
        leave,
        change("a status change, with its event", &start, &started.sql, &START, |sample| {
            (sample.open, sample.open_seer)
        }),
        change("completing with six players", &complete, &completed.sql, &["completed"], |sample| {
            (sample.session, sample.seer)
        }),
    ])
}

async fn jobs(capture: &mut StatementCapture, samples: &[Sample]) -> Result<Vec<Measure>, Failure> {
    let service = capture.sparc.as_service();
    let tx = service.begin().await?;
    tx.users().sign_up(NewAccount { email: Some("new@mail.example".to_owned()), ..Default::default() }).await?;
    tx.rollback().await?;
    let sign_up = capture.new_statements().await?.into_iter().find(|prepared| prepared.sql.contains("auth"));
    let sign_up = sign_up.ok_or(Failure::Message("no sign-up statement was captured".into()))?;
    let tx = service.begin().await?;
    tx.maintenance().clean_events(JobOptions::default(), |_| ()).await?;
    tx.rollback().await?;
    let clean = capture.last_statement().await?;
    let tx = service.begin().await?;
    let one = JobOptions { batch_size: 1, time_limit: Duration::ZERO };
    tx.maintenance().archive_sessions(one, |_| ()).await?;
    tx.rollback().await?;
    let archive = capture.last_statement().await?;

    let plain = |name: &str, sql: String, before: &str, timed: String| Workload {
        prepared: vec![(name.to_owned(), sql)],
        executions: samples
            .iter()
            .map(|_| Execution { before: before.to_owned(), timed: timed.clone(), ..Default::default() })
            .collect(),
    };
    let account = "INSERT INTO auth.users (id, email, raw_user_meta_data) VALUES ($1, $2, $3)";
    // E-mail addresses must be unique, because the statement runs many times in one transaction.
    let values = "gen_random_uuid(), gen_random_uuid() || '@mail.example', '{\"display_name\": \"Newcomer\"}'";
    let delete = "DELETE FROM session_events WHERE created_at < NOW() - INTERVAL '24 hours'";
    let insert = "INSERT INTO archived_sessions SELECT * FROM sessions
        WHERE status = 'completed' AND ended_at < NOW() - INTERVAL '90 days'";
    let delete_sessions = "DELETE FROM sessions WHERE status = 'completed' AND ended_at < NOW() - INTERVAL '90 days'";
    Ok(vec![
        Measure {
            name: "a sign-up",
            role: Role::Service,
            is_repeatable: true,
            specification: plain("account", account.to_owned(), "", format!("EXECUTE account({values})")),
            ours: plain("ours", sign_up.sql, "", format!("EXECUTE ours({values})")),
        },
        Measure {
            name: "deleting a thousand old events",
            role: Role::Service,
            is_repeatable: false,
            specification: plain("clean", delete.to_owned(), OLD_EVENTS, "EXECUTE clean".to_owned()),
            ours: plain("ours", clean.sql, OLD_EVENTS, "EXECUTE ours(1000)".to_owned()),
        },
        Measure {
            name: "archiving a thousand sessions",
            role: Role::Owner,
            is_repeatable: false,
            specification: Workload {
                prepared: vec![
                    ("copy_sessions".to_owned(), insert.to_owned()),
                    ("delete_sessions".to_owned(), delete_sessions.to_owned()),
                ],
                executions: vec![Execution {
                    timed: "EXECUTE copy_sessions; EXECUTE delete_sessions".to_owned(),
                    ..Default::default()
                }],
            },
            ours: plain("ours", archive.sql, "", "EXECUTE ours(1000)".to_owned()),
        },
    ])
}
