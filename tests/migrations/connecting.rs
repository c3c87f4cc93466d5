//! Errors when connecting. The message explains why the connection failed, and is the same whether
//! `migration::connect` or the crate `service` was connecting. The crate `service` also reports a missing or outdated
//! schema, and a pooler that does not track prepared statements.

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use sea_orm::ConnectionTrait;
use sparc::{
    migration::{self, connect, sea_orm_migration::MigratorTrait},
    service::{Error, Operations, Options, Sparc},
};
use testdb::Server;

use super::{Migrator, create_unmigrated_database, url_with_login};
use crate::pooler::start_pooler_with_connections;
use crate::sqlstates::{ADMIN_SHUTDOWN, INTERNAL_ERROR, TOO_MANY_CONNECTIONS};

// SQLSTATEs with which servers and poolers refuse a connection, by PostgreSQL's names for them.
const PROTOCOL_VIOLATION: &str = "08P01";
const INVALID_AUTHORIZATION_SPECIFICATION: &str = "28000";
const CANNOT_CONNECT_NOW: &str = "57P03";
const UNDEFINED_FILE: &str = "58P01";

/// Connects with `migration::connect` and with `Sparc::connect`, asserts that both fail with the same message, which
/// must be one line without the password, and returns that message.
async fn connect_error_message(url: &str) -> String {
    let migration_message = connect(url).await.map(|_| ()).unwrap_err().to_string();
    let error = Sparc::connect(url).await.unwrap_err();
    assert_eq!(error.code(), "connect_failed", "{url}: {error:?}");
    assert_eq!(error.to_string(), migration_message, "{url}");
    assert!(
        migration_message.ends_with('.') && !migration_message.contains('\n'),
        "must be one line that ends with a period: {migration_message}"
    );
    assert!(!format!("{error} {error:?}").contains("hunter2"), "must not contain the password: {error:?}");
    migration_message
}

/// A server's answer to a request for TLS if it supports TLS.
const ACCEPTS_TLS: &[u8] = b"S";
/// A server's answer to a request for TLS if it does not support TLS.
const DECLINES_TLS: &[u8] = b"N";

/// Starts a listener that answers the first message of every client with `answer` and closes the connection. Returns
/// the URL.
fn start_listener(answer: Vec<u8>) -> String {
    start_listener_with_answer_to_tls_request(None, answer)
}

/// Does the same as [`start_listener`], but if there is an answer to a client's request for TLS, the listener first
/// gives that answer, and then answers the next message.
fn start_listener_with_answer_to_tls_request(answer_to_tls_request: Option<&'static [u8]>, answer: Vec<u8>) -> String {
    /// PostgreSQL's message SSLRequest, with which a client asks for TLS.
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let mut buffer = [0; 1024];
            let length = stream.read(&mut buffer).unwrap_or_default();
            if let Some(answer_to_tls_request) = answer_to_tls_request
                && buffer[..length] == SSL_REQUEST
            {
                let _ = stream.write_all(answer_to_tls_request);
                let _ = stream.read(&mut buffer);
            }
            let _ = stream.write_all(&answer);
        }
    });
    format!("postgres://ada:hunter2@127.0.0.1:{port}/game")
}

/// Returns a message of PostgreSQL's protocol.
fn protocol_message(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 4).unwrap();
    [&[kind], &length.to_be_bytes()[..], content].concat()
}

/// Returns an ErrorResponse of PostgreSQL's protocol: the severity twice, the SQLSTATE and the message.
fn error_response(sqlstate: &str, message: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    for (kind, text) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', sqlstate), (b'M', message)] {
        fields.push(kind);
        fields.extend(text.bytes());
        fields.push(0);
    }
    fields.push(0);
    protocol_message(b'E', &fields)
}

