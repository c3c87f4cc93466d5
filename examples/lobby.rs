//! The lobby (the public sessions that wait for players) in the terminal, page after page.
//!
//! `cargo run --example lobby` shows the sessions of a new database with sample rows;
//! `cargo run --example lobby -- ford` shows those whose adventure or Seer has `ford` in the name. With `DATABASE_URL`,
//! the program migrates that database, adds no rows, and shows the sessions that are there.

use std::{
    env,
    io::{self, IsTerminal},
};

use anstream::println;
use chrono::{Duration, Utc};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use owo_colors::OwoColorize;
use sparc::entity::sea_orm_active_enums::{DifficultyLevel, SessionStatus};
use sparc::service::{
    Error, Operations, Sparc,
    adventures::{AdventureContent, NewAdventure},
    sessions::{LobbyFilter, NewSession, SessionSummary, Visibility},
    users::NewAccount,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let database = testdb::Database::open_and_migrate().await?;
    let sparc = Sparc::connect(database.url()).await?;
    if env::var_os("DATABASE_URL").is_none_or(|url| url.is_empty()) {
        create_sample_sessions(&sparc).await?;
    }

    let search_words: Vec<String> = env::args().skip(1).collect();
    let filter =
        LobbyFilter { search: (!search_words.is_empty()).then(|| search_words.join(" ")), ..Default::default() };
    let visitor = sparc.as_anon();
    // `after` is the cursor that the previous page returned as `next`.
    let (mut after, mut page_number) = (None, 0);
    loop {
        let page = visitor.sessions().lobby(&filter, after.as_ref()).await?;
        page_number += 1;
        println!("{}\n{}", format!("page {page_number}").bold(), sessions_table(&page.items));
        match page.next {
            Some(next) if ask_for_next_page()? => after = Some(next),
            _ => break,
        }
    }
    Ok(sparc.close().await?)
}

/// Asks the person at the terminal whether to show the next page, and returns the answer. If the input is not a
/// terminal, returns `true` without asking.
fn ask_for_next_page() -> io::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(true);
    }
    println!("{}", "Enter for the next page, q to quit".dimmed());
    let mut line = String::new();
    Ok(io::stdin().read_line(&mut line)? > 0 && !line.trim().eq_ignore_ascii_case("q"))
}

fn sessions_table(sessions: &[SessionSummary]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header([
        "adventure",
        "difficulty",
        "minutes",
        "Seer",
        "begins",
        "seats",
        "looking for",
    ]);
    for session in sessions {
        let (adventure_name, difficulty, minutes) = session.adventure.as_ref().map_or_else(
            // A visitor can read only published adventures.
            || ("a secret".to_owned(), String::new(), String::new()),
            |adventure| {
                let difficulty = format!("{:?}", adventure.difficulty).to_lowercase();
                (adventure.name.clone(), difficulty, adventure.estimated_duration.to_string())
            },
        );
        let start_text = match (session.status, session.scheduled_start) {
            (SessionStatus::StartingSoon, _) => "soon".to_owned(),
            (_, Some(start)) => start.format("%a %d %b %H:%M").to_string(),
            (_, None) => "not scheduled".to_owned(),
        };
        let seats = format!("{}/{}", session.seats_taken, session.max_players);
        table.add_row([
            adventure_name,
            difficulty,
            minutes,
            session.seer_name.clone(),
            start_text,
            seats,
            session.looking_for.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// Creates two Seers with fifteen sessions each. Of each Seer's sessions, three have no scheduled start, and one of
/// these three is announced as starting soon; the other twelve start in three to fourteen days.
async fn create_sample_sessions(sparc: &Sparc) -> Result<(), Error> {
    let content = || AdventureContent::single_scene("It begins here, and it ends here.");
    for (seer_name, adventure_name, difficulty) in
        [("Morgan", "The Drowned Ford", DifficultyLevel::Hard), ("Edda", "The Quiet Mill", DifficultyLevel::Easy)]
    {
        let account = NewAccount { display_name: Some(seer_name.into()), ..Default::default() };
        let seer = sparc.as_user(sparc.as_service().users().sign_up(account).await?.id);
        let new_adventure =
            NewAdventure { name: adventure_name.into(), difficulty, content: content(), ..Default::default() };
        let adventure = seer.adventures().create(new_adventure).await?;
        seer.adventures().publish(adventure.id).await?;
        for number in 0..15 {
            let new_session = NewSession {
                adventure_id: adventure.id,
                visibility: Visibility::Public,
                looking_for: (number % 3 == 0).then(|| "a healer".to_owned()),
                scheduled_start: (number > 2).then(|| Utc::now() + Duration::days(number)),
                ..Default::default()
            };
            let session = seer.sessions().create(new_session).await?;
            if number == 1 {
                // Gives the session the status `starting_soon`.
                seer.sessions().announce_start(session.id).await?;
            }
        }
    }
    Ok(())
}
