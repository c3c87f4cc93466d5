//! The command `compare`: the specification's schema and this project's schema, in two databases of one cluster, filled
//! with the same rows and measured alternately. Comments call this project's schema "this schema", and names call it
//! `ours`.

use std::{fs, time::Instant};

use chrono::Utc;
use sea_orm::ConnectionTrait;
use service::{Operations, events::NewEvent};
use testdb::{Binaries, Database, Server};

use crate::{
    argument_sets::{ArgumentSet, choose_argument_sets},
    capture::StatementCapture,
    client::Client,
    data_set::DataSet,
    database::{AUTH_UID_SQL, PRODUCTION_SETTINGS},
    days, document,
    failure::Failure,
    fill::{fill, fill_events},
    growth::{bytes_per_session, migrate, migrate_watching_locks},
    indexes::{IndexUses, measure_indexes},
    load_test::{self, Delivery},
    measure::StatementPair,
    operations,
    options::CompareOptions,
    overhead,
    reads::capture_reads,
    report::{CreationResult, Report, RunInfo, nearest_to_1},
    roll::new_roll,
    schema::Schema,
    sql_values::quote_literal,
    writes::capture_writes,
};

const SPECIFICATION_SQL: &str = include_str!("../sql/specification.sql");
/// Creates a table that the specification uses but does not create, and grants Supabase's privileges.
const SPECIFICATION_SUPPLEMENT_SQL: &str = include_str!("../sql/specification_supplement.sql");

/// The two databases at one scale, filled with the same rows.
struct Databases {
    specification: Database,
    ours: Database,
    data_set: DataSet,
    argument_sets: Vec<ArgumentSet>,
    /// What was measured while the databases were created.
    creation: CreationResult,
}

/// The number of sessions in the first step of the load test, few enough that the machine sustains them.
const FIRST_STEP_SESSIONS: u64 = 50;

/// Runs the command `compare`.
pub async fn run(options: &CompareOptions) -> Result<(), Failure> {
    let start = Instant::now();
    let mut scales = options.scales.clone();
    scales.sort_by(f64::total_cmp);
    // The results of a scale are looked up by the scale, so if a scale were measured twice, its results would be mixed
    // up.
    if let Some([scale, _]) = scales.array_windows().find(|[scale, next]| scale == next) {
        return Err(Failure::Message(format!("scale {scale} is given more than once")));
    }
    fs::create_dir_all(&options.out)?;
    let server = Server::start_plain(Some(&PRODUCTION_SETTINGS)).await?;
    let mut client = Client::open(server.url()).await?;
    let mut report = Report { run_info: RunInfo::read(&mut client).await?, ..Report::default() };
    for (name, setting) in &report.run_info.server_settings {
        println!("{name:>22} {setting}");
    }
    let postmaster_pid = client.postmaster_pid().await?;
    client.close().await?;

    // The indexes, and what `measure_beyond_statements` measures, are measured once, at this scale.
    let scale_nearest_to_1 = nearest_to_1(scales.iter().copied()).unwrap_or(1.0);
    for scale in scales {
        println!("scale {scale}");
        let databases = create_databases(&server, scale).await?;
        let (index_uses, pairs) = measure_statements(&databases, scale, options, &mut report).await?;
        let Databases { specification, ours, data_set, argument_sets, creation } = databases;
        drop(specification);
        measure_statements_in_isolation(&ours, &pairs, scale, &mut report).await?;
        if scale == scale_nearest_to_1 {
            // If only some statements were measured, most indexes would seem unused.
            if options.only.is_empty() && !options.no_statements {
                let mut client = Client::open(ours.url()).await?;
                report.indexes = measure_indexes(&mut client, &index_uses).await?;
                report.indexes_scale = Some(scale);
                client.close().await?;
            }
            measure_beyond_statements(&ours, &argument_sets, data_set, postmaster_pid, options, &mut report).await?;
        }
        report.creations.push(creation);
        report.run_info.seconds = start.elapsed().as_secs_f64();
        document::write(&report, &options.out, options.write_to_docs)?;
    }
    Ok(())
}

