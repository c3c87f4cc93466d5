//! The primary is lost while users play, and a standby is promoted.
//!
//! For a longer run: `SPARC_FAILOVERS=50 cargo test --test integration standby::failover`.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use sparc::service::{Error, Operations, Options, ServerRole, Sparc, characters::NewCharacter, sessions::LobbyFilter};
use testdb::Server;

use super::{Cluster, current_insert_lsn, run_blocking, start_standby_of, wait_until, wait_until_replayed};
use crate::{
    faults::{Load, assert_nothing_lost},
    pooler::start_pooler,
    random_operations::{RandomOperations, broken_invariants, unexpected_errors},
    world::World,
};

/// Makes replication synchronous: no commit is acknowledged before at least one standby has it. Waits until both
/// standbys count as synchronous.
async fn make_replication_synchronous(primary: &Server, world: &World) {
    primary.alter_system("synchronous_standby_names", "ANY 1 (*)").await.unwrap();
    wait_until(async || world.owner().count("pg_stat_replication WHERE sync_state = 'quorum'").await >= 2).await;
}

/// Kills the primary, promotes the standby that has received more of the WAL, and makes the other one follow it.
/// `standby_worlds` are the worlds on the standbys, in the same order. Returns the index of the promoted standby, and
/// the time of its promotion.
async fn fail_over(primary: &Server, standbys: &[Server; 2], standby_worlds: &[World; 2]) -> (usize, Instant) {
    run_blocking(primary, |primary| primary.kill().unwrap()).await;
    let mut received_positions = Vec::new();
    for world in standby_worlds {
        // Wait until the standby's WAL receiver has ended. Before it ends, it writes all WAL that has arrived, so the
        // received position is final afterwards.
        wait_until(async || world.owner().count("pg_stat_wal_receiver WHERE status = 'streaming'").await == 0).await;
        // Before a standby is promoted, it replays everything that it has received. So the received position counts,
        // not the replayed one.
        let sql = "SELECT (pg_last_wal_receive_lsn() - '0/0')::bigint";
        received_positions.push(world.owner().fetch_value::<i64>(sql).await.unwrap());
    }
    let promoted_index = usize::from(received_positions[1] > received_positions[0]);
    run_blocking(&standbys[promoted_index], |standby| standby.promote().unwrap()).await;
    let promoted_at = Instant::now();
    standbys[1 - promoted_index].follow(&standbys[promoted_index]).await.unwrap();
    (promoted_index, promoted_at)
}

