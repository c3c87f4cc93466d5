//! What people and jobs write. Both sides leave the same behind: where a trigger of ours tells the table, the
//! specification's client writes the event itself.

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
    captured::Capturing,
    measure::Measure,
    overhead,
    reads::{asking, quoted},
    samples::Sample,
    side::{Asked, Asking, Role},
};

const EVENT: &str = "INSERT INTO session_events (session_id, event_type, payload) VALUES ($1, $2, $3) RETURNING *";

/// A day and a thousand minutes ago: what a clean-up finds. As long as the others, so that they stand together as those do that
/// were written one after the other: without a payload, each would fill what is left of a page, a thousand pages anywhere.
const OLD_EVENTS: &str = "SET LOCAL session_replication_role = replica;
    INSERT INTO session_events (session_id, event_type, payload, created_at)
    SELECT session_id, event_type, payload, now() - INTERVAL '1 day' - INTERVAL '1 minute' * row_number() OVER ()
    FROM (SELECT session_id, event_type, payload FROM session_events LIMIT 1000) AS like_others;
    SET LOCAL session_replication_role = origin";

/// The specification's side: statements one after the other.
fn together(prepared: &[(&str, &str)], samples: &[Sample], ask: impl Fn(&Sample) -> (String, String)) -> Asking {
    Asking {
        prepared: prepared.iter().map(|(name, sql)| ((*name).to_owned(), (*sql).to_owned())).collect(),
        asked: samples
            .iter()
            .map(|sample| {
                let (user, timed) = ask(sample);
                Asked { user, before: String::new(), timed }
            })
            .collect(),
    }
}

fn event(session: impl std::fmt::Display, kind: &str, payload: &str) -> String {
    format!("EXECUTE event({}, '{kind}', {})", quoted(session), quoted(payload))
}

/// To be active, from where a start leads.
const START: [&str; 4] = ["active", "waiting", "starting_soon", "active"];

const JOINED: &str =
    r#"{"user_id": "0", "display_name": "Player", "character_name": "Hero", "character_class": "rogue"}"#;
const STATUS: &str = r#"{"from": "waiting", "to": "active", "started_at": null, "ended_at": null}"#;
/// What the table is told of a roll.
pub const ROLLED: &str = r#"{"roll_id": "0", "character_name": "Hero", "roll_type": "attack", "attribute": "might",
    "difficulty": 9, "results": [4, 2, 6], "total": 12, "outcome": "success", "success": true}"#;

/// All writes.
pub async fn writes(capturing: &mut Capturing, samples: &[Sample]) -> Result<Vec<Measure>, Failure> {
    let mut measures = rolls_and_events(capturing, samples).await?;
    measures.extend(overhead::bare(samples));
    measures.extend(seats(capturing, samples).await?);
    measures.extend(jobs(capturing, samples).await?);
    Ok(measures)
}

