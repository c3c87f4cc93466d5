//! Identities: SeaORM connections that cannot leak, slip or be forgotten.

use futures_util::TryStreamExt;
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, LoaderTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect,
    Statement, StreamTrait, TransactionSession, TransactionTrait, sea_query::Expr,
};
use sparc::{
    entity::{characters, session_players, sessions, users},
    service::{
        Error, Operations, Options, Sparc,
        characters::NewCharacter,
        users::{Profile, ProfileChanges},
    },
};

use crate::world::World;

#[tokio::test]
async fn an_identity_does_not_leak_to_the_next_user_of_a_connection() {
    let world = World::new().await;
    let one = sea_orm::Database::connect({
        let mut options = sea_orm::ConnectOptions::new(world.url());
        options.max_connections(1).sqlx_logging(false);
        options
    })
    .await
    .unwrap();
    let sparc = Sparc::new(one.clone());
    let (ada, ben) = (world.player().await, world.player().await);
    for _ in 0..10 {
        for player in [&ada, &ben] {
            let mine = characters::Entity::find().all(&sparc.as_user(player.id)).await.unwrap();
            assert_eq!(mine.iter().map(|c| c.id).collect::<Vec<_>>(), [player.character]);
        }
        assert!(characters::Entity::find().all(&sparc.as_anon()).await.is_err());
        // A transaction that was dropped, and one that failed, leave nothing on either.
        drop(sparc.as_user(ada.id).begin().await.unwrap());
        let failing = sparc.as_user(ada.id).begin().await.unwrap();
        assert!(failing.execute_unprepared("SELECT nonsense").await.is_err());
        drop(failing);
        let bare = Statement::from_string(
            sea_orm::DbBackend::Postgres,
            "SELECT current_user::text || current_setting('request.jwt.claims', true)",
        );
        let row = one.query_one_raw(bare).await.unwrap().unwrap();
        assert_eq!(row.try_get_by_index::<String>(0).unwrap(), "postgres");
    }
}

#[tokio::test]
async fn an_identity_cannot_be_changed_half_way() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.account().await);
    let tx = ada.begin().await.unwrap();
    for escape in ["RESET ROLE", "SET ROLE postgres", "COMMIT", "SELECT set_config('role', 'postgres', true)"] {
        assert!(tx.execute_unprepared(escape).await.is_err(), "{escape}");
        assert!(ada.execute_unprepared(escape).await.is_err(), "{escape}");
        let statement = Statement::from_string(sea_orm::DbBackend::Postgres, escape);
        assert!(tx.query_one_raw(statement).await.is_err(), "{escape}");
    }
    assert!(tx.users().me().await.is_ok(), "and nothing was sent");
}

#[tokio::test]
async fn an_identity_that_was_changed_all_the_same_is_found_and_nothing_is_committed() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.account().await);
    let other = world.account().await;
    let hidden = "DO $$ BEGIN EXECUTE 'RES' || 'ET ROLE'; END $$";
    let claims = "DO $$ BEGIN EXECUTE 'SET LOCAL requ' || 'est.jwt.claims = ''{}'''; END $$";
    for escape in [hidden, claims] {
        let tx = ada.begin().await.unwrap();
        tx.users().edit(ProfileChanges { bio: Some(Some("mine".into())), ..Default::default() }).await.unwrap();
        tx.execute_unprepared(escape).await.unwrap();
        assert!(matches!(tx.users().me().await, Err(Error::IdentityChanged)), "before the next operation");
        assert!(matches!(tx.commit().await.map_err(Error::from), Err(Error::IdentityChanged)));
        assert!(ada.users().me().await.unwrap().bio.is_none(), "nothing was committed");
    }
    let theft = format!(
        "DO $$ BEGIN EXECUTE 'RES' || 'ET ROLE'; UPDATE users SET is_verified = true WHERE id = '{other}'; END $$"
    );
    let refused = ada.execute_unprepared(&theft).await.map_err(Error::from);
    assert!(matches!(refused, Err(Error::IdentityChanged)), "{refused:?}");
    assert!(!ada.users().profile(other).await.unwrap().is_verified);
    let statement = Statement::from_string(sea_orm::DbBackend::Postgres, "SELECT 1 -- RESET ROLE");
    assert!(matches!(ada.query_one_raw(statement).await.map_err(Error::from), Err(Error::IdentityIsFixed)));
    let custom = users::Entity::find().select_only().expr(Expr::cust("set_config('role', 'postgres', true)"));
    assert!(custom.into_tuple::<String>().one(&ada).await.is_err(), "nor in an expression");
}

