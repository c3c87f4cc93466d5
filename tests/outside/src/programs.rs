//! Ten short programs, each of which does what one service of a game would do. `docs/testing.md` lists the operations
//! that were added because these programs needed them.

use sparc::entity::sea_orm_active_enums::{Attribute, TutorialPath};
use sparc::service::{
    AttributeValue, Difficulty, Error, Operations,
    adventures::{AdventureChanges, AdventureContent, CatalogueFilter, CatalogueOrder},
    characters::{Item, NewCharacter},
    creatures::NewCreature,
    dice::{HistoryFilter, NewInitiative, NewRoll, RollScope, Roller},
    events::NewEvent,
    maintenance::JobOptions,
    sessions::{ExpectedVersion, LobbyFilter, NewSession, Visibility},
    tutorial::Step,
    users::{Badge, ProfileChanges},
};

use crate::started_game::{StartedGame, sign_up};

pub async fn run_all(game: &StartedGame) -> Result<(), Error> {
    gateway(game).await?;
    lobby_page(game).await?;
    discord_bot(game).await?;
    support_desk(game).await?;
    character_page(game).await?;
    seers_screen(game).await?;
    adventure_editor(game).await?;
    catalogue_page(game).await?;
    first_evening(game).await?;
    nightly_job(game).await
}

/// A game server's WebSocket: a client sends an event and rolls dice, and then reads the events that were added
/// meanwhile.
async fn gateway(StartedGame { ada, session, hero, .. }: &StartedGame) -> Result<(), Error> {
    let details = ada.sessions().details(*session).await?;
    let mut last_seq = ada.events().newest_seq(*session).await?;
    let new_wave_event = NewEvent { session_id: *session, kind: "wave".into(), ..Default::default() };
    ada.events().send(new_wave_event).await?;
    let attack = NewRoll::attack(*session, Roller::Character(*hero), Attribute::Might, Difficulty::new(12)?);
    ada.dice().roll(attack).await?;
    for event in ada.events().after(*session, last_seq).await? {
        last_seq = event.seq;
    }
    println!("gateway: {} players, read up to event {last_seq}", details.players.len());
    Ok(())
}

/// A page for visitors who look for a session.
async fn lobby_page(StartedGame { sparc, seer, adventure, .. }: &StartedGame) -> Result<(), Error> {
    let new_session = NewSession { adventure_id: *adventure, visibility: Visibility::Public, ..Default::default() };
    seer.sessions().create(new_session).await?;
    let filter = LobbyFilter { min_free_seats: Some(2), search: Some("ford".into()), ..Default::default() };
    let page = sparc.as_anon().sessions().lobby(&filter, None).await?;
    println!("lobby page: {} sessions, more: {}", page.items.len(), page.next.is_some());
    Ok(())
}

/// A bot on a chat server: it looks up a session by code, and shows the session's last roll, how many sessions of
/// that session's Seer can be joined, and how many users have the Seer's name.
async fn discord_bot(StartedGame { sparc, ada, seer, code, session, .. }: &StartedGame) -> Result<(), Error> {
    let summary = ada.sessions().by_code(code).await?;
    let filter = LobbyFilter { seer_id: seer.user_id(), ..Default::default() };
    let joinable_count = sparc.as_anon().sessions().lobby(&filter, None).await?.items.len();
    let rolls = ada.dice().history(RollScope::Session(*session), &HistoryFilter::default(), None).await?.items;
    let users_of_that_name = sparc.as_anon().users().by_display_name(&summary.seer_name).await?;
    println!(
        "bot: {} runs {joinable_count} sessions that can be joined; last roll {:?}; {} users of that name",
        summary.seer_name,
        rolls[0].outcome,
        users_of_that_name.len()
    );
    Ok(())
}

/// A support desk: it finds a user by e-mail address, reads seats and past sessions as that user, verifies the profile,
/// awards experience, and closes the account of an abusive user.
async fn support_desk(StartedGame { sparc, ada, hero, .. }: &StartedGame) -> Result<(), Error> {
    let service = sparc.as_service();
    let address = ada.users().my_email().await?;
    let profile = service.users().by_email(&address).await?;
    let user = sparc.as_user(profile.id);
    let seats = user.characters().seats(*hero).await?;
    service.users().set_badge(profile.id, Badge::Verified).await?;
    service.characters().award_experience(*hero, 100).await?;
    let abusive_user = sign_up(sparc, "Rude").await?;
    if let Some(id) = abusive_user.user_id() {
        service.users().close_account(id).await?;
    }
    println!("support desk: {} seats, {} past sessions", seats.len(), user.sessions().my_past(None).await?.items.len());
    Ok(())
}

