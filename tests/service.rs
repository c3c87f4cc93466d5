//! The service's operations: typed errors, calls that are safe to repeat, the lobby, profiles, and lost connections.

use std::{collections::HashSet, sync::Arc};

use sea_orm::{ConnectionTrait, DbBackend, Statement, TransactionTrait};
use sparc::{
    entity::sea_orm_active_enums::{Attribute, CharacterClass, DifficultyLevel, SessionStatus},
    service::{
        Difficulty, Error, JoinCode, MaxPlayers, Operations, Sparc,
        adventures::NewAdventure,
        characters::NewCharacter,
        dice::{NewRoll, Roller},
        sessions::{LobbyFilter, NewSession, Visibility},
        users::{NewAccount, ProfileChanges},
    },
};
use uuid::Uuid;

use crate::world::{World, insert_seat, run_together};

async fn join_code_of(world: &World, session: Uuid) -> JoinCode {
    world
        .owner()
        .value::<String>(&format!("SELECT code::text FROM sessions WHERE id = '{session}'"))
        .await
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn concurrent_creations_with_one_id_return_one_row_even_at_the_limit() {
    let world = World::new().await;
    let user = world.new_account().await;
    for _ in 0..9 {
        world.new_character(user).await;
    }
    let hero = NewCharacter { id: Some(Uuid::new_v4()), name: "The Tenth".into(), ..Default::default() };
    let tasks = (0..8)
        .map(|_| {
            let (me, hero) = (world.sparc.as_user(user), hero.clone());
            async move { me.characters().create(hero).await.map(|created| created.id) }
        })
        .collect();
    for outcome in run_together(tasks).await {
        assert_eq!(outcome.unwrap(), hero.id.unwrap());
    }
}

#[tokio::test]
async fn joining_by_code_takes_one_seat_and_lets_a_player_rejoin() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    let join_code = join_code_of(&world, game.session).await;
    let player = world.new_player().await;
    let me = world.sparc.as_user(player.id);
    for _ in 0..2 {
        let seat = me.sessions().join(&join_code, player.character).await.unwrap();
        assert!(seat.is_active && seat.session_id == game.session, "a repeated join must return the same seat");
    }
    me.sessions().leave(game.session).await.unwrap();
    let other = world.new_player().await;
    world.owner().exec(&insert_seat(game.session, other.id, other.character)).await.unwrap();
    world.set(&game, "status = 'active'").await;
    assert!(
        me.sessions().join(&join_code, player.character).await.unwrap().is_active,
        "a player who left may rejoin while the session is live"
    );
    let late = world.new_player().await;
    let refused = world.sparc.as_user(late.id).sessions().join(&join_code, late.character).await;
    assert_fails!(refused, Error::SessionStarted);
    world.set(&game, "status = 'completed'").await;
    let refused = world.sparc.as_user(late.id).sessions().join(&join_code, late.character).await;
    assert_fails!(refused, Error::SessionOver);
    let refused = me.sessions().join(&"ZZZZZZ".parse().unwrap(), player.character).await;
    assert_fails!(refused, Error::UnknownJoinCode);
    let refused = world.sparc.as_anon().sessions().join(&join_code, player.character).await;
    assert_fails!(refused, Error::NotSignedIn);
}

#[tokio::test]
async fn of_sixteen_concurrent_joins_two_succeed_and_fourteen_get_session_full() {
    let world = World::new().await;
    let game = world.new_session(2).await;
    let join_code = Arc::new(join_code_of(&world, game.session).await);
    let mut tasks = Vec::new();
    for _ in 0..16 {
        let player = world.new_player().await;
        let (me, join_code) = (world.sparc.as_user(player.id), join_code.clone());
        tasks.push(async move { me.sessions().join(&join_code, player.character).await });
    }
    let outcomes = run_together(tasks).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2);
    assert_eq!(
        outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::SessionFull))).count(),
        14,
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn each_refusal_has_its_own_error() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let (me, seer) = (world.sparc.as_user(player.id), world.sparc.as_user(game.seer.uuid()));
    let refused = seer.sessions().complete(game.session).await.unwrap_err();
    assert!(
        matches!(refused, Error::IllegalTransition { from: SessionStatus::Waiting, to: SessionStatus::Completed }),
        "{refused:?}"
    );
    assert_eq!(refused.to_string(), "a session cannot go from waiting to completed");
    assert_fails!(me.sessions().start(game.session).await, Error::NotSessionSeer);
    assert_fails!(me.sessions().start(Uuid::new_v4()).await, Error::NotFound { what: "session" });
    assert_fails!(me.characters().retire(player.character).await, Error::CharacterSeated);
    let check = NewRoll::check(game.session, Roller::Character(player.character), Attribute::Might, Difficulty::MIN);
    assert_fails!(me.dice().roll(check).await, Error::SessionNotActive);
    let short_name = NewCharacter { name: "x".into(), ..Default::default() };
    assert_fails!(me.characters().create(short_name).await, Error::InvalidValue { field: "name", .. });
    let twin = NewCharacter { name: "Twin".into(), ..Default::default() };
    me.characters().create(twin.clone()).await.unwrap();
    assert_fails!(me.characters().create(twin).await, Error::CharacterNameTaken);
    let unknown_adventure = NewSession { adventure_id: Uuid::new_v4(), ..Default::default() };
    assert_fails!(me.sessions().create(unknown_adventure).await, Error::AdventureNotPlayable);
    let largest = NewSession { adventure_id: game.adventure, max_players: MaxPlayers::MAX, ..Default::default() };
    assert_eq!(me.sessions().create(largest).await.unwrap().max_players, 6);
}

