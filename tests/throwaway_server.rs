//! The database that starts itself: ready soon, and gone without a trace.

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DbBackend, Statement};
use throwaway::Server;

async fn folder(server: &Server) -> String {
    let database = server.empty().await.unwrap();
    let db = database.connect(1).await.unwrap();
    let row = db.query_one_raw(Statement::from_string(DbBackend::Postgres, "SHOW data_directory")).await.unwrap();
    db.close().await.unwrap();
    row.unwrap().try_get_by_index(0).unwrap()
}

#[tokio::test]
async fn nothing_is_left_of_a_server_when_its_last_handle_is_dropped() {
    let server = Server::start_private(None).await.unwrap();
    let folder = folder(&server).await;
    assert!(std::path::Path::new(&folder).exists());
    let url = server.url().to_owned();
    drop(server);
    assert!(!std::path::Path::new(&folder).exists(), "the folder is gone");
    let address = url.rsplit_once('@').and_then(|(_, tail)| tail.split_once('/')).unwrap().0;
    assert!(std::net::TcpStream::connect(address).is_err(), "and nobody answers");
}

#[tokio::test]
async fn nothing_is_left_after_a_panic() {
    let (told, hear) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::start_private(None).await.unwrap();
            told.send(folder(&server).await).unwrap();
            std::panic::resume_unwind(Box::new("a test failed"));
        });
    })
    .join();
    assert!(panicked.is_err());
    assert!(!std::path::Path::new(&hear.recv().unwrap()).exists());
}

#[tokio::test]
async fn a_database_of_a_server_is_a_copy_with_the_whole_schema() {
    let server = crate::world::server().await;
    let begun = Instant::now();
    let database = server.migrated().await.unwrap();
    // Not a measurement: only that nothing waits.
    assert!(begun.elapsed() < Duration::from_secs(30));
    let db = database.connect(1).await.unwrap();
    let count = Statement::from_string(DbBackend::Postgres, "SELECT count(*) FROM seaql_migrations");
    assert_eq!(db.query_one_raw(count).await.unwrap().unwrap().try_get_by_index::<i64>(0).unwrap(), 6);
}
