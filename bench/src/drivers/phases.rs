//! The phases of an operation: BEGIN, setting the identity, the statement and COMMIT. They are sent with
//! `tokio_postgres`, one message each, and each is timed from sending the message to receiving the response. Three
//! other times are measured for comparison: a round trip, the statement without row-level security, and the first
//! message of the crate `service`, which combines BEGIN, the identity and the check that the account is open.

use std::time::{Duration, Instant};

use sea_orm::TransactionTrait;
use service::Sparc;
use tokio_postgres::NoTls;

use super::{
    operation::Operation,
    statements::{ROLE, SET_IDENTITY_SQL, ServiceStatement, Statements, Values, claims},
};
use crate::{argument_sets::ArgumentSet, failure::Failure, quantile::quantile_ms, report::PhaseTimes};

/// The number of round trips that [`measure_round_trip`] times.
const TIMED_ROUND_TRIPS: usize = 300;

/// The number of executions whose times are discarded, because during them the server chooses between custom and
/// generic plans.
const WARM_UP_EXECUTIONS: usize = 16;

/// What [`measure_phases`] times.
#[derive(Clone, Copy)]
enum Timed {
    RoundTrip,
    Begin,
    Identity,
    Statement,
    Commit,
    /// The statement as the owner of the tables, without row-level security.
    StatementWithoutRowSecurity,
    /// The first message of the crate `service`.
    ServiceBegin,
}

/// Returns the time of a round trip: the lower quartile of many, because other load on the machine prolongs some.
pub async fn measure_round_trip(url: &str) -> Result<Duration, Failure> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let select_1 = client.prepare("SELECT 1").await?;
    let mut times = Vec::new();
    for _ in 0..TIMED_ROUND_TRIPS {
        let start = Instant::now();
        client.query(&select_1, &[]).await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[TIMED_ROUND_TRIPS / 4])
}

/// Measures the phases of an operation for `seconds`, and at least once after the warm-up.
pub async fn measure_phases(
    url: &str,
    sparc: &Sparc,
    operation: Operation,
    statements: &Statements,
    argument_set: &ArgumentSet,
    seconds: f64,
) -> Result<PhaseTimes, Failure> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let set_identity = client.prepare(SET_IDENTITY_SQL).await?;
    let ServiceStatement { sql, types } = statements.for_operation(operation);
    let statement = client.prepare_typed(sql, types).await?;
    // The owner of the tables has a connection of its own: if one prepared statement ran alternately with and without
    // row-level security, the server would plan it anew each time.
    let (owner_client, owner_connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(owner_connection);
    let statement_of_owner = owner_client.prepare_typed(sql, types).await?;
    let select_1 = client.prepare("SELECT 1").await?;
    let claims = claims(argument_set.player);
    // The times, in the order of the variants of `Timed`.
    let mut times: [Vec<Duration>; 7] = Default::default();
    let start = Instant::now();
    let mut is_warm = false;
    while start.elapsed().as_secs_f64() < seconds || !is_warm {
        if !is_warm && times[Timed::RoundTrip as usize].len() >= WARM_UP_EXECUTIONS {
            times = Default::default();
            is_warm = true;
        }
        let mut lap_start = Instant::now();
        // Records the time since the previous lap.
        let mut lap = |timed: Timed| {
            let now = Instant::now();
            times[timed as usize].push(now - lap_start);
            lap_start = now;
        };
        let values = Values::new(argument_set);
        client.query(&select_1, &[]).await?;
        lap(Timed::RoundTrip);
        client.batch_execute("BEGIN").await?;
        lap(Timed::Begin);
        client.query(&set_identity, &[&ROLE, &claims]).await?;
        lap(Timed::Identity);
        client.query(&statement, &values.for_operation(operation)).await?;
        lap(Timed::Statement);
        client.batch_execute("COMMIT").await?;
        lap(Timed::Commit);
        // The owner is exempt from row-level security. A roll is not repeated: `values` has the id of the roll that was
        // just written, so the statement would find that row and insert nothing.
        if operation != Operation::Roll {
            owner_client.query(&statement_of_owner, &values.for_operation(operation)).await?;
            lap(Timed::StatementWithoutRowSecurity);
        }
        let caller = sparc.as_user(argument_set.player);
        let service_begin_start = Instant::now();
        let transaction = caller.begin().await?;
        times[Timed::ServiceBegin as usize].push(service_begin_start.elapsed());
        transaction.rollback().await?;
    }
    let [
        round_trip_ms,
        begin_ms,
        identity_ms,
        statement_ms,
        commit_ms,
        statement_without_row_security_ms,
        service_begin_ms,
    ] = times.map(|mut times| quantile_ms(&mut times, 0.5));
    // For a roll there are no times without row-level security, so their median is NaN.
    let statement_without_row_security_ms = Some(statement_without_row_security_ms).filter(|ms| ms.is_finite());
    let name = operation.name().to_owned();
    Ok(PhaseTimes {
        name,
        round_trip_ms,
        service_begin_ms,
        begin_ms,
        identity_ms,
        statement_ms,
        statement_without_row_security_ms,
        commit_ms,
    })
}
