//! Event streams while servers, networks, pools and poolers fail. The *poller* is the task of a `Sparc` handle that
//! reads new events for all streams of the handle. The number of an event is its `seq`.

use std::time::Duration;

use futures_util::StreamExt;
use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};
use sparc::{
    migration::connect,
    service::{Operations, Options, Sparc},
};
use tracing_subscriber::fmt::format::FmtSpan;

use super::network::{CUT, OPEN, Proxy, SLOW, SWALLOWING};
use crate::{
    live_events::{
        DELIVERY_TIMEOUT, connect_sparc, event_seqs, next_event, read_to_error, read_until, receives_nothing,
        write_events,
    },
    pooler::start_pooler,
    spans::Log,
    standby::Cluster,
    world::{World, server},
};

#[tokio::test]
async fn an_exhausted_pool_delays_events_but_loses_none() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let options = Options::default().max_connections(1).acquire_timeout(Duration::from_millis(100));
    let sparc = Sparc::connect_with(world.url(), options).await.unwrap();
    let ada = sparc.as_user(game.players[0].user_id);
    let mut stream = ada.events().subscribe(game.session_id, None).await.unwrap();
    let event_count_before = event_seqs(&world, game.session_id).await.len();
    for _ in 0..2 {
        let transaction = loop {
            // The poller uses the only connection from time to time, so `begin` may fail.
            if let Ok(transaction) = ada.begin().await {
                break transaction;
            }
        };
        write_events(&game.players[0].caller, game.session_id, 2).await;
        assert!(receives_nothing(&mut stream).await, "the poller has no connection to read with");
        transaction.rollback().await.unwrap();
        let newest_seq = *event_seqs(&world, game.session_id).await.last().unwrap();
        assert_eq!(read_until(&mut stream, newest_seq).await.len(), 2);
    }
    assert_eq!(event_seqs(&world, game.session_id).await.len(), event_count_before + 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_lost_if_the_network_is_slow_or_silent_or_cut() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let proxy = Proxy::start_for_world(&world).await;
    let options = Options::default().max_connections(3).deadline(Duration::from_secs(1));
    let sparc = Sparc::connect_with(&proxy.url, options).await.unwrap();
    let mut streams = Vec::new();
    for caller in [sparc.as_user(game.players[0].user_id), sparc.as_service()] {
        streams.push(caller.events().subscribe(game.session_id, None).await.unwrap());
    }
    for state in [SLOW, CUT, OPEN, CUT, SWALLOWING, CUT] {
        let event_count_before = event_seqs(&world, game.session_id).await.len();
        proxy.set_state(state);
        for _ in 0..4 {
            write_events(&game.players[0].caller, game.session_id, 15).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Requests that were swallowed are never answered, so after `SWALLOWING` the connections are cut.
        proxy.set_state(if state == SWALLOWING { CUT } else { OPEN });
        tokio::time::sleep(Duration::from_millis(50)).await;
        proxy.set_state(OPEN);
        let seqs = event_seqs(&world, game.session_id).await;
        for stream in &mut streams {
            assert_eq!(read_until(stream, *seqs.last().unwrap()).await, seqs[event_count_before..], "state {state}");
        }
    }
}

#[tokio::test]
async fn behind_a_pooler_streams_work_or_their_errors_name_the_option_to_set() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let Some(pooler) = start_pooler(world.url()).await else {
        eprintln!("skipped: this machine has no pgbouncer");
        return;
    };
    let options = Options::default().max_connections(6).without_prepared_statement_cache();
    let sparc = Sparc::connect_with(&pooler.url, options).await.unwrap();
    let mut streams = Vec::new();
    for caller in [sparc.as_service(), sparc.as_user(game.players[0].user_id), sparc.as_user(game.players[1].user_id)] {
        streams.push(caller.events().subscribe(game.session_id, None).await.unwrap());
    }
    for _ in 0..5 {
        write_events(&game.players[0].caller, game.session_id, 3).await;
        let newest_seq = *event_seqs(&world, game.session_id).await.last().unwrap();
        for stream in &mut streams {
            assert_eq!(read_until(stream, newest_seq).await.len(), 3);
        }
    }
    drop(streams);
    sparc.close().await.unwrap();

    // This handle caches prepared statements, which the pooler does not track. So calls may fail, with errors that name
    // the option `without_prepared_statement_cache`.
    let sparc = Sparc::connect_with(&pooler.url, Options::default().max_connections(6)).await.unwrap();
    let mut errors = Vec::new();
    for _ in 0..40 {
        let caller = sparc.as_user(game.players[0].user_id);
        let mut stream = match caller.events().subscribe(game.session_id, None).await {
            Ok(stream) => stream,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        write_events(&game.players[0].caller, game.session_id, 1).await;
        match tokio::time::timeout(DELIVERY_TIMEOUT, stream.next()).await {
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(error))) => errors.push(error),
            Ok(None) => panic!("the stream ended without an error"),
            Err(_) => panic!("the stream neither continues nor ends"),
        }
    }
    for error in errors {
        assert_eq!(error.code(), "misconfigured", "{error:?}");
        assert!(error.to_string().contains("without_prepared_statement_cache"), "{error}");
    }
}

