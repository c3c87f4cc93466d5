//! What the program says if it cannot connect to a database.

use std::time::Duration;

use crate::{empty_database, expect_error};

#[tokio::test]
async fn a_missing_url_is_reported() {
    assert!(expect_error(&["up"], None).contains("--database-url"));
    assert!(expect_error(&["up"], Some("")).contains("DATABASE_URL"));
}

#[tokio::test]
async fn an_invalid_url_is_reported() {
    // `postgres://` alone is not in this list, because it is valid: each part of a URL has a default.
    for url in ["nonsense", "mysql://root:hunter2@localhost/db", "postgres://a:hunter2@host:port/db"] {
        assert!(expect_error(&["up"], Some(url)).contains("postgres://USER:PASSWORD@HOST:PORT/DATABASE"), "{url}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_running_is_reported_before_the_timeout() {
    // The listener is dropped at once, so nothing listens on this port.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let started = std::time::Instant::now();
    let message = expect_error(&["up"], Some(&format!("postgres://a:hunter2@127.0.0.1:{port}/db")));
    assert!(message.contains(&format!("No PostgreSQL server answers at 127.0.0.1:{port}")), "{message}");
    // A pool would retry until its timeout, `CONNECT_TIMEOUT`, which is ten seconds.
    assert!(started.elapsed() < Duration::from_secs(10), "the program must not keep retrying");
}

#[tokio::test]
async fn a_server_that_never_answers_is_reported() {
    // The kernel accepts connections to this port, but nothing answers on them.
    let silent_listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent_listener.local_addr().unwrap().port();
    let message = expect_error(&["up"], Some(&format!("postgres://a:hunter2@127.0.0.1:{port}/db")));
    assert!(message.contains(&format!("127.0.0.1:{port} did not answer within 10 seconds")), "{message}");
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_database_are_reported() {
    let (database, _db) = empty_database().await;
    let (credentials, address_and_database) = database.url().rsplit_once('@').unwrap();
    let (scheme, login) = credentials.split_once("://").unwrap();
    let user = login.split(':').next().unwrap();
    let message = expect_error(&["up"], Some(&format!("{scheme}://{user}:hunter2@{address_and_database}")));
    assert!(message.contains(&format!("does not accept the password of user \"{user}\"")), "{message}");
    let missing_database = format!("{}/no_such_database", database.url().rsplit_once('/').unwrap().0);
    assert!(expect_error(&["up"], Some(&missing_database)).contains("createdb no_such_database"));
}
