//! The phases of an operation: BEGIN, the identity, the statement and COMMIT, sent directly with `tokio_postgres`, one
//! message each, and timed from sending the message to receiving the response. For comparison, also a round trip, the
//! statement without row security, and the service's own first message, which combines BEGIN and the identity.

use std::time::{Duration, Instant};

use sea_orm::TransactionTrait;
use serde::{Deserialize, Serialize};
use service::Sparc;
use tokio_postgres::NoTls;

use super::{
    Operation,
    statements::{IDENTITY, ROLE, ServiceStatement, Statements, Values, claims},
};
use crate::{Failure, measure::quantile, samples::Sample};

/// The number of round trips that [`measure_round_trip`] times.
const ROUND_TRIP_SAMPLES: usize = 300;

/// The median time of each phase of an operation, and of what the phases are compared with, in milliseconds. All but
/// `opening_ms` are measured without the service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PhaseTimes {
    /// The operation.
    pub name: String,
    /// A round trip: a prepared `SELECT 1`, which is no phase of the operation.
    pub round_trip_ms: f64,
    /// The service's first message, instead of BEGIN and the identity: BEGIN, the role and all settings, and the check
    /// that the account is open.
    pub opening_ms: f64,
    /// BEGIN.
    pub begin_ms: f64,
    /// Setting the role and the claims.
    pub identity_ms: f64,
    /// The operation's statement.
    pub statement_ms: f64,
    /// The operation's statement run by the tables' owner, who is exempt from row security; `None` if it writes.
    pub without_row_security_ms: Option<f64>,
    /// COMMIT.
    pub commit_ms: f64,
}

/// Returns the lower quartile of many round-trip times, because other load on the machine prolongs some of them.
pub async fn measure_round_trip(url: &str) -> Result<Duration, Failure> {
    let (client, driver_task) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(driver_task);
    let select_1 = client.prepare("SELECT 1").await?;
    let mut times = Vec::new();
    for _ in 0..ROUND_TRIP_SAMPLES {
        let start = Instant::now();
        client.query(&select_1, &[]).await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[ROUND_TRIP_SAMPLES / 4])
}

/// Measures the phases of an operation for `seconds`.
pub async fn measure_phases(
    url: &str,
    sparc: &Sparc,
    operation: Operation,
    statements: &Statements,
    sample: &Sample,
    seconds: f64,
) -> Result<PhaseTimes, Failure> {
    let (client, driver_task) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(driver_task);
    let identity = client.prepare(IDENTITY).await?;
    let ServiceStatement { sql, types } = statements.for_operation(operation);
    let statement = client.prepare_typed(sql, types).await?;
    let select_1 = client.prepare("SELECT 1").await?;
    let claims = claims(sample.player);
    // The times of each phase, in the order in which they are destructured below.
    let mut times: [Vec<Duration>; 7] = Default::default();
    let start = Instant::now();
    // The times of the first 16 executions are discarded, because during them the server chooses between custom and
    // generic plans.
    let mut is_warm = false;
    while start.elapsed().as_secs_f64() < seconds || !is_warm {
        if !is_warm && times[0].len() >= 16 {
            times = Default::default();
            is_warm = true;
        }
        let mut lap_start = Instant::now();
        let mut lap = |phase: usize| {
            let now = Instant::now();
            times[phase].push(now - lap_start);
            lap_start = now;
        };
        let values = Values::new(sample);
        client.query(&select_1, &[]).await?;
        lap(0);
        client.batch_execute("BEGIN").await?;
        lap(1);
        client.query(&identity, &[&ROLE, &claims]).await?;
        lap(2);
        client.query(&statement, &values.for_operation(operation)).await?;
        lap(3);
        client.batch_execute("COMMIT").await?;
        lap(4);
        // After COMMIT, the connection is again that of the tables' owner, who is exempt from row security. A roll is
        // left out, because it would be written once more.
        if operation != Operation::Roll {
            client.query(&statement, &values.for_operation(operation)).await?;
            lap(5);
        }
        let caller = sparc.as_user(sample.player);
        let opening_start = Instant::now();
        let transaction = caller.begin().await?;
        times[6].push(opening_start.elapsed());
        transaction.rollback().await?;
    }
    let [round_trip_ms, begin_ms, identity_ms, statement_ms, commit_ms, as_owner_ms, opening_ms] =
        times.map(|mut times| quantile(&mut times, 0.5));
    let without_row_security_ms = Some(as_owner_ms).filter(|ms| ms.is_finite());
    let name = operation.name().to_owned();
    Ok(PhaseTimes {
        name,
        round_trip_ms,
        opening_ms,
        begin_ms,
        identity_ms,
        statement_ms,
        without_row_security_ms,
        commit_ms,
    })
}
