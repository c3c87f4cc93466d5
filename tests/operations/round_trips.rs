//! The round trips of the operations, counted by a proxy between this process and the server; and a retry after the
//! proxy has lost a response.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use sea_orm::TransactionTrait;
use sparc::{
    entity::sea_orm_active_enums::Attribute,
    service::{
        Difficulty, Error, Operations, Options, Sparc,
        dice::{NewRoll, Roller},
        sessions::LobbyFilter,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use uuid::Uuid;

use super::{
    Caller, documented::read_documentation, fixture::Fixture, operations, tutorial::complete_all_but_the_last_step,
};

/// The numbers as the documentation of the operations writes them.
pub const NUMBER_WORDS: [&str; 11] =
    ["Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten"];

/// A proxy that counts the server's ReadyForQuery messages (one per round trip), and that can hold back responses or
/// cut the connection.
#[derive(Clone)]
pub struct ResponseProxy {
    pub port: u16,
    /// The number of ReadyForQuery messages since the last call of [`Self::take_round_trips`].
    ready_count: Arc<AtomicU32>,
    /// The number of responses until the connection is cut; the last of them is not delivered. 0 means that the
    /// connection is not cut.
    cut_countdown: Arc<AtomicU32>,
    hold: watch::Sender<Hold>,
}

/// How many more responses the proxy delivers before it holds responses back, and whether it is holding one back.
#[derive(Clone, Copy, Debug, Default)]
struct Hold {
    /// How many more responses to deliver; `None` delivers all.
    responses_left: Option<u32>,
    /// Whether a response is being held back.
    is_holding: bool,
}

impl ResponseProxy {
    async fn start(server_address: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy =
            Self { port, ready_count: Arc::default(), cut_countdown: Arc::default(), hold: watch::Sender::default() };
        let (ready_count, cut_countdown, hold) =
            (proxy.ready_count.clone(), proxy.cut_countdown.clone(), proxy.hold.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server_address).await.unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (mut from_server, mut to_server) = server.into_split();
                let (mut from_client, mut to_client) = client.into_split();
                tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
                let (ready_count, cut_countdown, hold) = (ready_count.clone(), cut_countdown.clone(), hold.clone());
                tokio::spawn(async move {
                    // A message begins with its type (one byte) and its length (four bytes, which the length includes).
                    let mut head = [0; 5];
                    // A response is forwarded as a whole or not at all.
                    let mut response = Vec::new();
                    while from_server.read_exact(&mut head).await.is_ok() {
                        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                        let mut body = vec![0; length - 4];
                        from_server.read_exact(&mut body).await?;
                        if head[0] == b'Z' {
                            ready_count.fetch_add(1, Ordering::SeqCst);
                            wait_until_deliverable(&hold).await;
                            let decrement = |left: u32| left.checked_sub(1);
                            if cut_countdown.fetch_update(Ordering::SeqCst, Ordering::SeqCst, decrement) == Ok(1) {
                                return Ok(());
                            }
                        }
                        response.extend_from_slice(&head);
                        response.extend_from_slice(&body);
                        // Authentication requests come before the first ReadyForQuery, and the server waits for the
                        // client's answers to them.
                        if matches!(head[0], b'Z' | b'R') {
                            to_client.write_all(&response).await?;
                            response.clear();
                        }
                    }
                    Ok::<_, std::io::Error>(())
                });
            }
        });
        proxy
    }

    /// Delivers the given number of responses, and holds back those after them.
    pub fn hold_after(&self, responses: u32) {
        self.hold.send_replace(Hold { responses_left: Some(responses), is_holding: false });
    }

    /// Waits until a response is held back.
    pub async fn wait_until_held(&self) {
        self.hold.subscribe().wait_for(|hold| hold.is_holding).await.unwrap();
    }

    /// Delivers what was held back, and all that follows.
    pub fn release(&self) {
        self.hold.send_replace(Hold::default());
    }

    /// Cuts the connection instead of delivering response number `response`, counted from now.
    pub fn cut_at(&self, response: u32) {
        self.cut_countdown.store(response, Ordering::SeqCst);
    }

    /// Returns the number of round trips since the last call of this method.
    fn take_round_trips(&self) -> u32 {
        self.ready_count.swap(0, Ordering::SeqCst)
    }
}

