//! Connections with an identity (a role and claims): the identity cannot leak to the connection's next user, change
//! unnoticed, or be missing. Also: the transactions and the deadlines of such connections.

use futures_util::TryStreamExt;
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, LoaderTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect,
    Statement, StreamTrait, TransactionTrait, sea_query::Expr,
};
use sparc::{
    entity::{characters, session_players, sessions, users},
    service::{
        Error, Operations, Options, Sparc,
        characters::NewCharacter,
        users::{Profile, ProfileChanges},
    },
};

use crate::{random_programs::poll_then_drop, world::World};

#[tokio::test]
async fn an_identity_does_not_leak_to_the_next_user_of_a_connection() {
    let world = World::new().await;
    let pool = sea_orm::Database::connect({
        let mut options = sea_orm::ConnectOptions::new(world.url());
        options.max_connections(1).sqlx_logging(false);
        options
    })
    .await
    .unwrap();
    let sparc = Sparc::from_connection(pool.clone());
    let (ada, ben) = (world.new_player().await, world.new_player().await);
    for _ in 0..10 {
        for player in [&ada, &ben] {
            let own_characters = characters::Entity::find().all(&sparc.as_user(player.user_id)).await.unwrap();
            assert_eq!(own_characters.iter().map(|character| character.id).collect::<Vec<_>>(), [player.character_id]);
        }
        assert!(characters::Entity::find().all(&sparc.as_anon()).await.is_err());
        // A dropped transaction and a failed one leave no identity on the connection either.
        drop(sparc.as_user(ada.user_id).begin().await.unwrap());
        let failing_transaction = sparc.as_user(ada.user_id).begin().await.unwrap();
        assert!(failing_transaction.execute_unprepared("SELECT nonsense").await.is_err());
        drop(failing_transaction);
        let select_identity = Statement::from_string(
            sea_orm::DbBackend::Postgres,
            "SELECT current_user::text || current_setting('request.jwt.claims', true)",
        );
        let row = pool.query_one_raw(select_identity).await.unwrap().unwrap();
        assert_eq!(
            row.try_get_by_index::<String>(0).unwrap(),
            "postgres",
            "the role must be the login's own, and no claims may be set"
        );
    }
}

#[tokio::test]
async fn a_statement_that_changes_the_identity_is_detected_and_nothing_is_committed() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.new_account().await);
    let other_account_id = world.new_account().await;
    for change in [
        "RESET ROLE",
        "RESET/**/ROLE",
        "SET LOCAL role TO service_role",
        "SET \"role\" = 'postgres'",
        "SELECT set_config('role', 'postgres', true)",
        "SELECT \"set_config\"('role', 'postgres', true)",
        "SELECT U&\"set\\005fconfig\"('role', 'postgres', true)",
        // A carriage return ends the comment.
        "-- x\rRESET ROLE",
        "RESET ALL",
        "SELECT set_config('request.jwt.claim.sub', gen_random_uuid()::text, true)",
        "SET LOCAL request.jwt.claims = '{}'",
        "SET LOCAL request.jwt.claim = '{}'",
        "DO $$ BEGIN EXECUTE 'RES' || 'ET ROLE'; END $$",
        "SET SESSION AUTHORIZATION authenticated",
    ] {
        let tx = ada.begin().await.unwrap();
        tx.users().edit(ProfileChanges { bio: Some(Some("mine".into())), ..Default::default() }).await.unwrap();
        let outcome = tx.execute_unprepared(change).await.map_err(Error::from);
        assert_error!(outcome, Error::IdentityChanged, "{change}");
        assert_error!(tx.users().me().await, Error::IdentityChanged, "{change}: later calls must be refused too");
        assert_error!(tx.commit().await.map_err(Error::from), Error::IdentityChanged, "{change}");
        let outcome = ada.execute_unprepared(change).await.map_err(Error::from);
        assert_error!(outcome, Error::IdentityChanged, "{change}, outside of a transaction");
        assert!(ada.users().me().await.unwrap().bio.is_none(), "{change}: nothing may be committed");
    }
    let change_and_write = format!(
        "DO $$ BEGIN EXECUTE 'RESET ROLE'; UPDATE users SET is_verified = true WHERE id = '{other_account_id}'; END $$"
    );
    let outcome = ada.execute_unprepared(&change_and_write).await.map_err(Error::from);
    assert_error!(outcome, Error::IdentityChanged);
    assert!(!ada.users().profile(other_account_id).await.unwrap().is_verified);
    let change_in_expression =
        users::Entity::find().select_only().expr(Expr::cust("set_config('role', 'postgres', true)"));
    let outcome = change_in_expression.into_tuple::<String>().one(&ada).await.map_err(Error::from);
    assert_error!(outcome, Error::IdentityChanged, "in an expression");
}