async fn rolls_and_events(capturing: &mut Capturing, samples: &[Sample]) -> Result<Vec<Measure>, Failure> {
    let sample = &samples[0];
    let ada = capturing.sparc.as_user(sample.player);

    let tx = ada.begin().await?;
    let new =
        NewEvent { id: None, session_id: sample.session, kind: "wave".to_owned(), payload: serde_json::json!({}) };
    tx.events().send(new).await?;
    tx.rollback().await?;
    let ours = capturing.newest().await?;
    let one_event = Measure {
        name: "one event",
        role: Role::Authenticated,
        is_repeatable: true,
        specification: together(&[("event", EVENT)], samples, |sample| {
            (sample.player.to_string(), event(sample.session, "client.wave", "{}"))
        }),
        ours: asking(
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
    let ours = capturing.newest().await?;
    let roll = "INSERT INTO dice_rolls (session_id, character_id, character_name, attribute, dice_count, difficulty,
            roll_type, results, total, modified_total, success, outcome, margin, animation_seed)
        VALUES ($1, $2, 'Hero', 'might', 3, 9, 'attribute_check', '{4,2,6}', 12, 12, true, 'success', 3, 4711)
        RETURNING *";
    let one_roll = Measure {
        name: "one roll, and the table told",
        role: Role::Authenticated,
        is_repeatable: true,
        specification: together(&[("roll", roll), ("event", EVENT)], samples, |sample| {
            let roll = format!("EXECUTE roll({}, {})", quoted(sample.session), quoted(sample.hero));
            (sample.player.to_string(), format!("{roll}; {}", event(sample.session, "dice_rolled", ROLLED)))
        }),
        ours: asking(
            "ours",
            ours.sql.clone(),
            samples,
            &(Box::new(|sample: &Sample| (sample.player.to_string(), roll_values(sample))) as _),
        ),
    };
    Ok(vec![one_event, one_roll])
}

/// What the player of a sample rolls.
pub fn check(sample: &Sample) -> Result<NewRoll, Failure> {
    Ok(NewRoll::check(sample.session, Roller::Character(sample.hero), Attribute::Might, Difficulty::new(9)?))
}

/// The values of the statement of a roll, in its order.
pub fn roll_values(sample: &Sample) -> Vec<String> {
    let [session, hero] = [sample.session, sample.hero].map(quoted);
    ["gen_random_uuid()", &session, &hero, "NULL", "'might'", "9", "'attribute_check'", "'[]'", "NULL"]
        .map(str::to_owned)
        .to_vec()
}

async fn seats(capturing: &mut Capturing, samples: &[Sample]) -> Result<Vec<Measure>, Failure> {
    let sample = &samples[0];

    let tx = capturing.sparc.as_user(sample.newcomer).begin().await?;
    tx.sessions().join(&sample.open_code.parse::<JoinCode>()?, sample.newcomer_hero).await?;
    tx.rollback().await?;
    let ours = capturing.newest().await?;
    let sit = "INSERT INTO session_players (session_id, user_id, character_id)
        SELECT id, $2, $3 FROM sessions WHERE code = $1
        RETURNING *";
    let join = Measure {
        name: "a join by code, and the table told",
        role: Role::Authenticated,
        is_repeatable: false,
        specification: together(&[("sit", sit), ("event", EVENT)], samples, |sample| {
            let [code, hero, me] = [quoted(&sample.open_code), quoted(sample.newcomer_hero), quoted(sample.newcomer)];
            let sit = format!("EXECUTE sit({code}, {me}, {hero})");
            (sample.newcomer.to_string(), format!("{sit}; {}", event(sample.open, "player_joined", JOINED)))
        }),
        ours: asking(
            "ours",
            ours.sql.clone(),
            samples,
            &(Box::new(|sample: &Sample| {
                (sample.newcomer.to_string(), vec![quoted(&sample.open_code), quoted(sample.newcomer_hero)])
            }) as _),
        ),
    };

    let tx = capturing.sparc.as_user(sample.open_player).begin().await?;
    tx.sessions().leave(sample.open).await?;
    tx.rollback().await?;
    let ours = capturing.newest().await?;
    let stand = "UPDATE session_players SET is_active = false, left_at = now()
        WHERE session_id = $1 AND user_id = $2
        RETURNING *";
    let leave = Measure {
        name: "leaving, and the table told",
        role: Role::Authenticated,
        is_repeatable: false,
        specification: together(&[("stand", stand), ("event", EVENT)], samples, |sample| {
            let stand = format!("EXECUTE stand({}, {})", quoted(sample.open), quoted(sample.open_player));
            (sample.open_player.to_string(), format!("{stand}; {}", event(sample.open, "player_left", JOINED)))
        }),
        ours: asking(
            "ours",
            ours.sql.clone(),
            samples,
            &(Box::new(|sample: &Sample| {
                let values = ["false".to_owned(), quoted(sample.open), quoted(sample.open_player)];
                (sample.open_player.to_string(), values.to_vec())
            }) as _),
        ),
    };

    let tx = capturing.sparc.as_user(sample.open_seer).begin().await?;
    tx.sessions().start(sample.open).await?;
    tx.rollback().await?;
    let started = capturing.newest().await?;
    let tx = capturing.sparc.as_user(sample.seer).begin().await?;
    tx.sessions().complete(sample.session).await?;
    tx.rollback().await?;
    let completed = capturing.newest().await?;
    let status = |to: &str, stamp: &str| {
        format!("UPDATE sessions SET status = '{to}', {stamp} = now() WHERE id = $1 RETURNING *")
    };
    let (start, complete) = (status("active", "started_at"), status("completed", "ended_at"));
    let change = |name, sql: &str, ours: &str, to: &'static [&'static str], of: fn(&Sample) -> (Uuid, Uuid)| Measure {
        name,
        role: Role::Authenticated,
        is_repeatable: false,
        specification: together(&[("turn", sql), ("event", EVENT)], samples, |sample| {
            let (session, seer) = of(sample);
            let turn = format!("EXECUTE turn({})", quoted(session));
            (seer.to_string(), format!("{turn}; {}", event(session, "session_status", STATUS)))
        }),
        ours: asking(
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
        change("a status change, and the table told", &start, &started.sql, &START, |sample| {
            (sample.open, sample.open_seer)
        }),
        change("completing with six players", &complete, &completed.sql, &["completed"], |sample| {
            (sample.session, sample.seer)
        }),
    ])
}