/// Waits until the next response may be delivered, and counts it as delivered.
async fn wait_until_deliverable(hold: &watch::Sender<Hold>) {
    if hold.borrow().responses_left == Some(0) {
        hold.send_modify(|hold| hold.is_holding = true);
        hold.subscribe().wait_for(|hold| hold.responses_left != Some(0)).await.unwrap();
    }
    hold.send_modify(|hold| hold.responses_left = hold.responses_left.map(|left| left.saturating_sub(1)));
}

/// Connects to the fixture's database through a new [`ResponseProxy`], with one connection.
pub async fn connect_through_new_proxy(fixture: &Fixture) -> (Sparc, ResponseProxy) {
    connect_url_through_new_proxy(fixture.world.url(), "").await
}

/// Connects to the URL through a new [`ResponseProxy`], with the given parameters (`&name=value`) added to the URL.
pub async fn connect_url_through_new_proxy(url: &str, parameters: &str) -> (Sparc, ResponseProxy) {
    let (_, rest) = url.rsplit_once('@').unwrap();
    let proxy = ResponseProxy::start(rest.split('/').next().unwrap().to_owned()).await;
    (connect_url_through_port(url, proxy.port, parameters).await, proxy)
}

/// Connects to the URL through the proxy at the given port, with the given parameters (`&name=value`) added to the URL.
pub async fn connect_url_through_port(url: &str, port: u16, parameters: &str) -> Sparc {
    let (credentials, rest) = url.rsplit_once('@').unwrap();
    let (_, database) = rest.split_once('/').unwrap();
    let database = database.split('?').next().unwrap();
    let url = format!("{credentials}@127.0.0.1:{port}/{database}?sslmode=disable{parameters}");
    Sparc::connect_with(&url, Options::default().max_connections(1)).await.unwrap()
}

#[tokio::test]
async fn every_operation_takes_the_round_trips_that_its_documentation_says() {
    let fixture = Fixture::new().await;
    let (sparc, proxy) = connect_through_new_proxy(&fixture).await;
    let documented = read_documentation();
    let mut mismatches = Vec::new();
    for operation in operations() {
        // Each operation lists a caller who succeeds, except `tutorial.complete`, which is refused until the earlier
        // steps are complete. The player completes them below.
        let caller = operation.allowed_caller().unwrap_or(Caller::Player);
        let mut round_trips = 0;
        // The first call also prepares the statements on the only connection.
        for _ in 0..2 {
            let tx = fixture.as_caller(&sparc, caller).begin().await.unwrap();
            if operation.name == "tutorial.complete" {
                complete_all_but_the_last_step(&tx).await.unwrap();
            }
            proxy.take_round_trips();
            assert_eq!((operation.call)(&tx, &fixture).await, "done");
            // The documented number includes two more: begin (with the identity) and commit.
            round_trips = proxy.take_round_trips() + 2;
            tx.rollback().await.unwrap();
        }
        let round_trips_in_words =
            &documented.iter().find(|other| other.name == operation.name).unwrap().round_trips_in_words;
        if round_trips_in_words.split(' ').next() != Some(NUMBER_WORDS[round_trips as usize]) {
            mismatches.push(format!("{}: takes {round_trips}, documented as {round_trips_in_words}", operation.name));
        }
    }
    assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
}

