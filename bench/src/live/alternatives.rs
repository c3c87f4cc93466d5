//! Alternatives to the service's poller, and what they cost writers. The poller is the task that reads new events from
//! the database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::writers::compare_writers;
use crate::{client::Client, failure::Failure, operations::Environment, report::AlternativeResult};

/// The number of pairs of runs, one with and one without the alternative, for each alternative and each number of
/// clients.
const RUN_PAIRS_PER_ALTERNATIVE: usize = 6;

/// The SQL that sets up a trigger that sends `NOTIFY` in the writer's transaction, and the SQL that removes the
/// trigger.
const NOTIFY_IN_TRIGGER: [&str; 2] = [
    "CREATE OR REPLACE FUNCTION private.notify_event() RETURNS trigger LANGUAGE plpgsql
       SET search_path = pg_catalog, pg_temp
       AS $$ BEGIN PERFORM pg_notify('session_events', NEW.session_id || ':' || NEW.seq); RETURN NULL; END $$;
     CREATE TRIGGER notify_event AFTER INSERT ON public.session_events
       FOR EACH ROW EXECUTE FUNCTION private.notify_event()",
    "DROP TRIGGER IF EXISTS notify_event ON public.session_events",
];

/// The SQL that sets up logical decoding of the inserted events, and the SQL that ends it.
const LOGICAL_DECODING: [&str; 2] = [
    "SELECT pg_create_logical_replication_slot('bench', 'pgoutput');
     CREATE PUBLICATION bench FOR TABLE public.session_events WITH (publish = 'insert')",
    "DROP PUBLICATION IF EXISTS bench;
     SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'bench'",
];

/// Reads the decoded events. This statement is repeated as often as the service's poller reads new events.
const READ_DECODED_EVENTS: &str = "SELECT count(*) FROM pg_logical_slot_get_binary_changes('bench', NULL, NULL,
     'proto_version', '1', 'publication_names', 'bench')";

/// Sends a notification on a connection other than the writers'. This statement is repeated at an interval, whether or
/// not there are new events; each notification stands for all events since the previous one.
const NOTIFY_BY_OTHER_CONNECTION: &str = "SELECT pg_notify('session_events', 'x')";

/// A background task that repeats a statement until it is stopped.
struct StatementRepeater {
    is_stop_requested: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<(), Failure>>,
}

impl StatementRepeater {
    fn start(url: &str, sql: &'static str, interval: Duration) -> Self {
        let is_stop_requested = Arc::new(AtomicBool::new(false));
        let (is_stop_requested_for_task, url) = (is_stop_requested.clone(), url.to_owned());
        let task = tokio::spawn(async move {
            let mut client = Client::open(&url).await?;
            while !is_stop_requested_for_task.load(Ordering::SeqCst) {
                client.run(sql).await?;
                tokio::time::sleep(interval).await;
            }
            client.close().await
        });
        Self { is_stop_requested, task }
    }

    async fn stop(self) -> Result<(), Failure> {
        self.is_stop_requested.store(true, Ordering::SeqCst);
        self.task.await.map_err(|error| Failure::Message(error.to_string()))?
    }
}

/// Measures what each alternative costs writers.
pub async fn measure_alternatives(environment: &Environment<'_>) -> Result<Vec<AlternativeResult>, Failure> {
    let mut alternatives = Vec::new();
    // Each alternative has a description. It also has the SQL that sets it up and removes it, or a statement that is
    // repeated while it is on (with the interval in milliseconds), or both.
    for (name, setup_and_removal, repeated_statement) in [
        ("`pg_notify` in the writer's transaction", Some(NOTIFY_IN_TRIGGER), None),
        ("logical decoding (`pgoutput`), read every 25 ms", Some(LOGICAL_DECODING), Some((READ_DECODED_EVENTS, 25))),
        ("`pg_notify` by another connection, every 5 ms", None, Some((NOTIFY_BY_OTHER_CONNECTION, 5))),
    ] {
        println!("{name}");
        let mut client = Client::open(environment.url).await?;
        let mut repeater: Option<StatementRepeater> = None;
        let mut is_set_up = false;
        // No separate process adds the load (PostgreSQL or this process does), so there is none to measure.
        let load_pid = None;
        let writer_comparisons = compare_writers(environment, RUN_PAIRS_PER_ALTERNATIVE, load_pid, async |is_on| {
            if let Some(repeater) = repeater.take() {
                repeater.stop().await?;
            }
            if let Some([setup, removal]) = setup_and_removal
                && is_on != is_set_up
            {
                client.run(if is_on { setup } else { removal }).await?;
                is_set_up = is_on;
            }
            if is_on && let Some((sql, interval_ms)) = repeated_statement {
                repeater = Some(StatementRepeater::start(environment.url, sql, Duration::from_millis(interval_ms)));
            }
            Ok(())
        })
        .await?;
        client.close().await?;
        alternatives.push(AlternativeResult { name: name.to_owned(), writer_comparisons });
    }
    Ok(alternatives)
}
