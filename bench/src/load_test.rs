//! The load test: sessions of six players at human speed. Steps with different numbers of sessions find how many the
//! machine sustains.

use std::time::{Duration, Instant};

use futures_util::{TryStreamExt, future::try_join_all};
use service::{Operations, Options, Sparc, events::Subscription};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    argument_sets::ArgumentSet,
    cpu::{self, CpuTimes},
    data_set::{DataSet, RowKind, row_id},
    failure::Failure,
    quantile::quantile_ms,
    report::{DELIVERY_TIMEOUT, LoadStep},
    roll::new_roll,
};

/// The number of players of each session.
const PLAYERS_PER_SESSION: u64 = 6;
/// The time between two rolls of a session; after each roll, all six players get the new events.
pub const ROLL_INTERVAL: Duration = Duration::from_secs(4);
/// The duration of a step.
const STEP_LENGTH: Duration = Duration::from_secs(12);
/// The number of sessions of the warm-up, which runs before the first step: it opens the connections of the pool.
const WARM_UP_SESSIONS: u64 = 20;
/// The size of the service's connection pool in the load test.
pub const POOL_SIZE: u32 = 16;
/// The pause of a polling player after a replica did not have the event yet.
const POLL_PAUSE: Duration = Duration::from_millis(5);

/// How the players get new events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Each player requests new events after each roll, all players of a session at the same time.
    Polling,
    /// Each player has a subscription.
    Subscriptions,
}

/// Runs steps, each with twice as many sessions as the step before, until a step is not sustained or has all active
/// sessions. Then bisects between the largest number of sessions that was sustained and the smallest that was not,
/// until they differ by at most a tenth. A step counts as not sustained if it fails twice, or if an event is lost.
/// Returns the steps, sorted by their numbers of sessions.
pub async fn run_load_test(
    url: &str,
    data_set: &DataSet,
    postmaster_pid: Option<u32>,
    first_step_sessions: u64,
    delivery: Delivery,
) -> Result<Vec<LoadStep>, Failure> {
    let sparc = Sparc::connect_with(url, Options::default().max_connections(POOL_SIZE)).await?;
    let mut steps = Vec::new();
    // The largest number of sessions that was sustained so far, and the smallest that was not.
    let (mut max_sustained, mut min_not_sustained) = (0, None);
    let mut sessions = first_step_sessions.min(data_set.active_sessions);
    run_step(&sparc, data_set, WARM_UP_SESSIONS.min(data_set.active_sessions), postmaster_pid, delivery).await?;
    // Ends when `max_sustained` and `min_not_sustained` differ by at most a tenth, or when no number is between them.
    while min_not_sustained.is_none_or(|not_sustained| not_sustained - max_sustained > (max_sustained / 10).max(1)) {
        let mut step = run_step(&sparc, data_set, sessions, postmaster_pid, delivery).await?;
        // If the machine pauses for a tenth of a second, the step misses the limit. So a step that is not sustained is
        // repeated once. A lost event is no effect of a pause, and a repetition would hide it.
        if !step.is_sustained() && step.undelivered_events == 0 {
            step = run_step(&sparc, data_set, sessions, postmaster_pid, delivery).await?;
        }
        steps.push(step);
        println!(
            "{sessions} sessions: {:.0} rolls per second, roll p50 {:.2} ms, p99 {:.2} ms; delivered to all: p99 \
             {:.2} ms, {} events undelivered",
            step.rolls_per_second,
            step.roll_p50_ms,
            step.roll_p99_ms,
            step.delivered_to_all_p99_ms,
            step.undelivered_events
        );
        if step.is_sustained() {
            max_sustained = sessions;
        } else {
            min_not_sustained = Some(sessions);
        }
        match min_not_sustained {
            None if sessions >= data_set.active_sessions => break,
            None => sessions = (sessions * 2).min(data_set.active_sessions),
            Some(not_sustained) => sessions = max_sustained.midpoint(not_sustained),
        }
    }
    sparc.close().await?;
    steps.sort_by_key(|step| step.sessions);
    Ok(steps)
}

