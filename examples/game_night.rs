//! A whole game night: sign-up, an adventure, a full table, dice, a heroic save, the statistics at the end.
//!
//! `cargo run --example game_night` plays on a database that it starts itself; `DATABASE_URL` names another.

use std::{error::Error as StdError, process::ExitCode};

use anstream::{eprintln, println};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use owo_colors::OwoColorize;
use serde_json::json;
use sparc::{
    entity::sea_orm_active_enums::{Attribute, CharacterClass, RollOutcome, RollType},
    migration::{self, Migrator, sea_orm_migration::MigratorTrait},
    service::{
        As, Difficulty, Error, JoinCode, Operations, Sparc, TableSize,
        adventures::{NewAdventure, NewCreature},
        characters::NewCharacter,
        dice::{Modifier, NewRoll, Roller, StatisticsOf, Stats},
        sessions::{LobbyFilter, NewSession, Visibility},
        users::NewAccount,
    },
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
    let database = throwaway::Database::open().await?;
    let migrating = migration::connect(database.url()).await?;
    Migrator::up(&migrating, None).await?;
    migrating.close().await?;
    let sparc = Sparc::connect(database.url()).await?;

    act("Six people sign up, and five of them make a character");
    let seer = sign_up(&sparc, "Morgan").await?;
    let mut party = Vec::new();
    for (player, name, class) in [
        ("Ada", "Brunhild", CharacterClass::Warrior),
        ("Ben", "Quick Nim", CharacterClass::Rogue),
        ("Cleo", "Old Ambrose", CharacterClass::Wizard),
        ("Dana", "Sister Maud", CharacterClass::Cleric),
        ("Eve", "Far-Walker", CharacterClass::Ranger),
    ] {
        let user = sign_up(&sparc, player).await?;
        let new = NewCharacter { name: name.into(), class, ..Default::default() };
        let character = user.characters().create(new).await?;
        party.push((user, character));
    }
    let mut sheets = table(["player", "character", "class", "might", "grace", "wit", "heart"]);
    for (user, c) in &party {
        let player = user.users().me().await?.display_name;
        let class = format!("{:?}", c.class);
        sheets.add_row(
            [player, c.name.clone(), class]
                .into_iter()
                .chain([c.might, c.grace, c.wit, c.heart].map(|n| n.to_string())),
        );
    }
    println!("{sheets}");

    act("Morgan writes an adventure; it is published once it holds together");
    let mut story = json!({
        "start": "ford",
        "nodes": [
            { "id": "ford", "type": "decision", "title": "The Drowned Ford",
              "text": "The ferry rope is cut. Across the black water a lantern swings, and nobody holds it." },
            { "id": "wade", "type": "combat", "title": "Something in the reeds",
              "text": "The water is warm where it should be cold. Then it stands up." },
            { "id": "bell", "type": "story", "title": "The bell",
              "text": "You ring the drowned bell. The lantern bows, once, and leads the way home." },
        ],
        "connections": [
            { "from": "ford", "to": "wade", "label": "Wade across" },
            { "from": "ford", "to": "bell", "label": "Ring the bell under the water" },
        ],
    });
    let draft = NewAdventure {
        name: "The Drowned Ford".into(),
        content: serde_json::from_value(story.clone())?,
        ..Default::default()
    };
    let adventure = seer.adventures().create(draft).await?;
    if let Err(Error::AdventureInvalid(faults)) = seer.adventures().publish(adventure.id).await {
        println!("not yet: {}", format!("{:?} at {:?}", faults[0].kind, faults[0].node).yellow());
    }
    story["nodes"][1]["enemies"] = json!(["Reed Horror"]);
    seer.adventures().set_content(adventure.id, &serde_json::from_value(story)?).await?;
    seer.adventures().publish(adventure.id).await?;
    let stats = Stats { might: 4, grace: 2, wit: 1, heart: 1 };
    let horror = NewCreature { name: "Reed Horror".into(), stats, ..Default::default() };
    let horror = seer.adventures().add_creature(adventure.id, horror).await?;
    println!("published: {}", adventure.name.green());

    act("Two tables: one that everybody sees, one for those who have the code");
    let next_week = NewSession {
        adventure_id: adventure.id,
        visibility: Visibility::Public,
        looking_for: Some("a healer".into()),
        ..Default::default()
    };
    let next_week = seer.sessions().create(next_week).await?;
    party[4].0.sessions().join_public(next_week.id, party[4].1.id).await?;
    let tonight = NewSession { adventure_id: adventure.id, max_players: TableSize::new(4)?, ..Default::default() };
    let tonight = seer.sessions().create(tonight).await?;
    let mut lobby = table(["lobby", "Seer", "looking for", "seats"]);
    for row in sparc.as_anon().sessions().lobby(&LobbyFilter::default(), None).await?.rows {
        let name = row.adventure.map_or("a secret".into(), |adventure| adventure.name);
        lobby.add_row([
            name,
            row.seer_name,
            row.looking_for.unwrap_or_default(),
            format!("{}/{}", row.seats_taken, row.max_players),
        ]);
    }
    println!("{lobby}\nthe private table's code: {}", tonight.code.bold());

    let code: JoinCode = tonight.code.to_lowercase().parse()?;
    for (user, character) in &party {
        match user.sessions().join(&code, character.id).await {
            Ok(_) => println!("{} sits down", character.name),
            Err(error @ Error::SessionFull) => {
                println!("{} finds no seat: {} ({error})", character.name, error.code().red())
            }
            Err(other) => return Err(other.into()),
        }
    }

    act("They play");
    let mut seen = 0;
    seer.sessions().start(tonight.id).await?;
    seer.sessions().set_scene(tonight.id, Some("ford")).await?;
    seer.sessions().set_encounter(tonight.id, Some("wade")).await?;
    let (ada, ambrose) = (&party[0], &party[2]);
    let check = |roller, attribute, difficulty| NewRoll::check(tonight.id, roller, attribute, difficulty);
    for (user, character) in &party[..4] {
        let attribute = sparc::service::characters::primary_attribute(character.class);
        let mut attack = check(Roller::Character(character.id), attribute, Difficulty::new(12)?);
        attack.kind = RollType::Attack;
        attack.modifiers = vec![Modifier::flat(1, "high ground")];
        user.dice().roll(attack).await?;
    }
    let mut claws = check(Roller::Creature(horror.id), Attribute::Might, Difficulty::new(10)?);
    claws.kind = RollType::Attack;
    seer.dice().roll(claws).await?;
    seen = tell(&ada.0, tonight.id, seen).await?;

    act("Old Ambrose, one die strong, pulls at the rope until fate takes notice");
    let pull = check(Roller::Character(ambrose.1.id), Attribute::Might, Difficulty::MAX);
    let (mut failed, mut fated) = (None, false);
    while failed.is_none() || !fated {
        let roll = ambrose.0.dice().roll(pull.clone()).await?;
        fated |= matches!(roll.outcome, RollOutcome::CriticalSuccess | RollOutcome::CriticalFailure);
        failed = failed.or((!roll.success).then_some(roll));
    }
    let failed = failed.ok_or("fate never failed him")?;
    ambrose.0.dice().heroic_save(failed.id).await?;
    seen = tell(&ada.0, tonight.id, seen).await?;
    if let Err(error) = ambrose.0.dice().heroic_save(failed.id).await {
        println!("and once more? {} ({error})", error.code().red());
    }

    act("The bell rings, and the night ends");
    seer.sessions().set_scene(tonight.id, Some("bell")).await?;
    seer.sessions().complete(tonight.id).await?;
    tell(&ada.0, tonight.id, seen).await?;

    let details = ada.0.sessions().details(tonight.id).await?;
    let mut result = table(["player", "character", "rolls", "successes", "mean", "games played"]);
    for mate in details.players {
        let rolls = seer.dice().statistics(StatisticsOf::Character(mate.character_id)).await?;
        let played = seer.users().profile(mate.user_id).await?.games_played;
        let mean = rolls.mean_total.map_or("-".into(), |mean| format!("{mean:.1}"));
        result.add_row([
            mate.display_name,
            mate.character_name,
            rolls.rolls.to_string(),
            rolls.successes.to_string(),
            mean,
            played.to_string(),
        ]);
    }
    println!(
        "{result}\nMorgan has run {} game(s), {} was played {} time(s).",
        seer.users().me().await?.games_run,
        adventure.name,
        seer.adventures().get(adventure.id).await?.times_played
    );
    Ok(sparc.close().await?)
}

