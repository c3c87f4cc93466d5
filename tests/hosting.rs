//! The service in operation: unreachable servers, pools that are too small, tokens of all kinds, and health checks.

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DbBackend, EntityTrait, Statement, TransactionTrait};
use serde_json::{Value, json};
use sparc::{
    entity::{characters, sea_orm_active_enums::Attribute},
    service::{
        Difficulty, Error, IdentityConnection, Operations, Options, Sparc,
        characters::NewCharacter,
        dice::{NewInitiative, NewRoll, Roller},
        events::NewEvent,
        users::{NewAccount, ProfileChanges},
    },
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use uuid::Uuid;

use crate::{programs::poll_then_drop, spans::Log, world::World};

/// A proxy to the server that can be shut down, after which nothing listens on its port.
struct Proxy {
    url: String,
    forwarding: tokio::task::JoinHandle<()>,
}

impl Proxy {
    async fn start(world: &World) -> Self {
        let (scheme_and_user, rest) = world.url().rsplit_once('@').unwrap();
        let (server_address, database) = rest.split_once('/').unwrap();
        let (server_address, database) = (server_address.to_owned(), database.split('?').next().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("{scheme_and_user}@127.0.0.1:{port}/{database}?sslmode=disable");
        let forwarding = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = TcpStream::connect(&server_address).await.unwrap();
                connections.spawn(async move {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { url, forwarding }
    }

    /// Ends every connection and stops listening.
    async fn close(self) {
        self.forwarding.abort();
        let _ = self.forwarding.await;
    }
}

/// Returns `done`, or the code of the error.
fn code_of<T>(outcome: Result<T, Error>) -> &'static str {
    outcome.map_or_else(|error| error.code(), |_| "done")
}

#[tokio::test]
async fn an_unreachable_server_is_reported_at_once_and_not_as_an_exhausted_pool() {
    let world = World::new().await;
    let ada = world.new_account().await;
    let proxy = Proxy::start(&world).await;
    let sparc = Sparc::connect_with(&proxy.url, Options::default().max_connections(4)).await.unwrap();
    // Some connections are idle and one is in use.
    let held = sparc.as_user(ada).begin().await.unwrap();
    assert!(sparc.as_user(ada).users().me().await.is_ok());
    assert!(sparc.ping().await.is_ok());
    proxy.close().await;
    for _ in 0..3 {
        let started = Instant::now();
        assert_eq!(code_of(sparc.as_user(ada).users().me().await), "connection_lost");
        assert_eq!(code_of(sparc.as_service().sessions().get(Uuid::new_v4()).await), "connection_lost");
        let by_query = characters::Entity::find().all(&sparc.as_user(ada)).await.map_err(Error::from);
        assert_eq!(code_of(by_query), "connection_lost");
        assert_eq!(code_of(sparc.ping().await), "connection_lost");
        assert!(
            started.elapsed() < Duration::from_secs(3),
            "four calls must take less than 3 s, and took {:?}",
            started.elapsed()
        );
    }
    drop(held);
    // There are more concurrent calls than the pool has connections.
    let started = Instant::now();
    let calls =
        futures_util::future::join_all((0..50).map(|_| async { code_of(sparc.as_user(ada).users().me().await) }));
    assert_eq!(calls.await, ["connection_lost"; 50]);
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "fifty calls must take less than 4 s, and took {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn an_applications_existing_pool_reports_an_unreachable_server_too() {
    let world = World::new().await;
    let proxy = Proxy::start(&world).await;
    let mut options = sea_orm::ConnectOptions::new(proxy.url.clone());
    options.acquire_timeout(Duration::from_millis(300)).sqlx_logging(false);
    let sparc = Sparc::from_connection(sea_orm::Database::connect(options).await.unwrap());
    assert!(sparc.ping().await.is_ok());
    proxy.close().await;
    assert_eq!(code_of(sparc.as_anon().users().profiles(&[]).await), "connection_lost");
}

#[tokio::test]
async fn a_pool_that_is_too_small_is_reported_as_exhausted() {
    let world = World::new().await;
    let options = Options::default().max_connections(1).acquire_timeout(Duration::from_millis(200));
    let sparc = Sparc::connect_with(world.url(), options).await.unwrap();
    let held = sparc.as_anon().begin().await.unwrap();
    let status = sparc.pool_status();
    assert_eq!((status.max_connections, status.connections, status.idle), (1, 1, 0));
    assert_eq!(code_of(sparc.as_anon().users().profiles(&[]).await), "pool_exhausted");
    held.rollback().await.unwrap();
    assert_eq!(code_of(sparc.as_anon().users().profiles(&[]).await), "done");
    // The connection of a read stays in use until the server has answered its commit. `ping` needs the same connection,
    // so it waits until then.
    sparc.ping().await.unwrap();
    let status = sparc.pool_status();
    assert_eq!((status.connections, status.idle, status.waiting), (1, 1, 0));
    assert_eq!(sparc.service_pool_status(), status, "users and the service share one pool");
    sparc.close().await.unwrap();
}

#[tokio::test]
async fn connections_set_their_application_name() {
    let world = World::new().await;
    let sparc = Sparc::connect(world.url()).await.unwrap();
    let sql = "SELECT current_setting('application_name')";
    let name = sparc.as_anon().query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap().unwrap();
    assert_eq!(name.try_get_by_index::<String>(0).unwrap(), "sparc");
    sparc.close().await.unwrap();
}

/// Makes calls of every kind: operations that read or write, a query of an entity, raw SQL and a transaction. Returns
/// the name of each call with its outcome: `done` or the code of its error.
async fn call_everything(caller: &IdentityConnection, session: Uuid) -> Vec<(&'static str, &'static str)> {
    let sql = Statement::from_string(DbBackend::Postgres, "SELECT 1");
    vec![
        ("me", code_of(caller.users().me().await)),
        ("my_email", code_of(caller.users().my_email().await)),
        ("statistics", code_of(caller.users().statistics().await)),
        ("edit", code_of(caller.users().edit(ProfileChanges { bio: Some(None), ..Default::default() }).await)),
        ("profile", code_of(caller.users().profile(Uuid::new_v4()).await)),
        ("characters", code_of(caller.characters().list().await)),
        (
            "create",
            code_of(caller.characters().create(NewCharacter { name: "Brunhild".into(), ..Default::default() }).await),
        ),
        ("mine", code_of(caller.sessions().mine(None).await)),
        ("session", code_of(caller.sessions().get(session).await)),
        ("leave", code_of(caller.sessions().leave(session).await)),
        ("tutorial", code_of(caller.tutorial().progress().await)),
        ("skip", code_of(caller.tutorial().skip().await)),
        ("events", code_of(caller.events().after(session, 0).await)),
        ("newest", code_of(caller.events().newest(session).await)),
        ("subscribe", code_of(caller.events().subscribe(session, None).await)),
        (
            "send",
            code_of(
                caller.events().send(NewEvent { session_id: session, kind: "x".into(), ..Default::default() }).await,
            ),
        ),
        ("entity", code_of(characters::Entity::find().all(caller).await.map_err(Error::from))),
        ("raw", code_of(caller.query_all_raw(sql).await.map_err(Error::from))),
        ("transaction", code_of(caller.begin().await.map_err(Error::from))),
    ]
}

#[tokio::test]
async fn a_token_that_outlives_its_account_gets_the_same_error_for_every_call() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let closed = game.players[0].id;
    world.sparc.as_service().users().close_account(closed).await.unwrap();
    for (call, code) in call_everything(&world.sparc.as_user(closed), game.session).await {
        assert_eq!(code, "account_closed", "{call}");
    }
    for (call, code) in call_everything(&world.sparc.as_user(Uuid::new_v4()), game.session).await {
        assert_eq!(code, "unknown_account", "{call}");
    }
    let open_account = world.sparc.as_user(game.seer.uuid());
    assert!(call_everything(&open_account, game.session).await.iter().any(|(_, code)| *code == "done"));
    assert_eq!((Error::UnknownAccount.http_status(), Error::AccountClosed.http_status()), (401, 403));
    // After sign-up, the account is known.
    let account = NewAccount { id: Some(Uuid::new_v4()), ..Default::default() };
    let ada = world.sparc.as_user(account.id.unwrap());
    assert_eq!(code_of(ada.users().me().await), "unknown_account");
    world.sparc.as_service().users().sign_up(account).await.unwrap();
    assert_eq!(code_of(ada.users().me().await), "done");
}

#[tokio::test]
async fn the_database_sees_the_claims_of_a_token_and_invalid_claims_are_refused() {
    let world = World::new().await;
    let id = world.new_account().await;
    let claims = json!({
        "role": "authenticated", "sub": id, "aal": "aal2", "session_id": "s'1\\", "app_metadata": { "roles": ["judge"] }
    });
    let ada = world.sparc.as_claims(&claims).unwrap();
    assert_eq!(ada.user_id(), Some(id));
    assert_eq!(ada.users().me().await.unwrap().id, id);
    let query = Statement::from_string(DbBackend::Postgres, "SELECT auth.jwt(), auth.uid(), current_user::text");
    let seen = ada.query_one_raw(query).await.unwrap().unwrap();
    assert_eq!(seen.try_get_by_index::<Value>(0).unwrap(), claims);
    assert_eq!(seen.try_get_by_index::<Uuid>(1).unwrap(), id);
    assert_eq!(seen.try_get_by_index::<String>(2).unwrap(), "authenticated");

    // Anything that serializes to an object is accepted as claims.
    let claims_of = |id: Uuid| std::collections::BTreeMap::from([("role", json!("authenticated")), ("sub", json!(id))]);
    assert!(world.sparc.as_claims(claims_of(id)).is_ok());
    let unknown = world.sparc.as_claims(claims_of(Uuid::new_v4())).unwrap();
    assert_eq!(code_of(unknown.users().me().await), "unknown_account");
    let visitor = world.sparc.as_claims(json!({ "role": "anon", "iss": "us" })).unwrap();
    assert_eq!(code_of(visitor.users().me().await), "not_signed_in");
    for claims in [
        json!({ "role": "authenticated", "sub": null }),
        json!({ "role": "service_role", "sub": id }),
        json!({ "role": "postgres", "sub": id }),
        json!({ "sub": id }),
        json!("authenticated"),
    ] {
        assert_eq!(code_of(world.sparc.as_claims(&claims)), "invalid_claims", "{claims}");
    }
}

#[tokio::test]
async fn only_the_service_learns_whether_an_email_address_is_taken() {
    let world = World::new().await;
    let service = world.sparc.as_service();
    let email = format!("ada.{}@example.org", Uuid::new_v4().simple());
    assert!(!service.users().is_email_taken(&email).await.unwrap());
    let account = NewAccount { email: Some(email.clone()), ..Default::default() };
    let ada = service.users().sign_up(account.clone()).await.unwrap();
    assert!(service.users().is_email_taken(&email).await.unwrap());
    assert!(service.users().is_email_taken(&email.to_uppercase()).await.unwrap());
    assert!(service.users().is_email_taken("x@no-email.invalid").await.unwrap());
    // A second account with that e-mail address gets a placeholder, as documented.
    let second = service.users().sign_up(account).await.unwrap();
    let address = world.sparc.as_user(second.id).users().my_email().await.unwrap();
    assert_eq!(address, format!("{}@no-email.invalid", second.id));
    let refused = world.sparc.as_user(ada.id).users().is_email_taken(&email).await.unwrap_err();
    assert_eq!(refused.to_string(), "not allowed: only the service may ask whether an e-mail address is taken");
}

#[tokio::test]
async fn a_transaction_continues_after_deallocate_and_discard() {
    let world = World::new().await;
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    let ada = sparc.as_user(world.new_account().await);
    let count_characters = || async { characters::Entity::find().all(&ada).await.unwrap().len() };
    count_characters().await;
    for statement in [
        "DEALLOCATE ALL",
        "DEALLOCATE PREPARE ALL",
        "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$",
        "DISCARD PLANS",
        "DISCARD TEMP",
        "DISCARD SEQUENCES",
    ] {
        let tx = ada.begin().await.unwrap();
        let before = tx.users().me().await.unwrap();
        characters::Entity::find().all(&tx).await.unwrap();
        tx.execute_unprepared(statement).await.unwrap();
        for _ in 0..2 {
            assert_eq!(tx.users().me().await.unwrap(), before, "{statement}");
            assert!(characters::Entity::find().all(&tx).await.is_ok(), "{statement}");
        }
        let inner = tx.begin().await.unwrap();
        inner.execute_unprepared(statement).await.unwrap();
        assert_eq!(inner.users().me().await.unwrap(), before, "{statement}, nested");
        inner.commit().await.unwrap();
        tx.characters().create(NewCharacter { name: "Brunhild".into(), ..Default::default() }).await.unwrap();
        tx.commit().await.unwrap();
        let created = ada.characters().list().await.unwrap();
        assert_eq!(created.len(), 1, "{statement}");
        ada.characters().delete(created[0].id).await.unwrap();
    }
    // PostgreSQL refuses DISCARD ALL in a transaction.
    let tx = ada.begin().await.unwrap();
    let refused = tx.execute_unprepared("DISCARD ALL").await.map_err(Error::from);
    assert_eq!(code_of(refused), "invalid_statement");
    tx.rollback().await.unwrap();
    assert_eq!(count_characters().await, 0);
    sparc.close().await.unwrap();
}

#[tokio::test]
async fn initiative_can_be_rolled_for_more_than_a_hundred_creatures() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sql = format!(
        "WITH created AS (INSERT INTO creatures (adventure_id, name)
         SELECT '{}', 'Rat ' || i FROM generate_series(1, 150) AS i RETURNING id) SELECT array_agg(id) FROM created",
        game.adventure
    );
    let creatures: Vec<Uuid> = world.owner().value(&sql).await.unwrap();
    let seer = world.sparc.as_user(game.seer.uuid());
    let id = Some(Uuid::new_v4());
    let initiative = NewInitiative { id, session_id: game.session, creatures };
    let turns = seer.dice().initiative(initiative.clone()).await.unwrap();
    assert_eq!(turns.len(), 151);
    assert!(turns.is_sorted_by(|turn, next| turn.die >= next.die));
    assert_eq!(seer.dice().initiative(initiative).await.unwrap(), turns, "repeated with the same id");
}

