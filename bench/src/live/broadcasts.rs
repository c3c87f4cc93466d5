//! The time that a broadcast adds to a roll, with a stand-in for the platform's `realtime.send`.

use std::time::Duration;

use chrono::Utc;
use serde::{Deserialize, Serialize};
use service::Operations;
use testdb::Server;

use crate::{
    Failure,
    capture::StatementCapture,
    client::Client,
    compare::SETTINGS,
    fill::{Schema, fill},
    growth::up,
    measure::quantile,
    samples::samples,
    workload::{Execution, Role, begin},
    world::World,
    writes::{check, roll_values},
};

const WORLD: World = World { users: 1000, adventures: 100, active: 20, open: 20, ended: 2000 };
/// Rolls per transaction.
const ROLLS: usize = 200;
/// Transactions with broadcasts, and as many without.
const TRANSACTIONS: usize = 8;

/// Median time of a roll with and without its broadcast, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Broadcast {
    /// With `sparc.broadcast` off.
    pub without_ms: f64,
    /// With `sparc.broadcast` on and a partition for the day.
    pub with_ms: f64,
}

/// Measures rolls alternately with and without broadcasts, in transactions that are rolled back.
pub async fn broadcasts() -> Result<Broadcast, Failure> {
    let server = Server::start_platform(Some(&SETTINGS)).await?;
    let database = server.create_empty().await?;
    let pool = database.connect(1).await?;
    up(&pool, None).await?;
    fill(&database.superuser_url(), Schema::Ours, WORLD, Utc::now()).await?;
    let sample = samples(&WORLD).into_iter().next().unwrap_or_default();
    let mut capture = StatementCapture::new(pool);
    capture.sparc.as_user(sample.player).dice().roll(check(&sample)?).await?;
    let roll = capture.last_statement().await?;
    capture.close().await?;

    let mut client = Client::open(&database.superuser_url()).await?;
    client.run(&format!("PREPARE roll AS {}", roll.sql)).await?;
    let before = begin(Role::Authenticated, &Execution { user: sample.player.to_string(), ..Default::default() });
    let timed = format!("EXECUTE roll({})", roll_values(&sample).join(", "));
    let name = client.value("SELECT current_database()").await?;
    let mut times: [Vec<Duration>; 2] = Default::default();
    for turn in 0..2 * TRANSACTIONS {
        let is_on = turn % 2 == 1;
        // The trigger reads the setting from the catalog.
        let setting = if is_on { "on" } else { "off" };
        client.run(&format!("ALTER DATABASE \"{name}\" SET sparc.broadcast = '{setting}'")).await?;
        let before_turn = client.number("SELECT count(*) FROM realtime.messages").await?;
        client.run(&before).await?;
        for number in 0..ROLLS {
            let (took, _) = client.time(&timed).await?;
            // The first rolls of a transaction are the warm-up.
            if number >= ROLLS / 10 {
                times[usize::from(is_on)].push(took);
            }
        }
        client.run("RESET ROLE").await?;
        let is_sent = client.number("SELECT count(*) FROM realtime.messages").await? > before_turn;
        client.run("ROLLBACK").await?;
        if is_sent != is_on {
            return Err(Failure::Message(format!("broadcasts were sent: {is_sent}; the setting is {setting}")));
        }
    }
    client.close().await?;
    let [mut without, mut with] = times;
    let result = Broadcast { without_ms: quantile(&mut without, 0.5), with_ms: quantile(&mut with, 0.5) };
    println!("{result:?}");
    Ok(result)
}
