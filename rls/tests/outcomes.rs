//! What a caller learns when a pooler answers in PostgreSQL's place, or when a call is dropped; and what holds for a
//! pool that the application created itself. (`silent_servers.rs` tests servers that do not answer at all.)

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::TryStreamExt;
use rls::{Database, Error, Identity, IdentityConnection, Options};
use sea_orm::{AccessMode, ConnectOptions, ConnectionTrait, StreamTrait, TransactionTrait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::watch,
    time::timeout,
};

use crate::{outcome_code, proxies::listen_in_front_of, statement};

pub const INSERT_NOTE: &str = "INSERT INTO notes (text) VALUES ('hello')";

/// Creates a database with the table `notes`.
pub async fn create_database() -> testdb::Database {
    let database = testdb::Server::open().await.unwrap().create_unmigrated().await.unwrap();
    database.connect(1).await.unwrap().execute_unprepared("CREATE TABLE notes (text text NOT NULL)").await.unwrap();
    database
}

/// Connects as the database's owner, with a pool of one connection.
async fn connect(url: &str) -> IdentityConnection {
    let mut options = Options::default();
    options.max_connections = 1;
    as_owner(&Database::connect(url, &options).await.unwrap())
}

/// Returns a connection for the identity of the database's owner, who may do everything.
pub fn as_owner(handle: &Database) -> IdentityConnection {
    handle.as_identity(Identity::new("postgres"))
}

async fn count_notes(database: &testdb::Database) -> i64 {
    let select_count = statement("SELECT count(*) FROM notes");
    let row = database.connect(1).await.unwrap().query_one_raw(select_count).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}

/// What an armed [`Pooler`] does with the message that asks the server to execute a statement with the pooler's word.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The server gets the message, but instead of the server's answer the client gets an error with this SQLSTATE.
    Error(&'static str),
    /// The message is dropped, and so is everything that the client sends after it.
    Silence,
    /// The server gets the message, and then both connections are closed without an answer.
    Cut,
}

/// A stand-in for a pooler between client and server, with a word and a fault. Once armed, it causes the fault when the
/// client asks the server to execute the next statement that contains the word. After that, it is no longer armed.
struct Pooler {
    url: String,
    is_armed: Arc<AtomicBool>,
}

impl Pooler {
    async fn start(database: &testdb::Database, word: &'static str, fault: Fault) -> Self {
        let (listener, url, server_address) = listen_in_front_of(database).await;
        let is_armed = Arc::new(AtomicBool::new(false));
        let is_armed_in_task = is_armed.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = tokio::net::TcpStream::connect(&server_address).await.unwrap();
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                let (fault_sender, fault_receiver) = watch::channel(false);
                let (trigger, is_armed) = (FaultTrigger { word, fault }, is_armed_in_task.clone());
                tokio::spawn(forward_to_server((from_client, to_server), trigger, is_armed, fault_sender));
                tokio::spawn(forward_to_client((from_server, to_client), fault, fault_receiver));
            }
        });
        Self { url, is_armed }
    }

    fn arm(&self) {
        self.is_armed.store(true, Ordering::SeqCst);
    }
}

/// The word that causes the fault of a [`Pooler`], and the fault.
struct FaultTrigger {
    word: &'static str,
    fault: Fault,
}

/// Forwards what the client sends. At the trigger's word, if the pooler is armed, tells `forward_to_client` of the
/// fault.
async fn forward_to_server(
    (mut from_client, mut to_server): (OwnedReadHalf, OwnedWriteHalf),
    FaultTrigger { word, fault }: FaultTrigger,
    is_armed: Arc<AtomicBool>,
    fault_sender: watch::Sender<bool>,
) {
    let mut message = vec![0; 8192];
    let mut was_prepared = false;
    while let Ok(length @ 1..) = from_client.read(&mut message).await {
        let has_word = message[..length].windows(word.len()).any(|part| part == word.as_bytes());
        let is_triggered = has_word && is_armed.swap(false, Ordering::SeqCst);
        // One message (Query) contains the text of several statements and asks the server to execute them. For a single
        // statement, the client first sends the text (Parse); the request to execute it follows once the server has
        // answered.
        let is_query = message[0] == b'Q';
        let is_execution = was_prepared || is_triggered && is_query;
        was_prepared = is_triggered && !is_query;
        if is_execution {
            fault_sender.send(true).unwrap();
            if matches!(fault, Fault::Silence) {
                return std::future::pending().await;
            }
        }
        if to_server.write_all(&message[..length]).await.is_err() {
            return;
        }
    }
}

/// Forwards what the server sends, until there is a fault.
async fn forward_to_client(
    (mut from_server, mut to_client): (OwnedReadHalf, OwnedWriteHalf),
    fault: Fault,
    mut fault_receiver: watch::Receiver<bool>,
) {
    let mut message = vec![0; 8192];
    while let Ok(length @ 1..) = from_server.read(&mut message).await {
        if *fault_receiver.borrow_and_update() {
            match fault {
                Fault::Error(sqlstate) => to_client.write_all(&error_response(sqlstate)).await.unwrap(),
                Fault::Silence | Fault::Cut => return,
            }
            return std::future::pending().await;
        }
        if to_client.write_all(&message[..length]).await.is_err() {
            return;
        }
    }
}