#[tokio::test]
async fn after_a_change_of_identity_no_rows_are_returned_until_the_change_is_rolled_back() {
    let world = World::new().await;
    let (ada, ben) = (world.new_player().await, world.new_player().await);
    let tx = world.sparc.as_user(ada.user_id).begin().await.unwrap();
    let set_role = Expr::cust("set_config('role', 'service_role', true)");
    assert!(users::Entity::find().select_only().expr(set_role).into_tuple::<String>().one(&tx).await.is_err());
    let character_of_ben = characters::Entity::find_by_id(ben.character_id).one(&tx).await;
    assert_error!(character_of_ben.map_err(Error::from), Error::IdentityChanged);
    drop(tx);
    // Rolling back a nested transaction also undoes its change of identity.
    let tx = world.sparc.as_user(ada.user_id).begin().await.unwrap();
    let inner = tx.begin().await.unwrap();
    assert!(inner.execute_unprepared("RESET ROLE").await.is_err());
    inner.rollback().await.unwrap();
    assert_eq!(characters::Entity::find().all(&tx).await.unwrap().len(), 1);
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_statement_that_ends_its_transaction_takes_effect_but_is_reported_as_an_error() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.new_account().await);
    for (ending_statement, bio_afterwards) in
        [("COMMIT", Some("COMMIT")), ("ROLLBACK", None), ("COMMIT AND CHAIN", Some("COMMIT AND CHAIN"))]
    {
        let clear_bio = ProfileChanges { bio: Some(None), ..Default::default() };
        ada.users().edit(clear_bio).await.unwrap();
        let tx = ada.begin().await.unwrap();
        tx.users()
            .edit(ProfileChanges { bio: Some(Some(ending_statement.into())), ..Default::default() })
            .await
            .unwrap();
        let outcome = tx.execute_unprepared(ending_statement).await.map_err(Error::from);
        assert_error!(outcome, Error::TransactionEndedByStatement, "{ending_statement}");
        assert_error!(
            tx.users().me().await,
            Error::TransactionEndedByStatement,
            "the next call must be refused: it would run with the role of the login"
        );
        assert_error!(tx.commit().await.map_err(Error::from), Error::TransactionEndedByStatement);
        assert_eq!(ada.users().me().await.unwrap().bio.as_deref(), bio_afterwards, "{ending_statement}");
        assert_error!(
            ada.execute_unprepared(ending_statement).await.map_err(Error::from),
            Error::TransactionEndedByStatement
        );
    }
    // Several statements in one string are refused before any of them runs.
    let outcome = ada.execute_unprepared("SELECT 1; COMMIT; SELECT 2").await.map_err(Error::from);
    assert_error!(outcome, Error::InvalidStatement { .. });
}

