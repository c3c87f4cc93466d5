//! Operations on a session: its details, its join code, its changes of status, its shared game state, and the change of
//! a seat's character.

use serde_json::json;
use sparc::{
    entity::sea_orm_active_enums::SessionStatus,
    service::{
        Error, Operations,
        sessions::{ExpectedVersion, SessionChanges, Visibility},
        users::ProfileChanges,
    },
};

use crate::world::{World, run_together};

#[tokio::test]
async fn devices_of_one_seer_do_not_overwrite_each_others_game_state() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let seer = world.sparc.as_user(game.seer.user_id());
    let tasks = (0..8)
        .map(|device| {
            let (seer, session_id) = (seer.clone(), game.session_id);
            async move {
                let state = json!({ "device": device });
                seer.sessions().set_game_state(session_id, state, ExpectedVersion::Version(0)).await
            }
        })
        .collect();
    let outcomes = run_together(tasks).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::GameStateChanged))).count(), 7);
    let session = seer.sessions().get(game.session_id).await.unwrap();
    assert_eq!(session.game_state_version, 1);
    let unchanged_session =
        seer.sessions().set_game_state(game.session_id, session.game_state, ExpectedVersion::Version(1)).await.unwrap();
    assert_eq!(unchanged_session.game_state_version, 1, "the same state must not change the version");
    let updated_session =
        seer.sessions().set_game_state(game.session_id, json!({}), ExpectedVersion::Any).await.unwrap();
    assert_eq!(updated_session.game_state_version, 2);
    let ada = world.sparc.as_user(game.players[0].user_id);
    let events = ada.events().after(game.session_id, 0).await.unwrap();
    let state_events: Vec<_> = events.iter().filter(|event| event.event_type == "game_state").collect();
    assert_eq!(state_events.len(), 2);
    assert_eq!(state_events[1].payload, json!({ "game_state": {}, "version": 2 }));
    assert_eq!(ada.events().newest_seq(game.session_id).await.unwrap(), events.last().unwrap().seq);
    // Nobody can set the version directly, not even the service.
    assert_refused!(world.service().execute("UPDATE sessions SET game_state_version = 9").await, forbidden);
    assert_refused!(game.seer.execute("UPDATE sessions SET game_state_version = 9").await, forbidden);
}

#[tokio::test]
async fn a_join_code_shows_its_session_before_the_player_joins() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let code = world.join_code(game.session_id).await;
    let stranger = world.sparc.as_user(world.new_account().await);
    let summary = stranger.sessions().by_code(&code).await.unwrap();
    assert_eq!((summary.id, summary.status, summary.seats_taken), (game.session_id, SessionStatus::Waiting, 1));
    assert_eq!(summary.adventure.unwrap().name, "The Drowned Ford");
    assert!(
        stranger.sessions().get(game.session_id).await.is_err(),
        "knowing the code must not give access to the whole session"
    );
    assert_refused!(world.visitor().execute("SELECT private.session_by_code('AAAAAA')").await, forbidden);
}

#[tokio::test]
async fn the_details_of_a_session_include_the_seers_name_for_everyone_who_sees_it() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let seer = world.sparc.as_user(game.seer.user_id());
    let player = world.sparc.as_user(game.players[0].user_id);
    let (visitor, service) = (world.sparc.as_anon(), world.sparc.as_service());
    let rename = ProfileChanges { display_name: Some("Morgan".into()), ..Default::default() };
    seer.users().edit(rename).await.unwrap();
    seer.sessions()
        .edit(game.session_id, SessionChanges { visibility: Some(Visibility::Public), ..Default::default() })
        .await
        .unwrap();
    for caller in [&seer, &player, &visitor, &service] {
        assert_eq!(caller.sessions().details(game.session_id).await.unwrap().seer_name, "Morgan", "{caller:?}");
    }
    seer.users().close_account(game.seer.user_id()).await.unwrap();
    assert_eq!(player.sessions().details(game.session_id).await.unwrap().seer_name, "Former player");
}

