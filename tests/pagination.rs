//! Pagination of a user's past sessions and of rolls: even if rows are inserted while the pages are read, no row
//! appears twice, and none of the rows that existed before is missing. Also tests the filters of rolls, the list of a
//! user's live sessions, and that lists refuse each other's cursors.

use std::{collections::HashSet, fmt::Debug, hash::Hash};

use sea_orm::ConnectionTrait;
use sparc::entity::sea_orm_active_enums::RollType;
use sparc::service::{
    Cursor, Error, IdentityConnection, Operations, Page, RollsPageSize,
    adventures::{CatalogueFilter, CatalogueOrder},
    dice::{HistoryFilter, RollScope},
    sessions::LobbyFilter,
};

use crate::world::World;

/// Reads a list page by page, calls `after_each_page` after each, and returns the keys of all rows. Asserts that no key
/// appears twice.
pub async fn read_all<T, K: Hash + Eq + Clone + Debug>(
    mut fetch_page: impl AsyncFnMut(Option<Cursor>) -> Result<Page<T>, Error>,
    mut after_each_page: impl AsyncFnMut(),
    key: impl Fn(&T) -> K,
) -> Vec<K> {
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = fetch_page(after).await.unwrap();
        seen.extend(page.items.iter().map(&key));
        after_each_page().await;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len(), "no row may appear twice");
    seen
}