async fn sign_up(sparc: &Sparc, name: &str) -> Result<As, Error> {
    let id = Uuid::new_v4();
    let account =
        NewAccount { id: Some(id), email: Some(format!("{id}@example.org")), display_name: Some(name.into()) };
    sparc.as_service().users().sign_up(account).await?;
    Ok(sparc.as_user(id))
}

/// What the table has been told since, and up to where.
async fn tell(listener: &As, session: Uuid, mut seen: i64) -> Result<i64, Error> {
    for event in listener.events().after(session, seen).await? {
        seen = event.seq;
        let p = &event.payload;
        let text = match event.event_type.as_str() {
            "dice_rolled" => format!(
                "{} rolls {}: {} against {}: {}",
                p["characterName"], p["results"], p["modifiedTotal"], p["difficulty"], p["outcome"]
            ),
            "player_joined" => format!(
                "{} ({}), seat {} of {}",
                p["displayName"], p["characterName"], p["seatsTaken"], p["maxPlayers"]
            ),
            _ => format!("{} -> {}", p["from"], p["to"]),
        };
        println!("  {} {}", format!("{:<18}", event.event_type).cyan(), text.replace('"', "").replace("null", "none"));
    }
    Ok(seen)
}

fn act(title: &str) {
    println!("\n{}", title.bold());
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header);
    table
}
