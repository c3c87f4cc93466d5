//! Random programs, whose outcomes are compared with those of a model. A program is several concurrent tasks, each of
//! which makes random calls as a user of its own. The model covers identity, savepoints, failures, dropped calls and
//! streams of query results. At the end, the database must have every row whose insert was committed and no row whose
//! insert failed or was rolled back. Each statement must run as its caller. (`dropped_calls.rs` has tests that are not
//! random.)
//!
//! For a longer run: `SPARC_PROGRAMS=5000 cargo test --release --test integration random_programs`. `SPARC_SEED=7` runs
//! only the program with that seed.

mod dropped_calls;
mod dropping;
mod model;

use std::time::Duration;

use sea_orm::ConnectionTrait;
use sparc::service::{Options, Sparc};

use crate::{faults::env_number, world::World};
pub use dropping::poll_then_drop;
use model::Task;

/// The number of steps of one task.
const STEPS_PER_TASK: u32 = 60;

/// Creates the table `notes`, into which the tasks insert rows. A user sees only the rows that they inserted
/// themselves.
const CREATE_NOTES_SQL: &str = "CREATE TABLE notes (key bigint PRIMARY KEY, owner uuid NOT NULL DEFAULT auth.uid());
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON notes TO authenticated USING (owner = auth.uid()) WITH CHECK (owner = auth.uid());
    GRANT SELECT, INSERT ON notes TO authenticated";

#[tokio::test]
async fn random_programs_agree_with_the_model() {
    let program_count = env_number("SPARC_PROGRAMS", 25);
    let only_seed = std::env::var("SPARC_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let world = World::new().await;
    world.pool.execute_unprepared(CREATE_NOTES_SQL).await.unwrap();
    let mut users = Vec::new();
    for _ in 0..4 {
        let id = world.new_account().await;
        users.push((id, world.new_draft_adventure(id).await));
    }
    let (mut step_count, mut dropped_call_count) = (0, 0);
    for seed in only_seed.map_or(0..u64::from(program_count), |seed| seed..seed + 1) {
        world.pool.execute_unprepared("TRUNCATE notes").await.unwrap();
        // There are as many connections as tasks. A call outside of its task's transaction needs a further connection,
        // so callers sometimes have to wait.
        let options = Options::default().max_connections(4).deadline(Duration::from_secs(20));
        let sparc = Sparc::connect_with(world.url(), options).await.unwrap();
        let tasks = users.iter().enumerate().map(|(number, (user, draft_adventure))| {
            let mut task = Task::new(seed, number as u64, sparc.as_user(*user), *draft_adventure);
            async move {
                task.run(STEPS_PER_TASK).await;
                task
            }
        });
        let tasks = futures_util::future::join_all(tasks).await;
        // Closing waits for pending rollbacks, so the rows do not change any more.
        sparc.close().await.unwrap();
        for task in tasks {
            let sql = format!("SELECT key FROM notes WHERE owner = '{}'", task.user_id());
            let stored_keys = world.owner().fetch_values::<i64>(&sql).await.unwrap().into_iter().collect();
            task.assert_stored_keys(&stored_keys);
            step_count += u64::from(STEPS_PER_TASK);
            dropped_call_count += task.dropped_calls;
        }
    }
    println!("{step_count} steps, {dropped_call_count} calls dropped");
    assert!(dropped_call_count > 0, "some calls must have been dropped");
}
