//! Databases that earlier versions migrated become like new ones, and lose nothing.

use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};
use sparc::{
    migration::{Migrator, connect, sea_orm_migration::MigratorTrait},
    service::{Operations, Sparc, sessions::Expected},
};
use throwaway::Database;

use crate::{
    migrations::{catalog, empty, lines},
    world::server,
};

/// Dumps of databases that earlier versions migrated, with rows in them; each version that changes the schema adds one.
const EARLIER: [&str; 5] = [
    include_str!("upgrade/2026-11-23.sql"),
    include_str!("upgrade/2026-11-24.sql"),
    include_str!("upgrade/2026-11-25.sql"),
    include_str!("upgrade/2026-11-26.sql"),
    include_str!("upgrade/2026-11-26-noon.sql"),
];

/// A database as that version left it. Read on a connection of its own: a dump changes settings of the session.
async fn restored(dump: &str) -> (Database, DatabaseConnection) {
    let (database, db) = empty().await;
    let restoring = connect(database.url()).await.unwrap();
    restoring.execute_unprepared(dump).await.unwrap();
    restoring.close().await.unwrap();
    (database, db)
}

#[tokio::test]
async fn a_database_of_an_earlier_version_becomes_like_a_new_one_and_loses_nothing() {
    let fresh = server().await.migrated().await.unwrap();
    // A dump leaves unsaid what the owner alone may do.
    let unsaid = |line: String| match line.rsplit_once(" {postgres=") {
        Some((relation, owner)) if !owner.contains(',') => format!("{relation} "),
        _ => line,
    };
    let told = async |db: &DatabaseConnection| catalog(db).await.into_iter().map(unsaid).collect::<Vec<_>>();
    let fresh = told(&connect(fresh.url()).await.unwrap()).await;
    let rows = "SELECT relname || ' ' || (xpath('/row/c/text()', query_to_xml(format(
                  'SELECT count(*) AS c FROM public.%I', relname), false, true, '')))[1]
                FROM pg_class
                WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'seaql_migrations'
                ORDER BY relname";
    for dump in EARLIER {
        let (_database, db) = restored(dump).await;
        let before = lines(&db, rows).await;
        Migrator::up(&db, None).await.unwrap();
        let renewed = told(&db).await;
        let differing: Vec<_> = renewed.iter().filter(|line| !fresh.contains(line)).collect();
        let missing: Vec<_> = fresh.iter().filter(|line| !renewed.contains(line)).collect();
        assert!(differing.is_empty() && missing.is_empty(), "{differing:#?} instead of {missing:#?}");
        assert_eq!(lines(&db, rows).await, before);
        let live = "SELECT seer_id || ' ' || id FROM sessions WHERE status NOT IN ('completed', 'cancelled')";
        let live = lines(&db, live).await.pop().unwrap();
        let (seer, session) = live.split_once(' ').unwrap();
        let (sparc, session) = (Sparc::new(db), session.parse().unwrap());
        let seer = sparc.as_user(seer.parse().unwrap());
        let played =
            seer.sessions().set_game_state(session, serde_json::json!({ "torches": 2 }), Expected::Any).await.unwrap();
        assert_eq!(played.game_state_version, 1);
    }
}

#[tokio::test]
async fn a_later_migration_looks_at_no_account() {
    // Every table is closed meanwhile, and accounts may be millions.
    let database = server().await.migrated().await.unwrap();
    let db = connect(database.url()).await.unwrap();
    let without_profile = "INSERT INTO auth.users (id) VALUES (gen_random_uuid()); DELETE FROM public.users";
    db.execute_unprepared(without_profile).await.unwrap();
    Migrator::down(&db, Some(1)).await.unwrap();
    Migrator::up(&db, None).await.unwrap();
    assert_eq!(lines(&db, "SELECT count(*)::text FROM public.users").await, ["0"]);
}

#[tokio::test]
async fn rows_of_an_earlier_version_beyond_a_bound_harm_nobody() {
    server().await.migrated().await.unwrap(); // Roles are the cluster's.
    let (_database, db) = restored(EARLIER[0]).await;
    let beyond = "UPDATE users SET bio = repeat('x', 3000);
                  UPDATE sessions SET scheduled_start = 'infinity'";
    db.execute_unprepared(beyond).await.unwrap();
    Migrator::up(&db, None).await.unwrap();
    let kept = lines(&db, "SELECT char_length(bio)::text FROM users").await;
    assert_eq!(kept, ["3000", "3000"], "nothing is lost");
    let dates = lines(&db, "SELECT id::text FROM sessions WHERE scheduled_start IS NOT NULL").await;
    assert!(dates.is_empty(), "a date that stops its readers is none");
    let sparc = Sparc::new(db.clone());
    let seer = sparc.as_user("00000000-0000-4000-8000-000000000001".parse().unwrap());
    let completed = seer.sessions().complete("00000000-0000-4000-8000-000000000006".parse().unwrap()).await;
    assert!(completed.is_ok(), "a long biography keeps nobody's games from counting: {completed:?}");
    let held =
        lines(&db, "SELECT conname::text FROM pg_constraint WHERE conname IN ('bounded_bio', 'bounded_schedule')")
            .await;
    assert_eq!(held, ["bounded_schedule"], "what no row is beyond is held");
}

#[tokio::test]
async fn a_table_that_somebody_holds_is_not_waited_for_for_ever() {
    let (database, db) = restored(EARLIER[1]).await;
    let before = catalog(&db).await;
    let holder = connect(database.url()).await.unwrap();
    let holding = holder.begin().await.unwrap();
    holding.execute_unprepared("LOCK TABLE public.sessions IN ACCESS SHARE MODE").await.unwrap();
    let error = Migrator::up(&db, None).await.unwrap_err().to_string();
    assert!(error.contains("lock timeout"), "{error}");
    assert_eq!(catalog(&db).await, before);
    holding.commit().await.unwrap();
    Migrator::up(&db, None).await.unwrap();
}