#[tokio::test]
async fn a_commit_after_a_failed_statement_says_that_nothing_was_committed() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.account().await);
    let tx = ada.begin().await.unwrap();
    tx.users().edit(ProfileChanges { bio: Some(Some("mine".into())), ..Default::default() }).await.unwrap();
    assert!(tx.execute_unprepared("SELECT 1 / 0").await.is_err());
    assert!(matches!(tx.users().me().await, Err(Error::TransactionFailed)), "the next operation says so, too");
    let outcome = tx.commit().await.map_err(Error::from);
    assert!(matches!(outcome, Err(Error::TransactionFailed)), "PostgreSQL itself would answer ROLLBACK, and no error");
    assert!(ada.users().me().await.unwrap().bio.is_none());
    let tx = ada.begin().await.unwrap();
    tx.users().edit(ProfileChanges { bio: Some(Some("mine".into())), ..Default::default() }).await.unwrap();
    let inner = tx.begin().await.unwrap();
    assert!(inner.execute_unprepared("SELECT 1 / 0").await.is_err());
    inner.rollback().await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(ada.users().me().await.unwrap().bio.as_deref(), Some("mine"), "what a savepoint undid is no failure");
    let refused = ada.begin().await.unwrap();
    assert!(refused.characters().create(NewCharacter::default()).await.is_err());
    assert!(refused.commit().await.is_err(), "an operation that was refused is a failure, too");
}

#[tokio::test]
async fn an_operation_that_takes_too_long_ends_in_time_and_leaves_nothing() {
    let world = World::new().await;
    let table = world.table(1).await;
    let player = &table.players[0];
    let soon = std::time::Duration::from_millis(300);
    let ada = world.sparc.as_user(player.id).with_deadline(soon);

    let holder = world.owner().begin().await;
    holder.execute_unprepared("SELECT FROM session_players FOR UPDATE").await.unwrap();
    let refused = ada.sessions().leave(table.session).await;
    assert!(matches!(refused, Err(Error::DeadlineExceeded)), "{refused:?}");
    holder.rollback().await.unwrap();
    assert_eq!(world.owner().count("session_players WHERE is_active").await, 1, "nothing was done");
    assert!(ada.sessions().leave(table.session).await.is_ok(), "the next one is not harmed");

    let slow = Statement::from_string(sea_orm::DbBackend::Postgres, "SELECT pg_sleep(20)");
    let refused = ada.query_one_raw(slow).await.map_err(Error::from);
    assert!(matches!(refused, Err(Error::DeadlineExceeded)), "carried to the server: {refused:?}");
    let tx = ada.begin().await.unwrap();
    let set = Statement::from_string(sea_orm::DbBackend::Postgres, "SELECT current_setting('statement_timeout')");
    assert_eq!(tx.query_one_raw(set).await.unwrap().unwrap().try_get_by_index::<String>(0).unwrap(), "300ms");
    drop(tx);

    let one = Sparc::connect_with(world.url(), Options::default().max_connections(1).deadline(soon)).await.unwrap();
    let held = one.as_user(player.id).begin().await.unwrap();
    let refused = one.as_user(player.id).users().me().await;
    assert!(matches!(refused, Err(Error::DeadlineExceeded)), "waiting for a connection counts: {refused:?}");
    drop(held);
    assert!(one.as_user(player.id).users().me().await.is_ok());
    let impatient = Options::default().max_connections(1).acquire_timeout(soon);
    let one = Sparc::connect_with(world.url(), impatient).await.unwrap();
    let _held = one.as_user(player.id).begin().await.unwrap();
    assert!(matches!(one.as_user(player.id).users().me().await, Err(Error::PoolExhausted(_))));
}

