//! The errors that callers get when a server is unreachable or a connection is lost. Also: a web client that
//! disconnects causes no warning, although the future of its request is dropped.

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DbBackend, EntityTrait, Statement, TransactionTrait};
use sparc::{
    entity::characters,
    service::{Error, Operations, Options, Sparc, users::ProfileChanges},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use uuid::Uuid;

use crate::{
    random_programs::poll_then_drop,
    spans::Log,
    world::{World, outcome_code},
};

/// A proxy to the server. After [`Self::close`], nothing listens on the proxy's port.
struct Proxy {
    url: String,
    forwarding_task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    async fn start(world: &World) -> Self {
        let (credentials, address_and_database) = world.url().rsplit_once('@').unwrap();
        let (server_address, database) = address_and_database.split_once('/').unwrap();
        let (server_address, database) = (server_address.to_owned(), database.split('?').next().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("{credentials}@127.0.0.1:{port}/{database}?sslmode=disable");
        let forwarding_task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = TcpStream::connect(&server_address).await.unwrap();
                connections.spawn(async move {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { url, forwarding_task }
    }

    /// Ends every connection and stops listening.
    async fn close(self) {
        self.forwarding_task.abort();
        let _ = self.forwarding_task.await;
    }
}

#[tokio::test]
async fn an_unreachable_server_is_reported_at_once_and_not_as_an_exhausted_pool() {
    let world = World::new().await;
    let ada_id = world.new_account().await;
    let proxy = Proxy::start(&world).await;
    let sparc = Sparc::connect_with(&proxy.url, Options::default().max_connections(4)).await.unwrap();
    // One connection is idle and one is in use.
    let open_transaction = sparc.as_user(ada_id).begin().await.unwrap();
    assert!(sparc.as_user(ada_id).users().me().await.is_ok());
    assert!(sparc.ping().await.is_ok());
    proxy.close().await;
    for _ in 0..3 {
        let started_at = Instant::now();
        assert_eq!(outcome_code(sparc.as_user(ada_id).users().me().await), "connection_lost");
        assert_eq!(outcome_code(sparc.as_service().sessions().get(Uuid::new_v4()).await), "connection_lost");
        let query_outcome = characters::Entity::find().all(&sparc.as_user(ada_id)).await.map_err(Error::from);
        assert_eq!(outcome_code(query_outcome), "connection_lost");
        assert_eq!(outcome_code(sparc.ping().await), "connection_lost");
        assert!(
            started_at.elapsed() < Duration::from_secs(3),
            "four calls must take less than 3 s, and took {:?}",
            started_at.elapsed()
        );
    }
    drop(open_transaction);
    // There are more concurrent calls than the pool has connections.
    let started_at = Instant::now();
    let calls = futures_util::future::join_all(
        (0..50).map(|_| async { outcome_code(sparc.as_user(ada_id).users().me().await) }),
    );
    assert_eq!(calls.await, ["connection_lost"; 50]);
    assert!(
        started_at.elapsed() < Duration::from_secs(4),
        "fifty calls must take less than 4 s, and took {:?}",
        started_at.elapsed()
    );
}

#[tokio::test]
async fn an_unreachable_server_is_reported_if_the_application_supplied_the_pool() {
    let world = World::new().await;
    let proxy = Proxy::start(&world).await;
    let mut options = sea_orm::ConnectOptions::new(proxy.url.clone());
    options.acquire_timeout(Duration::from_millis(300)).sqlx_logging(false);
    let sparc = Sparc::from_connection(sea_orm::Database::connect(options).await.unwrap());
    assert!(sparc.ping().await.is_ok());
    proxy.close().await;
    assert_eq!(outcome_code(sparc.as_anon().users().profiles(&[]).await), "connection_lost");
}

/// When a client disconnects, the web framework drops the future of its request. The service must log no warning for
/// that.
#[tokio::test]
async fn clients_that_disconnect_cause_no_warning() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let log = Log::default();
    let writer = log.clone();
    // While only one subscriber exists, tracing lets the first thread that reaches a call site decide for all threads
    // whether the call site is enabled. That thread may belong to another test, which has no subscriber. With a second
    // subscriber, tracing asks both.
    let _second_subscriber = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing_subscriber::util::SubscriberInitExt::set_default(subscriber);
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(3)).await.unwrap();
    let ada = sparc.as_user(game.players[0].user_id);
    // Each future is polled at most `client % 12 + 1` times and then dropped, so they are dropped at different awaits.
    let mut dropped_count = 0;
    for client in 0..300 {
        let edit = ada.users().edit(ProfileChanges { bio: Some(None), ..Default::default() });
        for was_dropped in [
            poll_then_drop(client % 12, ada.events().after(game.session_id, 0)).await.is_none(),
            poll_then_drop(client % 12, edit).await.is_none(),
            poll_then_drop(client % 12, characters::Entity::find().all(&ada)).await.is_none(),
        ] {
            dropped_count += u32::from(was_dropped);
        }
    }
    assert!(dropped_count > 0, "some calls must have been dropped before they finished");
    sparc.close().await.unwrap();
    drop(guard);
    assert_eq!(log.text(), "");
}

#[tokio::test]
async fn a_connection_that_the_server_closes_is_reported_as_lost() {
    let world = World::new().await;
    let tx = world.sparc.as_user(world.new_account().await).begin().await.unwrap();
    let statement = Statement::from_string(DbBackend::Postgres, "SELECT pg_backend_pid()");
    let pid: i32 = tx.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap();
    // With a timeout, `pg_terminate_backend` waits until the backend has exited. By then, that backend has sent its
    // final error message.
    assert_eq!(world.owner().fetch_value::<bool>(&format!("SELECT pg_terminate_backend({pid}, 5000)")).await, Ok(true));
    assert_error!(tx.users().me().await, Error::ConnectionLost(_));
}

#[tokio::test]
async fn a_failure_to_connect_is_reported_at_once_and_without_the_password() {
    let world = World::new().await;
    let started_at = std::time::Instant::now();
    let unreachable_server_error = Sparc::connect("postgres://nobody:secret@127.0.0.1:1/nowhere").await.unwrap_err();
    assert_eq!(unreachable_server_error.code(), "connect_failed");
    let (server_url, _) = world.url().rsplit_once('/').unwrap();
    let (_, password) = server_url.rsplit_once('@').unwrap().0.rsplit_once(':').unwrap();
    let unknown_database_error = Sparc::connect(&format!("{server_url}/nowhere")).await.unwrap_err();
    assert_eq!(unknown_database_error.code(), "connect_failed");
    let invalid_url_error = Sparc::connect("postgres://me:secret@[/nowhere").await.unwrap_err();
    assert_eq!(invalid_url_error.code(), "connect_failed");
    for (error, password) in
        [(unreachable_server_error, "secret"), (unknown_database_error, password), (invalid_url_error, "secret")]
    {
        assert!(!format!("{error} {error:?}").contains(password), "{error:?}");
    }
    assert!(started_at.elapsed() < std::time::Duration::from_secs(5), "the errors must not be the result of a timeout");
}