#[tokio::test]
async fn a_session_is_edited_announced_started_paused_resumed_and_completed() {
    let world = World::new().await;
    let game = world.new_session(2).await;
    let seer = world.sparc.as_user(game.seer.user_id());
    let changes = SessionChanges {
        visibility: Some(Visibility::Public),
        looking_for: Some(Some("a healer".into())),
        scheduled_start: Some(Some(chrono::Utc::now() + chrono::TimeDelta::days(1))),
        ..Default::default()
    };
    let edited_session = seer.sessions().edit(game.session_id, changes).await.unwrap();
    assert!(edited_session.is_public && edited_session.scheduled_start.is_some());
    let clear_looking_for = SessionChanges { looking_for: Some(None), ..Default::default() };
    assert_eq!(seer.sessions().edit(game.session_id, clear_looking_for).await.unwrap().looking_for, None);
    let unchanged_session = seer.sessions().edit(game.session_id, SessionChanges::default()).await.unwrap();
    assert!(unchanged_session.scheduled_start.is_some());
    let sessions = || seer.sessions();
    assert_eq!(sessions().announce_start(game.session_id).await.unwrap().status, SessionStatus::StartingSoon);
    assert_eq!(sessions().withdraw_announcement(game.session_id).await.unwrap().status, SessionStatus::Waiting);
    assert_error!(
        sessions().resume(game.session_id).await,
        Error::IllegalTransition { .. },
        "a session that has not started cannot be resumed"
    );
    let started_at = sessions().start(game.session_id).await.unwrap().started_at;
    assert_eq!(
        sessions().start(game.session_id).await.unwrap().started_at,
        started_at,
        "starting again must succeed and change nothing"
    );
    assert_eq!(sessions().pause(game.session_id).await.unwrap().status, SessionStatus::Paused);
    assert_error!(
        sessions().start(game.session_id).await,
        Error::IllegalTransition { .. },
        "a paused session is resumed, not started"
    );
    assert_eq!(sessions().resume(game.session_id).await.unwrap().started_at, started_at);
    sessions().complete(game.session_id).await.unwrap();
    let seer_statistics = seer.users().my_statistics().await.unwrap();
    assert_eq!(
        (seer_statistics.games_run, seer_statistics.adventure_plays, seer_statistics.published_adventures),
        (1, 1, 1)
    );
    let player_statistics = world.sparc.as_user(game.players[0].user_id).users().my_statistics().await.unwrap();
    assert_eq!((player_statistics.games_played, player_statistics.living_characters), (1, 1));
}

#[tokio::test]
async fn seating_a_seated_player_with_another_character_changes_the_character() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    world.update_session(&game, "is_public = true").await;
    let (player, session_id) = (&game.players[0], game.session_id);
    let other_character_id = world.new_character(player.user_id).await;
    let code = world.join_code(session_id).await;
    let (me, service) = (world.sparc.as_user(player.user_id), world.sparc.as_service());
    for character_id in [other_character_id, player.character_id, player.character_id] {
        let seat = service.sessions().seat_player(session_id, player.user_id, character_id).await.unwrap();
        assert_eq!((seat.character_id, seat.is_active), (character_id, true), "by the service");
    }
    let seat = me.sessions().join(&code, other_character_id).await.unwrap();
    assert_eq!(seat.character_id, other_character_id, "by the code");
    let seat = me.sessions().join_by_id(session_id, player.character_id).await.unwrap();
    assert_eq!(seat.character_id, player.character_id, "without the code");
    assert_eq!(
        world.owner().count("session_events WHERE event_type = 'player_joined'").await,
        1,
        "a change of character is not a join"
    );
    // A repetition still returns the seat once the session has ended.
    world.update_session(&game, "status = 'active'").await;
    world.update_session(&game, "status = 'completed'").await;
    let expected = Some(player.character_id);
    assert_eq!(
        service
            .sessions()
            .seat_player(session_id, player.user_id, player.character_id)
            .await
            .ok()
            .map(|seat| seat.character_id),
        expected
    );
    assert_eq!(me.sessions().join(&code, player.character_id).await.ok().map(|seat| seat.character_id), expected);
}