/// Returns an ErrorResponse and a ReadyForQuery as a pooler sends them. PostgreSQL's ErrorResponse would also name the
/// routine that raised the error.
fn error_response(sqlstate: &str) -> Vec<u8> {
    // The fields: severity, severity that is not translated, SQLSTATE, message.
    let fields = format!("SERROR\0VERROR\0C{sqlstate}\0Mserver connection closed\0\0");
    // Each message is its type, its length and its content.
    let mut response = vec![b'E'];
    response.extend(u32::try_from(fields.len() + 4).unwrap().to_be_bytes());
    response.extend(fields.as_bytes());
    // ReadyForQuery, outside a transaction.
    response.extend(b"Z\0\0\0\x05I");
    response
}

const CONNECTION_FAILURE: &str = "08006";
const PROTOCOL_VIOLATION: &str = "08P01";
const ADMIN_SHUTDOWN: &str = "57P01";
const SYSTEM_ERROR: &str = "58000";
const INTERNAL_ERROR: &str = "XX000";

#[tokio::test]
async fn a_pooler_error_in_reply_to_a_commit_leaves_the_outcome_unknown() {
    // Each pooler has its own SQLSTATE for a lost server.
    for sqlstate in [CONNECTION_FAILURE, PROTOCOL_VIOLATION, ADMIN_SHUTDOWN, SYSTEM_ERROR, INTERNAL_ERROR] {
        let database = create_database().await;
        let pooler = Pooler::start(&database, "COMMIT", Fault::Error(sqlstate)).await;
        let owner = connect(&pooler.url).await;
        let tx = owner.begin().await.unwrap();
        tx.execute_unprepared(INSERT_NOTE).await.unwrap();
        pooler.arm();
        assert_eq!(outcome_code(tx.commit().await), "commit_unknown", "{sqlstate}");
        assert_eq!(count_notes(&database).await, 1, "{sqlstate}: the server has committed");
        // A single statement is not sent a second time either.
        pooler.arm();
        assert_eq!(outcome_code(owner.execute_unprepared(INSERT_NOTE).await), "commit_unknown", "{sqlstate}");
        assert_eq!(count_notes(&database).await, 2, "{sqlstate}");
        assert_eq!(
            outcome_code(owner.execute_unprepared(INSERT_NOTE).await),
            "done",
            "{sqlstate}: the connection is replaced"
        );
    }
}

#[tokio::test]
async fn a_raw_commit_without_an_answer_leaves_its_outcome_unknown() {
    for fault in [Fault::Silence, Fault::Cut, Fault::Error(CONNECTION_FAILURE), Fault::Error(SYSTEM_ERROR)] {
        // END is another word for COMMIT.
        for commit in ["COMMIT", "/* now */ end"] {
            let database = create_database().await;
            let last_word = commit.rsplit(' ').next().unwrap();
            let pooler = Pooler::start(&database, last_word, fault).await;
            let owner = connect(&pooler.url).await.with_deadline(Duration::from_secs(2));
            let tx = owner.begin().await.unwrap();
            tx.execute_unprepared(INSERT_NOTE).await.unwrap();
            pooler.arm();
            assert_eq!(outcome_code(tx.execute_unprepared(commit).await), "commit_unknown", "{fault:?} {commit}");
            drop(tx);
            // The server has committed, unless it did not get the COMMIT.
            let committed_count = i64::from(!matches!(fault, Fault::Silence));
            assert_eq!(count_notes(&database).await, committed_count, "{fault:?} {commit}");
            assert_eq!(
                outcome_code(owner.execute_unprepared(INSERT_NOTE).await),
                "done",
                "{fault:?}: the connection is replaced"
            );
            let tx = owner.begin().await.unwrap();
            tx.execute_unprepared(INSERT_NOTE).await.unwrap();
            pooler.arm();
            let stream_commit = async {
                let rows = tx.stream_raw(statement(commit)).await?;
                rows.try_collect::<Vec<_>>().await
            };
            assert_eq!(outcome_code(stream_commit.await), "commit_unknown", "{fault:?} {commit}, streamed");
            assert_eq!(count_notes(&database).await, 2 * committed_count + 1, "{fault:?} {commit}, streamed");
        }
    }
}

#[tokio::test]
async fn a_pooler_error_in_reply_to_a_statement_counts_as_a_lost_connection() {
    let database = create_database().await;
    let pooler = Pooler::start(&database, "hello", Fault::Error(CONNECTION_FAILURE)).await;
    let owner = connect(&pooler.url).await;
    let tx = owner.begin().await.unwrap();
    pooler.arm();
    assert_eq!(outcome_code(tx.execute_unprepared(INSERT_NOTE).await), "connection_lost");
    drop(tx);
    pooler.arm();
    assert_eq!(outcome_code(owner.execute_unprepared(INSERT_NOTE).await), "done");
    assert_eq!(count_notes(&database).await, 1);
}