#[tokio::test]
async fn each_refusal_of_a_heroic_save_has_its_own_error() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let me = world.sparc.as_user(player.id);
    let successful = world.new_roll(game.session, player.character, "{6}", 10, 0).await;
    assert_fails!(me.dice().heroic_save(successful).await, Error::HeroicSaveNotNeeded);
    let old = world.new_roll(game.session, player.character, "{1,2}", 10, 40).await;
    assert_fails!(me.dice().heroic_save(old).await, Error::HeroicSaveTooLate);
    let failed = world.new_roll(game.session, player.character, "{1,2}", 10, 0).await;
    let another_failed = world.new_roll(game.session, player.character, "{1,2}", 10, 0).await;
    assert_eq!(me.dice().heroic_save(failed).await.unwrap().original_roll_id, Some(failed));
    assert_fails!(me.dice().heroic_save(failed).await, Error::RollAlreadySaved);
    assert_fails!(me.dice().heroic_save(another_failed).await, Error::HeroicSaveSpent);
    assert_fails!(me.dice().heroic_save(Uuid::new_v4()).await, Error::NotFound { what: "roll" });
}

#[tokio::test]
async fn only_a_valid_adventure_is_published() {
    let world = World::new().await;
    let me = world.sparc.as_user(world.new_account().await);
    let draft = me.adventures().create(NewAdventure { name: "Empty".into(), ..Default::default() }).await.unwrap();
    let errors = me.adventures().validate(draft.id).await.unwrap();
    assert!(!errors.is_empty());
    assert_eq!(
        me.adventures().get(draft.id).await.unwrap().validation_errors,
        serde_json::json!(errors),
        "the validation errors must be stored"
    );
    let refused = me.adventures().publish(draft.id).await;
    assert!(matches!(&refused, Err(Error::AdventureInvalid(found)) if *found == errors), "{refused:?}");
    let content = serde_json::json!({ "start": "a", "nodes": [{ "id": "a", "type": "story" }] });
    me.adventures().set_content(draft.id, &serde_json::from_value(content).unwrap()).await.unwrap();
    assert!(me.adventures().publish(draft.id).await.unwrap().published_at.is_some());
    assert!(me.adventures().publish(draft.id).await.is_ok(), "publishing again must succeed");
    let stranger = world.sparc.as_user(world.new_account().await);
    assert_fails!(stranger.adventures().publish(draft.id).await, Error::AdventureNotYours);
    assert_fails!(stranger.adventures().validate(draft.id).await, Error::AdventureNotYours);
}

