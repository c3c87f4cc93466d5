//! Live events (which subscribers receive soon after they are written) with replicas: each event is delivered once,
//! whichever server it is read from, and even if a standby is promoted meanwhile.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sea_orm::{AccessMode, TransactionTrait};
use sparc::{
    entity::session_events,
    service::{
        Error, IdentityConnection, Operations, Sparc,
        events::{NewEvent, Subscription},
    },
};
use testdb::Server;

use super::{Cluster, run_blocking, wait_until};
use crate::{
    live_events::event_seqs,
    world::{GameSession, World},
};

/// Sends an event and returns its id, or `None` if that fails.
async fn send(sparc: &Sparc, user: uuid::Uuid, session: uuid::Uuid, kind: String) -> Option<uuid::Uuid> {
    let event = NewEvent { session_id: session, kind, ..Default::default() };
    sparc.as_user(user).events().send(event).await.ok().map(|event| event.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_receive_every_event_once_even_across_a_promotion() {
    let Some(cluster) = Cluster::start().await else { return };
    let sparc = cluster.connect().await;
    let game = cluster.world.new_active_session(2).await;
    let (ada_id, morgan_id) = (game.players[0].user_id, game.players[1].user_id);
    let mut read_tasks = Vec::new();
    for user_id in [ada_id, morgan_id, game.seer.user_id()] {
        let mut events = sparc.as_user(user_id).events().subscribe(game.session_id, None).await.unwrap();
        read_tasks.push(tokio::spawn(async move {
            let mut received = Vec::new();
            loop {
                let event = events.try_next().await.unwrap().unwrap();
                // `events().send` puts `client.` before the kind of the event.
                let is_last = event.event_type == "client.last";
                received.push((event.seq, event.id));
                if is_last {
                    return received;
                }
            }
        }));
    }
    let mut sent_ids = Vec::new();
    for number in 0..60 {
        sent_ids.push(send(&sparc, ada_id, game.session_id, format!("wave{number}")).await.unwrap());
    }
    // Replication is asynchronous here, so events that no standby has yet would be lost with the primary.
    let lsn = super::current_insert_lsn(&cluster.world).await;
    let replicas: [World; 2] = cluster.standby_worlds().await.try_into().unwrap_or_else(|_| panic!("not two replicas"));
    for replica in &replicas {
        super::wait_until_replayed(replica, &lsn).await;
    }
    let standbys: [Server; 2] = cluster.standbys.clone().try_into().unwrap();
    run_blocking(&cluster.primary, |primary| primary.kill().unwrap()).await;
    run_blocking(&standbys[1], |standby| standby.promote().unwrap()).await;
    standbys[0].follow(&standbys[1]).await.unwrap();
    for number in 0..20 {
        sent_ids.extend(send(&sparc, morgan_id, game.session_id, format!("later{number}")).await);
    }
    wait_until(async || {
        let id = send(&sparc, ada_id, game.session_id, "last".to_owned()).await;
        sent_ids.extend(id);
        id.is_some()
    })
    .await;
    for task in read_tasks {
        let received = tokio::time::timeout(Duration::from_secs(20), task).await.unwrap().unwrap();
        assert!(received.windows(2).all(|pair| pair[0].0 < pair[1].0), "events must arrive in order, and each once");
        let missing_ids: Vec<_> = sent_ids.iter().filter(|id| !received.iter().any(|(_, seen)| seen == *id)).collect();
        assert!(missing_ids.is_empty(), "{} of {} are missing", missing_ids.len(), sent_ids.len());
    }
    sparc.close().await.unwrap();
}

/// A session to which Ada has subscribed, and replicas whose replay is paused. A second participant has subscribed
/// after a write that the paused replicas lack. From then on, the `Sparc` handle, which reads the events of all its
/// subscribers together, must read them from the primary.
struct SessionWithPausedReplicas {
    cluster: Cluster,
    sparc: Sparc,
    game: GameSession,
    ada: IdentityConnection,
    adas_subscription: Subscription,
    _second_subscription: Subscription,
}

impl SessionWithPausedReplicas {
    async fn start() -> Option<Self> {
        let cluster = Cluster::start().await?;
        let sparc = cluster.connect().await;
        let game = cluster.world.new_active_session(2).await;
        let ada = sparc.as_user(game.players[0].user_id);
        let adas_subscription = ada.events().subscribe(game.session_id, None).await.unwrap();
        pause_replicas(&cluster).await;
        // The write that the paused replicas lack.
        cluster.world.new_account().await;
        let second_subscription =
            sparc.as_user(game.players[1].user_id).events().subscribe(game.session_id, None).await.unwrap();
        Some(Self { cluster, sparc, game, ada, adas_subscription, _second_subscription: second_subscription })
    }
}

/// Waits until the replicas have replayed everything, and then pauses their replay.
async fn pause_replicas(cluster: &Cluster) {
    let lsn = super::current_insert_lsn(&cluster.world).await;
    for replica in cluster.standby_worlds().await {
        super::wait_until_replayed(&replica, &lsn).await;
        replica.owner().execute("SELECT pg_wal_replay_pause()").await.unwrap();
    }
}

async fn next_event(events: &mut Subscription) -> session_events::Model {
    tokio::time::timeout(Duration::from_secs(20), events.try_next()).await.unwrap().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_after_an_event_was_delivered_shows_it_even_if_replicas_are_paused() {
    let Some(paused) = SessionWithPausedReplicas::start().await else { return };
    let SessionWithPausedReplicas {
        cluster: _cluster,
        sparc,
        game,
        ada,
        adas_subscription: mut events,
        _second_subscription,
    } = paused;
    for number in 0..5 {
        let sent_id = send(&sparc, game.players[1].user_id, game.session_id, format!("wave{number}")).await.unwrap();
        let event = next_event(&mut events).await;
        assert_eq!(event.id, sent_id);
        assert_eq!(ada.events().newest_seq(game.session_id).await.unwrap(), event.seq);
    }
    sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_do_not_fit_into_a_poll_are_delivered_even_if_replicas_are_paused() {
    let Some(paused) = SessionWithPausedReplicas::start().await else { return };
    let SessionWithPausedReplicas {
        cluster,
        sparc,
        game,
        ada: _ada,
        adas_subscription: mut events,
        _second_subscription,
    } = paused;
    let sql = format!(
        "INSERT INTO session_events (session_id, event_type, payload)
         SELECT '{}', 'game_state', jsonb_build_object('number', number, 'story', (
           SELECT string_agg(md5(number::text || line::text), '') FROM generate_series(1, 300) AS line
         )) FROM generate_series(1, 20) AS number",
        game.session_id
    );
    cluster.world.owner().execute(&sql).await.unwrap();
    for number in 1..=20 {
        assert_eq!(next_event(&mut events).await.payload["number"], number);
    }
    sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_player_can_subscribe_even_if_replicas_lack_the_seat() {
    let Some(cluster) = Cluster::start().await else { return };
    let sparc = cluster.connect().await;
    let game = cluster.world.new_session(1).await;
    let newcomer = cluster.world.new_player().await;
    let seer = sparc.as_user(game.seer.user_id());
    let subscribed_at = Instant::now();
    let _seers_subscription = seer.events().subscribe(game.session_id, None).await.unwrap();
    // With the first subscription, the handle begins to check the access of all subscribers every two seconds. The next
    // check comes 0.7 seconds after replay is paused. By then the handle still uses the replicas (it stops when they
    // lag by two seconds), so a handle that chose its server carelessly would run the check on a replica.
    tokio::time::sleep(Duration::from_millis(1300).saturating_sub(subscribed_at.elapsed())).await;
    pause_replicas(&cluster).await;
    let insert_seat = format!(
        "INSERT INTO session_players (session_id, user_id, character_id) VALUES ('{}', '{}', '{}')",
        game.session_id, newcomer.user_id, newcomer.character_id
    );
    cluster.world.owner().execute(&insert_seat).await.unwrap();
    let mut events = sparc.as_user(newcomer.user_id).events().subscribe(game.session_id, None).await.unwrap();
    // No event is sent, so nothing may arrive. An error would mean that a replica, which lacks the seat, was asked.
    let outcome = tokio::time::timeout(Duration::from_millis(2500), events.try_next()).await;
    assert!(outcome.is_err(), "{outcome:?}");
    let sent_id = send(&sparc, newcomer.user_id, game.session_id, "hello".to_owned()).await.unwrap();
    assert_eq!(next_event(&mut events).await.id, sent_id);
    sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_after_an_event_that_replicas_lack_continues_on_the_primary() {
    let Some(cluster) = Cluster::start().await else { return };
    // The test plays a client that has received the event `received` through another process (`other_sparc`), and now
    // reads the next event through this process.
    let (sparc, other_sparc) = (cluster.connect().await, cluster.connect().await);
    let game = cluster.world.new_active_session(2).await;
    let (ada_id, morgan_id) = (game.players[0].user_id, game.players[1].user_id);
    let [ada, ada_elsewhere] = [&sparc, &other_sparc].map(|sparc| sparc.as_user(ada_id));
    let replicated_seq = event_seqs(&cluster.world, game.session_id).await.pop().unwrap();
    pause_replicas(&cluster).await;
    for kind in ["received", "unread"] {
        send(&other_sparc, morgan_id, game.session_id, kind.to_owned()).await.unwrap();
    }
    let all_events = other_sparc.as_user(morgan_id).events().after(game.session_id, replicated_seq).await.unwrap();
    let [received, unread] = &all_events[..] else { panic!("{all_events:?}") };
    // A transaction on a replica cannot move to the primary.
    let tx = ada.begin_with_config(None, Some(AccessMode::ReadOnly)).await.unwrap();
    assert_eq!(
        tx.events().newest_seq(game.session_id).await.unwrap(),
        replicated_seq,
        "the transaction must read on a replica"
    );
    assert_error!(tx.events().after(game.session_id, received.seq).await, Error::ReadOnly);
    tx.rollback().await.unwrap();
    // No event has the number -1. The replica can tell that without the primary, because it has later events of the
    // session.
    let tx = ada.begin_with_config(None, Some(AccessMode::ReadOnly)).await.unwrap();
    assert_error!(tx.events().after(game.session_id, -1).await, Error::EventsExpired);
    tx.rollback().await.unwrap();

    let events = ada.events().after(game.session_id, received.seq).await.unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [unread.seq]);
    let outcome = ada_elsewhere.events().after(game.session_id, i64::MAX).await;
    assert_error!(outcome, Error::EventsExpired, "the primary lacks the event, too");
    sparc.close().await.unwrap();
    other_sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_ahead_of_the_promoted_server_ends_with_events_expired() {
    let Some(cluster) = Cluster::start().await else { return };
    let sparc = cluster.connect().await;
    let game = cluster.world.new_active_session(2).await;
    let (ada_id, morgan_id) = (game.players[0].user_id, game.players[1].user_id);
    // Both standbys are disconnected from the primary, so the next event exists only on the primary.
    let lsn = super::current_insert_lsn(&cluster.world).await;
    for (replica, standby) in cluster.standby_worlds().await.iter().zip(&cluster.standbys) {
        super::wait_until_replayed(replica, &lsn).await;
        standby.alter_system("primary_conninfo", "").await.unwrap();
        wait_until(async || replica.owner().count("pg_stat_wal_receiver").await == 0).await;
    }
    // After this write, the subscription needs a WAL position that no standby has, so it reads from the primary.
    cluster.world.new_account().await;
    let mut events = sparc.as_user(ada_id).events().subscribe(game.session_id, None).await.unwrap();
    let sent_id = send(&sparc, morgan_id, game.session_id, "lost".to_owned()).await.unwrap();
    assert_eq!(next_event(&mut events).await.id, sent_id);
    run_blocking(&cluster.primary, |primary| primary.kill().unwrap()).await;
    run_blocking(&cluster.standbys[1], |standby| standby.promote().unwrap()).await;
    cluster.standbys[0].follow(&cluster.standbys[1]).await.unwrap();
    let outcome = tokio::time::timeout(Duration::from_secs(20), events.try_next()).await.unwrap();
    assert_eq!(outcome.unwrap_err().code(), "events_expired");
    // A new subscription must work.
    let mut events = sparc.as_user(ada_id).events().subscribe(game.session_id, None).await.unwrap();
    let sent_id = send(&sparc, morgan_id, game.session_id, "again".to_owned()).await.unwrap();
    assert_eq!(next_event(&mut events).await.id, sent_id);
    sparc.close().await.unwrap();
}