#[tokio::test]
async fn a_wrong_url_or_an_address_without_a_postgresql_server_is_reported() {
    let unused_address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, expected) in [
        (
            // No DNS server is asked for a name with an empty label.
            "postgres://ada:hunter2@no-such..host/game".to_owned(),
            "\"no-such..host\" of the database URL is unknown",
        ),
        (format!("postgres://ada:hunter2@{unused_address}/game"), "No PostgreSQL server answers at 127.0.0.1:"),
        (
            start_listener(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec()),
            "is not a PostgreSQL server",
        ),
        (start_listener(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec()), "is not a PostgreSQL server"),
        // The greeting of a MySQL server.
        (start_listener(b"J\0\0\0\n8.0.36\0".to_vec()), "is not a PostgreSQL server"),
        (format!("{}?sslmode=disable", start_listener(b"J\0\0\0\n8.0.36\0".to_vec())), "is not a PostgreSQL server"),
        (start_listener(Vec::new()), "closed the connection without an answer"),
        (
            format!("{}?sslmode=require", start_listener(error_response(TOO_MANY_CONNECTIONS, "too many clients"))),
            "answers the request for TLS with an error",
        ),
        ("postgres://ada:hunter2@[/game".to_owned(), "does not parse"),
        ("mysql://ada:hunter2@localhost/game".to_owned(), "does not parse"),
        ("postgres://ada:hunter2@localhost/game?sslmode=sometimes".to_owned(), "sslmode must be"),
        ("postgres://ada:hunter2@localhost/game?sslrootcert=/no/such/file".to_owned(), "sslrootcert must name"),
        (
            "postgres://ada:hunter2@localhost/game?sslcert=/no/such/file&sslkey=/no/such/file".to_owned(),
            "sslcert and sslkey must name",
        ),
        (
            "postgres://ada:hunter2@%2Fno%2Fsuch%2Ffolder:5433/game".to_owned(),
            "No PostgreSQL server answers at /no/such/folder/.s.PGSQL.5433:",
        ),
    ] {
        let message = connect_error_message(&url).await;
        assert!(message.contains(expected), "{url}: {message}");
    }
}

#[tokio::test]
async fn a_refusal_by_a_server_or_pooler_is_explained() {
    for (sqlstate, server_message, expected) in [
        (CANNOT_CONNECT_NOW, "the database system is starting up", "wait until it runs"),
        (CANNOT_CONNECT_NOW, "the database system is in recovery mode", "wait until it runs"),
        (ADMIN_SHUTDOWN, "terminating connection due to administrator command", "wait until it runs"),
        (TOO_MANY_CONNECTIONS, "sorry, too many clients already", "raise the limit"),
        (PROTOCOL_VIOLATION, "no more connections allowed (max_client_conn)", "raise the limit"),
        (PROTOCOL_VIOLATION, "client connections exceeded (max_user_client_connections)", "raise the limit"),
        // Two versions of Supavisor, in each of its modes.
        (INTERNAL_ERROR, "MaxClientsInSessionMode: max clients reached", "raise the limit"),
        (INTERNAL_ERROR, "(EMAXCONNSESSION) max clients reached in session mode", "raise the limit"),
        (INTERNAL_ERROR, "Max client connections reached", "raise the limit"),
        (INTERNAL_ERROR, "(EMAXCONN) max client connections reached, limit: 200", "raise the limit"),
        (INTERNAL_ERROR, "Tenant or user not found", "ROLE.PROJECT"),
        (PROTOCOL_VIOLATION, "no such database: game", "createdb game"),
        (PROTOCOL_VIOLATION, "SASL authentication failed", "does not accept the password"),
        (
            INVALID_AUTHORIZATION_SPECIFICATION,
            "no pg_hba.conf entry for host \"10.0.0.1\", user \"ada\", database \"game\", no encryption",
            "add an entry",
        ),
        (INVALID_AUTHORIZATION_SPECIFICATION, "role \"ada\" does not exist", "has no role \"ada\""),
        // A refusal for which there is no explanation is reported in the server's words.
        (
            INVALID_AUTHORIZATION_SPECIFICATION,
            "certificate authentication failed for user \"ada\"",
            "certificate authentication failed",
        ),
        (UNDEFINED_FILE, "could not open file", "could not open file"),
    ] {
        let answer = error_response(sqlstate, server_message);
        let url = start_listener_with_answer_to_tls_request(Some(DECLINES_TLS), answer);
        let message = connect_error_message(&url).await;
        assert!(message.contains(expected), "{sqlstate} {server_message}: {message}");
    }
}

