//! Copies of a migrated database: a restored dump, a standby, and a subscriber of logical replication.

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

/// Runs a query and returns the first column of each row.
async fn fetch_first_column(db: &DatabaseConnection, sql: &str) -> Vec<String> {
    let rows = db.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap();
    rows.into_iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

/// A query that returns, as one line of XML per table, all rows of `auth.users`, of `private.account_gates`, and of the
/// tables in schema `public` except `sparc_migrations`.
const SELECT_ALL_ROWS: &str = "
    SELECT oid::regclass || ' ' || replace(
      query_to_xml(format('SELECT * FROM %s ORDER BY 1, 2', oid::regclass), true, true, '')::text, E'\\n', '')
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'sparc_migrations'
      OR oid IN ('auth.users'::regclass, 'private.account_gates'::regclass)
    ORDER BY oid::regclass::text";

/// Creates an active public session with two players and one roll.
async fn new_public_session_with_roll(world: &World) -> GameSession {
    let game = world.new_active_session(2).await;
    world.update_session(&game, "is_public = true").await;
    let ada = world.sparc.as_user(game.players[0].user_id);
    let roller = Roller::Character(game.players[0].character_id);
    let roll = NewRoll::new(RollType::Attack, game.session_id, roller, Attribute::Wit, Difficulty::MAX);
    ada.dice().roll(roll).await.unwrap();
    game
}

/// Asserts that the program ran and succeeded, and returns its output.
fn assert_success(output: std::io::Result<Output>) -> Output {
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[tokio::test]
async fn a_database_restored_from_a_dump_equals_the_original_and_its_session_can_be_completed() {
    let world = World::new().await;
    let Some(pg_dump) = Binaries::find_or_fetch().unwrap().program("pg_dump") else {
        eprintln!("skipped: the server's installation has no pg_dump");
        return;
    };
    let game = new_public_session_with_roll(&world).await;
    let output = assert_success(Command::new(pg_dump).args(["--inserts", world.url()]).output());
    let dump = String::from_utf8(output.stdout).unwrap();
    // Lines that begin with a backslash are commands for psql. The server does not know them.
    let dump: String = dump.lines().filter(|line| !line.starts_with('\\')).map(|line| format!("{line}\n")).collect();
    let database = server().await.create_unmigrated().await.unwrap();
    // The dump is loaded over a connection of its own, because it changes settings such as `search_path`.
    let restore_connection = connect(database.url()).await.unwrap();
    restore_connection.execute_unprepared(&dump).await.unwrap();
    restore_connection.close().await.unwrap();
    // `from_database` needs a pool, so it gets the pool of the original database at first. `with_new_pool` then
    // replaces this pool with a pool to the restored database.
    let restored_world = World::from_database(database, world.pool.clone()).with_new_pool().await;

    assert_eq!(
        fetch_first_column(&restored_world.pool, SELECT_ALL_ROWS).await,
        fetch_first_column(&world.pool, SELECT_ALL_ROWS).await
    );
    let remove_sole_owner_privileges = |line: String| match line.rsplit_once(" {postgres=") {
        // If only the owner has privileges on an object, a dump grants none, so the restored catalog shows none.
        Some((object, privileges)) if !privileges.contains(',') => format!("{object} "),
        _ => line,
    };
    let fetch_catalog = async |db: &DatabaseConnection| {
        fetch_first_column(db, include_str!("catalog.sql"))
            .await
            .into_iter()
            .map(remove_sole_owner_privileges)
            .collect::<Vec<_>>()
    };
    let (restored_catalog, original_catalog) =
        (fetch_catalog(&restored_world.pool).await, fetch_catalog(&world.pool).await);
    let unexpected: Vec<_> = restored_catalog.iter().filter(|line| !original_catalog.contains(line)).collect();
    let missing: Vec<_> = original_catalog.iter().filter(|line| !restored_catalog.contains(line)).collect();
    assert!(unexpected.is_empty() && missing.is_empty(), "{unexpected:#?} in place of {missing:#?}");

    let seer = restored_world.sparc.as_user(game.seer.user_id());
    seer.sessions().complete(game.session_id).await.unwrap();
    let stranger = restored_world.sparc.as_user(restored_world.new_account().await);
    assert_eq!(stranger.sessions().pause(game.session_id).await.unwrap_err().code(), "not_a_seer");
    assert_eq!(broken_invariants(&restored_world).await, [""; 0]);
}

#[tokio::test]
async fn a_standby_answers_reads_with_the_rows_of_its_primary_and_refuses_writes() {
    // A separate server is used, because a standby copies and follows all databases of its primary, and the shared
    // server has those of all other tests.
    let server = Server::start_plain(None).await.unwrap();
    let world = World::new_on(&server).await;
    if Binaries::find_or_fetch().unwrap().program("pg_basebackup").is_none() {
        eprintln!("skipped: the server's installation has no pg_basebackup");
        return;
    }
    let game = new_public_session_with_roll(&world).await;
    let standby = crate::standby::start_standby_of(&server).await;
    let url = world.on_standby(&standby).await.url().to_owned();
    let sparc = Sparc::connect(&url).await.unwrap();
    // `game` is part of the copy with which the standby started. Later changes are streamed to the standby.
    let later_game = new_public_session_with_roll(&world).await;
    let stranger_id = world.new_account().await;
    let primary_position: String = world.owner().fetch_value("SELECT pg_current_wal_insert_lsn()::text").await.unwrap();
    let standby_db = connect(&url).await.unwrap();
    for _ in 0..600 {
        let select_has_caught_up = format!("SELECT (pg_last_wal_replay_lsn() >= '{primary_position}')::text");
        if fetch_first_column(&standby_db, &select_has_caught_up).await == ["true"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        fetch_first_column(&standby_db, SELECT_ALL_ROWS).await
            == fetch_first_column(&world.pool, SELECT_ALL_ROWS).await,
        "the rows must be equal"
    );
    let select_catalog = include_str!("catalog.sql");
    assert!(
        fetch_first_column(&standby_db, select_catalog).await == fetch_first_column(&world.pool, select_catalog).await,
        "the catalogs must be equal"
    );
    for game in [&game, &later_game] {
        let ada = sparc.as_user(game.players[0].user_id);
        let scope = RollScope::Session(game.session_id);
        assert_eq!(ada.dice().history(scope, &HistoryFilter::default(), None).await.unwrap().items.len(), 1);
        assert_eq!(ada.sessions().details(game.session_id).await.unwrap().players.len(), 2);
        let page_for_stranger =
            sparc.as_user(stranger_id).dice().history(scope, &HistoryFilter::default(), None).await.unwrap();
        assert!(page_for_stranger.items.is_empty(), "row security must apply on a standby too");
        assert!(sparc.as_anon().sessions().lobby(&LobbyFilter::default(), None).await.is_ok());
        assert_eq!(ada.characters().retire(game.players[0].character_id).await.unwrap_err().code(), "read_only");
        let error = ada.events().subscribe(game.session_id, None).await.unwrap_err();
        assert_eq!(error.code(), "read_only", "a standby can lag behind, so it must refuse a subscription");
    }
    sparc.close().await.unwrap();
    standby_db.close().await.unwrap();
}

#[tokio::test]
async fn a_subscriber_of_logical_replication_gets_every_row_once() {
    let (world, copy) = (World::new().await, World::new().await);
    // The publication, the replication slot and the subscription all have this name.
    let name = format!("copy_{}", Uuid::new_v4().simple());
    let tables = "auth.users, public.users, public.characters, public.adventures, public.creatures, public.sessions,
                  public.session_players, public.dice_rolls, public.session_events, public.tutorial_progress,
                  public.archived_sessions, public.archived_session_players, public.archived_dice_rolls,
                  private.account_gates";
    world.pool.execute_unprepared(&format!("CREATE PUBLICATION {name} FOR TABLE {tables}")).await.unwrap();
    // Publisher and subscriber are databases of one server, so the replication slot must be created first. If CREATE
    // SUBSCRIPTION created the slot, the command would wait for all running transactions, including its own.
    let create_slot = format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')::text");
    fetch_first_column(&world.pool, &create_slot).await;
    let subscribe = format!(
        "CREATE SUBSCRIPTION {name} CONNECTION '{}' PUBLICATION {name} WITH (create_slot = false, slot_name = '{name}')",
        world.url()
    );
    copy.pool.execute_unprepared(&subscribe).await.unwrap();
    let game = new_public_session_with_roll(&world).await;
    world.sparc.as_user(game.seer.user_id()).sessions().complete(game.session_id).await.unwrap();
    world.update_session(&game, "ended_at = now() - INTERVAL '1 year'").await;
    assert_eq!(world.owner().fetch_value::<i32>("SELECT private.archive_sessions(10)").await, Ok(1));
    new_public_session_with_roll(&world).await;
    let expected_rows = fetch_first_column(&world.pool, SELECT_ALL_ROWS).await;
    let mut copied_rows = Vec::new();
    for _ in 0..600 {
        copied_rows = fetch_first_column(&copy.pool, SELECT_ALL_ROWS).await;
        if copied_rows == expected_rows {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let unsubscribe = format!("DROP SUBSCRIPTION {name}");
    copy.pool.execute_unprepared(&unsubscribe).await.unwrap();
    assert!(copied_rows == expected_rows, "the copy must equal the original");
    assert_eq!(broken_invariants(&copy).await, [""; 0]);
}