/// Creates both databases and fills them with the same rows. Measures the sizes of both and, for this schema, the index
/// builds, `up` on an empty database, and `up` run again on the filled one.
async fn create_databases(server: &Server, scale: f64) -> Result<Databases, Failure> {
    let data_set = DataSet::at_scale(scale);
    let now = Utc::now();
    let empty = server.create_unmigrated().await?;
    let pool = empty.connect(2).await?;
    let up_on_empty_database_ms = migrate(&pool, None).await?;
    pool.close().await?;
    drop(empty);

    let specification = server.create_unmigrated().await?;
    let pool = specification.connect(2).await?;
    // The first migration creates the stand-in for the platform (Supabase): accounts, roles, `auth.uid()`.
    migrate(&pool, Some(1)).await?;
    pool.execute_unprepared(AUTH_UID_SQL).await?;
    pool.execute_unprepared(SPECIFICATION_SQL).await?;
    pool.execute_unprepared(SPECIFICATION_SUPPLEMENT_SQL).await?;
    pool.close().await?;
    let ours = server.create_unmigrated().await?;
    let pool = ours.connect(2).await?;
    migrate(&pool, None).await?;

    let filling_ours = fill(ours.url(), Schema::Ours, data_set, now);
    let filling_specification = fill(specification.url(), Schema::Specification, data_set, now);
    let (index_builds, _) = tokio::try_join!(filling_ours, filling_specification)?;
    tokio::try_join!(fill_events(ours.url(), data_set, now), fill_events(specification.url(), data_set, now))?;
    let (repeated_up_on_filled_database_ms, longest_lock, longest_lock_table) =
        migrate_watching_locks(&pool, ours.url()).await?;
    // Supabase's `auth.uid()` is installed only now, because `up` would replace it with the stand-in of the migrations.
    pool.execute_unprepared(AUTH_UID_SQL).await?;
    pool.close().await?;

    let mut argument_sets = choose_argument_sets(&data_set);
    let mut client = Client::open(ours.url()).await?;
    client.run("VACUUM ANALYZE").await?;
    for argument_set in &mut argument_sets {
        let select_seq = format!("SELECT seq FROM session_events WHERE id = {}", quote_literal(argument_set.event));
        argument_set.event_seq = client.fetch_number(&select_seq).await? as i64;
    }
    client.close().await?;
    let creation = CreationResult {
        scale,
        specification_bytes_per_session: bytes_per_session(specification.url(), &data_set).await?,
        ours_bytes_per_session: bytes_per_session(ours.url(), &data_set).await?,
        index_builds_ms: index_builds.iter().map(|build| build.ms).sum(),
        index_builds,
        up_on_empty_database_ms,
        repeated_up_on_filled_database_ms,
        longest_lock_ms: longest_lock.as_secs_f64() * 1000.0,
        longest_lock_table,
    };
    Ok(Databases { specification, ours, data_set, argument_sets, creation })
}

/// Measures reads and writes in both schemas, and records which indexes of this schema they use.
async fn measure_statements(
    databases: &Databases,
    scale: f64,
    options: &CompareOptions,
    report: &mut Report,
) -> Result<(IndexUses, Vec<StatementPair>), Failure> {
    let mut capture = StatementCapture::new(databases.ours.connect(1).await?);
    let mut pairs = capture_reads(&mut capture, &databases.argument_sets).await?;
    pairs.extend(capture_writes(&mut capture, &databases.argument_sets).await?);
    pairs.retain(|pair| {
        let is_chosen = options.only.is_empty() || options.only.iter().any(|word| pair.name.contains(word.as_str()));
        is_chosen && !options.no_statements
    });
    capture.close().await?;
    let mut specification = Client::open(databases.specification.url()).await?;
    let mut ours = Client::open(databases.ours.url()).await?;
    let mut index_uses = IndexUses::start(&mut ours).await?;
    for pair in &pairs {
        let result = pair.measure(&mut specification, &mut ours, scale).await?;
        println!(
            "{:>42} specification {:>10.3} ms, ours {:>8.3} ms, ratio {:>9.1}; ours: p99 {:.3} ms, {} buffers, {} rows \
             (specification: {}), custom and generic plans {:?}",
            result.name,
            result.specification_ms,
            result.ours_ms,
            result.ratio,
            result.p99_ms,
            result.buffers,
            result.rows,
            result.specification_rows,
            result.plan_counts
        );
        index_uses.record(&mut ours, pair.name).await?;
        report.statements.push(result);
    }
    specification.close().await?;
    ours.close().await?;
    Ok((index_uses, pairs))
}

