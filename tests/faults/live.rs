//! Event streams under faults of servers, networks, pools and poolers.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};
use sparc::{
    migration::connect,
    service::{Operations, Options, Sparc},
};

use super::network::{CUT, OPEN, Proxy, SLOW, SWALLOWING};
use crate::{
    live::{end, is_silent, new_handle, next, numbers, up_to, write},
    pooler::start_pooler,
    world::{World, server},
};

#[tokio::test]
async fn an_exhausted_pool_delays_events_and_loses_none() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let options = Options::default().max_connections(1).acquire_timeout(Duration::from_millis(100));
    let sparc = Sparc::connect_with(world.url(), options).await.unwrap();
    let ada = sparc.as_user(game.players[0].id);
    let mut stream = ada.events().subscribe(game.session, None).await.unwrap();
    let before = numbers(&world, game.session).await.len();
    for _ in 0..2 {
        let holding = loop {
            // The poller holds the connection from time to time.
            if let Ok(holding) = ada.begin().await {
                break holding;
            }
        };
        write(&game.players[0].person, game.session, 2).await;
        assert!(is_silent(&mut stream).await, "the poller has no connection to read with");
        holding.rollback().await.unwrap();
        let last = *numbers(&world, game.session).await.last().unwrap();
        assert_eq!(up_to(&mut stream, last).await.len(), 2);
    }
    assert_eq!(numbers(&world, game.session).await.len(), before + 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_cut_slow_or_swallows_loses_no_event() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let proxy = Proxy::to_world(&world).await;
    let options = Options::default().max_connections(3).deadline(Duration::from_secs(1));
    let sparc = Sparc::connect_with(&proxy.url, options).await.unwrap();
    let mut streams = Vec::new();
    for caller in [sparc.as_user(game.players[0].id), sparc.as_service()] {
        streams.push(caller.events().subscribe(game.session, None).await.unwrap());
    }
    for state in [SLOW, CUT, OPEN, CUT, SWALLOWING, CUT] {
        let before = numbers(&world, game.session).await.len();
        proxy.set_state(state);
        for _ in 0..4 {
            write(&game.players[0].person, game.session, 15).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Swallowed requests are never answered.
        proxy.set_state(if state == SWALLOWING { CUT } else { OPEN });
        tokio::time::sleep(Duration::from_millis(50)).await;
        proxy.set_state(OPEN);
        let all = numbers(&world, game.session).await;
        for stream in &mut streams {
            assert_eq!(up_to(stream, *all.last().unwrap()).await, all[before..], "{state}");
        }
    }
}

#[tokio::test]
async fn behind_a_pooler_in_transaction_mode_streams_work_or_fail_with_the_remedy() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let Some(pooler) = start_pooler(world.url()).await else {
        eprintln!("skipped: this machine has no pgbouncer");
        return;
    };
    let options = Options::default().max_connections(6).without_prepared_statements();
    let sparc = Sparc::connect_with(&pooler.url, options).await.unwrap();
    let mut streams = Vec::new();
    for caller in [sparc.as_service(), sparc.as_user(game.players[0].id), sparc.as_user(game.players[1].id)] {
        streams.push(caller.events().subscribe(game.session, None).await.unwrap());
    }
    for _ in 0..5 {
        write(&game.players[0].person, game.session, 3).await;
        let last = *numbers(&world, game.session).await.last().unwrap();
        for stream in &mut streams {
            assert_eq!(up_to(stream, last).await.len(), 3);
        }
    }
    drop(streams);
    sparc.close().await.unwrap();

    // A recent pooler also supports prepared statements; an older one breaks them sooner or later.
    let sparc = Sparc::connect_with(&pooler.url, Options::default().max_connections(6)).await.unwrap();
    let mut errors = Vec::new();
    for _ in 0..40 {
        let caller = sparc.as_user(game.players[0].id);
        let mut stream = match caller.events().subscribe(game.session, None).await {
            Ok(stream) => stream,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        write(&game.players[0].person, game.session, 1).await;
        match tokio::time::timeout(Duration::from_secs(30), futures_util::StreamExt::next(&mut stream)).await {
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(error))) => errors.push(error),
            Ok(None) => panic!("the stream ended without an error"),
            Err(_) => panic!("the stream neither continues nor ends"),
        }
    }
    for error in errors {
        assert_eq!(error.code(), "misconfigured", "{error:?}");
        assert!(error.to_string().contains("without_prepared_statements"), "{error}");
    }
}

