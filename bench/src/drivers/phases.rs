//! The phases of an operation: the begin, the identity, the statement and the commit, each timed from sending a message
//! to its response.

use std::time::{Duration, Instant};

use sea_orm::TransactionTrait;
use serde::{Deserialize, Serialize};
use service::Sparc;
use tokio_postgres::NoTls;

use super::{
    Operation,
    statements::{IDENTITY, ROLE, Statements, Values, claims},
};
use crate::{Failure, measure::quantile, samples::Sample};

/// Round trips timed by [`round_trip`].
const ROUND_TRIPS: usize = 300;

/// The time of each phase of an operation, medians in milliseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PhaseTimes {
    /// The operation.
    pub name: String,
    /// A prepared `SELECT 1`.
    pub round_trip_ms: f64,
    /// The service's first message: BEGIN, the role and all settings, and the check that the account is open.
    pub opening_ms: f64,
    pub begin_ms: f64,
    /// Setting the role and the claims.
    pub identity_ms: f64,
    pub statement_ms: f64,
    /// The statement as the tables' owner, who is exempt from row security; `None` for a statement that writes.
    pub without_row_security_ms: Option<f64>,
    pub commit_ms: f64,
}

/// Returns the lower quartile of many round-trip times, because other load on the machine prolongs some of them.
pub async fn round_trip(url: &str) -> Result<Duration, Failure> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let select_1 = client.prepare("SELECT 1").await?;
    let mut times = Vec::new();
    for _ in 0..ROUND_TRIPS {
        let begun = Instant::now();
        client.query(&select_1, &[]).await?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[ROUND_TRIPS / 4])
}

/// Measures an operation for `seconds`.
pub async fn measure(
    url: &str,
    sparc: &Sparc,
    operation: Operation,
    statements: &Statements,
    sample: &Sample,
    seconds: f64,
) -> Result<PhaseTimes, Failure> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let identity = client.prepare(IDENTITY).await?;
    let statement = statements.of(operation);
    let statement = client.prepare_typed(&statement.sql, &statement.types).await?;
    let select_1 = client.prepare("SELECT 1").await?;
    let claims = claims(sample.player);
    let mut times: [Vec<Duration>; 7] = Default::default();
    let begun = Instant::now();
    // The times of the first executions are discarded, because the server chooses between plans during these.
    let mut is_warm = false;
    while begun.elapsed().as_secs_f64() < seconds || !is_warm {
        if !is_warm && times[0].len() >= 16 {
            times = Default::default();
            is_warm = true;
        }
        let mut last = Instant::now();
        let mut lap = |phase: usize| {
            let now = Instant::now();
            times[phase].push(now - last);
            last = now;
        };
        let values = Values::new(sample);
        client.query(&select_1, &[]).await?;
        lap(0);
        client.batch_execute("BEGIN").await?;
        lap(1);
        client.query(&identity, &[&ROLE, &claims]).await?;
        lap(2);
        client.query(&statement, &values.of(operation)).await?;
        lap(3);
        client.batch_execute("COMMIT").await?;
        lap(4);
        if operation != Operation::Roll {
            client.query(&statement, &values.of(operation)).await?;
            lap(5);
        }
        let caller = sparc.as_user(sample.player);
        let sent = Instant::now();
        let transaction = caller.begin().await?;
        times[6].push(sent.elapsed());
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