/// Counts the round trips of one operation in its own transaction. Before the operation, another transaction on the
/// only connection is rolled back, and after the operation, a third one is begun. So whatever is sent when the
/// connection returns to the pool is counted too.
async fn count_round_trips<T>(
    sparc: &Sparc,
    proxy: &ResponseProxy,
    operation: impl Future<Output = Result<T, Error>>,
) -> u32 {
    let earlier_transaction = sparc.as_service().begin().await.unwrap();
    proxy.take_round_trips();
    earlier_transaction.rollback().await.unwrap();
    assert!(operation.await.is_ok());
    let later_transaction = sparc.as_service().begin().await.unwrap();
    // The rollback before and the begin after do not count.
    let round_trips = proxy.take_round_trips() - 2;
    later_transaction.rollback().await.unwrap();
    round_trips
}

#[tokio::test]
async fn rolling_joining_and_reading_a_lobby_page_take_three_round_trips_each() {
    let fixture = Fixture::new().await;
    let (sparc, proxy) = connect_through_new_proxy(&fixture).await;
    let (ada, eve) = (sparc.as_user(fixture.player.user_id), sparc.as_user(fixture.stranger.user_id));
    let code = fixture.join_code(fixture.private_session).await;
    let check = || {
        NewRoll::attribute_check(
            fixture.active_session,
            Roller::Character(fixture.player.character_id),
            Attribute::Might,
            Difficulty::MIN,
        )
    };
    // These calls also prepare the statements, so they are not counted.
    let _ = ada.dice().roll(check()).await.unwrap();
    sparc.as_anon().sessions().lobby(&LobbyFilter::default(), None).await.unwrap();
    eve.sessions().join(&code, fixture.stranger.character_id).await.unwrap();
    eve.sessions().leave(fixture.private_session).await.unwrap();
    assert_eq!(count_round_trips(&sparc, &proxy, ada.dice().roll(check())).await, 3);
    assert_eq!(
        count_round_trips(&sparc, &proxy, sparc.as_anon().sessions().lobby(&LobbyFilter::default(), None)).await,
        3
    );
    assert_eq!(count_round_trips(&sparc, &proxy, eve.sessions().join(&code, fixture.stranger.character_id)).await, 3);
}

#[tokio::test]
async fn a_retry_with_the_same_id_returns_the_row_whose_response_was_lost() {
    let fixture = Fixture::new().await;
    let (sparc, proxy) = connect_through_new_proxy(&fixture).await;
    let ada = sparc.as_user(fixture.player.user_id);
    let check = NewRoll::attribute_check(
        fixture.active_session,
        Roller::Character(fixture.player.character_id),
        Attribute::Might,
        Difficulty::MIN,
    );
    let roll = |id: Uuid| ada.dice().roll(NewRoll { id: Some(id), ..check.clone() });
    let count_rolls = async |id: Uuid| fixture.world.owner().count(&format!("dice_rolls WHERE id = '{id}'")).await;
    // The first call also prepares the statements.
    roll(Uuid::new_v4()).await.unwrap();

    let roll_id = Uuid::new_v4();
    // While this transaction occupies the only connection, nothing else is sent on it. So the first response that
    // `cut_at` counts is the response to the rollback below.
    let occupying_transaction = sparc.as_service().begin().await.unwrap();
    // The fourth response, to the commit, is lost: rollback, begin and insert come before it.
    proxy.cut_at(4);
    occupying_transaction.rollback().await.unwrap();
    assert_error!(roll(roll_id).await, Error::CommitUnknown(_), "a lost response to the commit");
    assert_eq!(count_rolls(roll_id).await, 1, "the roll must have been committed");
    let returned_roll = roll(roll_id).await.unwrap();
    assert_eq!((returned_roll.id, count_rolls(roll_id).await), (roll_id, 1), "the retry must not add a roll");

    // If the response to begin is lost, nothing was done, so the crate `rls` begins again on another connection.
    let occupying_transaction = sparc.as_service().begin().await.unwrap();
    proxy.cut_at(2);
    occupying_transaction.rollback().await.unwrap();
    assert!(roll(Uuid::new_v4()).await.is_ok(), "must be retried after the response to begin was lost");
}
