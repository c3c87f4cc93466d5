//! What else would tell subscribers of an event, and what it costs those who write.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{FEW_TURNS, Writers, writers};
use crate::{Failure, client::Client, operations::Place};

/// A way that was tried, in the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// What it is.
    pub name: String,
    /// What it costs writers.
    pub writers: Vec<Writers>,
}

/// `NOTIFY` in the writer's own transaction, from the trigger.
const NOTIFY: [&str; 2] = [
    "CREATE OR REPLACE FUNCTION private.notify_event() RETURNS trigger LANGUAGE plpgsql
       SET search_path = pg_catalog, pg_temp
       AS $$ BEGIN PERFORM pg_notify('session_events', NEW.session_id || ':' || NEW.seq); RETURN NULL; END $$;
     CREATE TRIGGER notify_event AFTER INSERT ON public.session_events
       FOR EACH ROW EXECUTE FUNCTION private.notify_event()",
    "DROP TRIGGER IF EXISTS notify_event ON public.session_events",
];

/// Logical decoding with a reader that asks as often as the poller does.
const DECODING: [&str; 2] = [
    "SELECT pg_create_logical_replication_slot('bench', 'pgoutput');
     CREATE PUBLICATION bench FOR TABLE public.session_events WITH (publish = 'insert')",
    "DROP PUBLICATION IF EXISTS bench;
     SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'bench'",
];
const DECODE: &str = "SELECT count(*) FROM pg_logical_slot_get_binary_changes('bench', NULL, NULL,
     'proto_version', '1', 'publication_names', 'bench')";

/// One connection for all that notifies after the commits of others: a transaction for each batch of what was written.
const NOTIFY_LATER: &str = "SELECT pg_notify('session_events', 'x')";

/// Does something over and over, as long as it is switched on.
struct Beside {
    is_on: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<(), Failure>>,
}

impl Beside {
    fn start(url: &str, sql: &'static str, every: Duration) -> Self {
        let is_on = Arc::new(AtomicBool::new(true));
        let (goes_on, url) = (is_on.clone(), url.to_owned());
        let task = tokio::spawn(async move {
            let mut client = Client::open(&url).await?;
            while goes_on.load(Ordering::SeqCst) {
                client.run(sql).await?;
                tokio::time::sleep(every).await;
            }
            client.close().await
        });
        Self { is_on, task }
    }

    async fn end(self) -> Result<(), Failure> {
        self.is_on.store(false, Ordering::SeqCst);
        self.task.await.map_err(|error| Failure::Said(error.to_string()))?
    }
}

/// Each of them, beside nothing.
pub async fn candidates(place: &Place<'_>) -> Result<Vec<Candidate>, Failure> {
    let mut all = Vec::new();
    for (name, set_up, beside) in [
        ("`pg_notify` in the writer's transaction", Some(NOTIFY), None),
        ("logical decoding (`pgoutput`), read every 25 ms", Some(DECODING), Some((DECODE, 25))),
        ("`pg_notify` by another connection, every 5 ms", None, Some((NOTIFY_LATER, 5))),
    ] {
        println!("{name}");
        let mut client = Client::open(place.url).await?;
        let mut running: Option<Beside> = None;
        let mut is_set_up = false;
        let outcome = writers(place, FEW_TURNS, async |is_on| {
            if let Some(running) = running.take() {
                running.end().await?;
            }
            if let Some([up, down]) = set_up
                && is_on != is_set_up
            {
                client.run(if is_on { up } else { down }).await?;
                is_set_up = is_on;
            }
            if is_on && let Some((sql, every)) = beside {
                running = Some(Beside::start(place.url, sql, Duration::from_millis(every)));
            }
            Ok(())
        })
        .await?;
        client.close().await?;
        all.push(Candidate { name: name.to_owned(), writers: outcome });
    }
    Ok(all)
}
