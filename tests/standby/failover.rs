//! The primary is lost while users play, and a standby is promoted.
//!
//! For a longer run: `SPARC_FAILOVERS=50 cargo test --test integration standby::failover`.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use sparc::service::{Operations, Options, ServerRole, Sparc, characters::NewCharacter, sessions::LobbyFilter};
use testdb::Server;

use super::{Three, blocking, standby_of, until};
use crate::{
    faults::{Load, assert_nothing_lost},
    pooler::start_pooler,
    random_operations::{RandomOperations, broken_invariants, unexpected_errors},
    world::World,
};

/// Makes replication synchronous: no commit is acknowledged before a standby has it.
async fn make_synchronous(primary: &Server, world: &World) {
    primary.alter_system("synchronous_standby_names", "ANY 1 (*)").await.unwrap();
    until(async || world.owner().count("pg_stat_replication WHERE sync_state = 'quorum'").await >= 2).await;
}

/// Kills the primary, promotes the standby that has received more, and lets the other one follow it. Returns the index
/// of the new primary.
async fn fail_over(primary: &Server, standbys: &[Server; 2], worlds: &[World; 2]) -> usize {
    blocking(primary, |primary| primary.kill().unwrap()).await;
    let mut received = Vec::new();
    for world in worlds {
        // The standby still writes the log that has already arrived.
        until(async || world.owner().count("pg_stat_wal_receiver WHERE status = 'streaming'").await == 0).await;
        // A standby replays everything that it has received before it is promoted.
        let sql = "SELECT (pg_last_wal_receive_lsn() - '0/0')::bigint";
        received.push(world.owner().value::<i64>(sql).await.unwrap());
    }
    let next = usize::from(received[1] > received[0]);
    blocking(&standbys[next], |standby| standby.promote().unwrap()).await;
    standbys[1 - next].follow(&standbys[next]).await.unwrap();
    next
}

