//! A game on three servers, one of which is killed during the game: `cargo run --example failover`.
//!
//! A primary and two standbys start on this machine. The primary acknowledges a commit once one standby has it. A
//! player, Ada, rolls dice and reads each roll again. Then the primary is killed, the standby that has received more of
//! the write-ahead log (WAL) is promoted, and the game continues. At the end, the servers are removed. The program
//! prints *log positions*, which are positions in the WAL: for Ada, the position of what she last wrote or read; for a
//! server, the position up to which it has replayed or written the WAL.

use std::time::{Duration, Instant};

use anstream::println;
use futures_util::TryStreamExt;
use owo_colors::OwoColorize;
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use sparc::{
    entity::sea_orm_active_enums::{Attribute, RollType},
    service::{
        Difficulty, IdentityConnection, Operations, Options, ServerRole, Sparc,
        dice::{HistoryFilter, NewRoll, RollScope, Roller},
    },
};
use testdb::{Binaries, DemoGame, Server};
use tokio::{task::spawn_blocking, time::sleep};
use uuid::Uuid;

/// The settings of all three servers. Each server keeps enough WAL for a standby that begins to follow it later: after
/// the promotion, the other standby begins to follow the promoted one. A standby that receives no WAL tries again after
/// 200 ms instead of five seconds.
const SETTINGS: [&str; 3] = ["synchronous_commit=on", "wal_keep_size=256MB", "wal_retrieve_retry_interval=200ms"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if Binaries::find_or_fetch()?.program("pg_basebackup").is_none() {
        println!("This example needs pg_basebackup, which is one of PostgreSQL's client programs.");
        return Ok(());
    }
    let primary = Server::start_plain(Some(&SETTINGS)).await?;
    let game = DemoGame::start_on(&primary).await?;
    let (first_standby, second_standby) = tokio::try_join!(start_standby_of(&primary), start_standby_of(&primary))?;
    let replicas = [game.replica_on(&first_standby)?, game.replica_on(&second_standby)?];
    let options = Options::default().replicas(replicas.iter().map(|replica| replica.url()));
    let sparc = Sparc::connect_with(game.url(), options).await?;
    // From here on, this primary acknowledges no commit before a standby has it. The standbys, which have copied the
    // settings already, do not get this one, so the promoted standby acknowledges commits on its own.
    primary.alter_system("synchronous_standby_names", "ANY 1 (*)").await?;
    print_servers(&sparc, "three servers");

    let ada = sparc.as_user(game.player);
    let mut events = ada.events().subscribe(game.session, None).await?;
    let mut roll_ids = Vec::new();
    for _ in 0..5 {
        roll_ids.push(roll_and_read(&ada, &game, Uuid::new_v4()).await?);
    }
    println!(
        "Ada rolled {} times and read each roll at once; Ada's log position is {}",
        roll_ids.len(),
        position_text(&ada)
    );

    println!("{}", "the primary is killed".red());
    let killed_at = Instant::now();
    spawn_blocking(move || primary.kill().map(|()| primary)).await??;
    println!("meanwhile a standby still serves reads: {} rolls", count_newest_rolls(&ada, &game).await?);
    // The pause stands for the time that an operator or a failover program needs to notice the failure.
    let promotion = tokio::spawn(async move {
        sleep(Duration::from_millis(500)).await;
        promote_more_advanced(first_standby, second_standby).await
    });
    // Ada retries for up to twenty seconds. All attempts have the same roll id, so the roll is made only once, even if
    // an attempt is committed but its answer is lost.
    let retried_roll_id = Uuid::new_v4();
    let mut attempts = 1;
    while let Err(error) = roll_and_read(&ada, &game, retried_roll_id).await {
        let may_retry = error.is_retryable() || error.code() == "commit_unknown";
        if !may_retry || killed_at.elapsed() > Duration::from_secs(20) {
            return Err(error.into());
        }
        println!("  a roll fails: {error}");
        sleep(Duration::from_millis(100)).await;
        attempts += 1;
    }
    roll_ids.push(retried_roll_id);
    let (new_primary, other_standby) = promotion.await??;
    other_standby.follow(&new_primary).await?;
    println!("{} {:.1?} after the kill, on attempt {attempts}", "the game continues".green(), killed_at.elapsed());
    // Waits until `sparc` finds that the other standby follows the new primary.
    let waiting_since = Instant::now();
    while sparc.server_statuses().iter().all(|server| server.role != ServerRole::Replica) {
        anyhow::ensure!(waiting_since.elapsed() < Duration::from_secs(20), "the other standby was not found again");
        sleep(Duration::from_millis(100)).await;
    }
    print_servers(&sparc, "the other standby follows the promoted one");

    for _ in 0..5 {
        roll_ids.push(roll_and_read(&ada, &game, Uuid::new_v4()).await?);
    }
    for id in &roll_ids {
        ada.dice().get(*id).await?;
    }
    println!("all {} rolls are there; Ada's log position is {}", roll_ids.len(), position_text(&ada));
    for id in &roll_ids {
        let event = events.try_next().await?;
        let roll_id = event.as_ref().and_then(|event| event.payload["roll_id"].as_str());
        anyhow::ensure!(roll_id == Some(id.to_string().as_str()), "the event of roll {id} is missing or out of order");
    }
    println!("and the subscriber received each of them, in order");
    drop(events);
    Ok(sparc.close().await?)
}

