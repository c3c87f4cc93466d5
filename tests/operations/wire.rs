//! Round trips, counted on the wire.

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
};

use uuid::Uuid;

use super::{documented::documented, operations, scene::EVERYBODY, scene::Scene};

/// Counts how often the server says that it is ready for the next query: once a round trip.
#[derive(Clone)]
struct Wire {
    port: u16,
    ready: Arc<AtomicU32>,
    /// After so many more, the line is cut before the answer; none at 0.
    cut: Arc<AtomicU32>,
}

impl Wire {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = Self { port: listener.local_addr().unwrap().port(), ready: Arc::default(), cut: Arc::default() };
        let (ready, cut) = (wire.ready.clone(), wire.cut.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (mut said, mut asked) = server.into_split();
                let (mut asks, mut told) = client.into_split();
                tokio::spawn(async move { copy(&mut asks, &mut asked).await });
                let (ready, cut) = (ready.clone(), cut.clone());
                tokio::spawn(async move {
                    // A message is a letter and a length that counts itself.
                    let mut head = [0; 5];
                    // An answer goes through as a whole, or not at all.
                    let mut answer = Vec::new();
                    while said.read_exact(&mut head).await.is_ok() {
                        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                        let mut body = vec![0; length - 4];
                        said.read_exact(&mut body).await?;
                        if head[0] == b'Z' {
                            ready.fetch_add(1, Ordering::SeqCst);
                            let left = |left: u32| left.checked_sub(1);
                            if cut.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left) == Ok(1) {
                                return Ok(());
                            }
                        }
                        answer.extend_from_slice(&head);
                        answer.extend_from_slice(&body);
                        // What is asked while one signs in comes before that.
                        if matches!(head[0], b'Z' | b'R') {
                            told.write_all(&answer).await?;
                            answer.clear();
                        }
                    }
                    Ok::<_, std::io::Error>(())
                });
            }
        });
        wire
    }

    /// Those since the last look.
    fn round_trips(&self) -> u32 {
        self.ready.swap(0, Ordering::SeqCst)
    }
}

/// The service over one connection that is listened to.
async fn listened(scene: &Scene) -> (Sparc, Wire) {
    let url = scene.world.url();
    let (before, rest) = url.rsplit_once('@').unwrap();
    let (server, database) = rest.split_once('/').unwrap();
    let wire = Wire::to(server.to_owned()).await;
    let database = database.split('?').next().unwrap();
    let url = format!("{before}@127.0.0.1:{}/{database}?sslmode=disable", wire.port);
    (Sparc::connect_with(&url, Options::default().max_connections(1)).await.unwrap(), wire)
}

#[tokio::test]
async fn every_operation_takes_the_round_trips_that_its_documentation_says() {
    let scene = Scene::new().await;
    let (sparc, wire) = listened(&scene).await;
    let documented = documented();
    let words = ["none", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten"];
    let mut wrong = Vec::new();
    for operation in operations() {
        // The player rather than anybody; the visitor where only visitors may.
        let order = [3, 4, 5, 2, 1, 0];
        let who = order.into_iter().find(|place| operation.told[*place] == "done");
        let Some(who) = who else { continue };
        let mut counted = 0;
        // Statements are prepared the first time, on the one connection.
        for _ in 0..2 {
            let tx = scene.identity(&sparc, EVERYBODY[who]).begin().await.unwrap();
            wire.round_trips();
            assert_eq!((operation.ask)(&tx, &scene).await, "done");
            // Begin with the identity, and commit, of a transaction of its own.
            counted = wire.round_trips() + 2;
            tx.rollback().await.unwrap();
        }
        let said = &documented.iter().find(|one| one.name == operation.name).unwrap().round_trips;
        if said.split(' ').next() != Some(words[counted as usize]) {
            wrong.push(format!("{}: {counted}, and not {said}", operation.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The round trips of one operation in a transaction of its own, between a rollback and a begin of another on the one
/// connection: whatever went over it when the connection came back is counted.
async fn alone<T>(sparc: &Sparc, wire: &Wire, operation: impl Future<Output = Result<T, Error>>) -> u32 {
    let held = sparc.as_service().begin().await.unwrap();
    wire.round_trips();
    held.rollback().await.unwrap();
    assert!(operation.await.is_ok());
    let held = sparc.as_service().begin().await.unwrap();
    // The rollback before, and the begin after.
    let counted = wire.round_trips() - 2;
    held.rollback().await.unwrap();
    counted
}

#[tokio::test]
async fn a_roll_a_lobby_page_and_a_join_take_three_by_themselves() {
    let scene = Scene::new().await;
    let (sparc, wire) = listened(&scene).await;
    let (ada, eve) = (sparc.as_user(scene.player.id), sparc.as_user(scene.stranger.id));
    let code = scene.code(scene.private).await;
    let check =
        || NewRoll::check(scene.active, Roller::Character(scene.player.character), Attribute::Might, Difficulty::MIN);
    for _ in 0..2 {
        // Statements are prepared the first time.
        let _ = ada.dice().roll(check()).await.unwrap();
        sparc.as_anon().sessions().lobby(&LobbyFilter::default(), None).await.unwrap();
        eve.sessions().join(&code, scene.stranger.character).await.unwrap();
        eve.sessions().leave(scene.private).await.unwrap();
    }
    assert_eq!(alone(&sparc, &wire, ada.dice().roll(check())).await, 3);
    assert_eq!(alone(&sparc, &wire, sparc.as_anon().sessions().lobby(&LobbyFilter::default(), None)).await, 3);
    assert_eq!(alone(&sparc, &wire, eve.sessions().join(&code, scene.stranger.character)).await, 3);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_found_again_by_the_same_id() {
    let scene = Scene::new().await;
    let (sparc, wire) = listened(&scene).await;
    let ada = sparc.as_user(scene.player.id);
    let check =
        NewRoll::check(scene.active, Roller::Character(scene.player.character), Attribute::Might, Difficulty::MIN);
    let roll = |id: Uuid| ada.dice().roll(NewRoll { id: Some(id), ..check.clone() });
    let there = async |id: Uuid| scene.world.owner().count(&format!("dice_rolls WHERE id = '{id}'")).await;
    // Statements are prepared.
    roll(Uuid::new_v4()).await.unwrap();

    let lost = Uuid::new_v4();
    let held = sparc.as_service().begin().await.unwrap();
    // Rollback, begin, insert: the answer to the commit does not come.
    wire.cut.store(4, Ordering::SeqCst);
    held.rollback().await.unwrap();
    assert!(matches!(roll(lost).await, Err(Error::CommitUnknown(_))), "not said to be undone, and not tried again");
    assert_eq!(there(lost).await, 1, "it was done");
    let found = roll(lost).await.unwrap();
    assert_eq!((found.id, there(lost).await), (lost, 1), "once");

    // Before anything was asked, another connection is as good.
    let held = sparc.as_service().begin().await.unwrap();
    wire.cut.store(2, Ordering::SeqCst);
    held.rollback().await.unwrap();
    assert!(roll(Uuid::new_v4()).await.is_ok(), "the answer to begin was lost, and nothing with it");
}