/// A character's page: equipment, sheet and statistics.
async fn character_page(StartedGame { ada, hero, .. }: &StartedGame) -> Result<(), Error> {
    ada.characters().set_equipment(*hero, &[Item { name: "rope".into(), ..Default::default() }]).await?;
    let sheet = ada.characters().get(*hero).await?;
    let statistics = ada.dice().statistics(RollScope::Character(*hero)).await?;
    let might = AttributeValue::new(sheet.might)?;
    let mean = statistics.mean_modified_total;
    println!("sheet: {} might {might}, {} rolls, mean {mean:?}", sheet.name, statistics.rolls);
    Ok(())
}

/// The Seer's screen: an encounter, with initiative, damage, the game state and the heroic saves that remain.
async fn seers_screen(StartedGame { seer, session, adventure, hero, .. }: &StartedGame) -> Result<(), Error> {
    let wolf = seer.creatures().add(*adventure, NewCreature { name: "Wolf".into(), ..Default::default() }).await?.id;
    seer.sessions().set_encounter(*session, Some("wolves")).await?;
    let initiative = NewInitiative { id: None, session_id: *session, creature_ids: vec![wolf] };
    let turns = seer.dice().roll_initiative(initiative).await?;
    let wounded = seer.characters().damage(*hero, 2).await?;
    let before = seer.sessions().get(*session).await?;
    let expected_version = ExpectedVersion::Version(before.game_state_version);
    let after = seer.sessions().set_game_state(*session, before.game_state, expected_version).await?;
    let saves = seer.dice().heroic_saves_remaining(*session).await?;
    println!(
        "screen: {} first, {} hit points, game state version {}, {} heroic saves left",
        turns[0].name, wounded.hit_points, after.game_state_version, saves[0].remaining
    );
    Ok(())
}

/// The editor of adventures: it unpublishes an adventure, edits and validates it, and publishes it again.
async fn adventure_editor(StartedGame { seer, adventure, .. }: &StartedGame) -> Result<(), Error> {
    seer.adventures().unpublish(*adventure).await?;
    let changes = AdventureChanges { estimated_duration: Some(120), ..Default::default() };
    seer.adventures().edit(*adventure, changes).await?;
    // An adventure without a scene is not valid.
    seer.adventures().set_content(*adventure, &AdventureContent::default()).await?;
    let errors = seer.adventures().validate(*adventure).await?;
    seer.adventures().set_content(*adventure, &AdventureContent::single_scene("It rains.")).await?;
    seer.adventures().publish(*adventure).await?;
    println!(
        "editor: {} validation errors fixed, {} adventures",
        errors.len(),
        seer.adventures().mine(None).await?.items.len()
    );
    Ok(())
}

/// The catalogue: the best rated adventures that suit three players and take at most three hours.
async fn catalogue_page(StartedGame { sparc, adventure, .. }: &StartedGame) -> Result<(), Error> {
    sparc.as_service().adventures().set_average_rating(*adventure, Some("4.5".parse().unwrap_or_default())).await?;
    let filter = CatalogueFilter { player_count: Some(3), max_minutes: Some(180), ..Default::default() };
    let page = sparc.as_anon().adventures().catalogue(&filter, CatalogueOrder::BestRated, None).await?;
    println!("catalogue: {} rated {:?}", page.items[0].name, page.items[0].average_rating);
    Ok(())
}

/// A new user's first evening: the tutorial, a profile and a character.
async fn first_evening(StartedGame { sparc, .. }: &StartedGame) -> Result<(), Error> {
    let eve = sign_up(sparc, "Eve").await?;
    eve.tutorial().begin(TutorialPath::Player).await?;
    let progress = eve.tutorial().complete_step(Step::Welcome).await?;
    let changes = ProfileChanges { bio: Some(Some("New here".into())), ..Default::default() };
    eve.users().edit(changes).await?;
    let hero = eve.characters().create(NewCharacter { name: "Nim".into(), ..Default::default() }).await?;
    println!("first evening: {}, tutorial at {}", hero.name, progress.current_step);
    Ok(())
}

/// The nightly maintenance job.
async fn nightly_job(StartedGame { sparc, .. }: &StartedGame) -> Result<(), Error> {
    let service = sparc.as_service();
    let event_report = service.maintenance().delete_old_events(JobOptions::default(), |_| ()).await?;
    let session_report = service.maintenance().archive_sessions(JobOptions::default(), |_| ()).await?;
    println!("nightly: {} events, {} sessions", event_report.processed, session_report.processed);
    Ok(())
}
