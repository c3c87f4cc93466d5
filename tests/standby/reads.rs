//! Reads on replicas: which statements run there, and what they show.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use sea_orm::{AccessMode, ConnectionTrait, DbBackend, EntityTrait, Statement, TransactionTrait};
use sparc::{
    entity::characters,
    service::{
        Error, IdentityConnection, LogPosition, Operations, Options, ServerRole, Sparc, characters::NewCharacter,
        users::ProfileChanges,
    },
};

use super::{Cluster, current_insert_lsn, wait_until, wait_until_replayed};
use crate::{
    faults::network::{OPEN, Proxy, SWALLOWING},
    sqlstates::READ_ONLY_SQL_TRANSACTION,
    world::{World, run_together},
};

/// Returns whether a read-only transaction of this caller runs on a standby.
async fn reads_on_standby(me: &IdentityConnection) -> bool {
    let tx = me.begin_with_config(None, Some(AccessMode::ReadOnly)).await.unwrap();
    let runs_on_standby = is_on_standby(&tx).await;
    tx.commit().await.unwrap();
    runs_on_standby
}

/// Returns whether the connection's statements run on a standby.
async fn is_on_standby(connection: &impl ConnectionTrait) -> bool {
    let query = Statement::from_string(DbBackend::Postgres, "SELECT pg_is_in_recovery()");
    connection.query_one_raw(query).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

async fn create_character(me: &IdentityConnection, name: &str) -> Result<uuid::Uuid, Error> {
    Ok(me.characters().create(NewCharacter { name: name.to_owned(), ..Default::default() }).await?.id)
}

/// Pauses or resumes the replay of the WAL on the standbys. `action` is `pause` or `resume`.
async fn set_replay(replicas: &[World], action: &str) {
    for replica in replicas {
        replica.owner().execute(&format!("SELECT pg_wal_replay_{action}()")).await.unwrap();
    }
}

fn count_servers(sparc: &Sparc, role: ServerRole) -> usize {
    sparc.server_statuses().iter().filter(|server| server.role == role).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_read_their_own_writes_and_never_an_older_state() {
    let Some(cluster) = Cluster::start().await else { return };
    let sparc = cluster.connect().await;
    // How many of the read-only transactions below ran on a standby. On a loaded machine the standbys may lag behind
    // for a while, so all clients continue until enough of these transactions ran there.
    let standby_read_count = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (player, sparc, standby_read_count) =
            (cluster.world.new_player().await, sparc.clone(), standby_read_count.clone());
        tasks.push(async move {
            let me = sparc.as_user(player.user_id);
            let (mut last_position, started_at) = (None, Instant::now());
            for round in 0.. {
                if round >= 40 && standby_read_count.load(Relaxed) >= 80 {
                    break;
                }
                assert!(
                    started_at.elapsed() < Duration::from_secs(90),
                    "only {standby_read_count:?} transactions ran on a standby; this client is in round {round}"
                );
                let character_id = create_character(&me, &format!("Hero {round}")).await.unwrap();
                assert!(me.position() > last_position, "a write must advance the caller's log position");
                match round % 3 {
                    0 => assert!(
                        me.characters().living().await.unwrap().iter().any(|character| character.id == character_id)
                    ),
                    1 => assert!(characters::Entity::find_by_id(character_id).one(&me).await.unwrap().is_some()),
                    _ => assert_eq!(me.characters().get(character_id).await.unwrap().id, character_id),
                }
                let tx = me.begin_with_config(None, Some(AccessMode::ReadOnly)).await.unwrap();
                assert!(characters::Entity::find_by_id(character_id).one(&tx).await.unwrap().is_some());
                standby_read_count.fetch_add(usize::from(is_on_standby(&tx).await), Relaxed);
                tx.commit().await.unwrap();
                last_position = me.position();
                me.characters().delete(character_id).await.unwrap();
                assert!(characters::Entity::find_by_id(character_id).one(&me).await.unwrap().is_none());
                assert!(me.characters().living().await.unwrap().iter().all(|character| character.id != character_id));
                assert!(me.position() >= last_position);
                last_position = me.position();
            }
        });
    }
    run_together(tasks).await;
    sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_read_their_own_writes_while_replicas_are_paused() {
    let Some(cluster) = Cluster::start().await else { return };
    let (sparc, other_sparc) = (cluster.connect().await, cluster.connect().await);
    let replicas = cluster.standby_worlds().await;
    let player = cluster.world.new_player().await;
    let lsn = current_insert_lsn(&cluster.world).await;
    for replica in &replicas {
        wait_until_replayed(replica, &lsn).await;
    }
    let (me, me_elsewhere) = (sparc.as_user(player.user_id), other_sparc.as_user(player.user_id));
    assert!(reads_on_standby(&me).await);
    assert_eq!(me_elsewhere.characters().living().await.unwrap().len(), 1);

    set_replay(&replicas, "pause").await;
    let character_id = create_character(&me, "Morgan").await.unwrap();
    let started_at = Instant::now();
    assert!(
        me.characters().get(character_id).await.is_ok(),
        "the read must run on the primary, because no replica has replayed the write"
    );
    assert!(characters::Entity::find_by_id(character_id).one(&me).await.unwrap().is_some());
    assert!(!reads_on_standby(&me).await);
    assert!(started_at.elapsed() < Duration::from_secs(2), "{:?}", started_at.elapsed());
    // `me_elsewhere` stands for the same user in another process, which learns of the write only from a token: the
    // position, as text.
    assert_eq!(
        me_elsewhere.characters().living().await.unwrap().len(),
        1,
        "without the token, a paused replica is used"
    );
    let token = me.position().unwrap().to_string();
    let with_token = me_elsewhere.clone().with_min_position(token.parse::<LogPosition>().unwrap());
    assert_eq!(with_token.characters().living().await.unwrap().len(), 2);
    // A client could invent a token: a position (timeline and LSN) that no server has reached. This must affect only
    // the client's own reads, which then run on the primary.
    let with_invented_position =
        me_elsewhere.clone().with_min_position("4294967295-FFFFFFFF/FFFFFFFF".parse::<LogPosition>().unwrap());
    assert_eq!(with_invented_position.characters().living().await.unwrap().len(), 2);
    assert!(reads_on_standby(&other_sparc.as_anon()).await, "other callers must still read on a replica");

    // A replica is not used while it is more than one page of the WAL (8 kB) behind what the primary had written two
    // seconds ago. The character created above takes less than a page, so the test must go on writing. It deletes the
    // characters that it creates here, because a user may have only ten.
    wait_until(async || {
        create_character(&me, "Robin").await.unwrap();
        let living_characters = me.characters().living().await.unwrap();
        for character in living_characters.iter().filter(|character| character.name == "Robin") {
            me.characters().delete(character.id).await.unwrap();
        }
        count_servers(&sparc, ServerRole::Unused) == 2
    })
    .await;
    assert!(!reads_on_standby(&sparc.as_anon()).await);
    set_replay(&replicas, "resume").await;
    wait_until(async || count_servers(&sparc, ServerRole::Replica) == 2).await;
    wait_until(async || reads_on_standby(&me).await).await;
    sparc.close().await.unwrap();
    other_sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_committed_by_raw_sql_is_read_by_its_writer() {
    let Some(cluster) = Cluster::start().await else { return };
    let sparc = cluster.connect().await;
    let replicas = cluster.standby_worlds().await;
    for commit in ["COMMIT", "COMMIT AND CHAIN"] {
        // This user is new, so the `Sparc` handle has no position for them yet.
        let me = sparc.as_user(cluster.world.new_player().await.user_id);
        let lsn = current_insert_lsn(&cluster.world).await;
        for replica in &replicas {
            wait_until_replayed(replica, &lsn).await;
        }
        wait_until(async || reads_on_standby(&me).await).await;
        set_replay(&replicas, "pause").await;
        let tx = me.begin().await.unwrap();
        tx.execute_unprepared("UPDATE characters SET name = 'Raw'").await.unwrap();
        // The server commits, but the call fails, because only `tx.commit()` and `tx.rollback()` may end the
        // transaction.
        assert_error!(tx.execute_unprepared(commit).await.map_err(Error::from), Error::TransactionEndedByStatement);
        drop(tx);
        assert_eq!(me.characters().living().await.unwrap()[0].name, "Raw", "{commit}");
        set_replay(&replicas, "resume").await;
        wait_until(async || count_servers(&sparc, ServerRole::Replica) == 2).await;
    }
    sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_users_write_becomes_visible_within_seconds() {
    let Some(cluster) = Cluster::start().await else { return };
    let sparc = cluster.connect().await;
    let (ada, visitor) = (sparc.as_user(cluster.world.new_player().await.user_id), sparc.as_anon());
    let mut waits = Vec::new();
    for number in 0..30 {
        let name = format!("Ada {number}");
        let changes = ProfileChanges { display_name: Some(name.clone()), ..Default::default() };
        ada.users().edit(changes).await.unwrap();
        let started_at = Instant::now();
        wait_until(async || !visitor.users().by_display_name(&name).await.unwrap().is_empty()).await;
        waits.push(started_at.elapsed());
    }
    waits.sort();
    let (median, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!("a new display name was visible to a visitor after {median:?} (median), {longest:?} at most");
    // A replica that is more than two seconds behind is not used. The test allows more, because the machine may be
    // loaded.
    assert!(longest < Duration::from_secs(10), "{longest:?}");
    sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_writes_or_locks_runs_on_the_primary() {
    let Some(cluster) = Cluster::start().await else { return };
    let owner = cluster.world.owner();
    let setup = "CREATE SEQUENCE visits;
         GRANT USAGE ON visits TO authenticated;
         CREATE VIEW visit_counter WITH (security_invoker) AS SELECT nextval('visits') AS number;
         GRANT SELECT ON visit_counter TO authenticated";
    for statement in setup.split(';') {
        owner.execute(statement).await.unwrap();
    }
    let sparc = cluster.connect().await;
    let player = cluster.world.new_player().await;
    let lsn = current_insert_lsn(&cluster.world).await;
    for replica in cluster.standby_worlds().await {
        wait_until_replayed(&replica, &lsn).await;
        let refusal = replica.service().fetch_value::<String>("SELECT private.event_history_id()").await.unwrap_err();
        assert_eq!(
            refusal.sqlstate, READ_ONLY_SQL_TRANSACTION,
            "the function must refuse to run on a standby, which may lack events"
        );
    }
    let me = sparc.as_user(player.user_id);
    // A standby would refuse each of these statements. The first two look like reads (one quotes its names, as SeaORM
    // does), so they fail in a read-only transaction at first and are repeated on the primary.
    for sql in [
        r#"SELECT "number" FROM "visit_counter""#,
        "SELECT number FROM visit_counter",
        "SELECT nextval('visits')",
        "SELECT id FROM characters FOR SHARE",
        "SELECT count(*) FROM (SELECT FROM characters FOR KEY SHARE) AS locked",
        "WITH updated AS (UPDATE characters SET name = 'Robin' RETURNING id) SELECT id FROM updated",
    ] {
        let statement = Statement::from_string(DbBackend::Postgres, sql);
        let outcome = me.query_all_raw(statement).await;
        assert!(outcome.is_ok(), "{sql}: {outcome:?}");
    }
    assert!(me.execute_unprepared("CREATE TEMPORARY TABLE mine (id int)").await.is_ok());
    // A read-only transaction must refuse the write.
    let tx = me.begin_with_config(None, Some(AccessMode::ReadOnly)).await.unwrap();
    let refusal = tx.execute_unprepared("SELECT nextval('visits')").await.unwrap_err();
    assert_eq!(Error::from(refusal).code(), "read_only");
    tx.rollback().await.unwrap();
    sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_hangs_or_dies_is_not_used_until_it_recovers() {
    let Some(cluster) = Cluster::start().await else { return };
    let replicas = cluster.standby_worlds().await;
    let proxy = Proxy::start_for_url(replicas[0].url()).await;
    let deadline = Duration::from_secs(5);
    let options = Options::default().replicas([proxy.url.as_str(), replicas[1].url()]).deadline(deadline);
    let sparc = Sparc::connect_with(cluster.world.url(), options).await.unwrap();
    let player = cluster.world.new_player().await;
    let me = sparc.as_user(player.user_id);
    wait_until(async || count_servers(&sparc, ServerRole::Replica) == 2).await;
    for _ in 0..4 {
        assert_eq!(me.characters().living().await.unwrap().len(), 1);
    }
    proxy.set_state(SWALLOWING);
    let hung_at = Instant::now();
    while hung_at.elapsed() < Duration::from_secs(3) {
        let started_at = Instant::now();
        assert_eq!(me.characters().living().await.unwrap().len(), 1);
        assert!(started_at.elapsed() < deadline, "{:?}", started_at.elapsed());
    }
    assert_eq!(count_servers(&sparc, ServerRole::Unused), 1);
    proxy.set_state(OPEN);
    wait_until(async || count_servers(&sparc, ServerRole::Replica) == 2).await;

    super::run_blocking(&cluster.standbys[1], |standby| standby.kill().unwrap()).await;
    for _ in 0..20 {
        assert_eq!(me.characters().living().await.unwrap().len(), 1);
    }
    wait_until(async || count_servers(&sparc, ServerRole::Unused) == 1).await;
    super::run_blocking(&cluster.standbys[1], |standby| standby.start_again().unwrap()).await;
    wait_until(async || count_servers(&sparc, ServerRole::Replica) == 2).await;
    assert!(reads_on_standby(&me).await);
    sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_or_dropping_sparc_leaves_no_connection() {
    let Some(cluster) = Cluster::start().await else { return };
    let count_connections = async || {
        let mut count = 0;
        for world in cluster.standby_worlds().await.iter().chain([&cluster.world]) {
            let sparc_connections =
                "pg_stat_activity WHERE application_name = 'sparc' AND datname = current_database()";
            count += world.owner().count(sparc_connections).await;
        }
        count
    };
    let sparc = cluster.connect().await;
    assert!(sparc.as_anon().sessions().lobby(&Default::default(), None).await.is_ok());
    assert!(count_connections().await >= 3);
    sparc.close().await.unwrap();
    wait_until(async || count_connections().await == 0).await;
    let sparc = cluster.connect().await;
    assert!(sparc.as_anon().sessions().lobby(&Default::default(), None).await.is_ok());
    drop(sparc);
    wait_until(async || count_connections().await == 0).await;
}
