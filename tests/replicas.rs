//! Copies of a migrated database: a restored dump, a standby, and a logical subscriber.

use std::{
    process::{Command, Output},
    time::Duration,
};

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use sparc::{
    entity::sea_orm_active_enums::{Attribute, RollType},
    migration::connect,
    service::{
        Difficulty, Operations, Sparc,
        dice::{HistoryFilter, NewRoll, RollScope, Roller},
        sessions::LobbyFilter,
    },
};
use testdb::{Binaries, Server};
use uuid::Uuid;

use crate::{
    random_operations::broken_invariants,
    world::{GameSession, World, server},
};

async fn lines(db: &DatabaseConnection, sql: &str) -> Vec<String> {
    let rows = db.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap();
    rows.into_iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

/// A query for all rows of all tables, one line per row.
const ROWS: &str = "
    SELECT relname || ' ' || replace(query_to_xml(format('SELECT * FROM public.%I ORDER BY 1, 2', relname), true, true, '')::text, E'\\n', '')
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'sparc_migrations'
    ORDER BY relname";

/// Creates a session that was played, with a roll.
async fn played_session(world: &World) -> GameSession {
    let game = world.new_active_session(2).await;
    world.set(&game, "is_public = true").await;
    let ada = world.sparc.as_user(game.players[0].id);
    let hero = Roller::Character(game.players[0].character);
    let roll = NewRoll::new(RollType::Attack, game.session, hero, Attribute::Wit, Difficulty::MAX);
    ada.dice().roll(roll).await.unwrap();
    game
}

fn ran(output: std::io::Result<Output>) -> Output {
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[tokio::test]
async fn a_restored_dump_is_the_same_and_can_be_played_on() {
    let world = World::new().await;
    let Some(dump) = Binaries::find().unwrap().program("pg_dump") else {
        eprintln!("skipped: the server's installation has no pg_dump");
        return;
    };
    let game = played_session(&world).await;
    let dumped = ran(Command::new(dump).args(["--inserts", world.url()]).output());
    let dumped = String::from_utf8(dumped.stdout).unwrap();
    let dumped: String =
        dumped.lines().filter(|line| !line.starts_with('\\')).map(|line| format!("{line}\n")).collect();
    let database = server().await.create_empty().await.unwrap();
    // On a separate connection, because a dump changes settings of the session that loads it.
    let restoring = connect(database.url()).await.unwrap();
    restoring.execute_unprepared(&dumped).await.unwrap();
    restoring.close().await.unwrap();
    let restored = World::from_database(database, world.db.clone()).reconnect().await;

    assert_eq!(lines(&restored.db, ROWS).await, lines(&world.db, ROWS).await);
    let unsaid = |line: String| match line.rsplit_once(" {postgres=") {
        // A dump leaves out privileges that only the owner has.
        Some((relation, owner)) if !owner.contains(',') => format!("{relation} "),
        _ => line,
    };
    let catalog = async |db: &DatabaseConnection| {
        lines(db, include_str!("catalog.sql")).await.into_iter().map(unsaid).collect::<Vec<_>>()
    };
    let (there, here) = (catalog(&restored.db).await, catalog(&world.db).await);
    let differing: Vec<_> = there.iter().filter(|line| !here.contains(line)).collect();
    let missing: Vec<_> = here.iter().filter(|line| !there.contains(line)).collect();
    assert!(differing.is_empty() && missing.is_empty(), "{differing:#?} instead of {missing:#?}");

    let seer = restored.sparc.as_user(game.seer.uuid());
    seer.sessions().complete(game.session).await.unwrap();
    let stranger = restored.sparc.as_user(restored.new_account().await);
    assert_eq!(stranger.sessions().pause(game.session).await.unwrap_err().code(), "not_a_seer");
    assert_eq!(broken_invariants(&restored).await, [""; 0]);
}

#[tokio::test]
async fn a_standby_answers_reads_as_its_primary_does() {
    // A separate server, because a standby copies all of its databases and follows all changes.
    let server = Server::start_private(None).await.unwrap();
    let world = World::new_on(&server).await;
    if Binaries::find().unwrap().program("pg_basebackup").is_none() {
        eprintln!("skipped: the server's installation has no pg_basebackup");
        return;
    }
    let game = played_session(&world).await;
    let standby = crate::standby::standby_of(&server).await;
    let url = world.copy_on(&standby).await.url().to_owned();
    let sparc = Sparc::connect(&url).await.unwrap();
    // Changes from now on are streamed.
    let later = played_session(&world).await;
    let stranger = world.new_account().await;
    let wal: String = world.owner().value("SELECT pg_current_wal_insert_lsn()::text").await.unwrap();
    let there = connect(&url).await.unwrap();
    for _ in 0..600 {
        let caught_up = format!("SELECT (pg_last_wal_replay_lsn() >= '{wal}')::text");
        if lines(&there, &caught_up).await == ["true"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(lines(&there, ROWS).await == lines(&world.db, ROWS).await, "rows differ");
    let catalog = include_str!("catalog.sql");
    assert!(lines(&there, catalog).await == lines(&world.db, catalog).await, "catalogs differ");
    for game in [&game, &later] {
        let ada = sparc.as_user(game.players[0].id);
        let of = RollScope::Session(game.session);
        assert_eq!(ada.dice().history(of, &HistoryFilter::default(), None).await.unwrap().items.len(), 1);
        assert_eq!(ada.sessions().details(game.session).await.unwrap().players.len(), 2);
        let closed = sparc.as_user(stranger).dice().history(of, &HistoryFilter::default(), None).await.unwrap();
        assert!(closed.items.is_empty(), "row security applies there too");
        assert!(sparc.as_anon().sessions().lobby(&LobbyFilter::default(), None).await.is_ok());
        assert_eq!(ada.characters().retire(game.players[0].character).await.unwrap_err().code(), "read_only");
        let late = ada.events().subscribe(game.session, None).await.unwrap_err();
        assert_eq!(late.code(), "read_only", "a standby lags, so a stream there is refused");
    }
    sparc.close().await.unwrap();
    there.close().await.unwrap();
}

#[tokio::test]
async fn a_subscriber_gets_every_row_once() {
    let (world, copy) = (World::new().await, World::new().await);
    let name = format!("copy_{}", Uuid::new_v4().simple());
    let tables = "auth.users, public.users, public.characters, public.adventures, public.creatures, public.sessions,
                  public.session_players, public.dice_rolls, public.session_events, public.tutorial_progress,
                  public.archived_sessions, public.archived_session_players, public.archived_dice_rolls,
                  private.account_gates";
    world.db.execute_unprepared(&format!("CREATE PUBLICATION {name} FOR TABLE {tables}")).await.unwrap();
    // Within one cluster the slot must be created first: a subscription that creates it would wait for its own
    // transaction.
    let slot = format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')::text");
    lines(&world.db, &slot).await;
    let subscribe = format!(
        "CREATE SUBSCRIPTION {name} CONNECTION '{}' PUBLICATION {name} WITH (create_slot = false, slot_name = '{name}')",
        world.url()
    );
    copy.db.execute_unprepared(&subscribe).await.unwrap();
    let game = played_session(&world).await;
    world.sparc.as_user(game.seer.uuid()).sessions().complete(game.session).await.unwrap();
    let old = format!("ended_at = now() - INTERVAL '1 year' WHERE id = '{}' --", game.session);
    world.set(&game, &old).await;
    assert_eq!(world.owner().value::<i32>("SELECT private.archive_sessions(10)").await, Ok(1));
    played_session(&world).await;
    let expected = lines(&world.db, ROWS).await;
    let mut there = Vec::new();
    for _ in 0..600 {
        there = lines(&copy.db, ROWS).await;
        if there == expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let clean = format!("DROP SUBSCRIPTION {name}");
    copy.db.execute_unprepared(&clean).await.unwrap();
    assert!(there == expected, "the copy differs");
    assert_eq!(broken_invariants(&copy).await, [""; 0]);
}