#[tokio::test]
async fn harmless_raw_sql_is_not_refused() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.new_account().await);
    for statement in ["SELECT 'Reset all the traps'", "SELECT 1 -- RESET ROLE", "DO $$ BEGIN PERFORM 'COMMIT'; END $$"]
    {
        ada.execute_unprepared(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    let tx = ada.begin().await.unwrap();
    for statement in ["SAVEPOINT here", "ROLLBACK TO SAVEPOINT here", "SET LOCAL application_name = 'begin; commit'"] {
        tx.execute_unprepared(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_commit_after_a_failed_statement_reports_that_nothing_was_committed() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.new_account().await);
    let tx = ada.begin().await.unwrap();
    tx.users().edit(ProfileChanges { bio: Some(Some("mine".into())), ..Default::default() }).await.unwrap();
    assert!(tx.execute_unprepared("SELECT 1 / 0").await.is_err());
    assert_error!(tx.users().me().await, Error::TransactionFailed, "the next operation must be refused too");
    let outcome = tx.commit().await.map_err(Error::from);
    assert_error!(outcome, Error::TransactionFailed, "PostgreSQL itself would answer ROLLBACK without an error");
    assert!(ada.users().me().await.unwrap().bio.is_none());
    let tx = ada.begin().await.unwrap();
    tx.users().edit(ProfileChanges { bio: Some(Some("mine".into())), ..Default::default() }).await.unwrap();
    let inner = tx.begin().await.unwrap();
    assert!(inner.execute_unprepared("SELECT 1 / 0").await.is_err());
    inner.rollback().await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        ada.users().me().await.unwrap().bio.as_deref(),
        Some("mine"),
        "the failure of a nested transaction that is rolled back must not fail the outer one"
    );
    let tx = ada.begin().await.unwrap();
    assert!(tx.characters().create(NewCharacter::default()).await.is_err());
    assert!(tx.commit().await.is_err(), "a refused operation must fail the transaction too");
}

#[tokio::test]
async fn an_operation_that_takes_too_long_ends_at_its_deadline_and_changes_nothing() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let deadline = std::time::Duration::from_millis(300);
    let ada = world.sparc.as_user(player.user_id).with_deadline(deadline);

    let lock_holder = world.owner().begin().await;
    lock_holder.execute_unprepared("SELECT FROM session_players FOR UPDATE").await.unwrap();
    let outcome = ada.sessions().leave(game.session_id).await;
    assert_error!(outcome, Error::DeadlineExceeded);
    lock_holder.rollback().await.unwrap();
    assert_eq!(world.owner().count("session_players WHERE is_active").await, 1, "nothing may be changed");
    // Calls that must succeed have a longer deadline, so that a slow machine does not make them fail.
    let without_short_deadline = world.sparc.as_user(player.user_id);
    assert!(without_short_deadline.sessions().leave(game.session_id).await.is_ok(), "the next operation must succeed");

    let slow_query = Statement::from_string(sea_orm::DbBackend::Postgres, "SELECT pg_sleep(20)");
    let started_at = std::time::Instant::now();
    let outcome = ada.query_one_raw(slow_query).await.map_err(Error::from);
    assert_error!(outcome, Error::DeadlineExceeded);
    assert!(started_at.elapsed() < std::time::Duration::from_secs(10), "a slow statement must end at the deadline");
    let tx = without_short_deadline.with_deadline(std::time::Duration::from_secs(7)).begin().await.unwrap();
    let select_statement_timeout =
        Statement::from_string(sea_orm::DbBackend::Postgres, "SELECT current_setting('statement_timeout')");
    let row = tx.query_one_raw(select_statement_timeout).await.unwrap().unwrap();
    assert_eq!(row.try_get_by_index::<String>(0).unwrap(), "7s");
    drop(tx);

    let options = Options::default().max_connections(1).deadline(deadline);
    let sparc = Sparc::connect_with(world.url(), options).await.unwrap();
    let with_long_deadline = sparc.as_user(player.user_id).with_deadline(std::time::Duration::from_secs(30));
    let open_transaction = with_long_deadline.begin().await.unwrap();
    let outcome = sparc.as_user(player.user_id).users().me().await;
    assert_error!(outcome, Error::DeadlineExceeded, "waiting for a connection must count towards the deadline");
    drop(open_transaction);
    assert!(with_long_deadline.users().me().await.is_ok());
    // These options have the default deadline of 30 seconds. The pool's own timeout is shorter, so it ends the wait.
    let acquire_timeout = std::time::Duration::from_millis(300);
    let options = Options::default().max_connections(1).acquire_timeout(acquire_timeout);
    let sparc = Sparc::connect_with(world.url(), options).await.unwrap();
    let _open_transaction = sparc.as_user(player.user_id).begin().await.unwrap();
    assert_error!(sparc.as_user(player.user_id).users().me().await, Error::PoolExhausted);
}

