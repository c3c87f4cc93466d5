//! Faults of server, disk and network, and calls that are dropped: callers get a typed error in bounded time, no
//! transaction stays open, and nothing that was acknowledged is lost.

mod crashes;
mod disk;
mod dropped_calls;
mod live_events;
pub mod network;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use sparc::service::{Operations, Sparc, sessions::LobbyFilter};

use crate::{
    random_operations::{AcknowledgedRow, RandomOperations},
    world::World,
};

/// The longest time that any operation may take under a fault.
const MAX_OPERATION_TIME: Duration = Duration::from_secs(60);

/// Clients that call operations until they are stopped.
pub struct Load {
    is_stopped: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<Outcomes>>,
}

/// The outcomes of the calls of one or all clients.
#[derive(Default)]
pub struct Outcomes {
    /// The rows whose creation was acknowledged.
    pub acknowledged: BTreeSet<AcknowledgedRow>,
    /// How many operations ended with each error code, or with "done".
    pub counts_by_code: BTreeMap<&'static str, usize>,
}

impl Load {
    /// Starts `client_count` clients, each of which calls one random operation after the other.
    pub fn start(sparc: &Sparc, operations: &Arc<RandomOperations>, client_count: u64) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let clients = (0..client_count)
            .map(|client| {
                let (sparc, operations, is_stopped) = (sparc.clone(), operations.clone(), is_stopped.clone());
                tokio::spawn(async move {
                    let mut rng = Rng::with_seed(client);
                    let mut outcomes = Outcomes::default();
                    while !is_stopped.load(Ordering::SeqCst) {
                        let operation = operations.call_random_operation(&sparc, &mut rng);
                        let outcome =
                            tokio::time::timeout(MAX_OPERATION_TIME, operation).await.expect("an operation hangs");
                        if let Ok(Some(row)) = &outcome {
                            outcomes.acknowledged.insert(*row);
                        }
                        let code = outcome.map_or_else(|error| error.code(), |_| "done");
                        *outcomes.counts_by_code.entry(code).or_default() += 1;
                    }
                    outcomes
                })
            })
            .collect();
        Self { is_stopped, clients }
    }

    /// Stops the clients and returns all their outcomes.
    pub async fn stop(self) -> Outcomes {
        self.is_stopped.store(true, Ordering::SeqCst);
        let mut all = Outcomes::default();
        for client in self.clients {
            let outcomes = client.await.unwrap();
            all.acknowledged.extend(outcomes.acknowledged);
            for (code, count) in outcomes.counts_by_code {
                *all.counts_by_code.entry(code).or_default() += count;
            }
        }
        all
    }
}

/// Returns the number in the environment variable `name`, or `default` if it is not set.
pub fn env_number(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Asserts that a call on the handle, which was connected before the fault, succeeds.
pub async fn assert_call_succeeds(sparc: &Sparc) {
    let visitor = sparc.as_anon();
    let filter = LobbyFilter::default();
    let lobby = visitor.sessions().lobby(&filter, None);
    if let Err(error) = tokio::time::timeout(MAX_OPERATION_TIME, lobby).await.expect("an operation hangs") {
        panic!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
    }
}

/// Asserts that every acknowledged row exists.
pub async fn assert_nothing_lost(world: &World, acknowledged: &BTreeSet<AcknowledgedRow>) {
    let owner = world.owner();
    for row in acknowledged {
        assert_eq!(owner.count(&row.sql_after_from()).await, 1, "{row:?} was acknowledged but does not exist");
    }
}

/// Asserts that the transactions of all other connections end within ten seconds. (A connection that is being returned
/// to its pool may still have an open one.)
pub async fn assert_all_transactions_end(world: &World) {
    let open_transactions =
        "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
                AND backend_type = 'client backend'";
    for _ in 0..200 {
        if world.owner().count(open_transactions).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a transaction stays open");
}