async fn start_standby_of(primary: &Server) -> anyhow::Result<Server> {
    let primary = primary.clone();
    Ok(spawn_blocking(move || primary.start_standby(&SETTINGS)).await??)
}

/// Promotes the standby that has received more of the WAL. Either standby may have acknowledged the last commit, so the
/// other may lack it. Returns the promoted standby and the other one.
async fn promote_more_advanced(first: Server, second: Server) -> anyhow::Result<(Server, Server)> {
    let (first_position, second_position) = tokio::try_join!(received_position(&first), received_position(&second))?;
    let (new_primary, other) = if first_position >= second_position { (first, second) } else { (second, first) };
    let promoted = new_primary.clone();
    spawn_blocking(move || promoted.promote()).await??;
    Ok((new_primary, other))
}

/// Returns the position up to which the standby has received the WAL, as a number of bytes; `None` if it has received
/// nothing. A promoted standby replays all the WAL that it has received before it accepts writes.
async fn received_position(standby: &Server) -> anyhow::Result<Option<i64>> {
    let connection = sea_orm::Database::connect(standby.url()).await?;
    let sql = "SELECT (pg_last_wal_receive_lsn() - '0/0')::bigint";
    let row = connection.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    connection.close().await?;
    Ok(row.map(|row| row.try_get_by_index(0)).transpose()?.flatten())
}

/// Makes a roll with the id `roll_id`, and reads the roll again. Returns the id.
async fn roll_and_read(
    ada: &IdentityConnection,
    game: &DemoGame,
    roll_id: Uuid,
) -> Result<Uuid, sparc::service::Error> {
    let roller = Roller::Character(game.hero);
    let new_roll = NewRoll::new(RollType::Attack, game.session, roller, Attribute::Might, Difficulty::MAX);
    ada.dice().roll(NewRoll { id: Some(roll_id), ..new_roll }).await?;
    // This reads from a replica if one has replayed the roll already, and from the primary otherwise.
    Ok(ada.dice().get(roll_id).await?.id)
}

/// Returns the number of the session's rolls on the first page of the history, which begins with the newest.
async fn count_newest_rolls(ada: &IdentityConnection, game: &DemoGame) -> Result<usize, sparc::service::Error> {
    let scope = RollScope::Session(game.session);
    Ok(ada.dice().history(scope, &HistoryFilter::default(), None).await?.items.len())
}

/// Returns the log position of what Ada last wrote or read, as text.
fn position_text(ada: &IdentityConnection) -> String {
    ada.position().map(|position| position.to_string()).unwrap_or_default()
}

/// Prints the address, the role and the log position of each server.
fn print_servers(sparc: &Sparc, heading: &str) {
    println!("{}", heading.bold());
    for server in sparc.server_statuses() {
        let position = server.position.map(|position| position.to_string()).unwrap_or_default();
        println!("  {} {:<8} {position}", server.address, format!("{:?}", server.role).to_lowercase());
    }
}
