//! The subscribers' process, which takes commands as lines on its standard input.

use std::{
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use service::{Operations, Options, Sparc};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
};

use super::{Delays, SESSIONS, SUBSCRIBERS, now, subscriber};
use crate::{
    Failure,
    cpu::{self, CpuTimes},
    measure::quantile,
    world::World,
};

/// The subscribers' process, as the measuring process controls it.
#[derive(Debug)]
pub struct Listener {
    process: Child,
    commands: ChildStdin,
    replies: Lines<BufReader<ChildStdout>>,
    is_subscribed: bool,
}

impl Listener {
    /// Starts the process. It is killed on drop.
    pub async fn start(url: &str, world: World) -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["listen", url, &world.users.to_string(), &world.active.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(commands), Some(replies)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Failure::Message("the listener has no pipes".to_owned()));
        };
        let replies = BufReader::new(replies).lines();
        Ok(Self { process, commands, replies, is_subscribed: false })
    }

    async fn send(&mut self, command: &str) -> Result<String, Failure> {
        self.commands.write_all(format!("{command}\n").as_bytes()).await?;
        let reply = self.replies.next_line().await?;
        reply.ok_or_else(|| Failure::Message("the listener has ended".to_owned()))
    }

    /// Opens all subscriptions, unless they are open.
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
    pub async fn reset(&mut self) -> Result<(), Failure> {
        self.send("reset").await.map(|_| ())
    }

    /// Returns the delays measured since the last call or reset.
    pub async fn delays(&mut self) -> Result<Delays, Failure> {
        Ok(serde_json::from_str(&self.send("delays").await?)?)
    }

    /// Returns the id of the process.
    pub fn process_id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Returns the process's processor time.
    pub fn cpu(&self) -> Option<CpuTimes> {
        cpu::of(self.process.id()?)
    }

    /// Ends the process.
    pub async fn end(mut self) -> Result<(), Failure> {
        drop(self.commands);
        self.process.wait().await?;
        Ok(())
    }
}

/// Runs the subscribers' process.
pub async fn listen(url: &str, world: World) -> Result<(), Failure> {
    let sparc = Sparc::connect_with(url, Options::default().max_connections(10)).await?;
    let arrived: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let mut streams = JoinSet::new();
    while let Some(command) = next_command().await? {
        let reply = match command.trim() {
            "subscribe" => {
                for number in 0..SESSIONS {
                    for participant in 0..SUBSCRIBERS {
                        let (session, user) = subscriber(&world, number, participant);
                        let mut events = sparc.as_user(user).events().subscribe(session, None).await?;
                        let arrived = arrived.clone();
                        streams.spawn(async move {
                            while let Some(Ok(event)) = events.next().await {
                                let Some(sent_at) = event.payload["at"].as_u64() else { continue };
                                let took = Duration::from_micros(now().saturating_sub(sent_at));
                                arrived.lock().unwrap_or_else(PoisonError::into_inner).push(took);
                            }
                        });
                    }
                }
                "{}".to_owned()
            }
            "unsubscribe" => {
                streams.shutdown().await;
                "{}".to_owned()
            }
            // `delays` or `reset`.
            command => {
                let mut took = std::mem::take(&mut *arrived.lock().unwrap_or_else(PoisonError::into_inner));
                let delays = Delays {
                    p50_ms: quantile(&mut took, 0.5),
                    p95_ms: quantile(&mut took, 0.95),
                    p99_ms: quantile(&mut took, 0.99),
                    count: took.len(),
                };
                if command == "reset" { "{}".to_owned() } else { serde_json::to_string(&delays)? }
            }
        };
        println!("{reply}");
    }
    Ok(())
}

/// Returns the next command, or `None` once the measuring process has closed the pipe.
async fn next_command() -> Result<Option<String>, Failure> {
    let read = || {
        let mut command = String::new();
        std::io::stdin().read_line(&mut command).map(|length| (length > 0).then_some(command))
    };
    let command = tokio::task::spawn_blocking(read).await;
    Ok(command.map_err(|error| Failure::Message(error.to_string()))??)
}
