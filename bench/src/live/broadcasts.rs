//! What a broadcast adds to a roll, on a stand-in for the platform's `realtime.send`.

use std::time::Duration;

use chrono::Utc;
use serde::{Deserialize, Serialize};
use service::Operations;
use testdb::Server;

use crate::{
    Failure,
    captured::Capturing,
    client::Client,
    compare::SETTINGS,
    fill::{Side, fill},
    growth::up,
    measure::quantile,
    samples::samples,
    side::{Asked, Role, begin},
    world::World,
    writes::{check, roll_values},
};

const WORLD: World = World { users: 1000, adventures: 100, busy: 20, open: 20, ended: 2000 };
/// So many rolls in a transaction, and transactions of each kind.
const ROLLS: (usize, usize) = (200, 8);

/// A roll with and without its broadcast, milliseconds, medians.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Broadcast {
    /// `sparc.broadcast` is off.
    pub without_ms: f64,
    /// It is on, and the day has its partition.
    pub with_ms: f64,
}

/// In turns, each many times in a transaction that is rolled back.
pub async fn broadcasts() -> Result<Broadcast, Failure> {
    let server = Server::start_platform(Some(&SETTINGS)).await?;
    let database = server.empty().await?;
    let pool = database.connect(1).await?;
    up(&pool, None).await?;
    fill(&database.administrator_url(), Side::Ours, WORLD, Utc::now()).await?;
    let sample = samples(&WORLD).into_iter().next().unwrap_or_default();
    let mut capturing = Capturing::of(pool);
    capturing.sparc.as_user(sample.player).dice().roll(check(&sample)?).await?;
    let roll = capturing.newest().await?;
    capturing.close().await?;

    let mut client = Client::open(&database.administrator_url()).await?;
    client.run(&format!("PREPARE roll AS {}", roll.sql)).await?;
    let before = begin(Role::Authenticated, &Asked { user: sample.player.to_string(), ..Default::default() });
    let timed = format!("EXECUTE roll({})", roll_values(&sample).join(", "));
    let mut times: [Vec<Duration>; 2] = Default::default();
    for turn in 0..2 * ROLLS.1 {
        let is_on = turn % 2 == 1;
        client.run(&format!("SET sparc.broadcast = '{}'", if is_on { "on" } else { "off" })).await?;
        client.run(&before).await?;
        for number in 0..ROLLS.0 {
            let (took, _) = client.time(&timed).await?;
            if number >= ROLLS.0 / 10 {
                times[usize::from(is_on)].push(took);
            }
        }
        if turn == 1 && client.number("SELECT count(*) FROM realtime.messages").await? == 0.0 {
            return Err(Failure::Said("no broadcast was sent".to_owned()));
        }
        client.run("ROLLBACK").await?;
    }
    client.close().await?;
    let [mut without, mut with] = times;
    let found = Broadcast { without_ms: quantile(&mut without, 0.5), with_ms: quantile(&mut with, 0.5) };
    println!("{found:?}");
    Ok(found)
}