#[tokio::test]
async fn the_lobby_is_paginated_while_sessions_are_created() {
    let world = World::new().await;
    let seer = world.new_account().await;
    let adventure = world.new_adventure(seer).await;
    let seers = world.new_accounts(5).await;
    // Some sessions have equal start times, some have none, and many have equal creation times.
    let insert = format!(
        "INSERT INTO sessions (seer_id, adventure_id, is_public, scheduled_start, created_at)
         SELECT ('{seers}'::uuid[])[1 + i % 5], '{adventure}', true,
                CASE WHEN i % 3 > 0 THEN '2030-01-01'::timestamptz + (i / 10) * INTERVAL '1 hour' END,
                '2026-01-01'::timestamptz + (i % 4) * INTERVAL '1 minute'
         FROM generate_series(1, 95) AS i"
    );
    world.owner().exec(&insert).await.unwrap();
    let created_before: HashSet<Uuid> =
        world.owner().values("SELECT id FROM sessions").await.unwrap().into_iter().collect();
    let visitor = world.sparc.as_anon();
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = visitor.sessions().lobby(&LobbyFilter::default(), after.as_ref()).await.unwrap();
        seen.extend(page.items.iter().map(|session| (session.id, session.scheduled_start)));
        pages += 1;
        let new_session = NewSession { adventure_id: adventure, visibility: Visibility::Public, ..Default::default() };
        world.sparc.as_user(seer).sessions().create(new_session).await.unwrap();
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let ids: Vec<Uuid> = seen.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "no row may appear twice");
    assert!(created_before.iter().all(|id| ids.contains(id)), "no row may be missing");
    assert!(pages >= 5, "95 sessions do not fit on four pages of twenty");
    let start_times: Vec<_> = seen.iter().map_while(|(_, start)| *start).collect();
    assert!(
        start_times.is_sorted() && start_times.len() == 64,
        "the 64 sessions with a start time must come first, the soonest of them at the top"
    );
}

#[tokio::test]
async fn a_page_of_the_filtered_lobby_scans_a_thousand_sessions_and_the_next_continues() {
    let world = World::new().await;
    let seer = world.new_account().await;
    let (easy_adventure, hard_adventure) = (world.new_adventure(seer).await, world.new_adventure(seer).await);
    let seers = world.new_accounts(115).await;
    // The lobby shows the sessions in the order of i. Only numbers 1100 and 2200 have the hard adventure.
    let insert = format!(
        "UPDATE adventures SET difficulty = 'hard' WHERE id = '{hard_adventure}';
         UPDATE adventures SET difficulty = 'easy' WHERE id = '{easy_adventure}';
         INSERT INTO sessions (seer_id, adventure_id, is_public, scheduled_start, created_at)
         SELECT ('{seers}'::uuid[])[1 + i % 115],
                CASE WHEN i % 1100 = 0 THEN '{hard_adventure}'::uuid ELSE '{easy_adventure}' END, true,
                CASE WHEN i <= 1500 THEN '2030-01-01'::timestamptz + (i / 10) * INTERVAL '1 hour' END,
                '2026-01-01'::timestamptz - i * INTERVAL '1 minute'
         FROM generate_series(1, 2300) AS i"
    );
    world.owner().exec(&insert).await.unwrap();
    let hard = LobbyFilter { difficulty: Some(DifficultyLevel::Hard), ..Default::default() };
    let visitor = world.sparc.as_anon();
    let (mut page_lengths, mut after) = (Vec::new(), None);
    loop {
        let page = visitor.sessions().lobby(&hard, after.as_ref()).await.unwrap();
        page_lengths.push(page.items.len());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(page_lengths, [0, 1, 1], "each page must scan a thousand sessions, with and without a start time");
    let easy = LobbyFilter { difficulty: Some(DifficultyLevel::Easy), ..Default::default() };
    assert_eq!(
        visitor.sessions().lobby(&easy, None).await.unwrap().items.len(),
        20,
        "the page must be full if enough rows match"
    );
}

#[tokio::test]
async fn the_lobby_shows_public_sessions_with_free_seats_and_filters_them() {
    let world = World::new().await;
    let full = world.new_session(2).await;
    world.set(&full, "is_public = true, max_players = 2").await;
    let open = world.new_session(1).await;
    world.set(&open, "is_public = true").await;
    let started = world.new_active_session(1).await;
    world.set(&started, "is_public = true").await;
    world.new_session(0).await;
    let ids = |filter: LobbyFilter| {
        let visitor = world.sparc.as_anon();
        async move {
            visitor.sessions().lobby(&filter, None).await.unwrap().items.iter().map(|row| row.id).collect::<Vec<_>>()
        }
    };
    assert_eq!(ids(LobbyFilter::default()).await, [open.session]);
    for (search, expected) in [("drowned", 1), ("DROWNED FORD", 1), ("%", 0), ("_", 0), ("nowhere", 0)] {
        let filter = LobbyFilter { search: Some(search.into()), ..Default::default() };
        assert_eq!(ids(filter).await.len(), expected, "{search}");
    }
    assert_eq!(ids(LobbyFilter { free_seats: Some(3), ..Default::default() }).await.len(), 1);
    assert_eq!(ids(LobbyFilter { free_seats: Some(4), ..Default::default() }).await.len(), 0);
    assert_eq!(ids(LobbyFilter { max_minutes: Some(59), ..Default::default() }).await.len(), 0);
    let forged_cursor = "00".to_owned().into();
    let refused = world.sparc.as_anon().sessions().lobby(&LobbyFilter::default(), Some(&forged_cursor)).await;
    assert_fails!(refused, Error::InvalidCursor);
}

#[tokio::test]
async fn a_lobby_page_is_read_from_an_index() {
    let world = World::new().await;
    let seer = world.new_account().await;
    let adventure = world.new_adventure(seer).await;
    let seers = world.new_accounts(250).await;
    let insert = format!(
        "INSERT INTO sessions (seer_id, adventure_id, is_public, scheduled_start)
         SELECT ('{seers}'::uuid[])[1 + i % 250], '{adventure}', i % 2 = 0, now() + i * INTERVAL '1 minute' FROM generate_series(1, 5000) AS i"
    );
    world.owner().exec(&insert).await.unwrap();
    world.owner().exec("ANALYZE").await.unwrap();
    // Clients of the API query the lobby without a condition on free seats; the service's query has one.
    for (seat_condition, index) in
        [("", "idx_sessions_public_waiting"), ("AND seats_taken < max_players", "idx_sessions_free_seats")]
    {
        let plan: Vec<String> = world
            .user(seer)
            .values(&format!(
                "EXPLAIN SELECT * FROM sessions WHERE is_public AND status IN ('waiting', 'starting_soon')
                   {seat_condition}
                 ORDER BY scheduled_start NULLS LAST, created_at DESC LIMIT 20"
            ))
            .await
            .unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains(index) && !plan.contains("Seq Scan on sessions"), "{plan}");
    }
}