/// Runs a statement of the cluster's administrator.
async fn run(administrator: &DatabaseConnection, sql: &str) {
    administrator.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Closes all connections to a database and allows no new ones.
async fn shut(administrator: &DatabaseConnection, database: &str) {
    run(administrator, &format!("ALTER DATABASE \"{database}\" ALLOW_CONNECTIONS false")).await;
    run(
        administrator,
        &format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_on_another_servers_history_ends_instead_of_missing_events() {
    let world = World::new().await;
    let (quiet, busy) = (world.new_active_session(1).await, world.new_active_session(1).await);
    let never = world.new_session(1).await;
    world.owner().exec(&format!("DELETE FROM session_events WHERE session_id = '{}'", never.session)).await.unwrap();
    let sparc = new_handle(&world).await;
    let service = sparc.as_service();
    let mut streams = Vec::new();
    for game in [&quiet, &busy, &never] {
        streams.push(service.events().subscribe(game.session, None).await.unwrap());
    }
    write(&quiet.players[0].person, quiet.session, 1).await;
    write(&busy.players[0].person, busy.session, 1).await;
    next(&mut streams[0]).await;
    next(&mut streams[1]).await;

    // A copy from that moment, like a standby that lags behind or a backup.
    let database: String = world.owner().value("SELECT current_database()::text").await.unwrap();
    let administrator = connect(server().await.url()).await.unwrap();
    shut(&administrator, &database).await;
    run(&administrator, &format!("CREATE DATABASE \"{database}_copy\" TEMPLATE \"{database}\"")).await;
    run(&administrator, &format!("ALTER DATABASE \"{database}\" ALLOW_CONNECTIONS true")).await;
    let again = world.reconnect().await;
    write(&again.user(busy.players[0].id), busy.session, 3).await;
    for _ in 0..3 {
        next(&mut streams[1]).await;
    }
    let lost = numbers(&again, busy.session).await;
    again.db.close().await.unwrap();
    world.db.close_by_ref().await.unwrap();

    // The copy replaces the original and gives the same numbers to other events.
    shut(&administrator, &database).await;
    // In one transaction, so that a database of that name always exists.
    let swap = format!(
        "ALTER DATABASE \"{database}\" RENAME TO \"{database}_lost\";
         ALTER DATABASE \"{database}_copy\" RENAME TO \"{database}\""
    );
    run(&administrator, &swap).await;
    let again = world.reconnect().await;
    write(&again.user(busy.players[0].id), busy.session, 5).await;
    write(&again.user(quiet.players[0].id), quiet.session, 2).await;
    write(&again.user(never.players[0].id), never.session, 1).await;
    let now = numbers(&again, busy.session).await;
    assert_eq!(now[..lost.len()], lost, "the numbers are the same, though the events are not");

    let [quiet_stream, busy_stream, never_stream] = &mut streams[..] else { unreachable!() };
    assert_eq!(
        end(busy_stream).await,
        "events_expired",
        "it has read events that are lost, and would miss those with the same numbers"
    );
    let all = numbers(&again, quiet.session).await;
    assert_eq!(up_to(quiet_stream, *all.last().unwrap()).await, all[all.len() - 2..]);
    next(never_stream).await;
    let mut reloaded = service.events().subscribe(busy.session, None).await.unwrap();
    write(&again.user(busy.players[0].id), busy.session, 1).await;
    next(&mut reloaded).await;
    drop(streams);
    run(&administrator, &format!("DROP DATABASE \"{database}_lost\"")).await;
    administrator.close().await.unwrap();
}

#[tokio::test]
async fn dropped_streams_leave_no_task_and_no_busy_connection() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = new_handle(&world).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    // A read is answered before its connection has ended the transaction, which a task of its own waits for.
    let settled = async |count| {
        for _ in 0..200 {
            let status = sparc.pool_status();
            if status.idle == status.connections && tasks() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{} tasks instead of {count}, {:?}", tasks(), sparc.pool_status());
    };
    let before = tasks();
    let service = sparc.as_service();
    service.events().newest(game.session).await.unwrap();
    settled(before).await;
    for _ in 0..3 {
        let mut streams = Vec::new();
        for _ in 0..20 {
            streams.push(service.events().subscribe(game.session, Some(0)).await.unwrap());
        }
        let mut many = service.events().subscribe_many([(game.session, None)]).await.unwrap();
        next(&mut streams[0]).await;
        // One poller, and no task per stream.
        settled(before + 1).await;
        many.remove(game.session);
        drop(many);
        drop(streams);
        settled(before).await;
    }
    world.owner().wait_for_rollbacks().await;
}