/// Runs one step, in which the first `sessions` active sessions of the data set are played.
pub async fn run_step(
    sparc: &Sparc,
    data_set: &DataSet,
    sessions: u64,
    postmaster_pid: Option<u32>,
    delivery: Delivery,
) -> Result<LoadStep, Failure> {
    let (step, server_cpus) =
        run_step_and_measure_servers(sparc, data_set, sessions, postmaster_pid.as_slice(), delivery).await?;
    Ok(LoadStep { postgresql_cpus: server_cpus.first().copied().flatten(), ..step })
}

/// Runs one step like [`run_step`], and returns how many processors each of several servers kept busy.
/// [`LoadStep::postgresql_cpus`] of the returned step is `None`.
pub async fn run_step_and_measure_servers(
    sparc: &Sparc,
    data_set: &DataSet,
    sessions: u64,
    postmaster_pids: &[u32],
    delivery: Delivery,
) -> Result<(LoadStep, Vec<Option<f64>>), Failure> {
    // The players subscribe before the measured time begins.
    let mut prepared_sessions = Vec::new();
    for chunk in (0..sessions).collect::<Vec<_>>().chunks(POOL_SIZE as usize) {
        let preparations = chunk.iter().map(|number| PreparedSession::prepare(sparc, data_set, *number, delivery));
        prepared_sessions.extend(try_join_all(preparations).await?);
    }
    let server_times =
        || -> Vec<_> { postmaster_pids.iter().map(|pid| cpu::times_of_child_processes(Some(*pid))).collect() };
    let (servers_before, service_before) = (server_times(), cpu::times_of_this_process());
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for session in prepared_sessions {
        tasks.spawn(session.play(start));
    }
    let mut totals = SessionResult::default();
    while let Some(outcome) = tasks.join_next().await {
        let result = outcome.map_err(|error| Failure::Message(error.to_string()))??;
        totals.roll_latencies.extend(result.roll_latencies);
        totals.delivery_times.extend(result.delivery_times);
        totals.undelivered_events += result.undelivered_events;
        totals.polls += result.polls;
    }
    let seconds = start.elapsed().as_secs_f64();
    let used_cpus =
        |before: Option<CpuTimes>, after: Option<CpuTimes>| Some(after?.since(&before?).as_secs_f64() / seconds);
    let server_cpus =
        servers_before.into_iter().zip(server_times()).map(|(before, after)| used_cpus(before, after)).collect();
    let step = LoadStep {
        sessions,
        due_rolls_per_second: sessions as f64 / ROLL_INTERVAL.as_secs_f64(),
        rolls_per_second: totals.roll_latencies.len() as f64 / seconds,
        operations_per_second: (totals.roll_latencies.len() + totals.polls) as f64 / seconds,
        roll_p50_ms: quantile_ms(&mut totals.roll_latencies, 0.5),
        roll_p99_ms: quantile_ms(&mut totals.roll_latencies, 0.99),
        delivered_to_all_p50_ms: quantile_ms(&mut totals.delivery_times, 0.5),
        delivered_to_all_p99_ms: quantile_ms(&mut totals.delivery_times, 0.99),
        undelivered_events: totals.undelivered_events,
        postgresql_cpus: None,
        service_cpus: used_cpus(service_before, cpu::times_of_this_process()),
    };
    Ok((step, server_cpus))
}

/// The measurements of one played session, or their totals over all sessions.
#[derive(Default)]
struct SessionResult {
    /// Each roll's time from the moment it was due until the player had its result.
    roll_latencies: Vec<Duration>,
    /// Each roll's time from the moment it was due until all six players had received its event, or until the session
    /// stopped waiting for that.
    delivery_times: Vec<Duration>,
    /// The number of rolls whose event had not reached all six players when the session stopped waiting.
    undelivered_events: usize,
    /// The number of requests for new events.
    polls: usize,
}

