//! A whole game night: sign-up, an adventure, a session with all seats taken, dice, a heroic save, and statistics at
//! the end.
//!
//! `cargo run --example game_night` plays in a new database on a server of its own, or in the database that
//! `DATABASE_URL` names.

use std::{error::Error as StdError, process::ExitCode};

use anstream::{eprintln, println};
use chrono::{TimeDelta, Utc};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use owo_colors::OwoColorize;
use serde_json::json;
use sparc::entity::sea_orm_active_enums::{Attribute, CharacterClass, RollOutcome};
use sparc::migration::{self, Migrator, sea_orm_migration::MigratorTrait};
use sparc::service::{
    Difficulty, Error, IdentityConnection, JoinCode, MaxPlayers, Operations, Sparc,
    adventures::{AdventureContent, NewAdventure},
    characters::{NewCharacter, primary_attribute},
    creatures::{NewCreature, Stats},
    dice::{Modifier, NewInitiative, NewRoll, RollScope, Roller},
    sessions::{LobbyFilter, NewSession, Visibility},
    users::NewAccount,
};
use uuid::Uuid;

#[tokio::main]
async fn main() -> ExitCode {
    match play().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.red());
            ExitCode::FAILURE
        }
    }
}

async fn play() -> Result<(), Box<dyn StdError>> {
    let database = testdb::Database::open().await?;
    let migration_connection = migration::connect(database.url()).await?;
    Migrator::up(&migration_connection, None).await.map_err(|error| migration::operator_message(&error))?;
    migration_connection.close().await?;
    let sparc = Sparc::connect(database.url()).await?;

    print_heading("Six people sign up, and five of them create a character");
    let seer = sign_up(&sparc, "Morgan").await?;
    let mut party = Vec::new();
    let mut character_table = table(["player", "character", "class", "might", "grace", "wit", "heart"]);
    for (player_name, hero_name, class) in [
        ("Ada", "Brunhild", CharacterClass::Warrior),
        ("Ben", "Quick Nim", CharacterClass::Rogue),
        ("Cleo", "Old Ambrose", CharacterClass::Wizard),
        ("Dana", "Sister Maud", CharacterClass::Cleric),
        ("Eve", "Far-Walker", CharacterClass::Ranger),
    ] {
        let user = sign_up(&sparc, player_name).await?;
        let new = NewCharacter { name: hero_name.into(), class, ..Default::default() };
        let hero = user.characters().create(new).await?;
        let attributes = [hero.might, hero.grace, hero.wit, hero.heart].map(|value| value.to_string());
        let names_and_class = [player_name.into(), hero_name.into(), format!("{class:?}")];
        character_table.add_row(names_and_class.into_iter().chain(attributes));
        party.push((user, hero));
    }
    println!("{character_table}");

    print_heading("Morgan writes an adventure, which can be published once it is valid");
    let mut content: AdventureContent = serde_json::from_str(include_str!("the_drowned_ford.json"))?;
    // The content is not valid yet: its combat scene has no enemy.
    let draft = NewAdventure { name: "The Drowned Ford".into(), content: content.clone(), ..Default::default() };
    let adventure = seer.adventures().create(draft).await?;
    if let Err(Error::AdventureInvalid(errors)) = seer.adventures().publish(adventure.id).await {
        let error = &errors[0];
        println!("not yet: {:?} at {}", error.kind.yellow(), error.node.as_deref().unwrap_or("the adventure"));
    }
    content.nodes[1].enemies.push(json!("Reed Horror"));
    seer.adventures().set_content(adventure.id, &content).await?;
    seer.adventures().publish(adventure.id).await?;
    let stats = Stats { might: 4, grace: 2, ..Default::default() };
    let horror = NewCreature { name: "Reed Horror".into(), stats, ..Default::default() };
    let horror = seer.creatures().add(adventure.id, horror).await?;
    println!("published: {}", adventure.name.green());

    print_heading("Two sessions: a public one for next week, a private one for tonight");
    let next_week = NewSession {
        adventure_id: adventure.id,
        visibility: Visibility::Public,
        looking_for: Some("a healer".into()),
        scheduled_start: Some(Utc::now() + TimeDelta::days(7)),
        ..Default::default()
    };
    let next_week = seer.sessions().create(next_week).await?;
    let (eve, far_walker) = &party[4];
    eve.sessions().join_by_id(next_week.id, far_walker.id).await?;
    let tonight = NewSession { adventure_id: adventure.id, max_players: MaxPlayers::new(4)?, ..Default::default() };
    let tonight = seer.sessions().create(tonight).await?;
    let mut lobby_table = table(["adventure", "Seer", "looking for", "seats"]);
    for session in sparc.as_anon().sessions().lobby(&LobbyFilter::default(), None).await?.items {
        // A visitor can read only published adventures.
        let adventure_name = session.adventure.map_or("a secret".into(), |adventure| adventure.name);
        let seats = format!("{}/{}", session.seats_taken, session.max_players);
        lobby_table.add_row([adventure_name, session.seer_name, session.looking_for.unwrap_or_default(), seats]);
    }
    println!("{lobby_table}\nthe private session's code: {}", tonight.code.bold());

    let code: JoinCode = tonight.code.to_lowercase().parse()?;
    for (user, hero) in &party {
        match user.sessions().join(&code, hero.id).await {
            Ok(_) => println!("{} takes a seat", hero.name),
            Err(refusal @ Error::SessionFull) => {
                println!("{} gets no seat: {} ({refusal})", hero.name, refusal.code().red());
            }
            Err(error) => return Err(error.into()),
        }
    }

    print_heading("They play");
    let ((ada, _), (cleo, ambrose)) = (&party[0], &party[2]);
    seer.sessions().start(tonight.id).await?;
    seer.sessions().set_scene(tonight.id, Some("ford")).await?;
    seer.sessions().set_encounter(tonight.id, Some("wade")).await?;
    let creatures = vec![horror.id];
    for turn in
        seer.dice().roll_initiative(NewInitiative { id: None, session_id: tonight.id, creature_ids: creatures }).await?
    {
        let Some((user, hero)) = party.iter().find(|(_, hero)| turn.roller == Roller::Character(hero.id)) else {
            // Not a player's turn, but the Reed Horror's.
            let claw_attack = NewRoll::attack(tonight.id, turn.roller, Attribute::Might, Difficulty::new(10)?);
            if seer.dice().roll(claw_attack).await?.success {
                let after_damage = seer.characters().damage(ambrose.id, 2).await?;
                println!(
                    "the claws find {}: {} of {} hit points left",
                    ambrose.name, after_damage.hit_points, after_damage.max_hit_points
                );
            }
            continue;
        };
        let attribute = primary_attribute(hero.class);
        let attack = NewRoll::attack(tonight.id, turn.roller, attribute, Difficulty::new(12)?);
        user.dice().roll(attack.with(Modifier::flat(1, "high ground"))).await?;
    }
    let last_seq = print_events(ada, tonight.id, 0).await?;

    print_heading("Old Ambrose (might 1, so one die) pulls at the rope until one roll has failed and one was critical");
    let pull = NewRoll::attribute_check(tonight.id, Roller::Character(ambrose.id), Attribute::Might, Difficulty::MAX);
    let (mut failed_roll_id, mut had_critical) = (None, false);
    while failed_roll_id.is_none() || !had_critical {
        let roll = cleo.dice().roll(pull.clone()).await?;
        had_critical |= matches!(roll.outcome, RollOutcome::CriticalSuccess | RollOutcome::CriticalFailure);
        failed_roll_id = failed_roll_id.or((!roll.success).then_some(roll.id));
    }
    let failed_roll_id = failed_roll_id.ok_or("no roll failed")?;
    cleo.dice().use_heroic_save(failed_roll_id).await?;
    let last_seq = print_events(ada, tonight.id, last_seq).await?;
    if let Err(refusal) = cleo.dice().use_heroic_save(failed_roll_id).await {
        println!("a second save is refused: {} ({refusal})", refusal.code().red());
    }

    print_heading("The bell rings, and the night ends");
    seer.sessions().set_scene(tonight.id, Some("bell")).await?;
    seer.sessions().complete(tonight.id).await?;
    print_events(ada, tonight.id, last_seq).await?;
    let mut result_table = table(["player", "character", "rolls", "successes", "mean total", "games played"]);
    for player in ada.sessions().details(tonight.id).await?.players {
        let statistics = seer.dice().statistics(RollScope::Character(player.character_id)).await?;
        let games_played = seer.users().profile(player.user_id).await?.games_played;
        let mean = statistics.mean_modified_total.map_or("-".into(), |mean| format!("{mean:.1}"));
        let numbers = [statistics.rolls.to_string(), statistics.successes.to_string(), mean, games_played.to_string()];
        result_table.add_row([player.display_name, player.character_name].into_iter().chain(numbers));
    }
    let games_run = seer.users().me().await?.games_run;
    println!("{result_table}\nMorgan has run {games_run} game(s).");
    Ok(sparc.close().await?)
}

