//! Maintenance in the background, with a progress bar for each job: deletes old events, cancels abandoned sessions,
//! archives old sessions, vacuums tables.
//!
//! `cargo run --example maintenance` runs on a new database with old rows; with `DATABASE_URL`, it migrates that
//! database and runs on it.

use std::{env, io::IsTerminal, time::Duration};

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
async fn main() -> anyhow::Result<()> {
    let database = testdb::Database::open_and_migrate().await?;
    let sparc = Sparc::connect(database.url()).await?;
    // A new database has nothing to maintain, unless old rows are inserted.
    if env::var_os("DATABASE_URL").is_none_or(|url| url.is_empty()) {
        insert_old_rows(&sparc).await?;
    }

    let backlog = sparc.as_service().maintenance().backlog().await?;
    let options = JobOptions { batch_size: 500, time_limit: Duration::from_secs(60) };
    // The jobs run in a background task, as they would in a service.
    let maintenance = tokio::spawn(async move {
        let service = sparc.as_service();
        let event_bar = progress_bar("events deleted", backlog.old_events);
        let report = service.maintenance().delete_old_events(options, |so_far| event_bar.set_position(so_far)).await?;
        finish_bar(&event_bar, "events deleted", report);
        let cancel_bar = progress_bar("sessions cancelled", backlog.abandoned_sessions);
        let report =
            service.maintenance().cancel_abandoned_sessions(options, |so_far| cancel_bar.set_position(so_far)).await?;
        finish_bar(&cancel_bar, "sessions cancelled", report);
        let archive_bar = progress_bar("sessions archived", backlog.archivable_sessions);
        let report = service.maintenance().archive_sessions(options, |so_far| archive_bar.set_position(so_far)).await?;
        finish_bar(&archive_bar, "sessions archived", report);
        // The job vacuums the four tables whose rows change most.
        let vacuum_bar = progress_bar("tables vacuumed", 4);
        match service.maintenance().vacuum(options, |so_far| vacuum_bar.set_position(so_far)).await {
            Ok(report) => finish_bar(&vacuum_bar, "tables vacuumed", report),
            // Only the login that owns the tables may vacuum them.
            Err(Error::NotAllowed { rule }) => {
                vacuum_bar.abandon();
                eprintln!("tables not vacuumed: {rule}");
            }
            Err(error) => return Err(error),
        }
        sparc.close().await
    });
    Ok(maintenance.await??)
}

fn progress_bar(label: &'static str, length: i64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:20} {wide_bar} {pos}/{len} {elapsed}");
    let bar = ProgressBar::new(length.unsigned_abs()).with_message(label);
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}

/// Stops the bar and leaves it on the screen. If standard error is not a terminal, no bar is shown, and this prints a
/// line with the result instead.
fn finish_bar(bar: &ProgressBar, label: &str, report: JobReport) {
    bar.abandon();
    if !std::io::stderr().is_terminal() {
        println!("{} {label}{}", report.processed, if report.reached_end { "" } else { ", more to do" });
    }
}

/// Inserts three thousand sessions that ended a year ago, and twenty thousand events from two days ago.
async fn insert_old_rows(sparc: &Sparc) -> anyhow::Result<()> {
    let service = sparc.as_service();
    let seer_id = service.users().sign_up(NewAccount::default()).await?.id;
    let seer = sparc.as_user(seer_id);
    let adventure = NewAdventure { name: "The Drowned Ford".into(), ..Default::default() };
    let adventure_id = seer.adventures().create(adventure).await?.id;
    let session = NewSession { adventure_id, ..Default::default() };
    let session_id = seer.sessions().create(session).await?.id;
    let days_ago = |days| DateTimeWithTimeZone::from(Utc::now() - TimeDelta::days(days));
    let (a_year_ago, two_days_ago) = (days_ago(365), days_ago(2));
    for _ in 0..3 {
        let old_sessions = (0..1000).map(|_| sessions::ActiveModel {
            id: Set(Uuid::new_v4()),
            seer_id: Set(seer_id),
            adventure_id: Set(adventure_id),
            status: Set(SessionStatus::Completed),
            ended_at: Set(Some(a_year_ago)),
            ..Default::default()
        });
        sessions::Entity::insert_many(old_sessions).exec_without_returning(&service).await?;
    }
    for _ in 0..4 {
        let old_events = (0..5000).map(|_| session_events::ActiveModel {
            session_id: Set(session_id),
            event_type: Set("client.old".to_owned()),
            created_at: Set(two_days_ago),
            ..Default::default()
        });
        session_events::Entity::insert_many(old_events).exec_without_returning(&service).await?;
    }
    Ok(())
}
