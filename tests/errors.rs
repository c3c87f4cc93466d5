//! Errors that could mislead a caller: each must say what was wrong and whether a retry helps. Concurrent calls on one
//! transaction must not get each other's errors or roles.

use std::time::Duration;

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, Statement,
    TransactionTrait,
};
use sparc::{
    entity::{
        adventures, characters,
        sea_orm_active_enums::{Attribute, SessionStatus},
    },
    service::{
        Difficulty, Error, IdentityConnection, MaxPlayers, Operations, Options, Sparc,
        characters::NewCharacter,
        dice::{NewRoll, Roller},
        sessions::NewSession,
    },
};
use uuid::Uuid;

use crate::world::World;

fn statement(text: &str) -> Statement {
    Statement::from_string(DbBackend::Postgres, text)
}

fn assert_invalid_statement<T: std::fmt::Debug>(outcome: Result<T, sea_orm::DbErr>, why: &str) {
    let error = outcome.map_err(Error::from).unwrap_err();
    assert!(matches!(error, Error::InvalidStatement { .. }) && !error.is_retryable(), "{why}: {error:?}");
}

async fn assert_usable(caller: &IdentityConnection) {
    assert!(caller.users().me().await.is_ok());
}

#[tokio::test]
async fn a_statement_that_cannot_be_run_is_an_invalid_statement() {
    let world = World::new().await;
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    let ada = sparc.as_user(world.new_account().await);
    // One more than the 65,535 values that the protocol permits.
    let ids: Vec<Uuid> = (0..65_536).map(|_| Uuid::new_v4()).collect();
    assert_invalid_statement(
        characters::Entity::find().filter(characters::Column::Id.is_in(ids)).all(&ada).await,
        "too many values",
    );
    assert_usable(&ada).await;
    assert_invalid_statement(ada.query_all_raw(statement("SELECT $1::integer")).await, "one value too few");
    let two_values = Statement::from_sql_and_values(DbBackend::Postgres, "SELECT $1::integer", [1.into(), 2.into()]);
    assert_invalid_statement(ada.query_all_raw(two_values).await, "one value too many");
    assert_invalid_statement(ada.execute_unprepared("SELECT 1; SELECT 2").await, "two statements");
    assert_invalid_statement(ada.execute_unprepared("SELEC 1").await, "not valid SQL");
    assert_invalid_statement(ada.execute_unprepared("SELECT * FROM nowhere").await, "no such table");
    assert_invalid_statement(ada.execute_unprepared("SELECT nothing FROM users").await, "no such column");
    assert_invalid_statement(
        characters::ActiveModel { name: Set("x".into()), ..Default::default() }.update(&ada).await,
        "an update without the primary key",
    );
    assert_usable(&ada).await;
    // A statement that fails before it is sent to the server does not fail its transaction.
    let tx = ada.begin().await.unwrap();
    let ids: Vec<Uuid> = (0..65_536).map(|_| Uuid::new_v4()).collect();
    assert_invalid_statement(
        characters::Entity::find().filter(characters::Column::Id.is_in(ids)).all(&tx).await,
        "too many values",
    );
    assert!(tx.users().me().await.is_ok());
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_missing_value_and_a_row_that_is_changed_twice_are_reported() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let seer = world.sparc.as_user(game.seer.user_id());
    let without_class = characters::ActiveModel { name: Set("Nim".into()), ..Default::default() };
    let error = Error::from(without_class.insert(&seer).await.unwrap_err());
    assert!(matches!(&error, Error::RuleViolated { constraint } if constraint == "class NOT NULL"), "{error:?}");

    let update =
        |status: &str| format!("UPDATE public.sessions SET status = '{status}' WHERE id = '{}'", game.session_id);
    let create_function = format!(
        "CREATE FUNCTION pg_temp.complete() RETURNS int LANGUAGE plpgsql AS $$ BEGIN {}; RETURN 1; END $$",
        update("completed")
    );
    let tx = seer.begin().await.unwrap();
    tx.execute_unprepared(&create_function).await.unwrap();
    let update_twice = format!("{} RETURNING pg_temp.complete()", update("paused"));
    assert_invalid_statement(tx.execute_unprepared(&update_twice).await, "a row changed twice");
}

