//! Pagination and filters of the catalogue, and pagination of a user's own adventures.

use std::collections::HashSet;

use sparc::entity::sea_orm_active_enums::DifficultyLevel;
use sparc::service::{
    Error, Operations,
    adventures::{CatalogueFilter, CatalogueOrder},
};
use uuid::Uuid;

use crate::{pagination::read_all, world::World};

/// Creates published adventures. Some of them have equal sort keys, so that a page can end between two such rows.
async fn create_published_adventures(world: &World, creator_id: Uuid, count: u32) {
    let sql = format!(
        "INSERT INTO adventures (creator_id, name, description, status, is_valid, published_at, times_played,
           average_rating, estimated_duration, min_players, max_players, created_at)
         SELECT '{creator_id}', 'Adventure ' || i, 'no. ' || i, 'published', true,
           '2026-01-01'::timestamptz + (i / 7) * INTERVAL '1 day', i / 9, CASE WHEN i % 3 > 0 THEN (i % 5)::numeric END,
           30 * (1 + i % 4), 1 + i % 3, 4 + i % 3, '2026-01-01'::timestamptz + (i / 7) * INTERVAL '1 day'
         FROM generate_series(1, {count}) AS i"
    );
    world.owner().execute(&sql).await.unwrap();
}

#[tokio::test]
async fn the_catalogue_is_paginated_in_each_order() {
    let world = World::new().await;
    let creator_id = world.new_account().await;
    create_published_adventures(&world, creator_id, 70).await;
    world.new_draft_adventure(creator_id).await;
    let ids_before: HashSet<Uuid> = world
        .owner()
        .fetch_values("SELECT id FROM adventures WHERE status <> 'draft'")
        .await
        .unwrap()
        .into_iter()
        .collect();
    let (visitor, no_filter) = (world.sparc.as_anon(), CatalogueFilter::default());
    for (order, sort_key) in [
        (CatalogueOrder::Newest, "published_at DESC, id"),
        (CatalogueOrder::MostPlayed, "times_played DESC, id"),
        (CatalogueOrder::BestRated, "average_rating DESC NULLS LAST, id"),
    ] {
        let select_sorted_ids = format!("SELECT id FROM adventures WHERE status = 'published' ORDER BY {sort_key}");
        let expected: Vec<Uuid> = world.owner().fetch_values(&select_sorted_ids).await.unwrap();
        let seen = read_all(
            async |after| visitor.adventures().catalogue(&no_filter, order, after.as_ref()).await,
            async || (),
            |row| row.id,
        )
        .await;
        assert_eq!(seen, expected, "{order:?}");
        let seen = read_all(
            async |after| visitor.adventures().catalogue(&no_filter, order, after.as_ref()).await,
            async || {
                world.new_adventure(creator_id).await;
            },
            |row| row.id,
        )
        .await;
        assert!(
            ids_before.iter().all(|id| seen.contains(id)),
            "the pages must have every adventure that existed before: {order:?}"
        );
    }
    // `private.best_rated_ids_after`, which finds the adventures that follow a rated one, is SECURITY DEFINER, so row
    // security does not hide drafts from it. Here it is called with a position that precedes all adventures (the
    // highest rating and the lowest id), and must return only the published ones.
    world.new_draft_adventure(creator_id).await;
    let rate_drafts = "UPDATE adventures SET average_rating = 2 WHERE status = 'draft' AND average_rating IS NULL";
    assert_eq!(world.owner().execute(rate_drafts).await, Ok(2));
    let select_best_rated_ids =
        "SELECT unnest(private.best_rated_ids_after(5, '00000000-0000-0000-0000-000000000000', 1000))";
    let best_rated_ids: HashSet<Uuid> =
        world.visitor().fetch_values(select_best_rated_ids).await.unwrap().into_iter().collect();
    let published_ids =
        world.owner().fetch_values("SELECT id FROM adventures WHERE status = 'published'").await.unwrap();
    assert_eq!(best_rated_ids, published_ids.into_iter().collect());
    let page = visitor.adventures().catalogue(&no_filter, CatalogueOrder::Newest, None).await.unwrap();
    let outcome = visitor.adventures().catalogue(&no_filter, CatalogueOrder::BestRated, page.next.as_ref()).await;
    assert_error!(outcome, Error::InvalidCursor, "a cursor of one order must be refused in another");
}