async fn sign_up(sparc: &Sparc, name: &str) -> Result<IdentityConnection, Error> {
    let id = Uuid::new_v4();
    let email = Some(format!("{id}@example.org"));
    let account = NewAccount { id: Some(id), email, display_name: Some(name.into()) };
    sparc.as_service().users().sign_up(account).await?;
    Ok(sparc.as_user(id))
}

/// Prints the session's events after the event number `last_seq`, and returns the number of the last one.
async fn print_events(participant: &IdentityConnection, session_id: Uuid, mut last_seq: i64) -> Result<i64, Error> {
    for event in participant.events().after(session_id, last_seq).await? {
        last_seq = event.seq;
        // The text of a field of the payload, without JSON's quotation marks; `none` for null.
        let field = |key: &str| event.payload[key].to_string().replace('"', "").replace("null", "none");
        let text = match event.event_type.as_str() {
            "dice_rolled" if event.payload["roll_type"] == "initiative" => {
                format!("{} rolls {} for initiative", field("character_name"), field("total"))
            }
            "dice_rolled" => {
                let (name, results, total) = (field("character_name"), field("results"), field("modified_total"));
                let (difficulty, outcome) = (field("difficulty"), field("outcome"));
                format!("{name} rolls {results}: {total} against {difficulty}, {outcome}")
            }
            "player_joined" => {
                let (player, character) = (field("display_name"), field("character_name"));
                format!("{player} as {character}, seats taken: {}", field("seats_taken"))
            }
            _ => format!("{} -> {}", field("from"), field("to")),
        };
        println!("  {} {text}", format!("{:<18}", event.event_type).cyan());
    }
    Ok(last_seq)
}

fn print_heading(title: &str) {
    println!("\n{}", title.bold());
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header);
    table
}
