//! The lobby: which sessions it shows, its filters, its pages, and the index that it reads.

use std::collections::HashSet;

use sparc::{
    entity::sea_orm_active_enums::DifficultyLevel,
    service::{
        Error, Operations,
        sessions::{LobbyFilter, NewSession, Visibility},
    },
};
use uuid::Uuid;

use crate::world::World;

#[tokio::test]
async fn the_lobby_is_paginated_while_sessions_are_created() {
    let world = World::new().await;
    let seer_id = world.new_account().await;
    let adventure_id = world.new_adventure(seer_id).await;
    // An account may run at most twenty live sessions, so 95 of them need five Seers.
    let seer_ids_literal = world.new_account_ids_literal(5).await;
    // Some sessions have equal start times, some have none, and many have equal creation times.
    let insert_sessions = format!(
        "INSERT INTO sessions (seer_id, adventure_id, is_public, scheduled_start, created_at)
         SELECT ('{seer_ids_literal}'::uuid[])[1 + i % 5], '{adventure_id}', true,
                CASE WHEN i % 3 > 0 THEN now() + (i / 10) * INTERVAL '1 hour' END,
                '2026-01-01'::timestamptz + (i % 4) * INTERVAL '1 minute'
         FROM generate_series(1, 95) AS i"
    );
    world.owner().execute(&insert_sessions).await.unwrap();
    let ids_before: HashSet<Uuid> =
        world.owner().fetch_values("SELECT id FROM sessions").await.unwrap().into_iter().collect();
    let visitor = world.sparc.as_anon();
    let (mut listed_sessions, mut after, mut page_count) = (Vec::new(), None, 0);
    loop {
        let page = visitor.sessions().lobby(&LobbyFilter::default(), after.as_ref()).await.unwrap();
        listed_sessions.extend(page.items.iter().map(|session| (session.id, session.scheduled_start)));
        page_count += 1;
        let new_session = NewSession { adventure_id, visibility: Visibility::Public, ..Default::default() };
        world.sparc.as_user(seer_id).sessions().create(new_session).await.unwrap();
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let ids: Vec<Uuid> = listed_sessions.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "no row may appear twice");
    assert!(ids_before.iter().all(|id| ids.contains(id)), "no row may be missing");
    assert!(page_count >= 5, "95 sessions do not fit on four pages of twenty");
    let start_times: Vec<_> = listed_sessions.iter().map_while(|(_, start)| *start).collect();
    assert!(
        start_times.is_sorted() && start_times.len() == 64,
        "the 64 sessions with a start time must come first, the soonest of them at the top"
    );
}