/// Reads all tables and indexes into the operating system's page cache, because a production host has memory for its
/// data.
const PREWARM_SQL: &str = "CREATE EXTENSION IF NOT EXISTS pg_prewarm SCHEMA extensions;
    SELECT extensions.pg_prewarm(oid, 'read')
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace
      AND relkind IN ('r', 'i')";

/// The number of rounds, each about a minute long, in which the median time of each statement in isolation is measured.
/// The smallest of a statement's medians counts, because other load on the machine varies.
const ISOLATED_ROUNDS: u32 = 3;

/// Measures this schema's statements in isolation: without the specification's statements in between. The
/// specification's statements read more as the data grows, and evict pages that a production host, which has no second
/// schema, keeps in memory.
async fn measure_statements_in_isolation(
    ours: &Database,
    pairs: &[StatementPair],
    scale: f64,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut client = Client::open(ours.url()).await?;
    if client.fetch_number("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_prewarm'").await? > 0.0 {
        client.run(PREWARM_SQL).await?;
    }
    let results = report.statements.iter_mut().filter(|result| result.scale == scale);
    let mut pairs_and_results: Vec<_> = pairs.iter().zip(results).collect();
    for round in 0..ISOLATED_ROUNDS {
        for (pair, result) in &mut pairs_and_results {
            let ms = pair.measure_in_isolation(&mut client).await?;
            result.ours_isolated_ms = if round == 0 { ms } else { result.ours_isolated_ms.min(ms) };
        }
    }
    for (_, result) in &pairs_and_results {
        println!("{:>42} {:>8.3} ms in isolation", result.name, result.ours_isolated_ms);
    }
    client.close().await
}

/// Measures what needs one scale only: the cost of triggers and policies; whole operations; sessions at human speed
/// (the load test); and simulated days. (The indexes need one scale too; [`run`] measures them itself.)
async fn measure_beyond_statements(
    ours: &Database,
    argument_sets: &[ArgumentSet],
    data_set: DataSet,
    postmaster_pid: Option<u32>,
    options: &CompareOptions,
    report: &mut Report,
) -> Result<(), Failure> {
    let url = ours.url();
    let mut capture = StatementCapture::new(ours.connect(1).await?);
    let argument_set = &argument_sets[0];
    // This roll is committed, because `measure_overhead` reads the payload of its event.
    capture.sparc.as_user(argument_set.player).dice().roll(new_roll(argument_set)?).await?;
    let roll_statement = capture.last_new_statement().await?;
    let event = NewEvent { session_id: argument_set.session, kind: "wave".to_owned(), ..Default::default() };
    capture.sparc.as_user(argument_set.player).events().send(event).await?;
    let event_statement = capture.last_new_statement().await?;
    let mut client = Client::open(url).await?;
    let overhead =
        overhead::measure_overhead(&mut client, argument_set, &roll_statement.sql, &event_statement.sql).await?;
    println!(
        "a roll {:.3} ms, its bare INSERTs {:.3} ms, ratio {:.2}",
        overhead.roll_ms, overhead.bare_roll_and_event_ms, overhead.roll_ratio
    );
    report.overhead = Some(overhead);

    if let Some(run_length) = options.operation_run_length() {
        if let Some(pgbench) = Binaries::find_or_fetch()?.program("pgbench") {
            let environment = operations::Environment { url, argument_sets, postmaster_pid };
            let pgbench_options =
                operations::PgbenchOptions { program: &pgbench, script_folder: &options.out, run_length };
            let new_capture = async || Ok(StatementCapture::new(ours.connect(1).await?));
            report.operations = operations::measure_operations(&environment, &pgbench_options, new_capture).await?;
        } else {
            println!("pgbench is not installed, so whole operations are not measured");
        }
    }
    if !options.no_load_test {
        report.load_steps =
            load_test::run_load_test(url, &data_set, postmaster_pid, FIRST_STEP_SESSIONS, Delivery::Polling).await?;
    }
    if options.simulated_days > 0 {
        report.days = days::simulate_days(url, data_set, options.simulated_days).await?;
    }
    client.close().await
}