async fn jobs(capturing: &mut Capturing, samples: &[Sample]) -> Result<Vec<Measure>, Failure> {
    let service = capturing.sparc.as_service();
    let tx = service.begin().await?;
    tx.users().sign_up(NewAccount { email: Some("new@mail.example".to_owned()), ..Default::default() }).await?;
    tx.rollback().await?;
    let sign_up = capturing.since().await?.into_iter().find(|prepared| prepared.sql.contains("auth"));
    let sign_up = sign_up.ok_or(Failure::Said("no statement signs up".into()))?;
    let tx = service.begin().await?;
    tx.maintenance().clean_events(JobOptions::default(), |_| ()).await?;
    tx.rollback().await?;
    let clean = capturing.newest().await?;
    let tx = service.begin().await?;
    let one = JobOptions { batch: 1, time: Duration::ZERO };
    tx.maintenance().archive_sessions(one, |_| ()).await?;
    tx.rollback().await?;
    let archive = capturing.newest().await?;

    let plain = |name: &str, sql: String, before: &str, timed: String| Asking {
        prepared: vec![(name.to_owned(), sql)],
        asked: samples
            .iter()
            .map(|_| Asked { before: before.to_owned(), timed: timed.clone(), ..Default::default() })
            .collect(),
    };
    let account = "INSERT INTO auth.users (id, email, raw_user_meta_data) VALUES ($1, $2, $3)";
    // An address for each: many are sent at once.
    let values = "gen_random_uuid(), gen_random_uuid() || '@mail.example', '{\"display_name\": \"Newcomer\"}'";
    let delete = "DELETE FROM session_events WHERE created_at < NOW() - INTERVAL '24 hours'";
    let insert = "INSERT INTO archived_sessions SELECT * FROM sessions
        WHERE status = 'completed' AND ended_at < NOW() - INTERVAL '90 days'";
    let drop = "DELETE FROM sessions WHERE status = 'completed' AND ended_at < NOW() - INTERVAL '90 days'";
    Ok(vec![
        Measure {
            name: "a sign-up",
            role: Role::Service,
            is_repeatable: true,
            specification: plain("account", account.to_owned(), "", format!("EXECUTE account({values})")),
            ours: plain("ours", sign_up.sql, "", format!("EXECUTE ours({values})")),
        },
        Measure {
            name: "a clean-up of a thousand events",
            role: Role::Service,
            is_repeatable: false,
            specification: plain("clean", delete.to_owned(), OLD_EVENTS, "EXECUTE clean".to_owned()),
            ours: plain("ours", clean.sql, OLD_EVENTS, "EXECUTE ours(1000)".to_owned()),
        },
        Measure {
            name: "an archive of a thousand sessions",
            role: Role::Owner,
            is_repeatable: false,
            specification: Asking {
                prepared: vec![("keep".to_owned(), insert.to_owned()), ("away".to_owned(), drop.to_owned())],
                asked: vec![Asked { timed: "EXECUTE keep; EXECUTE away".to_owned(), ..Default::default() }],
            },
            ours: plain("ours", archive.sql, "", "EXECUTE ours(1000)".to_owned()),
        },
    ])
}