#[tokio::test]
async fn an_update_of_another_users_row_is_reported_as_not_found() {
    let world = World::new().await;
    let (ada, ben) = (world.new_player().await, world.new_player().await);
    let me = world.sparc.as_user(ada.user_id);
    let rename_character =
        characters::ActiveModel { id: Set(ben.character_id), name: Set("Mine".into()), ..Default::default() };
    let error = rename_character.update(&me).await.map_err(Error::from).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    assert_eq!(error.http_status(), 404);
    let adventure_id = world.new_adventure(ben.user_id).await;
    let rename_adventure =
        adventures::ActiveModel { id: Set(adventure_id), name: Set("Mine".into()), ..Default::default() };
    let error = rename_adventure.update(&me).await.map_err(Error::from).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn concurrent_operations_on_one_transaction_all_succeed() {
    let world = World::new().await;
    let creator_id = world.new_account().await;
    let draft_id = world.new_draft_adventure(creator_id).await;
    let ada = world.sparc.as_user(creator_id);
    let tx = ada.begin().await.unwrap();
    let operations = (0..20).map(|_| async {
        let (users, adventures) = (tx.users(), tx.adventures());
        let (me, validation_errors) = tokio::join!(users.me(), adventures.validate(draft_id));
        me?;
        validation_errors.map(drop)
    });
    for outcome in futures_util::future::join_all(operations).await {
        outcome.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_call_does_not_get_the_error_of_a_cancelled_call() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.new_account().await);
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    // The query fails after 10 ms, so only the first two timeouts cancel it.
    for timeout_ms in [1, 5, 20] {
        let failing_query = "SELECT 1 / (pg_sleep(0.01) IS NULL)::integer";
        let ada_over_one_connection = sparc.as_user(ada.user_id().unwrap());
        let _ = tokio::time::timeout(
            Duration::from_millis(timeout_ms),
            ada_over_one_connection.query_one_raw(statement(failing_query)),
        )
        .await;
        assert_usable(&ada_over_one_connection).await;
        // After a cancelled statement, nobody knows whether it has failed. So a nested transaction can only be rolled
        // back. The outer transaction continues.
        let tx = ada.begin().await.unwrap();
        let inner = tx.begin().await.unwrap();
        let outcome =
            tokio::time::timeout(Duration::from_millis(timeout_ms), inner.query_one_raw(statement(failing_query)))
                .await;
        if outcome.is_err() {
            assert_error!(inner.users().me().await, Error::TransactionFailed);
        }
        inner.rollback().await.unwrap();
        assert!(tx.users().me().await.is_ok(), "the outer transaction must continue");
        tx.commit().await.unwrap();
    }
}

/// In a caller's transaction, `validate` assumes the service's role to store its result. Other statements of that
/// transaction must not run meanwhile.
#[tokio::test]
async fn no_concurrent_statement_runs_with_the_service_role_while_an_adventure_is_validated() {
    let world = World::new().await;
    let (creator_id, ben) = (world.new_account().await, world.new_player().await);
    let draft_id = world.new_draft_adventure(creator_id).await;
    let tx = world.sparc.as_user(creator_id).begin().await.unwrap();
    let validate = async {
        for _ in 0..200 {
            tx.adventures().validate(draft_id).await.unwrap();
        }
    };
    let mut reads = Vec::new();
    for _ in 0..8 {
        reads.push(async {
            for _ in 0..200 {
                let character = characters::Entity::find_by_id(ben.character_id).one(&tx).await.unwrap();
                assert!(character.is_none(), "another user's character was read with the service's role");
                let row = tx.query_one_raw(statement("SELECT current_user::text")).await.unwrap().unwrap();
                assert_eq!(row.try_get_by_index::<String>(0).unwrap(), "authenticated");
            }
        });
    }
    tokio::join!(validate, futures_util::future::join_all(reads));
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn common_mistakes_have_their_own_errors() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let (me, seer) = (world.sparc.as_user(player.user_id), world.sparc.as_user(game.seer.user_id()));
    let error = seer.sessions().complete(game.session_id).await.unwrap_err();
    assert!(
        matches!(error, Error::IllegalTransition { from: SessionStatus::Waiting, to: SessionStatus::Completed }),
        "{error:?}"
    );
    assert_eq!(error.to_string(), "a session cannot go from waiting to completed");
    assert_error!(me.sessions().start(game.session_id).await, Error::NotSessionSeer);
    assert_error!(me.sessions().start(Uuid::new_v4()).await, Error::NotFound { what: "session" });
    assert_error!(me.characters().retire(player.character_id).await, Error::CharacterSeated);
    let check = NewRoll::attribute_check(
        game.session_id,
        Roller::Character(player.character_id),
        Attribute::Might,
        Difficulty::MIN,
    );
    assert_error!(me.dice().roll(check).await, Error::SessionNotActive);
    let short_name = NewCharacter { name: "x".into(), ..Default::default() };
    assert_error!(me.characters().create(short_name).await, Error::InvalidValue { field: "name", .. });
    let twin = NewCharacter { name: "Twin".into(), ..Default::default() };
    me.characters().create(twin.clone()).await.unwrap();
    assert_error!(me.characters().create(twin).await, Error::CharacterNameTaken);
    let unknown_adventure = NewSession { adventure_id: Uuid::new_v4(), ..Default::default() };
    assert_error!(me.sessions().create(unknown_adventure).await, Error::AdventureNotPlayable);
    // The adventure is published, so users other than its creator may run it too.
    let largest_session =
        NewSession { adventure_id: game.adventure_id, max_players: MaxPlayers::MAX, ..Default::default() };
    assert_eq!(me.sessions().create(largest_session).await.unwrap().max_players, 6);
}
