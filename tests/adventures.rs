//! Adventures and creatures: who may read and write them; a published adventure is valid, and content that a client
//! writes counts as invalid until the service has validated it.

use sparc::{
    entity::sea_orm_active_enums::Attribute,
    service::{
        Difficulty, Error, Operations,
        adventures::NewAdventure,
        creatures::{Ability, CreatureChanges, NewCreature},
        dice::{NewRoll, Roller},
    },
};
use uuid::Uuid;

use crate::{
    random_operations::broken_invariants,
    sqlstates::{ADVENTURE_PUBLISHED, CHECK_VIOLATION, FOREIGN_KEY_VIOLATION},
    world::World,
};

#[tokio::test]
async fn publishing_requires_validation_and_sets_the_time_of_publication() {
    let world = World::new().await;
    let creator = world.new_user().await;
    let draft_id = world.new_draft_adventure(creator.user_id()).await;
    let publish = format!("UPDATE adventures SET status = 'published' WHERE id = '{draft_id}'");
    assert_refused!(creator.execute(&publish).await, CHECK_VIOLATION, "published_is_valid");
    world.service().execute(&format!("UPDATE adventures SET is_valid = true WHERE id = '{draft_id}'")).await.unwrap();
    assert_eq!(creator.execute(&publish).await, Ok(1));
    assert_eq!(creator.count("adventures WHERE published_at IS NOT NULL").await, 1);
}

#[tokio::test]
async fn changed_content_clears_the_validation_result_and_a_changed_name_does_not() {
    let world = World::new().await;
    let creator = world.new_user().await;
    let draft_id = world.new_draft_adventure(creator.user_id()).await;
    world.service().execute(&format!("UPDATE adventures SET is_valid = true WHERE id = '{draft_id}'")).await.unwrap();
    creator.execute("UPDATE adventures SET name = 'Another name'").await.unwrap();
    assert_eq!(creator.count("adventures WHERE is_valid").await, 1, "a new name must not clear the validation result");
    creator.execute("UPDATE adventures SET content = '{\"nodes\": []}'").await.unwrap();
    assert_eq!(creator.count("adventures WHERE is_valid").await, 0);
}

#[tokio::test]
async fn a_published_adventure_must_be_unpublished_before_it_is_edited() {
    let world = World::new().await;
    let creator = world.new_user().await;
    world.new_adventure(creator.user_id()).await;
    let edit_content = "UPDATE adventures SET content = '{\"nodes\": [1]}'";
    assert_refused!(creator.execute(edit_content).await, ADVENTURE_PUBLISHED, "published_not_edited");
    assert_eq!(creator.execute("UPDATE adventures SET status = 'draft'").await, Ok(1));
    assert_eq!(creator.execute(edit_content).await, Ok(1));
    assert_refused!(
        creator.execute("UPDATE adventures SET status = 'published'").await,
        CHECK_VIOLATION,
        "published_is_valid"
    );
}

/// Closing an account does not change its published adventures. Not even the service can make them drafts afterwards.
#[tokio::test]
async fn a_published_adventure_of_a_closed_account_does_not_become_a_draft() {
    let world = World::new().await;
    let creator = world.new_user().await;
    let adventure_id = world.new_adventure(creator.user_id()).await;
    world.sparc.as_user(creator.user_id()).users().close_account(creator.user_id()).await.unwrap();
    let service = world.sparc.as_service();
    assert_error!(service.adventures().unpublish(adventure_id).await, Error::AccountClosed);
    assert_eq!(broken_invariants(&world).await, [""; 0]);
    service.adventures().archive(adventure_id).await.unwrap();
    assert_error!(service.adventures().unpublish(adventure_id).await, Error::AccountClosed);
}

