//! PgBouncer in transaction mode, where clients share server connections: no client gets the rows, the identity or the
//! prepared statements of another.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use sea_orm::{ConnectionTrait, DbBackend, EntityTrait, Statement, TransactionTrait};
use sparc::{
    entity::characters,
    service::{Error, Operations, Options, Sparc},
};
use uuid::Uuid;

use crate::world::{World, run_together};

/// A PgBouncer process that is stopped when the handle is dropped.
pub struct Pooler {
    process: Child,
    folder: PathBuf,
    pub url: String,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

/// Returns PgBouncer's major and minor version, from the first line of its `--version`, such as `PgBouncer 1.18.0`.
fn version(program: &str) -> (u32, u32) {
    let output = Command::new(program).arg("--version").output().unwrap().stdout;
    let text = String::from_utf8(output).unwrap();
    let mut numbers = text.split([' ', '.', '\n']).skip(1).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Returns the path of PgBouncer; `None` if it is not installed.
fn find_program() -> Option<&'static str> {
    ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/opt/homebrew/bin/pgbouncer"]
        .into_iter()
        .find(|path| fs::exists(path).unwrap_or_default())
}

/// Whether this PgBouncer can track prepared statements. Older versions refuse the setting `max_prepared_statements`.
fn can_track_statements(program: &str) -> bool {
    version(program) >= (1, 21)
}

/// Starts a pooler for a world's database; returns `None` if PgBouncer is not installed.
async fn start_pooler_for_world(world: &World) -> Option<Pooler> {
    start_pooler(world.url()).await
}

/// Starts a pooler that does not track prepared statements, with up to four server connections to a database; returns
/// `None` if PgBouncer is not installed.
pub async fn start_pooler(url: &str) -> Option<Pooler> {
    start_pooler_with_connections(url, 4).await
}

/// Starts a pooler as [`start_pooler`] does, with up to `server_connections` server connections.
pub async fn start_pooler_with_connections(url: &str, server_connections: u32) -> Option<Pooler> {
    let program = find_program()?;
    let tracking_setting = if can_track_statements(program) { "max_prepared_statements = 0" } else { "" };
    Some(start_pooler_with_settings(program, url, server_connections, tracking_setting).await)
}

/// Starts a pooler that tracks prepared statements, with one server connection; returns `None` if no PgBouncer that can
/// do this is installed.
async fn start_tracking_pooler(url: &str) -> Option<Pooler> {
    let program = find_program().filter(|program| can_track_statements(program))?;
    Some(start_pooler_with_settings(program, url, 1, "max_prepared_statements = 100").await)
}

async fn start_pooler_with_settings(
    program: &str,
    url: &str,
    server_connections: u32,
    tracking_setting: &str,
) -> Pooler {
    // postgres://USER:PASSWORD@HOST:PORT/DATABASE
    let parts: Vec<&str> = url.split(['/', ':', '@', '?']).filter(|part| !part.is_empty()).collect();
    let [_, user, password, host, port, database, ..] = parts[..] else { panic!("the URL has {} parts", parts.len()) };
    let pooler_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = std::env::temp_dir().join(format!("sparc-pooler-{}", Uuid::new_v4().simple()));
    fs::create_dir(&folder).unwrap();
    let settings_path = folder.join("pgbouncer.ini");
    // With an empty `server_reset_query`, PgBouncer resets nothing when it gives a server connection to another client.
    // So a role or a setting that a transaction left behind would stay in force for the other client.
    let settings = format!(
        "[databases]\n{database} = host={host} port={port} user={user} password={password}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {pooler_port}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = transaction\ndefault_pool_size = {server_connections}\nserver_reset_query =\nmax_client_conn = 200\n\
         ignore_startup_parameters = extra_float_digits\n{tracking_setting}\n"
    );
    fs::write(&settings_path, settings).unwrap();
    // Like PostgreSQL, PgBouncer refuses to run as root.
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--pdeathsig", "KILL", program]);
        command
    } else {
        Command::new(program)
    };
    command.arg(&settings_path).stdout(Stdio::null()).stderr(Stdio::null());
    let process = command.spawn().unwrap();
    let pooler = Pooler { process, folder, url: format!("postgres://{user}@127.0.0.1:{pooler_port}/{database}") };
    for _ in 0..200 {
        if tokio::net::TcpStream::connect(("127.0.0.1", pooler_port)).await.is_ok() {
            return pooler;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the pooler does not accept connections");
}

#[tokio::test]
async fn fifty_users_over_four_connections_each_see_only_their_own_rows() {
    let world = World::new().await;
    let Some(pooler) = start_pooler_for_world(&world).await else {
        eprintln!("skipped: this machine has no pgbouncer");
        return;
    };
    let rounds: u32 = std::env::var("SPARC_ROUNDS").map_or(10, |rounds| rounds.parse().unwrap());
    let options = Options::default().max_connections(20).without_prepared_statement_cache();
    let sparc = Sparc::connect_with(&pooler.url, options.acquire_timeout(Duration::from_secs(60))).await.unwrap();
    let mut tasks = Vec::new();
    for user_index in 0..50_u32 {
        let player = world.new_player().await;
        let sparc = sparc.clone();
        tasks.push(async move {
            let me = sparc.as_user(player.user_id);
            for round in 0..rounds {
                let characters = me.characters().living().await.unwrap();
                assert_eq!(characters.iter().map(|character| character.id).collect::<Vec<_>>(), [player.character_id]);
                assert_eq!(me.users().me().await.unwrap().id, player.user_id);
                let found_characters = characters::Entity::find().all(&me).await.unwrap();
                assert!(found_characters.len() == 1 && found_characters[0].user_id == player.user_id);
                match (user_index + round) % 5 {
                    // The next caller on the connection must not get the identity of a dropped transaction, of a failed
                    // one, of a visitor or of the service.
                    0 => drop(me.begin().await.unwrap()),
                    1 => assert!(me.execute_unprepared("SELECT 1 / 0").await.is_err()),
                    2 => assert_eq!(sparc.as_anon().characters().living().await.unwrap_err().code(), "not_signed_in"),
                    3 => assert!(sparc.as_service().maintenance().backlog().await.is_ok()),
                    _ => assert!(me.characters().heal(player.character_id, 1).await.is_ok()),
                }
            }
        });
    }
    run_together(tasks).await;
    // Panics if a dropped transaction is still open.
    world.owner().assert_no_transaction_stays_idle().await;
    sparc.close().await.unwrap();
}

#[tokio::test]
async fn no_client_runs_a_prepared_statement_of_another_client() {
    let world = World::new().await;
    let Some(pooler) = start_pooler_for_world(&world).await else {
        eprintln!("skipped: this machine has no pgbouncer");
        return;
    };
    // This pooler does not track prepared statements, but both clients (each a `Sparc` of its own) use them. They
    // prepare different statements under the same names, with parameters and columns of the same types, so only the
    // answer can reveal a mix-up.
    let mut tasks = Vec::new();
    for client in 0..2_i32 {
        let sparc = Sparc::connect_with(&pooler.url, Options::default().max_connections(6)).await.unwrap();
        for _ in 0..8 {
            let service = sparc.as_service();
            tasks.push(async move {
                let mut refused_count = 0;
                for value in 0..25_i32 {
                    let sql = format!("SELECT $1 AS value, {client} AS client");
                    let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [value.into()]);
                    match service.query_one_raw(statement).await {
                        Ok(row) => {
                            let row = row.unwrap();
                            let answer: (i32, i32) =
                                (row.try_get("", "value").unwrap(), row.try_get("", "client").unwrap());
                            assert_eq!(answer, (value, client));
                        }
                        Err(error) => {
                            // A transaction (each statement here has its own) does not begin on a server connection
                            // on which another client has prepared statements.
                            let error = Error::from(error);
                            assert_eq!(error.code(), "misconfigured", "{error:?}");
                            refused_count += 1;
                        }
                    }
                }
                refused_count
            });
        }
    }
    let refused_count: i32 = run_together(tasks).await.into_iter().sum();
    assert!(
        refused_count > 0,
        "the two clients must have shared a server connection; otherwise the test proves nothing"
    );
}

#[tokio::test]
async fn raw_sql_does_not_close_the_connection_to_a_pooler_that_tracks_prepared_statements() {
    let world = World::new().await;
    let Some(pooler) = start_tracking_pooler(world.url()).await else {
        eprintln!("skipped: this machine has no pgbouncer of version 1.21 or newer");
        return;
    };
    let player = world.new_player().await;
    let connect = || Sparc::connect_with(&pooler.url, Options::default().max_connections(1));
    let (sparc, other_sparc) = (connect().await.unwrap(), connect().await.unwrap());
    let me = sparc.as_user(player.user_id);
    // The other client's statements are prepared on the same server connection.
    other_sparc.as_user(player.user_id).users().me().await.unwrap();
    for round in 0..3 {
        assert_eq!(me.characters().living().await.unwrap().len(), 1, "{round}");
        me.execute_unprepared("SELECT 1").await.unwrap();
        assert_eq!(sparc.user_pool_status().connections, 1, "{round}: the connection was closed");
        let tx = me.begin().await.unwrap();
        tx.execute_unprepared("SELECT 1").await.unwrap();
        assert_eq!(tx.characters().living().await.unwrap().len(), 1, "{round}");
        tx.commit().await.unwrap();
        assert_eq!(sparc.user_pool_status().connections, 1, "{round}: the connection was closed");
        // DEALLOCATE ALL removes the prepared statements of both clients. Their next calls must succeed nevertheless.
        let tx = me.begin().await.unwrap();
        tx.execute_unprepared("DEALLOCATE ALL").await.unwrap();
        assert_eq!(tx.characters().living().await.unwrap().len(), 1, "{round}");
        tx.commit().await.unwrap();
        assert!(other_sparc.as_user(player.user_id).users().me().await.is_ok(), "{round}");
    }
    sparc.close().await.unwrap();
    other_sparc.close().await.unwrap();
}