async fn writes(sparc: &Sparc, who: uuid::Uuid) -> Result<(), sparc::service::Error> {
    let me = sparc.as_user(who);
    let made = me.characters().create(NewCharacter { name: "Robin".to_owned(), ..Default::default() }).await?;
    me.characters().get(made.id).await?;
    me.characters().delete(made.id).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_calls_continue_and_no_acknowledged_write_is_lost() {
    let failovers = crate::faults::times("SPARC_FAILOVERS", 2);
    let Some(three) = Three::start().await else { return };
    make_synchronous(&three.primary, &three.world).await;
    let Three { world, primary, standbys } = three;
    let (mut world, mut primary) = (world, primary);
    let mut standbys: [Server; 2] = standbys.try_into().unwrap();
    let operations = Arc::new(RandomOperations::new(&world, 20).await);
    let writer = world.new_player().await.id;
    let (mut kept, mut times) = (BTreeSet::new(), Vec::new());
    for round in 0..failovers {
        let copies = [world.copy_on(&standbys[0]).await, world.copy_on(&standbys[1]).await];
        let options = Options::default().max_connections(8).replicas(copies.iter().map(World::url));
        let sparc = Sparc::connect_with(world.url(), options).await.unwrap();
        let load = Load::begin(&sparc, &operations, 6);
        tokio::time::sleep(Duration::from_millis(u64::from(200 + round * 37 % 500))).await;
        let next = fail_over(&primary, &standbys, &copies).await;
        let promoted = Instant::now();
        until(async || writes(&sparc, writer).await.is_ok()).await;
        // The duration depends on the machine, so it is only printed.
        times.push(promoted.elapsed());
        tokio::time::sleep(Duration::from_millis(300)).await;
        let outcomes = load.end().await;
        // Calls that were in progress on the old primary fail with one of these errors.
        let allowed = ["connection_lost", "commit_unknown", "deadline_exceeded", "pool_exhausted", "read_only"];
        assert_eq!(unexpected_errors(&outcomes.codes, &allowed), [""; 0]);
        kept.extend(outcomes.kept);
        until(async || sparc.servers().iter().any(|server| server.role == ServerRole::Replica)).await;
        sparc.close().await.unwrap();
        let [first, second] = copies;
        world = if next == 0 { first } else { second };
        assert_nothing_lost(&world, &kept).await;
        assert_eq!(broken_invariants(&world).await, [""; 0]);
        // The old primary is replaced by a new standby.
        let [first, second] = standbys;
        let (new, other) = if next == 0 { (first, second) } else { (second, first) };
        primary = new;
        standbys = [other, standby_of(&primary).await];
        make_synchronous(&primary, &world).await;
    }
    assert!(!kept.is_empty());
    times.sort();
    let (middle, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{failovers} promotions, {} acknowledged rows, none lost; the next write after {middle:?} (median), {longest:?} at most",
        kept.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_is_started_again_is_not_used() {
    let Some(three) = Three::start().await else { return };
    let sparc = three.sparc().await;
    let player = three.world.new_player().await;
    writes(&sparc, player.id).await.unwrap();
    let standbys: [Server; 2] = three.standbys.clone().try_into().unwrap();
    let copies: [World; 2] = three.copies().await.try_into().unwrap_or_else(|_| panic!("two"));
    let next = fail_over(&three.primary, &standbys, &copies).await;
    until(async || writes(&sparc, player.id).await.is_ok()).await;
    blocking(&three.primary, |primary| primary.start_again().unwrap()).await;
    // It accepts writes, on its old timeline.
    let old = three.world.reconnect().await;
    let account = old.new_account().await;
    let is_there = format!("users WHERE id = '{account}'");
    assert_eq!(old.owner().count(&is_there).await, 1);

    // For a handle that knows of the promotion, and for a new one.
    let fresh = three.sparc().await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        for handle in [&sparc, &fresh] {
            let me = handle.as_user(player.id);
            let name = format!("Hero {}", began.elapsed().as_micros());
            let made = me.characters().create(NewCharacter { name, ..Default::default() }).await.unwrap();
            assert_eq!(copies[next].owner().count(&format!("characters WHERE id = '{}'", made.id)).await, 1);
            me.characters().delete(made.id).await.unwrap();
            assert!(handle.as_anon().sessions().lobby(&LobbyFilter::default(), None).await.is_ok());
            assert!(handle.as_user(account).users().me().await.is_err(), "it is not used for reads either");
        }
    }
    for handle in [sparc, fresh] {
        let status = handle.servers();
        assert_eq!(status[0].role, ServerRole::Out, "{status:?}");
        handle.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_succeed_while_there_is_no_primary() {
    let Some(three) = Three::start().await else { return };
    let options = Options::default().acquire_timeout(Duration::from_millis(500)).deadline(Duration::from_secs(3));
    let copies = three.copies().await;
    let sparc = Sparc::connect_with(three.world.url(), options.replicas(copies.iter().map(World::url))).await.unwrap();
    let player = three.world.new_player().await;
    until(async || sparc.as_user(player.id).characters().list().await.unwrap().len() == 1).await;
    blocking(&three.primary, |primary| primary.kill().unwrap()).await;
    for _ in 0..10 {
        assert_eq!(sparc.as_user(player.id).characters().list().await.unwrap().len(), 1);
    }
    let asked = Instant::now();
    let code = writes(&sparc, player.id).await.unwrap_err().code();
    assert!(["connection_lost", "deadline_exceeded", "read_only"].contains(&code), "{code}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_poolers_the_promoted_server_is_found_too() {
    let Some(three) = Three::start().await else { return };
    let copies: [World; 2] = three.copies().await.try_into().unwrap_or_else(|_| panic!("two"));
    let mut poolers = Vec::new();
    for url in [three.world.url(), copies[0].url(), copies[1].url()] {
        let Some(pooler) = start_pooler(url).await else {
            eprintln!("skipped: this machine has no pgbouncer");
            return;
        };
        poolers.push(pooler);
    }
    let options = Options::default().without_prepared_statements().max_connections(6);
    let options = options.replicas(poolers[1..].iter().map(|pooler| pooler.url.as_str()));
    let sparc = Sparc::connect_with(&poolers[0].url, options).await.unwrap();
    let player = three.world.new_player().await;
    for _ in 0..20 {
        writes(&sparc, player.id).await.unwrap();
    }
    let standbys: [Server; 2] = three.standbys.clone().try_into().unwrap();
    let next = fail_over(&three.primary, &standbys, &copies).await;
    let promoted = Instant::now();
    until(async || writes(&sparc, player.id).await.is_ok()).await;
    println!("behind poolers, the next write after {:?}", promoted.elapsed());
    let status = sparc.servers();
    assert_eq!(status[1 + next].role, ServerRole::Primary, "{status:?}");
    sparc.close().await.unwrap();
}
