//! Alternatives to the poller for notifying subscribers of an event, and their cost to writers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{ALTERNATIVE_PAIRS, Writers, writers};
use crate::{Failure, client::Client, operations::Environment};

/// An alternative, in the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Alternative {
    /// Its description.
    pub name: String,
    /// Its cost to writers.
    pub writers: Vec<Writers>,
}

/// A trigger that sends `NOTIFY` in the writer's transaction: how to set it up, and how to remove it.
const NOTIFY: [&str; 2] = [
    "CREATE OR REPLACE FUNCTION private.notify_event() RETURNS trigger LANGUAGE plpgsql
       SET search_path = pg_catalog, pg_temp
       AS $$ BEGIN PERFORM pg_notify('session_events', NEW.session_id || ':' || NEW.seq); RETURN NULL; END $$;
     CREATE TRIGGER notify_event AFTER INSERT ON public.session_events
       FOR EACH ROW EXECUTE FUNCTION private.notify_event()",
    "DROP TRIGGER IF EXISTS notify_event ON public.session_events",
];

/// Logical decoding of the inserted events: how to set it up, and how to remove it.
const DECODING: [&str; 2] = [
    "SELECT pg_create_logical_replication_slot('bench', 'pgoutput');
     CREATE PUBLICATION bench FOR TABLE public.session_events WITH (publish = 'insert')",
    "DROP PUBLICATION IF EXISTS bench;
     SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'bench'",
];
/// Reads the decoded events; repeated as often as the poller reads.
const DECODE: &str = "SELECT count(*) FROM pg_logical_slot_get_binary_changes('bench', NULL, NULL,
     'proto_version', '1', 'publication_names', 'bench')";

/// Sends one notification per batch of events, on a connection other than the writers'.
const NOTIFY_LATER: &str = "SELECT pg_notify('session_events', 'x')";

/// Repeats a statement in the background until it is ended.
struct Background {
    is_running: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<(), Failure>>,
}

impl Background {
    fn start(url: &str, sql: &'static str, every: Duration) -> Self {
        let is_running = Arc::new(AtomicBool::new(true));
        let (continues, url) = (is_running.clone(), url.to_owned());
        let task = tokio::spawn(async move {
            let mut client = Client::open(&url).await?;
            while continues.load(Ordering::SeqCst) {
                client.run(sql).await?;
                tokio::time::sleep(every).await;
            }
            client.close().await
        });
        Self { is_running, task }
    }

    async fn end(self) -> Result<(), Failure> {
        self.is_running.store(false, Ordering::SeqCst);
        self.task.await.map_err(|error| Failure::Message(error.to_string()))?
    }
}

/// Measures each alternative.
pub async fn alternatives(environment: &Environment<'_>) -> Result<Vec<Alternative>, Failure> {
    let mut all = Vec::new();
    for (name, set_up, background) in [
        ("`pg_notify` in the writer's transaction", Some(NOTIFY), None),
        ("logical decoding (`pgoutput`), read every 25 ms", Some(DECODING), Some((DECODE, 25))),
        ("`pg_notify` by another connection, every 5 ms", None, Some((NOTIFY_LATER, 5))),
    ] {
        println!("{name}");
        let mut client = Client::open(environment.url).await?;
        let mut running: Option<Background> = None;
        let mut is_set_up = false;
        let outcome = writers(environment, ALTERNATIVE_PAIRS, None, async |is_on| {
            if let Some(running) = running.take() {
                running.end().await?;
            }
            if let Some([up, down]) = set_up
                && is_on != is_set_up
            {
                client.run(if is_on { up } else { down }).await?;
                is_set_up = is_on;
            }
            if is_on && let Some((sql, every)) = background {
                running = Some(Background::start(environment.url, sql, Duration::from_millis(every)));
            }
            Ok(())
        })
        .await?;
        client.close().await?;
        all.push(Alternative { name: name.to_owned(), writers: outcome });
    }
    Ok(all)
}
