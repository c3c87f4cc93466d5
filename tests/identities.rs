//! Identities: SeaORM connections that cannot leak, slip or be forgotten.

use futures_util::TryStreamExt;
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, LoaderTrait, PaginatorTrait, QueryFilter, QueryOrder, Statement,
    StreamTrait, TransactionSession, TransactionTrait,
};
use sparc::{
    entity::{characters, session_players, sessions, users},
    service::{Operations, Sparc, users::Profile},
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
    let open = "pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = current_database() AND pid <> pg_backend_pid()";
    // A rollback is queued by the drop and sent when the pool has the connection back.
    for _ in 0..200 {
        if world.owner().count(open).await == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("a transaction stays open");
}