#[tokio::test]
async fn a_connection_with_an_identity_is_a_seaorm_connection() {
    let world = World::new().await;
    let game = world.new_session(3).await;
    let ada = world.sparc.as_user(game.players[0].user_id);
    let own_sessions = sessions::Entity::find().all(&ada).await.unwrap();
    let seats = own_sessions.load_many(session_players::Entity, &ada).await.unwrap();
    assert_eq!((own_sessions.len(), seats[0].len()), (1, 3), "finds and loaders");
    assert_eq!(characters::Entity::find().count(&ada).await.unwrap(), 1, "counts");
    let mut pages = session_players::Entity::find().order_by_asc(session_players::Column::UserId).paginate(&ada, 2);
    assert_eq!(pages.fetch_and_next().await.unwrap().unwrap().len(), 2, "paginators");
    let streamed_rows: Vec<_> =
        session_players::Entity::find().stream(&ada).await.unwrap().try_collect().await.unwrap();
    assert_eq!(streamed_rows.len(), 3, "row streams");
    let tx = ada.begin().await.unwrap();
    let streamed_rows: Vec<_> = characters::Entity::find().stream(&tx).await.unwrap().try_collect().await.unwrap();
    assert_eq!(streamed_rows.len(), 1, "row streams of a transaction");
    let statement = Statement::from_string(sea_orm::DbBackend::Postgres, "SELECT 1 FROM characters");
    let raw_rows: Vec<_> = ada.stream_raw(statement).await.unwrap().try_collect().await.unwrap();
    assert_eq!(raw_rows.len(), 1, "raw statements");
    // The profiles of the Seer and the three players.
    let profiles: Vec<Profile> = users::Entity::find().into_partial_model().all(&ada).await.unwrap();
    assert_eq!(profiles.len(), 4, "partial models, which leave out columns that are not granted");
}

#[tokio::test]
async fn operations_in_a_callers_transaction_are_committed_or_rolled_back_together() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let ada = world.sparc.as_user(player.user_id);
    let tx = ada.begin().await.unwrap();
    tx.sessions().leave(game.session_id).await.unwrap();
    tx.characters().retire(player.character_id).await.unwrap();
    let active_seat_count =
        session_players::Entity::find().filter(session_players::Column::IsActive.eq(true)).count(&tx).await.unwrap();
    assert_eq!(active_seat_count, 0, "the caller's own query must see the change");
    tx.rollback().await.unwrap();
    assert!(ada.characters().get(player.character_id).await.unwrap().retired_at.is_none());
    assert_eq!(world.owner().count("session_players WHERE is_active").await, 1);
    let tx = ada.begin().await.unwrap();
    tx.sessions().leave(game.session_id).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.owner().count("session_players WHERE is_active").await, 0);
}

#[tokio::test]
async fn a_nested_transaction_has_the_same_identity() {
    let world = World::new().await;
    let ada = world.new_player().await;
    world.new_player().await;
    let tx = world.sparc.as_user(ada.user_id).begin().await.unwrap();
    let inner = tx.begin().await.unwrap();
    assert_eq!(characters::Entity::find().count(&inner).await.unwrap(), 1);
    inner.rollback().await.unwrap();
    assert_eq!(characters::Entity::find().count(&tx).await.unwrap(), 1);
}

#[tokio::test]
async fn a_dropped_future_leaves_the_connection_usable() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.new_account().await);
    // Each call is polled once, and up to four more times, and then dropped, if it has not finished by then.
    let mut dropped_count = 0;
    for index in 0..50 {
        let outcome = poll_then_drop(index % 5, ada.users().me()).await;
        dropped_count += u32::from(outcome.is_none());
    }
    assert!(dropped_count > 0, "some calls must have been dropped");
    assert!(ada.users().me().await.is_ok());
    // Panics if a dropped call has left its transaction open.
    world.owner().assert_no_transaction_stays_idle().await;
}