#[tokio::test]
async fn an_identity_is_a_seaorm_connection() {
    let world = World::new().await;
    let table = world.table(3).await;
    let ada = world.sparc.as_user(table.players[0].id);
    let mine = sessions::Entity::find().all(&ada).await.unwrap();
    let seats = mine.load_many(session_players::Entity, &ada).await.unwrap();
    assert_eq!((mine.len(), seats[0].len()), (1, 3), "finds and loaders");
    assert_eq!(characters::Entity::find().count(&ada).await.unwrap(), 1, "counts");
    let mut pages = session_players::Entity::find().order_by_asc(session_players::Column::UserId).paginate(&ada, 2);
    assert_eq!(pages.fetch_and_next().await.unwrap().unwrap().len(), 2, "paginators");
    let streamed: Vec<_> = session_players::Entity::find().stream(&ada).await.unwrap().try_collect().await.unwrap();
    assert_eq!(streamed.len(), 3, "streams");
    let tx = ada.begin().await.unwrap();
    let streamed: Vec<_> = characters::Entity::find().stream(&tx).await.unwrap().try_collect().await.unwrap();
    assert_eq!(streamed.len(), 1, "streams of a transaction");
    let raw = Statement::from_string(sea_orm::DbBackend::Postgres, "SELECT 1 FROM characters");
    let raw: Vec<_> = ada.stream_raw(raw).await.unwrap().try_collect().await.unwrap();
    assert_eq!(raw.len(), 1, "raw statements");
    let profiles: Vec<Profile> = users::Entity::find().into_partial_model().all(&ada).await.unwrap();
    assert_eq!(profiles.len(), 4, "partial models where a column is closed");
}

#[tokio::test]
async fn a_callers_transaction_takes_all_or_nothing() {
    let world = World::new().await;
    let table = world.table(1).await;
    let player = &table.players[0];
    let ada = world.sparc.as_user(player.id);
    let tx = ada.begin().await.unwrap();
    tx.sessions().leave(table.session).await.unwrap();
    tx.characters().retire(player.character).await.unwrap();
    let seats =
        session_players::Entity::find().filter(session_players::Column::IsActive.eq(true)).count(&tx).await.unwrap();
    assert_eq!(seats, 0, "the caller's own statement sees it");
    tx.rollback().await.unwrap();
    assert!(ada.characters().get(player.character).await.unwrap().retired_at.is_none());
    assert_eq!(world.owner().count("session_players WHERE is_active").await, 1);
    let tx = ada.begin().await.unwrap();
    tx.sessions().leave(table.session).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.owner().count("session_players WHERE is_active").await, 0);
}

#[tokio::test]
async fn a_nested_transaction_is_still_the_same_person() {
    let world = World::new().await;
    let ada = world.player().await;
    world.player().await;
    let tx = world.sparc.as_user(ada.id).begin().await.unwrap();
    let inner = tx.begin().await.unwrap();
    assert_eq!(characters::Entity::find().count(&inner).await.unwrap(), 1);
    inner.rollback().await.unwrap();
    assert_eq!(characters::Entity::find().count(&tx).await.unwrap(), 1);
}

#[tokio::test]
async fn a_dropped_future_leaves_the_connection_usable() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.account().await);
    for _ in 0..50 {
        let me = ada.users().me();
        let _ = tokio::time::timeout(std::time::Duration::from_micros(400), me).await;
    }
    assert!(ada.users().me().await.is_ok());
    world.owner().until_at_rest().await;
}
