//! A full disk: writes are refused, reads still work, and once there is room, writes succeed again.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, process::Command};

use sea_orm::{ConnectionTrait, DbBackend, Statement};
use sparc::{
    migration::{Migrator, sea_orm_migration::MigratorTrait},
    service::{Operations, Sparc, events::NewEvent, users::NewAccount},
};
use testdb::Server;
use uuid::Uuid;

use super::assert_all_transactions_end;
use crate::{random_operations::broken_invariants, world::World};

/// A file system of 24 MiB, unmounted when the value is dropped. Only root can mount one.
struct SmallFileSystem {
    folder: PathBuf,
}

impl SmallFileSystem {
    /// In the temporary directory, mounts a file system that belongs to the owner of the server's data directory.
    /// Returns `None` if that is not possible.
    fn mount_with_owner_of(data_directory: &str) -> Option<Self> {
        let owner = fs::metadata(data_directory).ok()?.uid();
        let folder = std::env::temp_dir().join(format!("sparc-small-{}", Uuid::new_v4().simple()));
        fs::create_dir(&folder).unwrap();
        let is_mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size=24m,mode=700,uid={owner}"), "tmpfs"])
            .arg(&folder)
            .output()
            .is_ok_and(|output| output.status.success());
        if is_mounted {
            return Some(Self { folder });
        }
        fs::remove_dir(&folder).unwrap();
        None
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).output();
        let _ = fs::remove_dir(&self.folder);
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_and_the_service_recovers_once_there_is_room() {
    // A separate server is used, because a tablespace belongs to the whole server, and the tablespace of this test
    // disappears with its file system.
    let server = Server::start_plain(None).await.unwrap();
    let database = server.create_unmigrated().await.unwrap();
    let db = database.connect(4).await.unwrap();
    let pool = &db;
    let fetch_text = |sql: &'static str| async move {
        let row = pool.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap().unwrap();
        row.try_get_by_index::<String>(0).unwrap()
    };
    let database_name = fetch_text("SELECT current_database()::text").await;
    let Some(file_system) = SmallFileSystem::mount_with_owner_of(&fetch_text("SHOW data_directory").await) else {
        eprintln!("skipped: needs root, to mount a small file system");
        return;
    };
    db.execute_unprepared(&format!(
        "CREATE TABLESPACE small_{database_name} LOCATION '{}'",
        file_system.folder.display()
    ))
    .await
    .unwrap();
    // Connections that are opened after this statement create their tables on the small file system.
    db.execute_unprepared(&format!("ALTER DATABASE {database_name} SET default_tablespace = small_{database_name}"))
        .await
        .unwrap();
    db.close().await.unwrap();
    let db = database.connect(4).await.unwrap();
    Migrator::up(&db, None).await.unwrap();

    let world = World::from_database(database, db);
    let game = world.new_active_session(1).await;
    let sparc = Sparc::connect(world.url()).await.unwrap();
    let ada = sparc.as_user(game.players[0].user_id);
    // Fill the disk with a table that can be dropped to make room, until two thousand more rows do not fit. Fewer rows
    // may still fit.
    let create_ballast = "CREATE TABLE public.ballast AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 1000)";
    world.owner().execute(create_ballast).await.unwrap();
    while world.owner().execute("INSERT INTO public.ballast SELECT x FROM public.ballast LIMIT 2000").await.is_ok() {}

    // Send events with an incompressible payload until the disk is full.
    let mut refusal_code = "";
    for _ in 0..2000 {
        let incompressible: String = (0..200).map(|_| Uuid::new_v4().to_string()).collect();
        let payload = serde_json::json!({ "noise": incompressible });
        let event = NewEvent { session_id: game.session_id, kind: "noise".to_owned(), payload, ..Default::default() };
        if let Err(error) = ada.events().send(event).await {
            refusal_code = error.code();
            break;
        }
    }
    assert_eq!(refusal_code, "server_exhausted");
    assert_all_transactions_end(&world).await;
    assert_eq!(broken_invariants(&world).await, [""; 0]);
    assert_eq!(ada.characters().living().await.unwrap().len(), 1, "reads must still work");

    world.owner().execute("DROP TABLE public.ballast").await.unwrap();
    sparc.as_service().users().sign_up(NewAccount::default()).await.unwrap();
    let event = NewEvent { session_id: game.session_id, kind: "again".to_owned(), ..Default::default() };
    ada.events().send(event).await.unwrap();
    assert_eq!(broken_invariants(&world).await, [""; 0]);
    sparc.close().await.unwrap();
}