#[tokio::test]
async fn a_page_of_the_filtered_lobby_ends_after_a_thousand_scanned_sessions_and_the_next_continues() {
    let world = World::new().await;
    let seer_id = world.new_account().await;
    let (easy_adventure_id, hard_adventure_id) =
        (world.new_adventure(seer_id).await, world.new_adventure(seer_id).await);
    // An account may run at most twenty live sessions, so 2300 of them need 115 Seers.
    let seer_ids_literal = world.new_account_ids_literal(115).await;
    // The lobby shows the sessions in the order of i. Only numbers 1100 and 2200 have the hard adventure.
    let insert_sessions = format!(
        "UPDATE adventures SET difficulty = 'hard' WHERE id = '{hard_adventure_id}';
         UPDATE adventures SET difficulty = 'easy' WHERE id = '{easy_adventure_id}';
         INSERT INTO sessions (seer_id, adventure_id, is_public, scheduled_start, created_at)
         SELECT ('{seer_ids_literal}'::uuid[])[1 + i % 115],
                CASE WHEN i % 1100 = 0 THEN '{hard_adventure_id}'::uuid ELSE '{easy_adventure_id}' END, true,
                CASE WHEN i <= 1500 THEN now() + (i / 10) * INTERVAL '1 hour' END,
                '2026-01-01'::timestamptz - i * INTERVAL '1 minute'
         FROM generate_series(1, 2300) AS i"
    );
    world.owner().execute(&insert_sessions).await.unwrap();
    let hard_only = LobbyFilter { difficulty: Some(DifficultyLevel::Hard), ..Default::default() };
    let visitor = world.sparc.as_anon();
    let (mut page_lengths, mut after) = (Vec::new(), None);
    loop {
        let page = visitor.sessions().lobby(&hard_only, after.as_ref()).await.unwrap();
        page_lengths.push(page.items.len());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(
        page_lengths,
        [0, 1, 1],
        "a page must end after a thousand scanned sessions, whether or not these have a start time"
    );
    let easy_only = LobbyFilter { difficulty: Some(DifficultyLevel::Easy), ..Default::default() };
    assert_eq!(
        visitor.sessions().lobby(&easy_only, None).await.unwrap().items.len(),
        20,
        "the page must be full if enough rows match"
    );
}

#[tokio::test]
async fn the_lobby_shows_public_sessions_with_free_seats_and_filters_them() {
    let world = World::new().await;
    // Of these four sessions, only `open_game` is public, waits for players and has a free seat.
    let full_game = world.new_session(2).await;
    world.update_session(&full_game, "is_public = true, max_players = 2").await;
    let open_game = world.new_session(1).await;
    world.update_session(&open_game, "is_public = true, scheduled_start = '2999-01-02 03:04:05+00'").await;
    let started_game = world.new_active_session(1).await;
    world.update_session(&started_game, "is_public = true").await;
    let _private_game = world.new_session(0).await;
    let listed_ids = |filter: LobbyFilter| {
        let visitor = world.sparc.as_anon();
        async move {
            visitor.sessions().lobby(&filter, None).await.unwrap().items.iter().map(|row| row.id).collect::<Vec<_>>()
        }
    };
    assert_eq!(listed_ids(LobbyFilter::default()).await, [open_game.session_id]);
    // The adventure is called "The Drowned Ford". In a search text, `%` and `_` are not wildcards.
    for (search, count) in [("drowned", 1), ("DROWNED FORD", 1), ("%", 0), ("_", 0), ("nowhere", 0)] {
        let filter = LobbyFilter { search: Some(search.into()), ..Default::default() };
        assert_eq!(listed_ids(filter).await.len(), count, "{search}");
    }
    // One of the four seats of `open_game` is taken, its adventure takes an hour, and it starts at `start`.
    let start: chrono::DateTime<chrono::Utc> = "2999-01-02T03:04:05Z".parse().unwrap();
    let one_second_later = start + chrono::TimeDelta::seconds(1);
    for (filter, count) in [
        (LobbyFilter { min_free_seats: Some(3), ..Default::default() }, 1),
        (LobbyFilter { min_free_seats: Some(4), ..Default::default() }, 0),
        (LobbyFilter { max_minutes: Some(60), ..Default::default() }, 1),
        (LobbyFilter { max_minutes: Some(59), ..Default::default() }, 0),
        (LobbyFilter { starts_from: Some(start), ..Default::default() }, 1),
        (LobbyFilter { starts_from: Some(one_second_later), ..Default::default() }, 0),
        (LobbyFilter { starts_before: Some(one_second_later), ..Default::default() }, 1),
        (LobbyFilter { starts_before: Some(start), ..Default::default() }, 0),
        (LobbyFilter { seer_id: Some(open_game.seer.user_id()), ..Default::default() }, 1),
        (LobbyFilter { seer_id: Some(full_game.seer.user_id()), ..Default::default() }, 0),
        (LobbyFilter { adventure_id: Some(open_game.adventure_id), ..Default::default() }, 1),
        (LobbyFilter { adventure_id: Some(full_game.adventure_id), ..Default::default() }, 0),
    ] {
        assert_eq!(listed_ids(filter.clone()).await.len(), count, "{filter:?}");
    }
    let forged_cursor = "00".to_owned().into();
    let outcome = world.sparc.as_anon().sessions().lobby(&LobbyFilter::default(), Some(&forged_cursor)).await;
    assert_error!(outcome, Error::InvalidCursor);
}

#[tokio::test]
async fn a_lobby_page_is_read_from_an_index() {
    let world = World::new().await;
    let seer_id = world.new_account().await;
    let adventure_id = world.new_adventure(seer_id).await;
    // An account may run at most twenty live sessions, so 5000 of them need 250 Seers.
    let seer_ids_literal = world.new_account_ids_literal(250).await;
    let insert_sessions = format!(
        "INSERT INTO sessions (seer_id, adventure_id, is_public, scheduled_start)
         SELECT ('{seer_ids_literal}'::uuid[])[1 + i % 250], '{adventure_id}', i % 2 = 0, now() + i * INTERVAL '1 minute' FROM generate_series(1, 5000) AS i"
    );
    world.owner().execute(&insert_sessions).await.unwrap();
    world.owner().execute("ANALYZE").await.unwrap();
    // Clients of Supabase's API query the lobby without a condition on free seats; the query of `service` has one.
    for (seat_condition, index) in
        [("", "idx_sessions_public_waiting"), ("AND seats_taken < max_players", "idx_sessions_free_seats")]
    {
        let plan: Vec<String> = world
            .user(seer_id)
            .fetch_values(&format!(
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