#[tokio::test]
async fn an_authentication_method_that_the_driver_lacks_is_reported() {
    /// PostgreSQL's messages AuthenticationGSS and AuthenticationSASL have these numbers.
    const GSS: [u8; 4] = [0, 0, 0, 7];
    const SASL: [u8; 4] = [0, 0, 0, 10];
    for content in [GSS.to_vec(), [&SASL[..], b"OAUTHBEARER\0\0"].concat()] {
        let url = start_listener_with_answer_to_tls_request(Some(DECLINES_TLS), protocol_message(b'R', &content));
        let message = connect_error_message(&url).await;
        assert!(message.contains("choose scram-sha-256"), "{content:?}: {message}");
    }
}

#[tokio::test]
async fn a_server_whose_tls_is_too_old_is_reported() {
    /// The beginning of a TLS record with a ServerHello: the record's type, version and length, the message's type and
    /// length, and TLS 1.1 as the version that the server has chosen.
    const BEGINNING: [u8; 11] = [0x16, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2];
    /// No session id, a cipher, and no compression.
    const END: [u8; 4] = [0, 0xc0, 0x13, 0];
    let server_hello = [&BEGINNING[..], &[7; 32], &END].concat();
    let url = start_listener_with_answer_to_tls_request(Some(ACCEPTS_TLS), server_hello);
    for mode in ["prefer", "require", "verify-full"] {
        let message = connect_error_message(&format!("{url}?sslmode={mode}")).await;
        assert!(message.contains("allow TLS 1.2 or newer at the server") && message.contains(mode), "{message}");
    }
}

#[tokio::test]
async fn a_refusal_by_a_real_server_is_explained() {
    let server = Server::start_plain(None).await.unwrap();
    let database = server.create_unmigrated().await.unwrap();
    let db = connect(database.url()).await.unwrap();
    let (server_url, database_name) = database.url().rsplit_once('/').unwrap();
    db.execute_unprepared(&format!(
        "CREATE ROLE without_login NOLOGIN PASSWORD 'hunter2';
         CREATE ROLE crowded LOGIN PASSWORD 'hunter2' CONNECTION LIMIT 0;
         CREATE ROLE without_connect LOGIN PASSWORD 'hunter2';
         REVOKE CONNECT ON DATABASE \"{database_name}\" FROM PUBLIC"
    ))
    .await
    .unwrap();
    // This is how PostgreSQL marks a database that it is about to drop.
    db.execute_unprepared("CREATE DATABASE half_dropped").await.unwrap();
    db.execute_unprepared("UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half_dropped'").await.unwrap();
    for (url, expected) in [
        (url_with_login(database.url(), "postgres", "hunter2"), "does not accept the password of user \"postgres\""),
        (url_with_login(database.url(), "nobody", "hunter2"), "does not accept the password of user \"nobody\""),
        (format!("{server_url}/no_such_database"), "createdb no_such_database"),
        (format!("{server_url}/template0"), "ALTER DATABASE \"template0\" WITH ALLOW_CONNECTIONS true"),
        (format!("{server_url}/half_dropped"), "run DROP DATABASE \"half_dropped\" again"),
        (url_with_login(database.url(), "without_login", "hunter2"), "ALTER ROLE \"without_login\" LOGIN"),
        (url_with_login(database.url(), "without_connect", "hunter2"), "GRANT CONNECT ON DATABASE"),
        // This user connects to the database `postgres`, because PUBLIC may no longer connect to `database_name`.
        (url_with_login(&format!("{server_url}/postgres"), "crowded", "hunter2"), "too many connections for role"),
        (format!("{}?sslmode=require", database.url()), "does not support TLS"),
    ] {
        let message = connect_error_message(&url).await;
        assert!(message.contains(expected), "{url}: {message}");
    }
}