/// Creates a character, reads it and deletes it.
async fn create_read_and_delete(sparc: &Sparc, user: uuid::Uuid) -> Result<(), sparc::service::Error> {
    let me = sparc.as_user(user);
    let character = me.characters().create(NewCharacter { name: "Robin".to_owned(), ..Default::default() }).await?;
    me.characters().get(character.id).await?;
    me.characters().delete(character.id).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_calls_continue_and_no_acknowledged_write_is_lost() {
    let failovers = crate::faults::env_number("SPARC_FAILOVERS", 2);
    let Some(cluster) = Cluster::start().await else { return };
    make_replication_synchronous(&cluster.primary, &cluster.world).await;
    let Cluster { world, primary, standbys } = cluster;
    let (mut world, mut primary) = (world, primary);
    let mut standbys: [Server; 2] = standbys.try_into().unwrap();
    let operations = Arc::new(RandomOperations::new(&world, 20).await);
    let writer_id = world.new_player().await.user_id;
    let (mut acknowledged, mut recovery_times) = (BTreeSet::new(), Vec::new());
    for round in 0..failovers {
        let standby_worlds = [world.on_standby(&standbys[0]).await, world.on_standby(&standbys[1]).await];
        let options = Options::default().max_connections(8).replicas(standby_worlds.iter().map(World::url));
        let sparc = Sparc::connect_with(world.url(), options).await.unwrap();
        let load = Load::start(&sparc, &operations, 6);
        // The primary is killed after a different time in each round.
        tokio::time::sleep(Duration::from_millis(u64::from(200 + round * 37 % 500))).await;
        let (promoted_index, promoted_at) = fail_over(&primary, &standbys, &standby_worlds).await;
        wait_until(async || create_read_and_delete(&sparc, writer_id).await.is_ok()).await;
        // The duration depends on the machine, so it is only printed.
        recovery_times.push(promoted_at.elapsed());
        tokio::time::sleep(Duration::from_millis(300)).await;
        let outcomes = load.stop().await;
        // Calls during the failover may fail with one of these errors.
        let allowed_codes = ["connection_lost", "commit_unknown", "deadline_exceeded", "pool_exhausted", "read_only"];
        assert_eq!(unexpected_errors(&outcomes.counts_by_code, &allowed_codes), [""; 0]);
        acknowledged.extend(outcomes.acknowledged);
        wait_until(async || sparc.server_statuses().iter().any(|server| server.role == ServerRole::Replica)).await;
        sparc.close().await.unwrap();
        let [first, second] = standby_worlds;
        world = if promoted_index == 0 { first } else { second };
        assert_nothing_lost(&world, &acknowledged).await;
        assert_eq!(broken_invariants(&world).await, [""; 0]);
        // The old primary is replaced by a new standby.
        let [first, second] = standbys;
        let (new_primary, other_standby) = if promoted_index == 0 { (first, second) } else { (second, first) };
        primary = new_primary;
        standbys = [other_standby, start_standby_of(&primary).await];
        make_replication_synchronous(&primary, &world).await;
    }
    assert!(!acknowledged.is_empty());
    recovery_times.sort();
    let (median, longest) = (recovery_times[recovery_times.len() / 2], recovery_times[recovery_times.len() - 1]);
    println!(
        "{failovers} promotions, {} acknowledged rows, none lost; the next write succeeded {median:?} after the \
         promotion (median), {longest:?} at most",
        acknowledged.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_is_started_again_is_not_used() {
    let Some(cluster) = Cluster::start().await else { return };
    let sparc = cluster.connect().await;
    let player = cluster.world.new_player().await;
    create_read_and_delete(&sparc, player.user_id).await.unwrap();
    let standbys: [Server; 2] = cluster.standbys.clone().try_into().unwrap();
    let standby_worlds: [World; 2] =
        cluster.standby_worlds().await.try_into().unwrap_or_else(|_| panic!("not two standbys"));
    let (promoted_index, _) = fail_over(&cluster.primary, &standbys, &standby_worlds).await;
    wait_until(async || create_read_and_delete(&sparc, player.user_id).await.is_ok()).await;
    run_blocking(&cluster.primary, |primary| primary.start_again().unwrap()).await;
    // The old primary does not know of the promotion and accepts writes. No `Sparc` handle may read what is written
    // there.
    let world_of_old_primary = cluster.world.with_new_pool().await;
    let lost_account = world_of_old_primary.new_account().await;
    let is_stored = world_of_old_primary.owner().count(&format!("users WHERE id = '{lost_account}'")).await == 1;
    assert!(is_stored, "the old primary must accept the account");

    // Neither the handle that was open during the promotion nor a new one may use the old primary.
    let new_sparc = cluster.connect().await;
    let started_at = Instant::now();
    while started_at.elapsed() < Duration::from_secs(2) {
        for handle in [&sparc, &new_sparc] {
            let me = handle.as_user(player.user_id);
            let name = format!("Hero {}", started_at.elapsed().as_micros());
            let character = me.characters().create(NewCharacter { name, ..Default::default() }).await.unwrap();
            assert_eq!(
                standby_worlds[promoted_index]
                    .owner()
                    .count(&format!("characters WHERE id = '{}'", character.id))
                    .await,
                1
            );
            me.characters().delete(character.id).await.unwrap();
            assert!(handle.as_anon().sessions().lobby(&LobbyFilter::default(), None).await.is_ok());
            // The account exists only on the old primary, which must not be used for reads either.
            assert_error!(handle.as_user(lost_account).users().me().await, Error::UnknownAccount);
        }
    }
    for handle in [sparc, new_sparc] {
        // The first server is that of the URL: the old primary.
        let servers = handle.server_statuses();
        assert_eq!(servers[0].role, ServerRole::Unused, "{servers:?}");
        handle.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_primary_reads_succeed_and_writes_fail_promptly() {
    let Some(cluster) = Cluster::start().await else { return };
    let options = Options::default().acquire_timeout(Duration::from_millis(500)).deadline(Duration::from_secs(3));
    let replicas = cluster.standby_worlds().await;
    let sparc =
        Sparc::connect_with(cluster.world.url(), options.replicas(replicas.iter().map(World::url))).await.unwrap();
    let player = cluster.world.new_player().await;
    let lsn = current_insert_lsn(&cluster.world).await;
    for replica in &replicas {
        wait_until_replayed(replica, &lsn).await;
    }
    run_blocking(&cluster.primary, |primary| primary.kill().unwrap()).await;
    for _ in 0..10 {
        assert_eq!(sparc.as_user(player.user_id).characters().living().await.unwrap().len(), 1);
    }
    let started_at = Instant::now();
    let code = create_read_and_delete(&sparc, player.user_id).await.unwrap_err().code();
    assert!(["connection_lost", "deadline_exceeded", "read_only"].contains(&code), "{code}");
    assert!(started_at.elapsed() < Duration::from_secs(5), "{:?}", started_at.elapsed());
    sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_promoted_server_is_found_behind_poolers() {
    let Some(cluster) = Cluster::start().await else { return };
    let standby_worlds: [World; 2] =
        cluster.standby_worlds().await.try_into().unwrap_or_else(|_| panic!("not two standbys"));
    let mut poolers = Vec::new();
    for url in [cluster.world.url(), standby_worlds[0].url(), standby_worlds[1].url()] {
        let Some(pooler) = start_pooler(url).await else {
            eprintln!("skipped: this machine has no pgbouncer");
            return;
        };
        poolers.push(pooler);
    }
    let options = Options::default().without_prepared_statement_cache().max_connections(6);
    let options = options.replicas(poolers[1..].iter().map(|pooler| pooler.url.as_str()));
    let sparc = Sparc::connect_with(&poolers[0].url, options).await.unwrap();
    let player = cluster.world.new_player().await;
    for _ in 0..20 {
        create_read_and_delete(&sparc, player.user_id).await.unwrap();
    }
    let standbys: [Server; 2] = cluster.standbys.clone().try_into().unwrap();
    let (promoted_index, promoted_at) = fail_over(&cluster.primary, &standbys, &standby_worlds).await;
    wait_until(async || create_read_and_delete(&sparc, player.user_id).await.is_ok()).await;
    println!("behind poolers, the next write succeeded {:?} after the promotion", promoted_at.elapsed());
    // The old primary comes first, followed by the replicas in their order.
    let servers = sparc.server_statuses();
    assert_eq!(servers[1 + promoted_index].role, ServerRole::Primary, "{servers:?}");
    sparc.close().await.unwrap();
}