#[tokio::test]
async fn a_creator_sets_only_the_granted_columns_of_an_adventure() {
    let world = World::new().await;
    let creator = world.new_user().await;
    world.new_draft_adventure(creator.user_id()).await;
    for change in [
        "is_valid = true",
        "validation_errors = '[]'",
        "times_played = 9",
        "average_rating = 5",
        "published_at = now()",
        "creator_id = gen_random_uuid()",
        "created_at = now()",
    ] {
        assert_refused!(creator.execute(&format!("UPDATE adventures SET {change}")).await, forbidden, "{change}");
    }
    for column in ["is_valid", "times_played", "average_rating", "published_at", "validation_errors"] {
        let sql = format!("INSERT INTO adventures (name, {column}) VALUES ('Forged', NULL)");
        assert_refused!(creator.execute(&sql).await, forbidden, "{column}");
    }
    let insert_published_adventure = "INSERT INTO adventures (name, status) VALUES ('Forged', 'published')";
    assert_refused!(creator.execute(insert_published_adventure).await, CHECK_VIOLATION, "published_is_valid");
}

#[tokio::test]
async fn adventures_of_others_are_read_if_published_and_never_written() {
    let world = World::new().await;
    let (creator, stranger) = (world.new_user().await, world.new_user().await);
    world.new_adventure(creator.user_id()).await;
    world.new_draft_adventure(creator.user_id()).await;
    assert_eq!(creator.count("adventures").await, 2);
    assert_eq!(stranger.count("adventures").await, 1);
    assert_eq!(world.visitor().count("adventures").await, 1);
    assert_eq!(stranger.execute("UPDATE adventures SET name = 'Mine now'").await, Ok(0));
    assert_eq!(stranger.execute("DELETE FROM adventures").await, Ok(0));
    let insert_for_another_user =
        format!("INSERT INTO adventures (creator_id, name) VALUES ('{}', 'Forged')", creator.user_id());
    assert_refused!(stranger.execute(&insert_for_another_user).await, forbidden);
    let insert_own_adventure = "INSERT INTO adventures (name) VALUES ('My own') RETURNING creator_id";
    assert_eq!(stranger.fetch_value::<Uuid>(insert_own_adventure).await.unwrap(), stranger.user_id());
}

#[tokio::test]
async fn an_adventure_that_was_played_can_be_archived_but_not_deleted() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    world.update_session(&game, "status = 'completed'").await;
    assert_eq!(game.seer.execute("DELETE FROM adventures").await.unwrap_err().sqlstate, FOREIGN_KEY_VIOLATION);
    assert_eq!(game.seer.execute("UPDATE adventures SET status = 'archived'").await, Ok(1));
}

#[tokio::test]
async fn creatures_are_read_with_their_adventure_and_written_by_its_creator() {
    let world = World::new().await;
    let (creator, stranger) = (world.new_user().await, world.new_user().await);
    let draft_id = world.new_draft_adventure(creator.user_id()).await;
    let insert_wolf_returning_name =
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{draft_id}', 'Wolf') RETURNING name");
    assert_eq!(creator.fetch_value::<String>(&insert_wolf_returning_name).await.unwrap(), "Wolf");
    // This INSERT has no RETURNING, because a SELECT policy could refuse an INSERT with RETURNING.
    let insert_bear = format!("INSERT INTO creatures (adventure_id, name) VALUES ('{draft_id}', 'Bear')");
    assert_refused!(stranger.execute(&insert_bear).await, forbidden);
    assert_refused!(world.visitor().execute(&insert_bear).await, forbidden);
    assert_eq!(stranger.count("creatures").await, 0);
    assert_eq!(world.visitor().count("creatures").await, 0);
    assert_eq!(stranger.execute("UPDATE creatures SET name = 'Mine'").await, Ok(0));
    assert_eq!(stranger.execute("DELETE FROM creatures").await, Ok(0));
    world
        .owner()
        .execute("UPDATE adventures SET is_valid = true; UPDATE adventures SET status = 'published'")
        .await
        .unwrap();
    assert_eq!(stranger.count("creatures").await, 1);
    assert_eq!(world.visitor().count("creatures").await, 1);
    assert_eq!(creator.execute("UPDATE creatures SET armor = 2").await, Ok(1));
    for change in ["adventure_id = gen_random_uuid()", "created_at = now()", "updated_at = now()"] {
        assert_refused!(creator.execute(&format!("UPDATE creatures SET {change}")).await, forbidden, "{change}");
    }
    for stats in [
        "{}",
        "[]",
        r#"{"might": 11, "grace": 1, "wit": 1, "heart": 1}"#,
        r#"{"might": "5", "grace": 1, "wit": 1, "heart": 1}"#,
    ] {
        assert_refused!(
            creator.execute(&format!("UPDATE creatures SET stats = '{stats}'")).await,
            CHECK_VIOLATION,
            "valid_stats",
            "{stats}"
        );
    }
}

