//! The subscribers' process: the code that runs in it, and the handle for controlling it from the measuring process.
//! The subscribers' process reads commands from its standard input, a line each, and answers each with a line.

use std::{
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::TryStreamExt;
use service::{Operations, Options, Sparc};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
};
use uuid::Uuid;

use crate::{
    cpu::{self, CpuTimes},
    data_set::{DataSet, RowKind, row_id},
    failure::Failure,
    quantile::quantile_ms,
    report::DelaySummary,
};

/// The number of sessions with subscribers.
pub const SUBSCRIBED_SESSIONS: u64 = 250;
/// The number of subscribers per session: its Seer and three players.
pub const SUBSCRIBERS_PER_SESSION: u64 = 4;

/// A handle with which the measuring process controls the process of the subscribers.
#[derive(Debug)]
pub struct SubscriberProcess {
    child: Child,
    commands: ChildStdin,
    replies: Lines<BufReader<ChildStdout>>,
    is_subscribed: bool,
}

impl SubscriberProcess {
    /// Starts the process. Dropping the handle kills the process.
    pub async fn start(url: &str, data_set: DataSet) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["subscribers", url, &data_set.users.to_string(), &data_set.active_sessions.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(commands), Some(replies)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::Message("the subscribers' process has no pipes".to_owned()));
        };
        let replies = BufReader::new(replies).lines();
        Ok(Self { child, commands, replies, is_subscribed: false })
    }

    /// Sends a command and returns the reply.
    async fn send(&mut self, command: &str) -> Result<String, Failure> {
        self.commands.write_all(format!("{command}\n").as_bytes()).await?;
        let reply = self.replies.next_line().await?;
        reply.ok_or_else(|| Failure::Message("the subscribers' process has ended".to_owned()))
    }

    /// Opens all subscriptions, unless they are open already.
    pub async fn subscribe(&mut self) -> Result<(), Failure> {
        if !self.is_subscribed {
            self.send("subscribe").await?;
            self.is_subscribed = true;
        }
        Ok(())
    }

    /// Ends all subscriptions.
    pub async fn unsubscribe(&mut self) -> Result<(), Failure> {
        self.is_subscribed = false;
        self.send("unsubscribe").await.map(|_| ())
    }

    /// Discards the delays measured so far.
    pub async fn discard_delays(&mut self) -> Result<(), Failure> {
        self.send("discard").await.map(|_| ())
    }

    /// Returns the number of delays that were measured since the previous summary, or since delays were discarded.
    pub async fn count_delays(&mut self) -> Result<usize, Failure> {
        Ok(serde_json::from_str(&self.send("count").await?)?)
    }

    /// Returns a summary of the delays that were measured since the previous summary, or since delays were discarded.
    pub async fn take_delays(&mut self) -> Result<DelaySummary, Failure> {
        Ok(serde_json::from_str(&self.send("delays").await?)?)
    }

    /// Returns the id of the process.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Returns the process's processor time.
    pub fn cpu_times(&self) -> Option<CpuTimes> {
        cpu::times_of_process(self.child.id()?)
    }

    /// Closes the pipe, which ends the process.
    pub async fn stop(mut self) -> Result<(), Failure> {
        drop(self.commands);
        self.child.wait().await?;
        Ok(())
    }
}

/// The reply to a command that returns nothing.
const DONE: &str = "{}";

/// Runs the subscribers' process, which is the hidden subcommand `subscribers` of this program. Returns when the
/// measuring process closes the pipe to its standard input.
pub async fn run(url: &str, data_set: DataSet) -> Result<(), Failure> {
    let sparc = Sparc::connect_with(url, Options::default().max_connections(10)).await?;
    let delays: Arc<Mutex<Vec<Duration>>> = Arc::default();
    // Until `unsubscribe` aborts the tasks, a task ends only if its subscription has ended or failed.
    let mut subscription_tasks: JoinSet<Result<(), Failure>> = JoinSet::new();
    while let Some(command) = next_command().await? {
        // If a subscription has ended, the measurement fails, because the delays of its subscriber would be missing.
        if let Some(outcome) = subscription_tasks.try_join_next() {
            outcome.map_err(|error| Failure::Message(error.to_string()))??;
            return Err(Failure::Message("a subscription ended".to_owned()));
        }
        let reply = match command.trim() {
            "subscribe" => {
                for number in 0..SUBSCRIBED_SESSIONS {
                    for participant in 0..SUBSCRIBERS_PER_SESSION {
                        let (session, user) = session_and_user(&data_set, number, participant);
                        let mut events = sparc.as_user(user).events().subscribe(session, None).await?;
                        let delays = delays.clone();
                        subscription_tasks.spawn(async move {
                            while let Some(event) = events.try_next().await? {
                                // Only the events of `measure_delays` have the time at which they were sent.
                                let Some(sent_at_us) = event.payload["sent_at_us"].as_u64() else { continue };
                                let delay = Duration::from_micros(now_us().saturating_sub(sent_at_us));
                                delays.lock().unwrap_or_else(PoisonError::into_inner).push(delay);
                            }
                            Ok(())
                        });
                    }
                }
                DONE.to_owned()
            }
            "unsubscribe" => {
                subscription_tasks.shutdown().await;
                DONE.to_owned()
            }
            "count" => delays.lock().unwrap_or_else(PoisonError::into_inner).len().to_string(),
            "delays" | "discard" => {
                let mut measured = std::mem::take(&mut *delays.lock().unwrap_or_else(PoisonError::into_inner));
                let summary = DelaySummary {
                    p50_ms: quantile_ms(&mut measured, 0.5),
                    p95_ms: quantile_ms(&mut measured, 0.95),
                    p99_ms: quantile_ms(&mut measured, 0.99),
                    deliveries: measured.len(),
                    // Only the measuring process knows how many events it sent.
                    missing: None,
                };
                if command.trim() == "discard" { DONE.to_owned() } else { serde_json::to_string(&summary)? }
            }
            unknown => {
                return Err(Failure::Message(format!("unknown command for the subscribers' process: {unknown}")));
            }
        };
        println!("{reply}");
    }
    Ok(())
}

/// Returns the next command, or `None` once the measuring process has closed the pipe.
async fn next_command() -> Result<Option<String>, Failure> {
    let read_command = || {
        let mut command = String::new();
        std::io::stdin().read_line(&mut command).map(|length| (length > 0).then_some(command))
    };
    let command = tokio::task::spawn_blocking(read_command).await;
    Ok(command.map_err(|error| Failure::Message(error.to_string()))??)
}

/// Returns the microseconds since 1970 by the machine's clock, which this process shares with the subscribers' process.
pub(super) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since_1970| since_1970.as_micros() as u64)
}

/// Returns the id of the session with this number, and the user id of one of its participants. Participant 0 is the
/// Seer; the others are the players, in the order of their seats.
fn session_and_user(data_set: &DataSet, number: u64, participant: u64) -> (Uuid, Uuid) {
    let user = if participant == 0 { data_set.session(number).seer } else { data_set.player(number, participant - 1) };
    (row_id(RowKind::Session, number), row_id(RowKind::User, user))
}