#[tokio::test]
async fn the_catalogue_filters_by_difficulty_duration_players_and_text() {
    let world = World::new().await;
    let creator_id = world.new_account().await;
    create_published_adventures(&world, creator_id, 12).await;
    let visitor = world.sparc.as_anon();
    let assert_count = async |filter: CatalogueFilter, condition: &str| {
        let page = visitor.adventures().catalogue(&filter, CatalogueOrder::Newest, None).await.unwrap();
        let expected = world.owner().count(&format!("adventures WHERE {condition}")).await;
        assert!(expected > 0 || condition == "false", "some adventure must satisfy {condition}");
        assert_eq!(i64::try_from(page.items.len()).unwrap(), expected, "{condition}");
    };
    assert_count(CatalogueFilter { max_minutes: Some(60), ..Default::default() }, "estimated_duration <= 60").await;
    assert_count(CatalogueFilter { min_minutes: Some(90), ..Default::default() }, "estimated_duration >= 90").await;
    let player_count = Some(6);
    assert_count(CatalogueFilter { player_count, ..Default::default() }, "6 BETWEEN min_players AND max_players").await;
    assert_count(CatalogueFilter { search: Some("NO. 3".into()), ..Default::default() }, "description = 'no. 3'").await;
    // In a search text, `%` is not a wildcard.
    assert_count(CatalogueFilter { search: Some("%".into()), ..Default::default() }, "false").await;
    let difficulty = Some(DifficultyLevel::Hard);
    world.owner().execute("UPDATE adventures SET difficulty = 'hard' WHERE name LIKE '%1'").await.unwrap();
    assert_count(CatalogueFilter { difficulty, ..Default::default() }, "difficulty = 'hard'").await;
}

#[tokio::test]
async fn a_page_of_the_filtered_catalogue_scans_at_most_a_thousand_adventures_and_the_next_page_continues() {
    let world = World::new().await;
    // An account may have at most two hundred adventures, so 2300 of them need twelve creators.
    let creator_ids_literal = world.new_account_ids_literal(12).await;
    // Each order of the catalogue is also the order of `i`, with one exception: by rating, adventures with equal
    // ratings (they are rounded to two decimals) and those without a rating come in the order of their ids. Only the
    // adventures whose `i` is 1100 or 2200 are hard.
    let insert_adventures = format!(
        "INSERT INTO adventures (creator_id, name, status, is_valid, difficulty, published_at, times_played, average_rating)
         SELECT ('{creator_ids_literal}'::uuid[])[1 + i % 12], 'Adventure', 'published', true,
           (CASE WHEN i % 1100 = 0 THEN 'hard' ELSE 'easy' END)::difficulty_level,
           '2026-01-01'::timestamptz - i * INTERVAL '1 minute', 3000 - i, CASE WHEN i <= 2250 THEN 5 - i / 600.0 END
         FROM generate_series(1, 2300) AS i"
    );
    world.owner().execute(&insert_adventures).await.unwrap();
    let visitor = world.sparc.as_anon();
    let hard_only = CatalogueFilter { difficulty: Some(DifficultyLevel::Hard), ..Default::default() };
    let easy_only = CatalogueFilter { difficulty: Some(DifficultyLevel::Easy), ..Default::default() };
    for order in [CatalogueOrder::Newest, CatalogueOrder::MostPlayed, CatalogueOrder::BestRated] {
        let mut lengths = Vec::new();
        let seen = read_all(
            async |after| {
                let page = visitor.adventures().catalogue(&hard_only, order, after.as_ref()).await?;
                lengths.push(page.items.len());
                Ok(page)
            },
            async || (),
            |row| row.id,
        )
        .await;
        assert_eq!((lengths, seen.len()), (vec![0, 1, 1], 2), "each page must scan a thousand adventures: {order:?}");
        let seen = read_all(
            async |after| visitor.adventures().catalogue(&easy_only, order, after.as_ref()).await,
            async || (),
            |row| row.id,
        )
        .await;
        assert_eq!(seen.len(), 2298, "no easy adventure may be missing: {order:?}");
    }
    let page = visitor.adventures().catalogue(&easy_only, CatalogueOrder::Newest, None).await.unwrap();
    assert_eq!(page.items.len(), 20, "most adventures match, so the page must be full");
}

#[tokio::test]
async fn the_callers_own_adventures_are_paginated() {
    let world = World::new().await;
    let creator_id = world.new_account().await;
    create_published_adventures(&world, creator_id, 45).await;
    let draft_id = world.new_draft_adventure(creator_id).await;
    create_published_adventures(&world, world.new_account().await, 3).await;
    let me = world.sparc.as_user(creator_id);
    let seen = read_all(
        async |after| me.adventures().mine(after.as_ref()).await,
        async || {
            world.new_draft_adventure(creator_id).await;
        },
        |row| row.id,
    )
    .await;
    assert_eq!(seen.len(), 46, "45 published adventures and the draft");
    assert_eq!(seen[0], draft_id, "the newest adventure must come first");
}