#[tokio::test]
async fn a_rating_must_be_from_0_to_5() {
    let world = World::new().await;
    let adventure_id = world.new_adventure(world.new_account().await).await;
    let service = world.sparc.as_service();
    for invalid in ["-9.99", "-0.01", "5.01", "9.99", "1000"] {
        let outcome = service.adventures().set_average_rating(adventure_id, Some(invalid.parse().unwrap())).await;
        assert_error!(outcome, Error::InvalidValue { field: "average_rating", .. }, "{invalid}");
    }
    for valid in ["0", "4.99", "5", "5.00"] {
        assert!(
            service.adventures().set_average_rating(adventure_id, Some(valid.parse().unwrap())).await.is_ok(),
            "{valid}"
        );
    }
    assert!(service.adventures().set_average_rating(adventure_id, None).await.is_ok());
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
    let outcome = me.adventures().publish(draft.id).await;
    assert!(matches!(&outcome, Err(Error::AdventureInvalid(found)) if *found == errors), "{outcome:?}");
    let content = serde_json::json!({ "start": "a", "nodes": [{ "id": "a", "type": "story" }] });
    me.adventures().set_content(draft.id, &serde_json::from_value(content).unwrap()).await.unwrap();
    assert!(me.adventures().publish(draft.id).await.unwrap().published_at.is_some());
    assert!(me.adventures().publish(draft.id).await.is_ok(), "publishing again must succeed");
    let stranger = world.sparc.as_user(world.new_account().await);
    assert_error!(stranger.adventures().publish(draft.id).await, Error::AdventureNotYours);
    assert_error!(stranger.adventures().validate(draft.id).await, Error::AdventureNotYours);
}

#[tokio::test]
async fn a_creature_is_edited_and_deleted_and_its_rolls_stay() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let seer = world.sparc.as_user(game.seer.user_id());
    let bite = Ability { name: "Bite".into(), ..Default::default() };
    let new_wolf = NewCreature { name: "Wolf".into(), abilities: vec![bite], armor: 1, ..Default::default() };
    let wolf = seer.creatures().add(game.adventure_id, new_wolf).await.unwrap();
    let attack = NewRoll::attack(game.session_id, Roller::Creature(wolf.id), Attribute::Might, Difficulty::MIN);
    let roll = seer.dice().roll(attack).await.unwrap();
    let changes =
        CreatureChanges { hit_points: Some(12), description: Some(Some("grey".into())), ..Default::default() };
    let edited_wolf = seer.creatures().edit(wolf.id, changes).await.unwrap();
    assert_eq!((edited_wolf.hit_points, edited_wolf.armor, edited_wolf.name.as_str()), (12, 1, "Wolf"));
    assert_eq!(seer.creatures().list(game.adventure_id).await.unwrap(), [edited_wolf]);
    seer.creatures().remove(wolf.id).await.unwrap();
    let roll_after_removal = seer.dice().get(roll.id).await.unwrap();
    assert_eq!((roll_after_removal.creature_id, roll_after_removal.character_name.as_str()), (None, "Wolf"));
}
