//! Measures how much longer a roll takes if its event is also sent as a Supabase Realtime broadcast, with a stand-in
//! for Supabase's PostgreSQL schema `realtime`.

use std::time::Duration;

use chrono::Utc;
use service::Operations;
use testdb::Server;

use crate::{
    argument_sets::choose_argument_sets,
    capture::StatementCapture,
    client::Client,
    data_set::DataSet,
    database::PRODUCTION_SETTINGS,
    failure::Failure,
    fill::fill,
    growth::migrate,
    quantile::quantile_ms,
    report::BroadcastCost,
    roll::{new_roll, roll_values},
    schema::Schema,
    workload::{Execution, Role, begin_and_setup_sql},
};

/// The rows of the database: fewer than in other measurements, because only rolls of one session are measured.
const DATA_SET: DataSet =
    DataSet { users: 1000, adventures: 100, active_sessions: 20, unstarted_sessions: 20, ended_sessions: 2000 };
/// The number of rolls per transaction.
const ROLLS_PER_TRANSACTION: usize = 200;
/// The number of pairs of transactions, one without broadcasts and one with them.
const TRANSACTION_PAIRS: usize = 8;

/// Starts a server, and measures rolls on it alternately with and without broadcasts, in transactions that are rolled
/// back.
pub async fn measure_broadcasts() -> Result<BroadcastCost, Failure> {
    let server = Server::start_supabase(Some(&PRODUCTION_SETTINGS)).await?;
    let database = server.create_unmigrated().await?;
    let pool = database.connect(1).await?;
    migrate(&pool, None).await?;
    fill(&database.superuser_url(), Schema::Ours, DATA_SET, Utc::now()).await?;
    let argument_set = choose_argument_sets(&DATA_SET).swap_remove(0);
    let mut capture = StatementCapture::new(pool);
    capture.sparc.as_user(argument_set.player).dice().roll(new_roll(&argument_set)?).await?;
    let roll_statement = capture.last_new_statement().await?;
    capture.close().await?;

    let mut client = Client::open(&database.superuser_url()).await?;
    client.run(&format!("PREPARE roll AS {}", roll_statement.sql)).await?;
    let begin_sql = begin_and_setup_sql(
        Role::Authenticated,
        &Execution { user: argument_set.player.to_string(), ..Default::default() },
    );
    let timed_sql = format!("EXECUTE roll({})", roll_values(&argument_set).join(", "));
    let database_name = client.fetch_value("SELECT current_database()").await?;
    // The times without broadcasts, and those with them.
    let mut times: [Vec<Duration>; 2] = Default::default();
    for number in 0..2 * TRANSACTION_PAIRS {
        let is_broadcast_on = number % 2 == 1;
        // The trigger reads the setting from the catalog, so the change also affects connections that are already open,
        // such as this one.
        let setting = if is_broadcast_on { "on" } else { "off" };
        client.run(&format!("ALTER DATABASE \"{database_name}\" SET sparc.broadcast = '{setting}'")).await?;
        let message_count_before = client.fetch_number("SELECT count(*) FROM realtime.messages").await?;
        client.run(&begin_sql).await?;
        for roll_number in 0..ROLLS_PER_TRANSACTION {
            let (time, _) = client.run_timed(&timed_sql).await?;
            // The first tenth of the rolls is the warm-up.
            if roll_number >= ROLLS_PER_TRANSACTION / 10 {
                times[usize::from(is_broadcast_on)].push(time);
            }
        }
        // The rolls ran as a user, to whom row-level security does not show all broadcasts.
        client.run("RESET ROLE").await?;
        let sent_count = client.fetch_number("SELECT count(*) FROM realtime.messages").await? - message_count_before;
        client.run("ROLLBACK").await?;
        // The trigger ignores errors, so a broadcast that fails would only make its cost look smaller.
        let expected_count = if is_broadcast_on { ROLLS_PER_TRANSACTION as f64 } else { 0.0 };
        if sent_count != expected_count {
            return Err(Failure::Message(format!(
                "sparc.broadcast is {setting}, but {ROLLS_PER_TRANSACTION} rolls sent {sent_count} broadcasts"
            )));
        }
    }
    client.close().await?;
    let [roll_ms_without_broadcast, roll_ms_with_broadcast] = times.map(|mut times| quantile_ms(&mut times, 0.5));
    let cost = BroadcastCost { roll_ms_without_broadcast, roll_ms_with_broadcast };
    println!("{cost:?}");
    Ok(cost)
}