/// Runs one or more statements; panics if one fails.
async fn execute(db: &DatabaseConnection, sql: &str) {
    db.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Allows no new connections to a database, and closes the existing ones.
async fn lock_out(superuser: &DatabaseConnection, database: &str) {
    execute(superuser, &format!("ALTER DATABASE \"{database}\" ALLOW_CONNECTIONS false")).await;
    execute(
        superuser,
        &format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_the_database_with_an_older_copy_ends_only_the_streams_that_are_ahead_of_the_copy() {
    let world = World::new().await;
    let (quiet_game, busy_game) = (world.new_active_session(1).await, world.new_active_session(1).await);
    let eventless_game = world.new_session(1).await;
    world
        .owner()
        .execute(&format!("DELETE FROM session_events WHERE session_id = '{}'", eventless_game.session_id))
        .await
        .unwrap();
    let sparc = connect_sparc(&world).await;
    let service = sparc.as_service();
    let mut streams = Vec::new();
    for game in [&quiet_game, &busy_game, &eventless_game] {
        streams.push(service.events().subscribe(game.session_id, None).await.unwrap());
    }
    write_events(&quiet_game.players[0].caller, quiet_game.session_id, 1).await;
    write_events(&busy_game.players[0].caller, busy_game.session_id, 1).await;
    next_event(&mut streams[0]).await;
    next_event(&mut streams[1]).await;

    // The database is copied at this moment. The copy stands for a backup, or for a standby that lags behind.
    let database: String = world.owner().fetch_value("SELECT current_database()::text").await.unwrap();
    let superuser = connect(server().await.url()).await.unwrap();
    lock_out(&superuser, &database).await;
    execute(&superuser, &format!("CREATE DATABASE \"{database}_copy\" TEMPLATE \"{database}\"")).await;
    execute(&superuser, &format!("ALTER DATABASE \"{database}\" ALLOW_CONNECTIONS true")).await;
    let original = world.with_new_pool().await;
    write_events(&original.user(busy_game.players[0].user_id), busy_game.session_id, 3).await;
    for _ in 0..3 {
        next_event(&mut streams[1]).await;
    }
    let original_seqs = event_seqs(&original, busy_game.session_id).await;
    original.pool.close().await.unwrap();
    world.pool.close_by_ref().await.unwrap();

    // The copy replaces the original, and in the copy other events get the same numbers.
    lock_out(&superuser, &database).await;
    // Both are renamed in one transaction, so that a database with the original's name always exists.
    let swap = format!(
        "ALTER DATABASE \"{database}\" RENAME TO \"{database}_lost\";
         ALTER DATABASE \"{database}_copy\" RENAME TO \"{database}\""
    );
    execute(&superuser, &swap).await;
    let replacement = world.with_new_pool().await;
    write_events(&replacement.user(busy_game.players[0].user_id), busy_game.session_id, 5).await;
    write_events(&replacement.user(quiet_game.players[0].user_id), quiet_game.session_id, 2).await;
    write_events(&replacement.user(eventless_game.players[0].user_id), eventless_game.session_id, 1).await;
    let replacement_seqs = event_seqs(&replacement, busy_game.session_id).await;
    assert_eq!(
        replacement_seqs[..original_seqs.len()],
        original_seqs,
        "the numbers of the lost events must be given out again"
    );

    let [quiet_stream, busy_stream, eventless_stream] = &mut streams[..] else { unreachable!() };
    assert_eq!(
        read_to_error(busy_stream).await,
        "events_expired",
        "the stream has read events that are lost, and would miss the new ones with the same numbers"
    );
    let seqs = event_seqs(&replacement, quiet_game.session_id).await;
    assert_eq!(read_until(quiet_stream, *seqs.last().unwrap()).await, seqs[seqs.len() - 2..]);
    next_event(eventless_stream).await;
    let mut new_stream = service.events().subscribe(busy_game.session_id, None).await.unwrap();
    write_events(&replacement.user(busy_game.players[0].user_id), busy_game.session_id, 1).await;
    next_event(&mut new_stream).await;
    drop(streams);
    execute(&superuser, &format!("DROP DATABASE \"{database}_lost\"")).await;
    superuser.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_replicas_too_an_older_copy_ends_only_the_streams_that_are_ahead() {
    let Some(cluster) = Cluster::start().await else { return };
    let (world, sparc) = (&cluster.world, cluster.connect().await);
    let (ahead_game, quiet_game) = (world.new_active_session(1).await, world.new_active_session(1).await);
    let service = sparc.as_service();
    let mut ahead_stream = service.events().subscribe(ahead_game.session_id, None).await.unwrap();
    let mut quiet_stream = service.events().subscribe(quiet_game.session_id, None).await.unwrap();
    let database: String = world.owner().fetch_value("SELECT current_database()::text").await.unwrap();
    let copy = format!("{database}_copy");
    let superuser = connect(cluster.primary.url()).await.unwrap();
    lock_out(&superuser, &database).await;
    execute(&superuser, &format!("CREATE DATABASE \"{copy}\" TEMPLATE \"{database}\"")).await;
    execute(&superuser, &format!("ALTER DATABASE \"{database}\" ALLOW_CONNECTIONS true")).await;
    // After the copy was made, `ahead_stream` reads three more events, which the copy lacks.
    let original = world.with_new_pool().await;
    write_events(&original.user(ahead_game.players[0].user_id), ahead_game.session_id, 3).await;
    for _ in 0..3 {
        next_event(&mut ahead_stream).await;
    }
    original.pool.close().await.unwrap();
    world.pool.close_by_ref().await.unwrap();
    // In the copy, five other events get the numbers of the three lost events and the next two numbers. So the last
    // number drawn in the copy is higher than the last one drawn in the original, and does not show that events are
    // lost.
    let (server_url, _) = world.url().rsplit_once('/').unwrap();
    let copy_connection = connect(&format!("{server_url}/{copy}")).await.unwrap();
    let insert_events = |session_id, count| {
        format!(
            "INSERT INTO session_events (session_id, event_type)
             SELECT '{session_id}', 'copied' FROM generate_series(1, {count})"
        )
    };
    execute(&copy_connection, &insert_events(ahead_game.session_id, 4)).await;
    execute(&copy_connection, &insert_events(quiet_game.session_id, 1)).await;
    copy_connection.close().await.unwrap();
    // The copy replaces the original on the same timeline. Dropping the original closes the connections to it on the
    // standbys.
    lock_out(&superuser, &database).await;
    let swap = format!(
        "ALTER DATABASE \"{database}\" RENAME TO \"{database}_lost\";
         ALTER DATABASE \"{copy}\" RENAME TO \"{database}\""
    );
    execute(&superuser, &swap).await;
    execute(&superuser, &format!("DROP DATABASE \"{database}_lost\"")).await;
    let outcome = tokio::time::timeout(DELIVERY_TIMEOUT, ahead_stream.next()).await.unwrap().unwrap();
    assert_eq!(
        outcome.map(|event| event.event_type).map_err(|error| error.code()),
        Err("events_expired"),
        "the stream has read events that are lost, and would miss the new ones with the same numbers"
    );
    assert_eq!(next_event(&mut quiet_stream).await.event_type, "copied");
    sparc.close().await.unwrap();
    superuser.close().await.unwrap();
}

/// Makes `private.event_history_id` return another id to users' streams than to the poller. So the streams find that
/// the server has been replaced, and the poller does not. The same happens between the replacement of a server and the
/// next successful poll.
async fn give_users_another_history(world: &World) {
    let history_id: String = world.owner().fetch_value("SELECT private.event_history_id()").await.unwrap();
    let sql = format!(
        "CREATE OR REPLACE FUNCTION private.event_history_id() RETURNS text LANGUAGE sql
         AS $$SELECT CASE current_setting('role') WHEN 'authenticated' THEN 'another' ELSE '{history_id}' END$$"
    );
    world.owner().execute(&sql).await.unwrap();
}

#[tokio::test]
async fn a_stream_on_a_replaced_server_reads_events_with_reused_numbers() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let mut service_stream = sparc.as_service().events().subscribe(game.session_id, None).await.unwrap();
    let mut stream = sparc.as_user(game.players[0].user_id).events().subscribe(game.session_id, None).await.unwrap();
    // Each of these events is larger than what a poll reads, so each stream must read them itself.
    let insert_large_events = format!(
        "INSERT INTO session_events (session_id, event_type, payload)
         SELECT '{}', 'large', jsonb_build_object('text', (
           SELECT string_agg(md5(number::text || line::text), '') FROM generate_series(1, 3000) AS line
         )) FROM generate_series(1, 2) AS number",
        game.session_id
    );
    world.owner().execute(&insert_large_events).await.unwrap();
    let first_seq = next_event(&mut service_stream).await.seq;
    next_event(&mut service_stream).await;
    // From here on, the database stands for another server, which lacks the two events.
    world.owner().execute(&format!("DELETE FROM session_events WHERE seq >= {first_seq}")).await.unwrap();
    give_users_another_history(&world).await;
    assert!(receives_nothing(&mut stream).await);
    // Triggers are disabled, because otherwise one of them would draw the next number.
    let insert_with_first_seq = format!(
        "SET LOCAL session_replication_role = replica;
         INSERT INTO session_events (session_id, event_type, seq) OVERRIDING SYSTEM VALUE
         VALUES ('{}', 'new', {first_seq})",
        game.session_id
    );
    world.superuser().await.execute(&insert_with_first_seq).await.unwrap();
    assert_eq!(next_event(&mut stream).await.event_type, "new");
}

#[tokio::test]
async fn a_stream_that_is_ahead_of_the_poller_on_a_replaced_server_pauses_between_its_reads() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    write_events(&game.players[0].caller, game.session_id, 3).await;
    let seqs = event_seqs(&world, game.session_id).await;
    let ada = sparc.as_user(game.players[0].user_id);
    let mut stream = ada.events().subscribe(game.session_id, Some(seqs[0])).await.unwrap();
    give_users_another_history(&world).await;
    assert_eq!(read_until(&mut stream, *seqs.last().unwrap()).await, seqs[1..]);
    let log = Log::default();
    // `tests/spans.rs` explains this subscriber.
    let _second_subscriber = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_span_events(FmtSpan::NEW).with_writer(move || writer.clone()).finish();
    let guard = tracing_subscriber::util::SubscriberInitExt::set_default(subscriber);
    assert!(receives_nothing(&mut stream).await);
    drop(guard);
    let page_count = log.text().matches("events.page{").count();
    assert!((1..=8).contains(&page_count), "{page_count} pages were read");
}

#[tokio::test]
async fn dropped_streams_leave_no_task_and_no_busy_connection() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let count_tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    // A read returns before its transaction has ended; a separate task waits for the end.
    let wait_until_idle = async |task_count| {
        for _ in 0..200 {
            let status = sparc.service_pool_status();
            if status.idle == status.connections && count_tasks() == task_count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{} tasks instead of {task_count}, {:?}", count_tasks(), sparc.service_pool_status());
    };
    let task_count_before = count_tasks();
    let service = sparc.as_service();
    service.events().newest_seq(game.session_id).await.unwrap();
    wait_until_idle(task_count_before).await;
    for _ in 0..3 {
        let mut streams = Vec::new();
        for _ in 0..20 {
            streams.push(service.events().subscribe(game.session_id, Some(0)).await.unwrap());
        }
        let mut multi_session_stream = service.events().subscribe_many([(game.session_id, None)]).await.unwrap();
        next_event(&mut streams[0]).await;
        // There is one poller, and there is no task per stream.
        wait_until_idle(task_count_before + 1).await;
        multi_session_stream.remove(game.session_id);
        drop(multi_session_stream);
        drop(streams);
        wait_until_idle(task_count_before).await;
    }
    world.owner().assert_no_transaction_stays_idle().await;
}
