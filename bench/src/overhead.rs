//! The cost of triggers and policies: a roll and an event, compared with *bare* INSERTs of the same rows, which run
//! without triggers and policies. The command `compare` makes this comparison in this project's schema. It also runs
//! only the bare INSERTs, in this schema and in the specification's, to show what the keys, constraints and indexes of
//! each schema cost.

use std::time::Duration;

use crate::{
    argument_sets::ArgumentSet,
    client::Client,
    failure::Failure,
    measure::StatementPair,
    quantile::quantile_ms,
    report::Overhead,
    roll::{ROLL_EVENT_PAYLOAD, roll_values},
    workload::{Execution, Role, Workload, begin_and_setup_sql},
};

/// The number of transactions in which each statement is measured.
const TRANSACTIONS_PER_STATEMENT: usize = 4;
/// The number of executions per transaction.
const EXECUTIONS_PER_TRANSACTION: usize = 500;
/// The number of executions at the beginning of a transaction whose times are discarded. During these, the server
/// chooses between custom and generic plans.
const WARM_UP_EXECUTIONS: usize = 20;

/// The bare INSERT of a roll, without its event.
const BARE_ROLL: &str = "INSERT INTO dice_rolls (id, session_id, character_id, character_name, attribute, dice_count,
      difficulty, roll_type, modifiers, results, total, modified_total, success, outcome, margin, animation_seed)
    VALUES (gen_random_uuid(), $1, $2, 'Hero', 'might', 3, 9, 'attribute_check', '[]', '{4,2,6}', 12, 12, true,
      'success', 3, 4711)
    RETURNING *";
/// The bare INSERT of an event.
const BARE_EVENT: &str = "INSERT INTO session_events (id, session_id, event_type, payload, sender_id)
    VALUES (gen_random_uuid(), $1, $2, $3, $4)";
/// The bare INSERT of an event in the specification's schema, which does not store a sender.
const BARE_EVENT_WITHOUT_SENDER: &str = "INSERT INTO session_events (id, session_id, event_type, payload)
    VALUES (gen_random_uuid(), $1, $2, $3)";

/// The bare INSERTs of an account and its profile, in one statement.
const BARE_ACCOUNT: &str = "WITH account AS (
      INSERT INTO auth.users (id, email, raw_user_meta_data)
      VALUES (gen_random_uuid(), $1, '{\"display_name\": \"Newcomer\"}')
      RETURNING id, email
    )
    INSERT INTO users (id, email, display_name) SELECT id, email, 'Newcomer' FROM account";

/// Disables the triggers of the tables into which the bare INSERTs insert; keys and CHECK constraints remain enabled.
/// This SQL is sent in a transaction that is rolled back.
const DISABLE_TRIGGERS: &str =
    "ALTER TABLE dice_rolls DISABLE TRIGGER USER; ALTER TABLE session_events DISABLE TRIGGER USER;
    ALTER TABLE users DISABLE TRIGGER USER; ALTER TABLE auth.users DISABLE TRIGGER USER";

/// The names of the pairs that [`bare_inserts`] returns: a roll with its event, an event, and an account with its
/// profile.
pub const BARE_INSERT_NAMES: [&str; 3] = ["bare rows of a roll", "bare row of an event", "bare rows of a sign-up"];

/// Returns the bare INSERTs of the rows of a roll, an event and a sign-up, each for both schemas.
pub fn bare_inserts(argument_sets: &[ArgumentSet]) -> Vec<StatementPair> {
    let execute_bare_roll_sql = |argument_set: &ArgumentSet| {
        format!("EXECUTE bare_roll('{}', '{}')", argument_set.session, argument_set.character)
    };
    let execute_bare_event_sql = |argument_set: &ArgumentSet, sender_argument: &str| {
        format!(
            "EXECUTE bare_event('{}', 'dice_rolled', '{ROLL_EVENT_PAYLOAD}'{sender_argument})",
            argument_set.session
        )
    };
    let execute_bare_roll_and_event_sql = |argument_set: &ArgumentSet, sender_argument: &str| {
        format!("{}; {}", execute_bare_roll_sql(argument_set), execute_bare_event_sql(argument_set, sender_argument))
    };
    // E-mail addresses must be unique, because the statement runs many times in one transaction.
    let execute_bare_account_sql =
        |_: &ArgumentSet, _: &str| "EXECUTE bare_account(gen_random_uuid() || '@mail.example')".to_owned();
    vec![
        bare_insert_pair(BARE_INSERT_NAMES[0], argument_sets, &execute_bare_roll_and_event_sql),
        bare_insert_pair(BARE_INSERT_NAMES[1], argument_sets, &execute_bare_event_sql),
        bare_insert_pair(BARE_INSERT_NAMES[2], argument_sets, &execute_bare_account_sql),
    ]
}

