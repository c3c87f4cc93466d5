//! Maintenance in the background, with a progress bar: old events are deleted, abandoned sessions cancelled, old sessions
//! archived, tables vacuumed.
//!
//! `cargo run --example maintenance` on a database of its own, with rows of last year; with `DATABASE_URL`, on yours, as
//! it is.

use std::{env, error::Error as StdError, io::IsTerminal, time::Duration};

use chrono::{TimeDelta, Utc};
use indicatif::{ProgressBar, ProgressStyle};
use sea_orm::{ActiveValue::Set, EntityTrait, prelude::DateTimeWithTimeZone};
use sparc::entity::{sea_orm_active_enums::SessionStatus, session_events, sessions};
use sparc::service::{
    Error, Operations, Sparc,
    adventures::NewAdventure,
    maintenance::{JobOptions, JobReport},
    sessions::NewSession,
    users::NewAccount,
};
use uuid::Uuid;

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let database = testdb::Database::open_migrated().await?;
    let sparc = Sparc::connect(database.url()).await?;
    if env::var_os("DATABASE_URL").is_none() {
        last_year(&sparc).await?;
    }

    let due = sparc.as_service().maintenance().backlog().await?;
    let run = JobOptions { batch: 500, time: Duration::from_secs(60) };
    // In a task of its own, as a service would do it.
    let working = tokio::spawn(async move {
        let service = sparc.as_service();
        let events = bar("events cleaned", due.events);
        let done = service.maintenance().clean_events(run, |so_far| events.set_position(so_far)).await?;
        end(&events, "events cleaned", done);
        let abandoned = bar("sessions cancelled", due.abandoned);
        let done = service.maintenance().cancel_abandoned(run, |so_far| abandoned.set_position(so_far)).await?;
        end(&abandoned, "sessions cancelled", done);
        let moved = bar("sessions archived", due.sessions);
        let done = service.maintenance().archive_sessions(run, |so_far| moved.set_position(so_far)).await?;
        end(&moved, "sessions archived", done);
        let tables = bar("tables vacuumed", 4);
        match service.maintenance().vacuum(run, |so_far| tables.set_position(so_far)).await {
            Ok(done) => end(&tables, "tables vacuumed", done),
            Err(Error::NotAllowed { rule }) => tables.abandon_with_message(rule),
            Err(other) => return Err(other),
        }
        sparc.close().await
    });
    Ok(working.await??)
}

fn bar(what: &'static str, length: i64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:20} {wide_bar} {pos}/{len} {elapsed}");
    let bar = ProgressBar::new(length.unsigned_abs()).with_message(what);
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}

/// A terminal keeps the bar; whoever reads a pipe is told in a line.
fn end(bar: &ProgressBar, what: &str, done: JobReport) {
    bar.abandon();
    if !std::io::stderr().is_terminal() {
        println!("{} {what}{}", done.rows, if done.is_finished { "" } else { ", more another time" });
    }
}

/// Three thousand sessions of last year, and twenty thousand events of the day before yesterday.
async fn last_year(sparc: &Sparc) -> Result<(), Box<dyn StdError>> {
    let service = sparc.as_service();
    let seer = service.users().sign_up(NewAccount::default()).await?.id;
    let adventure = NewAdventure { name: "The Drowned Ford".into(), ..Default::default() };
    let adventure = sparc.as_user(seer).adventures().create(adventure).await?.id;
    let table = NewSession { adventure_id: adventure, ..Default::default() };
    let table = sparc.as_user(seer).sessions().create(table).await?.id;
    let ago = |days| DateTimeWithTimeZone::from(Utc::now() - TimeDelta::days(days));
    let (long_ago, lately) = (ago(365), ago(2));
    for _ in 0..3 {
        let old = (0..1000).map(|_| sessions::ActiveModel {
            id: Set(Uuid::new_v4()),
            seer_id: Set(seer),
            adventure_id: Set(adventure),
            status: Set(SessionStatus::Completed),
            ended_at: Set(Some(long_ago)),
            ..Default::default()
        });
        sessions::Entity::insert_many(old).exec_without_returning(&service).await?;
    }
    for _ in 0..4 {
        let old = (0..5000).map(|_| session_events::ActiveModel {
            session_id: Set(table),
            event_type: Set("client.old".to_owned()),
            created_at: Set(lately),
            ..Default::default()
        });
        session_events::Entity::insert_many(old).exec_without_returning(&service).await?;
    }
    Ok(())
}