#[tokio::test]
async fn a_history_of_rolls_can_be_filtered_and_is_paginated_while_rolls_are_made() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let (ada, ben) = (&game.players[0], &game.players[1]);
    // Every third roll is Ben's, every second is an attack, and up to seven rolls have the same timestamp.
    let insert_rolls = format!(
        "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, created_at)
         SELECT '{}', CASE WHEN i % 3 = 0 THEN '{}' ELSE '{}' END::uuid, 'might', 10,
           (ARRAY['attack', 'defense'])[1 + i % 2]::roll_type, '2026-01-01'::timestamptz + (i / 7) * INTERVAL '1 minute'
         FROM generate_series(1, 230) AS i",
        game.session_id, ben.character_id, ada.character_id
    );
    world.owner().execute(&insert_rolls).await.unwrap();
    let me = world.sparc.as_user(ada.user_id);
    let filter = HistoryFilter::default();
    let scope = RollScope::Session(game.session_id);
    let first_page = me.dice().history(scope, &filter, None).await.unwrap();
    assert_eq!(first_page.items.len(), 50);
    assert!(first_page.items.is_sorted_by(|a, b| a.created_at >= b.created_at), "the newest roll must come first");
    let largest_page_filter = HistoryFilter { page_size: RollsPageSize::MAX, ..filter };
    assert_eq!(me.dice().history(scope, &largest_page_filter, None).await.unwrap().items.len(), 200);
    let seen = read_all(
        async |after| me.dice().history(scope, &filter, after.as_ref()).await,
        async || {
            world
                .owner()
                .execute(&crate::world::insert_attribute_check_sql(game.session_id, ada.character_id))
                .await
                .unwrap();
        },
        |row| row.id,
    )
    .await;
    assert_eq!(seen.len(), 230, "rolls made meanwhile are newer than the first page's, so no later page has them");

    // `until` leaves out the rolls that were made while the pages were read.
    let count_rolls = async |scope: RollScope, filter: HistoryFilter| {
        let filter =
            HistoryFilter { page_size: RollsPageSize::MAX, until: "2026-02-01T00:00:00Z".parse().ok(), ..filter };
        me.dice().history(scope, &filter, None).await.unwrap().items.len()
    };
    assert_eq!(count_rolls(scope, HistoryFilter { character_id: Some(ben.character_id), ..filter }).await, 76);
    let kind = Some(RollType::Attack);
    assert_eq!(count_rolls(scope, HistoryFilter { kind, ..filter }).await, 115);
    let from = "2026-01-01T00:32:00Z".parse().ok();
    assert_eq!(count_rolls(scope, HistoryFilter { from, ..filter }).await, 7, "seven rolls have the last timestamp");
    let stranger = world.sparc.as_user(world.new_account().await);
    assert!(stranger.dice().history(scope, &filter, None).await.unwrap().items.is_empty());

    let character_scope = RollScope::Character(ben.character_id);
    assert_eq!(count_rolls(character_scope, filter).await, 76);
    assert_eq!(count_rolls(character_scope, HistoryFilter { kind, ..filter }).await, 38);
    assert_eq!(
        count_rolls(character_scope, HistoryFilter { from, ..filter }).await,
        2,
        "two of the last seven rolls are Ben's"
    );
    for (character_id, roll_count) in [(ben.character_id, 76), (ada.character_id, 0)] {
        let filter = HistoryFilter { character_id: Some(character_id), ..filter };
        assert_eq!(count_rolls(character_scope, filter).await, roll_count);
    }
    assert!(stranger.dice().history(character_scope, &filter, None).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_participant_sees_a_characters_rolls_only_from_shared_sessions() {
    let world = World::new().await;
    let (game, other_game) = (world.new_active_session(2).await, world.new_active_session(1).await);
    let (ada, ben) = (&game.players[0], &game.players[1]);
    let insert_rolls = format!(
        "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, created_at)
         SELECT (ARRAY['{}', '{}'])[1 + i % 2]::uuid, '{}', 'might', 10, 'attack',
           '2026-01-01'::timestamptz + (i / 7) * INTERVAL '1 minute'
         FROM generate_series(1, 230) AS i",
        game.session_id, other_game.session_id, ada.character_id
    );
    world.owner().execute(&insert_rolls).await.unwrap();
    let read_as = async |caller: &IdentityConnection| {
        read_all(
            async |after| {
                let (scope, no_filter) = (RollScope::Character(ada.character_id), HistoryFilter::default());
                let page = caller.dice().history(scope, &no_filter, after.as_ref()).await?;
                assert!(
                    page.items.is_sorted_by(|a, b| a.created_at >= b.created_at),
                    "the newest roll must come first"
                );
                Ok(page)
            },
            async || (),
            |row| (row.id, row.session_id),
        )
        .await
    };
    let seen_by_participant = read_as(&world.sparc.as_user(ben.user_id)).await;
    assert_eq!(seen_by_participant.len(), 115, "every second roll is in the session of Ada and Ben");
    assert!(
        seen_by_participant.iter().all(|(_, session)| *session == game.session_id),
        "a participant must see only the rolls of the session that they share with the character"
    );
    let seen_by_other_seer = read_as(&world.sparc.as_user(other_game.seer.user_id())).await;
    assert_eq!(seen_by_other_seer.len(), 115, "the other rolls are in this Seer's session");
    assert_eq!(read_as(&world.sparc.as_service()).await.len(), 230);
}

#[tokio::test]
async fn live_sessions_are_listed_and_past_ones_are_paginated_and_include_archived_ones() {
    let world = World::new().await;
    let seer_id = world.new_account().await;
    let adventure_id = world.new_adventure(seer_id).await;
    let insert_sessions_sql = |status: &str, ended_at: &str, count: u32| {
        format!(
            "INSERT INTO sessions (seer_id, adventure_id, status, ended_at, created_at)
             SELECT '{seer_id}', '{adventure_id}', '{status}', {ended_at}, '2026-01-01'::timestamptz + (i / 4) * INTERVAL '1 day'
             FROM generate_series(1, {count}) AS i"
        )
    };
    let long_ago = "'2026-02-01'::timestamptz + (i / 4) * INTERVAL '1 day'";
    world.owner().execute(&insert_sessions_sql("completed", long_ago, 40)).await.unwrap();
    assert_eq!(world.owner().fetch_value::<i32>("SELECT private.archive_sessions(100)").await, Ok(40));
    let recently = "now() - (i / 4) * INTERVAL '1 minute'";
    for (status, ended_at, count) in [("waiting", "NULL", 19), ("completed", recently, 60), ("cancelled", recently, 60)]
    {
        world.owner().execute(&insert_sessions_sql(status, ended_at, count)).await.unwrap();
    }
    world.new_session(1).await;
    let me = world.sparc.as_user(seer_id);
    // Inserts a session that ends after all others. The list begins with the sessions that ended last, so no later page
    // has this one.
    let insert_ended_session = async || {
        world.owner().execute(&insert_sessions_sql("completed", "now() + INTERVAL '1 minute'", 1)).await.unwrap();
    };
    let live_session_ids =
        read_all(async |after| me.sessions().my_live(after.as_ref()).await, async || (), |row| row.id).await;
    assert_eq!(live_session_ids.len(), 19, "the session of another Seer must not be listed");
    let past_sessions = read_all(
        async |after| me.sessions().my_past(after.as_ref()).await,
        insert_ended_session,
        |row| (row.id, row.is_archived),
    )
    .await;
    assert_eq!(past_sessions.len(), 160, "60 completed, 60 cancelled and 40 archived sessions");
    assert_eq!(past_sessions.iter().filter(|(_, archived)| *archived).count(), 40);
    assert!(
        past_sessions[120..].iter().all(|(_, archived)| *archived),
        "the most recently ended sessions must come first"
    );
}

#[tokio::test]
async fn a_session_that_a_player_left_is_listed_only_after_it_has_ended() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = world.sparc.as_user(game.players[0].user_id);
    let listed_sessions = player.sessions().my_live(None).await.unwrap().items;
    assert_eq!(listed_sessions.len(), 1);
    assert_eq!(listed_sessions[0].character_id, Some(game.players[0].character_id));
    assert_eq!(listed_sessions[0].adventure_name.as_deref(), Some("The Drowned Ford"));
    player.sessions().leave(game.session_id).await.unwrap();
    assert!(
        player.sessions().my_live(None).await.unwrap().items.is_empty(),
        "a live session must not be listed for a player who left it"
    );
    world.update_session(&game, "status = 'cancelled'").await;
    assert_eq!(
        player.sessions().my_past(None).await.unwrap().items.len(),
        1,
        "an ended session must be listed for a player who left it"
    );
}