#[tokio::test]
async fn only_the_commit_of_a_transaction_that_may_write_has_an_unknown_outcome() {
    for (fault, read_only_outcome) in [
        (Fault::Silence, "deadline_exceeded"),
        (Fault::Cut, "connection_lost"),
        (Fault::Error(CONNECTION_FAILURE), "connection_lost"),
        (Fault::Error(SYSTEM_ERROR), "connection_lost"),
    ] {
        let database = create_database().await;
        let pooler = Pooler::start(&database, "COMMIT", fault).await;
        let owner = connect(&pooler.url).await.with_deadline(Duration::from_secs(2));
        // Without `READ ONLY`, a transaction could have written, although this one only reads.
        for (mode, expected) in [(Some(AccessMode::ReadOnly), read_only_outcome), (None, "commit_unknown")] {
            let tx = owner.begin_with_config(None, mode).await.unwrap();
            tx.execute_unprepared("SELECT text FROM notes").await.unwrap();
            pooler.arm();
            assert_eq!(outcome_code(tx.commit().await), expected, "{fault:?} {mode:?}");
        }
    }
}

#[tokio::test]
async fn a_class_08_error_that_postgresql_itself_raises_is_not_a_lost_connection() {
    let database = create_database().await;
    let owner = connect(database.url()).await;
    // connection_exception, sqlclient_unable_to_establish_sqlconnection, connection_failure: `dblink` and foreign
    // tables report with these that the other server cannot be reached.
    for sqlstate in ["08000", "08001", CONNECTION_FAILURE] {
        let raise = format!("DO $$ BEGIN RAISE 'my own' USING ERRCODE = '{sqlstate}'; END $$");
        let error = owner.execute_unprepared(&raise).await.unwrap_err();
        assert!(error.to_string().contains("my own"), "{sqlstate}: {error}");
        assert_eq!(Error::from(error).code(), "database", "{sqlstate}");
        // The same error, raised at the commit by a deferred trigger, refuses the commit.
        let create_trigger = format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE 'my own' USING ERRCODE = '{sqlstate}'; END $$;
             CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION refuse()"
        );
        let setup_connection = database.connect(1).await.unwrap();
        setup_connection.execute_unprepared(&create_trigger).await.unwrap();
        let tx = owner.begin().await.unwrap();
        tx.execute_unprepared(INSERT_NOTE).await.unwrap();
        assert_eq!(outcome_code(tx.commit().await), "database", "{sqlstate}");
        assert_eq!(outcome_code(owner.execute_unprepared(INSERT_NOTE).await), "database", "{sqlstate}");
        setup_connection.execute_unprepared("DROP FUNCTION refuse CASCADE").await.unwrap();
        assert_eq!(count_notes(&database).await, 0, "{sqlstate}");
    }
}

#[tokio::test]
async fn a_handle_over_the_applications_pool_has_the_default_deadline_unless_another_is_set() {
    let database = create_database().await;
    let handle = Database::from_connection(database.connect(1).await.unwrap());
    assert_eq!(as_owner(&handle).deadline(), Options::default().deadline);
    assert_eq!(as_owner(&handle.with_deadline(None)).deadline(), None);
}

#[tokio::test]
async fn without_a_deadline_a_dropped_statement_is_awaited_however_long_it_takes() {
    let database = create_database().await;
    let handle = Database::connect(database.url(), &Options::default()).await.unwrap().with_deadline(None);
    let tx = as_owner(&handle).begin().await.unwrap();
    // Longer than `ROLLBACK_TIMEOUT` (5 seconds), which is the minimum timeout for reading the response to a dropped
    // call if there is a deadline.
    let long_call = tx.execute_unprepared("SELECT pg_sleep(7)");
    assert!(timeout(Duration::from_millis(500), long_call).await.is_err());
    assert_eq!(outcome_code(tx.execute_unprepared(INSERT_NOTE).await), "transaction_failed");
}

#[test]
fn transactions_on_the_applications_pool_can_be_dropped_outside_the_runtime_of_the_pool() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let database = runtime.block_on(create_database());
    let mut options = ConnectOptions::new(database.url());
    options.max_connections(2).min_connections(1);
    let db = runtime.block_on(sea_orm::Database::connect(options)).unwrap();
    let owner = as_owner(&Database::from_connection(db));
    // `nested` is the last handle that holds the connection, which is idle after the rollback. The block returns
    // `nested`, so that it is dropped outside the runtime.
    let nested = runtime.block_on(async {
        let tx = owner.begin().await.unwrap();
        let nested = tx.begin().await.unwrap();
        tx.rollback().await.unwrap();
        nested
    });
    drop(nested);
    // This transaction is still open when it is dropped.
    let tx = runtime.block_on(owner.begin()).unwrap();
    drop(tx);
    runtime.block_on(async {
        owner.execute_unprepared(INSERT_NOTE).await.unwrap();
        assert_eq!(count_notes(&database).await, 1);
    });
}
