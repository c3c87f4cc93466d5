//! A process of its own with a thousand subscribers, told by lines what to do.

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
    cpu::{self, Spent},
    measure::quantile,
    world::World,
};

/// The process, as the one that measures sees it.
#[derive(Debug)]
pub struct Listener {
    process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    is_subscribed: bool,
}

impl Listener {
    /// Starts it. It is stopped when it is dropped.
    pub async fn start(url: &str, world: World) -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["listen", url, &world.users.to_string(), &world.busy.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(orders), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Failure::Said("the listener has no lines".to_owned()));
        };
        let answers = BufReader::new(answers).lines();
        Ok(Self { process, orders, answers, is_subscribed: false })
    }

    async fn order(&mut self, order: &str) -> Result<String, Failure> {
        self.orders.write_all(format!("{order}\n").as_bytes()).await?;
        let answer = self.answers.next_line().await?;
        answer.ok_or_else(|| Failure::Said("the listener has ended".to_owned()))
    }

    /// All subscribe, if they have not.
    pub async fn subscribe(&mut self) -> Result<(), Failure> {
        if !self.is_subscribed {
            self.order("subscribe").await?;
            self.is_subscribed = true;
        }
        Ok(())
    }

    /// All leave.
    pub async fn leave(&mut self) -> Result<(), Failure> {
        self.is_subscribed = false;
        self.order("leave").await.map(|_| ())
    }

    /// Forgets what arrived.
    pub async fn forget(&mut self) -> Result<(), Failure> {
        self.order("forget").await.map(|_| ())
    }

    /// How long the events took that arrived.
    pub async fn delays(&mut self) -> Result<Delays, Failure> {
        Ok(serde_json::from_str(&self.order("delays").await?)?)
    }

    /// Its processor time.
    pub fn cpu(&self) -> Option<Spent> {
        cpu::of(self.process.id()?)
    }

    /// Ends it.
    pub async fn end(mut self) -> Result<(), Failure> {
        drop(self.orders);
        self.process.wait().await?;
        Ok(())
    }
}

/// The process itself.
pub async fn listen(url: &str, world: World) -> Result<(), Failure> {
    let sparc = Sparc::connect_with(url, Options::default().max_connections(10)).await?;
    let arrived: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let mut streams = JoinSet::new();
    while let Some(order) = next_order().await? {
        let answer = match order.trim() {
            "subscribe" => {
                for number in 0..SESSIONS {
                    for place in 0..SUBSCRIBERS {
                        let (session, user) = subscriber(&world, number, place);
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
            "leave" => {
                streams.shutdown().await;
                "{}".to_owned()
            }
            order => {
                let mut took = std::mem::take(&mut *arrived.lock().unwrap_or_else(PoisonError::into_inner));
                let delays = Delays {
                    p50_ms: quantile(&mut took, 0.5),
                    p95_ms: quantile(&mut took, 0.95),
                    p99_ms: quantile(&mut took, 0.99),
                    count: took.len(),
                };
                if order == "forget" { "{}".to_owned() } else { serde_json::to_string(&delays)? }
            }
        };
        println!("{answer}");
    }
    Ok(())
}

/// None: whoever gives the orders is gone.
async fn next_order() -> Result<Option<String>, Failure> {
    let read = || {
        let mut order = String::new();
        std::io::stdin().read_line(&mut order).map(|length| (length > 0).then_some(order))
    };
    let order = tokio::task::spawn_blocking(read).await;
    Ok(order.map_err(|error| Failure::Said(error.to_string()))??)
}