#[tokio::test]
async fn a_missing_or_outdated_schema_is_reported() {
    let (database, db) = create_unmigrated_database().await;
    let error_if_missing = Sparc::connect(database.url()).await.unwrap_err();
    assert!(matches!(error_if_missing, Error::SchemaMissing), "{error_if_missing:?}");
    assert!(error_if_missing.to_string().contains("cargo run -p migration -- up"), "{error_if_missing}");

    Migrator::up(&db, Some(1)).await.unwrap();
    let error_if_unfinished = Sparc::connect(database.url()).await.unwrap_err();
    assert!(
        matches!(&error_if_unfinished, Error::SchemaOutdated { found, .. } if found == "unfinished"),
        "{error_if_unfinished:?}"
    );
    Migrator::up(&db, None).await.unwrap();
    Sparc::connect(database.url()).await.unwrap().close().await.unwrap();

    db.execute_unprepared("COMMENT ON TABLE sparc_migrations IS 'Applied migrations of the SPARC schema 0.16'")
        .await
        .unwrap();
    let error_if_older = Sparc::connect(database.url()).await.unwrap_err();
    assert_eq!(error_if_older.code(), "schema_outdated");
    assert!(
        error_if_older.to_string().contains("0.16") && error_if_older.to_string().contains("needs version 0.17"),
        "{error_if_older}"
    );
    // A newer schema is accepted.
    db.execute_unprepared("COMMENT ON TABLE sparc_migrations IS 'Applied migrations of the SPARC schema 9.0'")
        .await
        .unwrap();
    Sparc::connect(database.url()).await.unwrap().close().await.unwrap();

    // `up` restores the comment.
    Migrator::up(&db, None).await.unwrap();
    Migrator::down(&db, Some(1)).await.unwrap();
    assert_eq!(Sparc::connect(database.url()).await.unwrap_err().code(), "schema_outdated", "partly undone");
    Migrator::reset(&db).await.unwrap();
    assert_eq!(Sparc::connect(database.url()).await.unwrap_err().code(), "schema_missing");
}

#[tokio::test]
async fn colliding_prepared_statements_behind_a_pooler_are_explained() {
    let (database, db) = create_unmigrated_database().await;
    Migrator::up(&db, None).await.unwrap();
    let Some(pooler) = start_pooler_with_connections(database.url(), 1).await else {
        eprintln!("skipped: this machine has no pgbouncer");
        return;
    };
    // On the pooler's only server connection, another client prepares statements with the names that the driver uses.
    let other_client = migration::connect(&pooler.url).await.unwrap();
    for number in 1..=40 {
        other_client.execute_unprepared(&format!("PREPARE sqlx_s_{number} AS SELECT {number}")).await.unwrap();
    }
    let sparc = Sparc::connect_with(&pooler.url, Options::default().max_connections(1)).await.unwrap();
    let error = sparc.as_anon().users().profile(uuid::Uuid::new_v4()).await.unwrap_err();
    assert!(matches!(&error, Error::Misconfigured { .. }), "{error:?}");
    assert!(error.to_string().contains("without_prepared_statement_cache"), "{error}");
    sparc.close().await.unwrap();
    let sparc = Sparc::connect_with(&pooler.url, Options::default().without_prepared_statement_cache()).await.unwrap();
    assert_eq!(sparc.as_anon().users().profile(uuid::Uuid::new_v4()).await.unwrap_err().code(), "not_found");
    sparc.close().await.unwrap();
    other_client.close().await.unwrap();
}