#[tokio::test]
async fn users_read_and_edit_their_own_profile() {
    let world = World::new().await;
    let account =
        NewAccount { email: Some("ada@x.org".into()), display_name: Some("Ada".into()), ..Default::default() };
    assert!(!format!("{account:?}").contains("ada@x.org"), "the debug output must not contain the e-mail address");
    let profile = world.sparc.as_service().users().sign_up(account).await.unwrap();
    let ada = world.sparc.as_user(profile.id);
    assert_eq!(ada.users().my_email().await.unwrap(), "ada@x.org");
    let changes = ProfileChanges { bio: Some(Some("Counts".into())), ..Default::default() };
    let edited = ada.users().edit(changes).await.unwrap();
    assert_eq!((edited.display_name.as_str(), edited.bio.as_deref()), ("Ada", Some("Counts")));
    assert_eq!(ada.users().edit(ProfileChanges::default()).await.unwrap(), edited);
    assert_eq!(world.sparc.as_anon().users().profiles(&[profile.id]).await.unwrap().len(), 1);
    assert_fails!(ada.users().sign_up(NewAccount::default()).await, Error::NotAllowed { .. });
    assert_fails!(world.sparc.as_anon().users().me().await, Error::NotSignedIn);
    let hero = NewCharacter { name: "Nim".into(), class: CharacterClass::Rogue, ..Default::default() };
    assert_eq!(
        ada.characters().create(hero).await.unwrap().grace,
        5,
        "a new character must have the default attributes of its class"
    );
}

#[tokio::test]
async fn a_connection_that_the_server_closes_is_reported_as_lost() {
    let world = World::new().await;
    let tx = world.sparc.as_user(world.new_account().await).begin().await.unwrap();
    let statement = Statement::from_string(DbBackend::Postgres, "SELECT pg_backend_pid()");
    let pid: i32 = tx.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap();
    // The call waits until the backend has exited, so its final error message has been sent when the next call begins.
    assert_eq!(world.owner().value::<bool>(&format!("SELECT pg_terminate_backend({pid}, 5000)")).await, Ok(true));
    assert_fails!(tx.users().me().await, Error::ConnectionLost(_));
}

#[tokio::test]
async fn a_failed_connection_is_reported_at_once_and_without_the_password() {
    let world = World::new().await;
    let started_at = std::time::Instant::now();
    let unreachable = Sparc::connect("postgres://nobody:secret@127.0.0.1:1/nowhere").await.unwrap_err();
    assert_eq!(unreachable.code(), "connect_failed");
    let (server_url, _) = world.url().rsplit_once('/').unwrap();
    let unknown_database = Sparc::connect(&format!("{server_url}/nowhere")).await.unwrap_err();
    assert_eq!(unknown_database.code(), "connect_failed");
    let invalid_url = Sparc::connect("postgres://me:secret@[/nowhere").await.unwrap_err();
    for error in [unreachable, unknown_database, invalid_url] {
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
    assert!(started_at.elapsed() < std::time::Duration::from_secs(5), "the errors must not be the result of a timeout");
}