#[tokio::test]
async fn a_repeated_roll_returns_the_first_only_to_the_caller_who_made_it() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let check = NewRoll::check(game.session, Roller::Character(player.character), Attribute::Might, Difficulty::MIN);
    let check = NewRoll { id: Some(Uuid::new_v4()), ..check };
    let ada = world.sparc.as_user(player.id);
    let first = ada.dice().roll(check.clone()).await.unwrap();
    assert_eq!(first.rolled_by, Some(player.id));
    assert_eq!(ada.dice().roll(check.clone()).await.unwrap(), first);
    // The Seer may also roll for the character, but did not make the roll with this id.
    let seer = world.sparc.as_user(game.seer.uuid());
    assert_eq!(code_of(seer.dice().roll(check.clone()).await), "id_conflict");
    assert_eq!(code_of(world.sparc.as_service().dice().roll(check).await), "id_conflict");
}

/// When a client disconnects, the web framework drops its handler's future. The service must log no warning for that.
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
    let proxy = Proxy::start(&world).await;
    let sparc = Sparc::connect_with(&proxy.url, Options::default().max_connections(3)).await.unwrap();
    let ada = sparc.as_user(game.players[0].id);
    for client in 0..300 {
        poll_then_drop(client % 12, ada.events().after(game.session, 0)).await;
        poll_then_drop(client % 12, ada.users().edit(ProfileChanges { bio: Some(None), ..Default::default() })).await;
        poll_then_drop(client % 12, characters::Entity::find().all(&ada)).await;
    }
    sparc.close().await.unwrap();
    drop(guard);
    assert_eq!(log.text(), "");
}