/// Returns INSERTs of the same rows for both schemas. `sql_for_argument_set` returns the SQL for an argument set. Its
/// second parameter is the text of the last value in `EXECUTE bare_event`, with its comma (`, 'SENDER'`). It is empty
/// for the specification's schema, which does not store the sender.
fn bare_insert_pair(
    name: &'static str,
    argument_sets: &[ArgumentSet],
    sql_for_argument_set: &dyn Fn(&ArgumentSet, &str) -> String,
) -> StatementPair {
    let workload = |bare_event: &str, sender_argument: fn(&ArgumentSet) -> String| {
        let sql = |argument_set: &ArgumentSet| sql_for_argument_set(argument_set, &sender_argument(argument_set));
        // Disabling triggers invalidates the plans, so the server plans a statement anew when it is next executed. So
        // each statement is first executed untimed, with the values of another argument set, which do not warm the
        // caches for the timed execution.
        let next_argument_sets = argument_sets.iter().cycle().skip(1);
        let executions =
            argument_sets.iter().zip(next_argument_sets).map(|(argument_set, next_argument_set)| Execution {
                setup_sql: format!("{DISABLE_TRIGGERS}; {}", sql(next_argument_set)),
                timed_sql: sql(argument_set),
                ..Default::default()
            });
        Workload {
            prepared: [("bare_roll", BARE_ROLL), ("bare_event", bare_event), ("bare_account", BARE_ACCOUNT)]
                .map(|(name, sql)| (name.into(), sql.into()))
                .into(),
            executions: executions.collect(),
        }
    };
    StatementPair {
        name,
        role: Role::Owner,
        is_repeatable: true,
        specification: workload(BARE_EVENT_WITHOUT_SENDER, |_| String::new()),
        ours: workload(BARE_EVENT, |argument_set| format!(", '{}'", argument_set.player)),
    }
}

/// Measures a roll, an event and their bare INSERTs alternately, each many times in transactions that are rolled back.
/// `roll_sql` and `event_sql` are the service's statements. The database must already contain an event that a trigger
/// wrote for a roll: the event that is inserted with the bare roll gets the payload of the newest one.
pub async fn measure_overhead(
    client: &mut Client,
    argument_set: &ArgumentSet,
    roll_sql: &str,
    event_sql: &str,
) -> Result<Overhead, Failure> {
    for (name, sql) in [("roll", roll_sql), ("event", event_sql), ("bare_roll", BARE_ROLL), ("bare_event", BARE_EVENT)]
    {
        client.run(&format!("PREPARE {name} AS {sql}")).await?;
    }
    let execute_roll_sql = format!("EXECUTE roll({})", roll_values(argument_set).join(", "));
    // A payload that a trigger wrote, so that the event that is inserted with the bare roll has the same size.
    let payload_literal = client
        .fetch_value(
            "SELECT quote_literal(payload) FROM session_events
             WHERE event_type = 'dice_rolled'
             ORDER BY seq DESC
             LIMIT 1",
        )
        .await?;
    let execute_bare_roll_and_event_sql = format!(
        "EXECUTE bare_roll('{0}', '{1}'); EXECUTE bare_event('{0}', 'dice_rolled', {payload_literal}, '{2}')",
        argument_set.session, argument_set.character, argument_set.player
    );
    let execution = Execution { user: argument_set.player.to_string(), ..Default::default() };
    let begin_as_player = begin_and_setup_sql(Role::Authenticated, &execution);
    let begin_as_owner = format!("BEGIN; {DISABLE_TRIGGERS}");

    let execute_event_sql =
        format!("EXECUTE event(gen_random_uuid(), '{}', 'client.wave', '{{}}')", argument_set.session);
    let execute_bare_event_sql =
        format!("EXECUTE bare_event('{}', 'client.wave', '{{}}', '{}')", argument_set.session, argument_set.player);
    // The times of each statement, in the order in which they are destructured below.
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..TRANSACTIONS_PER_STATEMENT {
        times[0].extend(time_executions(client, &begin_as_player, &execute_roll_sql).await?);
        times[1].extend(time_executions(client, &begin_as_owner, &execute_bare_roll_and_event_sql).await?);
        times[2].extend(time_executions(client, &begin_as_player, &execute_event_sql).await?);
        times[3].extend(time_executions(client, &begin_as_owner, &execute_bare_event_sql).await?);
    }
    client.run("DEALLOCATE ALL").await?;
    let [roll_ms, bare_roll_and_event_ms, event_ms, bare_event_ms] =
        times.map(|mut times| quantile_ms(&mut times, 0.5));
    Ok(Overhead {
        roll_ms,
        bare_roll_and_event_ms,
        roll_ratio: roll_ms / bare_roll_and_event_ms,
        event_ms,
        bare_event_ms,
    })
}

/// Executes a statement many times in one transaction, which `begin_statement` begins. Returns the time of each
/// execution after the warm-up.
async fn time_executions(
    client: &mut Client,
    begin_statement: &str,
    timed_sql: &str,
) -> Result<Vec<Duration>, Failure> {
    client.run(begin_statement).await?;
    let mut times = Vec::new();
    for _ in 0..EXECUTIONS_PER_TRANSACTION {
        times.push(client.run_timed(timed_sql).await?.0);
    }
    client.run("ROLLBACK").await?;
    Ok(times.split_off(WARM_UP_EXECUTIONS))
}