/// A session that is ready to be played: its players are known, and have their subscriptions if they subscribe.
struct PreparedSession {
    sparc: Sparc,
    number: u64,
    id: Uuid,
    /// The account numbers of its players, which are also the numbers of their characters.
    players: Vec<u64>,
    /// When players poll, they request the events after this `seq`. It is at first that of the session's newest event,
    /// and later that of the newest event that a player has received.
    newest_seq: i64,
    /// The players' subscriptions, one each; empty if the players poll.
    subscriptions: Vec<Subscription>,
}

impl PreparedSession {
    /// Prepares a session to be played, and opens the subscriptions of its players if they subscribe.
    async fn prepare(sparc: &Sparc, data_set: &DataSet, number: u64, delivery: Delivery) -> Result<Self, Failure> {
        let session_id = row_id(RowKind::Session, number);
        let players: Vec<u64> = (0..PLAYERS_PER_SESSION).map(|seat| data_set.player(number, seat)).collect();
        let newest_seq = sparc.as_user(row_id(RowKind::User, players[0])).events().newest_seq(session_id).await?;
        let mut subscriptions = Vec::new();
        if delivery == Delivery::Subscriptions {
            for player in &players {
                let caller = sparc.as_user(row_id(RowKind::User, *player));
                subscriptions.push(caller.events().subscribe(session_id, None).await?);
            }
        }
        Ok(Self { sparc: sparc.clone(), number, id: session_id, players, newest_seq, subscriptions })
    }

    /// Plays for the duration of a step, or until an event is lost. The latency of a late roll counts from the moment
    /// it was due, as the player perceives it.
    async fn play(mut self, start: Instant) -> Result<SessionResult, Failure> {
        // Spreads the first rolls of the sessions over one interval, at 97 moments.
        let mut due = start + ROLL_INTERVAL.mul_f64((self.number % 97) as f64 / 97.0);
        let mut result = SessionResult::default();
        for roll_number in 0.. {
            if due > start + STEP_LENGTH {
                break;
            }
            tokio::time::sleep_until(due.into()).await;
            let player = self.players[roll_number % self.players.len()];
            let argument_set = ArgumentSet {
                session: self.id,
                character: row_id(RowKind::Character, player),
                ..ArgumentSet::default()
            };
            self.sparc.as_user(row_id(RowKind::User, player)).dice().roll(new_roll(&argument_set)?).await?;
            result.roll_latencies.push(due.elapsed());
            let received = tokio::time::timeout(DELIVERY_TIMEOUT, self.receive_events()).await;
            result.delivery_times.push(due.elapsed());
            let Ok(polls) = received else {
                // Play stops, because a player who has not received this event would mistake the next one for it.
                result.undelivered_events += 1;
                break;
            };
            result.polls += polls?;
            due += ROLL_INTERVAL;
        }
        Ok(result)
    }

    /// Waits until all six players have received the event of the roll. Returns the number of requests for new events:
    /// 0 with subscriptions. With polling, a player who reads from a replica may have to send more than one.
    async fn receive_events(&mut self) -> Result<usize, Failure> {
        for subscription in &mut self.subscriptions {
            subscription.try_next().await?.ok_or_else(|| Failure::Message("a subscription ended".to_owned()))?;
        }
        if !self.subscriptions.is_empty() {
            return Ok(0);
        }
        let (session_id, newest_seq) = (self.id, self.newest_seq);
        let callers = self.players.iter().map(|player| self.sparc.as_user(row_id(RowKind::User, *player)));
        let poll_futures = callers.map(|caller| async move {
            let mut request_count = 0;
            loop {
                request_count += 1;
                let events = caller.events().after(session_id, newest_seq).await?;
                if let Some(event) = events.last() {
                    return Ok::<_, Failure>((request_count, event.seq));
                }
                tokio::time::sleep(POLL_PAUSE).await;
            }
        });
        let answers = try_join_all(poll_futures).await?;
        self.newest_seq = answers.iter().map(|(_, seq)| *seq).max().unwrap_or(newest_seq);
        Ok(answers.iter().map(|(request_count, _)| request_count).sum())
    }
}