#[tokio::test]
async fn a_cursor_works_only_in_its_own_list() {
    let world = World::new().await;
    let (game, other_game) = (world.new_active_session(1).await, world.new_active_session(1).await);
    let seer_id = game.seer.user_id();
    let insert_rows = format!(
        "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type)
         SELECT '{session_id}', '{hero_id}', 'might', 10, 'attack' FROM generate_series(1, 60);
         INSERT INTO sessions (seer_id, adventure_id, status, ended_at)
         SELECT '{seer_id}', '{adventure_id}', 'completed', now() FROM generate_series(1, 60);
         INSERT INTO auth.users (id) SELECT gen_random_uuid() FROM generate_series(1, 30);
         INSERT INTO sessions (seer_id, adventure_id, is_public) SELECT id, '{adventure_id}', true FROM users;
         INSERT INTO adventures (creator_id, name, status, is_valid)
         SELECT '{seer_id}', 'The Ford', 'published', true FROM generate_series(1, 30)",
        session_id = game.session_id,
        hero_id = game.players[0].character_id,
        adventure_id = game.adventure_id
    );
    world.pool.execute_unprepared(&insert_rows).await.unwrap();
    let me = world.sparc.as_user(seer_id);
    let other_seer = world.sparc.as_user(other_game.seer.user_id());
    let no_filter = HistoryFilter::default();
    // `short_catalogue_filter` finds only adventures of at most 90 minutes, and `short_lobby_filter` only sessions of
    // such adventures.
    let (lobby_filter, short_lobby_filter) =
        (LobbyFilter::default(), LobbyFilter { max_minutes: Some(90), ..Default::default() });
    let (catalogue_filter, short_catalogue_filter) =
        (CatalogueFilter::default(), CatalogueFilter { max_minutes: Some(90), ..Default::default() });
    let (newest, most_played) = (CatalogueOrder::Newest, CatalogueOrder::MostPlayed);
    let scope = RollScope::Session(game.session_id);
    let cursors = [
        me.sessions().my_past(None).await.unwrap().next.unwrap(),
        me.adventures().mine(None).await.unwrap().next.unwrap(),
        me.dice().history(scope, &no_filter, None).await.unwrap().next.unwrap(),
        me.sessions().lobby(&lobby_filter, None).await.unwrap().next.unwrap(),
        me.sessions().lobby(&short_lobby_filter, None).await.unwrap().next.unwrap(),
        me.adventures().catalogue(&catalogue_filter, newest, None).await.unwrap().next.unwrap(),
        me.adventures().catalogue(&short_catalogue_filter, newest, None).await.unwrap().next.unwrap(),
        me.adventures().catalogue(&catalogue_filter, most_played, None).await.unwrap().next.unwrap(),
    ];
    // The first eight lists below are those that issued the cursors, in the same order.
    for (issuing_list, cursor) in cursors.iter().enumerate() {
        let after = Some(cursor);
        let attacks_only = HistoryFilter { kind: Some(RollType::Attack), ..no_filter };
        let outcomes = [
            me.sessions().my_past(after).await.map(drop),
            me.adventures().mine(after).await.map(drop),
            me.dice().history(scope, &no_filter, after).await.map(drop),
            me.sessions().lobby(&lobby_filter, after).await.map(drop),
            me.sessions().lobby(&short_lobby_filter, after).await.map(drop),
            me.adventures().catalogue(&catalogue_filter, newest, after).await.map(drop),
            me.adventures().catalogue(&short_catalogue_filter, newest, after).await.map(drop),
            me.adventures().catalogue(&catalogue_filter, most_played, after).await.map(drop),
            me.sessions().my_live(after).await.map(drop),
            other_seer.sessions().my_past(after).await.map(drop),
            other_seer.adventures().mine(after).await.map(drop),
            me.dice().history(RollScope::Session(other_game.session_id), &no_filter, after).await.map(drop),
            me.dice().history(RollScope::Character(game.players[0].character_id), &no_filter, after).await.map(drop),
            me.dice().history(scope, &attacks_only, after).await.map(drop),
            me.sessions().archived_rolls(game.session_id, RollsPageSize::default(), after).await.map(drop),
        ];
        for (list, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(()) => {
                    assert_eq!(list, issuing_list, "the cursor of list {issuing_list} was accepted in list {list}")
                }
                Err(error) => {
                    assert!(
                        list != issuing_list && error.code() == "bad_cursor",
                        "the cursor of list {issuing_list} in list {list}: {error:?}"
                    )
                }
            }
        }
    }
    // The size of the page may change from page to page.
    let small_page_filter = HistoryFilter { page_size: RollsPageSize::new(5).unwrap(), ..no_filter };
    assert_eq!(me.dice().history(scope, &small_page_filter, Some(&cursors[2])).await.unwrap().items.len(), 5);
}
