//! The command `compare`: two databases in one cluster, filled with the same rows and measured alternately.

use std::{fs, time::Instant};

use chrono::Utc;
use sea_orm::ConnectionTrait;
use service::{Operations, events::NewEvent};
use testdb::{Binaries, Database, Server};

use crate::{
    Compare, Failure,
    capture::StatementCapture,
    client::Client,
    days,
    evening::{self, Delivery},
    fill::{Schema, fill, fill_events},
    growth::{Size, bytes_per_session, up, up_watching_locks},
    indexes::{Uses, indexes},
    measure::Measure,
    operations, overhead, page,
    reads::{quoted, reads},
    report::{Report, Settings},
    samples::{Sample, samples},
    world::World,
    writes::{check, writes},
};

/// Settings of a production host: acknowledged commits are on disk, and the data in use fits in the buffers. The
/// planner's cost parameters are PostgreSQL's defaults.
pub const SETTINGS: [&str; 8] = [
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "wal_level=logical",
    "shared_buffers=4GB",
    "max_wal_size=8GB",
    "max_connections=200",
    "autovacuum_naptime=15s",
];

const SPECIFICATION: &str = include_str!("../sql/specification.sql");
pub const ACCOUNTS: &str = include_str!("../sql/accounts.sql");
const PLATFORM_GRANTS: &str = include_str!("../sql/platform.sql");

/// The two databases at one scale.
struct Databases {
    specification: Database,
    ours: Database,
    world: World,
    samples: Vec<Sample>,
    size: Size,
}

/// Runs the command `compare`.
pub async fn compare(options: &Compare) -> Result<(), Failure> {
    let begun = Instant::now();
    fs::create_dir_all(&options.out)?;
    let server = Server::start_private(Some(&SETTINGS)).await?;
    let mut client = Client::open(server.url()).await?;
    let mut report = Report { settings: Settings::of(&mut client).await?, ..Report::default() };
    for (name, setting) in &report.settings.postgresql {
        println!("{name:>22} {setting}");
    }
    let postmaster = client.value("SELECT pg_read_file('postmaster.pid')").await?;
    let postmaster = postmaster.lines().next().and_then(|line| line.parse().ok());
    client.close().await?;

    let mut scales = options.scale.clone();
    scales.sort_by(f64::total_cmp);
    // The goals are about scale 1, so whole operations, evening and simulated days run at the scale nearest to it.
    let nearest = scales.iter().copied().min_by(|a, b| (a.ln().abs()).total_cmp(&b.ln().abs())).unwrap_or(1.0);
    for scale in scales {
        println!("scale {scale}");
        let both = set_up(&server, scale).await?;
        let (uses, measures) = measure(&both, scale, options, &mut report).await?;
        let Databases { specification, ours, world, samples, size } = both;
        drop(specification);
        measure_isolated(&ours, &measures, scale, &mut report).await?;
        if scale == nearest {
            // If only some statements were measured, most indexes would seem unused.
            if options.only.is_empty() && !options.no_statements {
                let mut client = Client::open(ours.url()).await?;
                report.indexes = indexes(&mut client, &uses).await?;
                client.close().await?;
            }
            measure_workloads(&ours, &samples, world, postmaster, options, &mut report).await?;
        }
        report.sizes.push(size);
        report.settings.seconds = begun.elapsed().as_secs_f64();
        page::write(&report, &options.out, options.docs)?;
    }
    Ok(())
}

/// Creates both schemas and fills them with the same rows.
async fn set_up(server: &Server, scale: f64) -> Result<Databases, Failure> {
    let world = World::at_scale(scale);
    let now = Utc::now();
    let empty = server.create_empty().await?;
    let pool = empty.connect(2).await?;
    let up_empty_ms = up(&pool, None).await?;
    pool.close().await?;
    drop(empty);

    let specification = server.create_empty().await?;
    let pool = specification.connect(2).await?;
    // The first migration is the platform's stand-in: accounts, roles, `auth.uid()`.
    up(&pool, Some(1)).await?;
    pool.execute_unprepared(ACCOUNTS).await?;
    pool.execute_unprepared(SPECIFICATION).await?;
    pool.execute_unprepared(PLATFORM_GRANTS).await?;
    pool.close().await?;
    let ours = server.create_empty().await?;
    let pool = ours.connect(2).await?;
    up(&pool, None).await?;

    let filling = fill(ours.url(), Schema::Ours, world, now);
    let (built, _) = tokio::try_join!(filling, fill(specification.url(), Schema::Specification, world, now))?;
    tokio::try_join!(fill_events(ours.url(), world, now), fill_events(specification.url(), world, now))?;
    let (up_full_ms, longest, longest_lock_table) = up_watching_locks(&pool, ours.url()).await?;
    // After `up`, which would treat it as a change to its own stand-in.
    pool.execute_unprepared(ACCOUNTS).await?;
    pool.close().await?;

    let mut samples = samples(&world);
    let mut client = Client::open(ours.url()).await?;
    client.run("VACUUM ANALYZE").await?;
    for sample in &mut samples {
        let seq = client.number(&format!("SELECT seq FROM session_events WHERE id = {}", quoted(sample.event))).await?;
        sample.seq = seq as i64;
    }
    client.close().await?;
    let size = Size {
        scale,
        prd_bytes_session: bytes_per_session(specification.url(), &world).await?,
        ours_bytes_session: bytes_per_session(ours.url(), &world).await?,
        indexes_ms: built.iter().map(|index| index.ms).sum(),
        indexes: built,
        up_empty_ms,
        up_full_ms,
        longest_lock_ms: longest.as_secs_f64() * 1000.0,
        longest_lock_table,
    };
    Ok(Databases { specification, ours, world, samples, size })
}

/// Measures reads and writes in both schemas, and records which indexes they use.
async fn measure(
    both: &Databases,
    scale: f64,
    options: &Compare,
    report: &mut Report,
) -> Result<(Uses, Vec<Measure>), Failure> {
    let mut capture = StatementCapture::new(both.ours.connect(1).await?);
    let mut measures = reads(&mut capture, &both.samples).await?;
    measures.extend(writes(&mut capture, &both.samples).await?);
    measures.retain(|measure| {
        let is_chosen = options.only.is_empty() || options.only.iter().any(|only| measure.name.contains(only.as_str()));
        is_chosen && !options.no_statements
    });
    capture.close().await?;
    let mut specification = Client::open(both.specification.url()).await?;
    let mut ours = Client::open(both.ours.url()).await?;
    let mut uses = Uses::start(&mut ours).await?;
    for measure in &measures {
        let measured = measure.measure(&mut specification, &mut ours, scale).await?;
        println!(
            "{:>42} {:>10.3} ms {:>8.3} ms {:>9.1} times, p99 {:.3} ms, {} buffers, {} of {} rows, {:?}",
            measured.name,
            measured.prd_ms,
            measured.ours_ms,
            measured.ratio,
            measured.p99_ms,
            measured.buffers,
            measured.rows,
            measured.prd_rows,
            measured.plan_counts
        );
        uses.record(&mut ours, measure.name).await?;
        report.measures.push(measured);
    }
    specification.close().await?;
    ours.close().await?;
    Ok((uses, measures))
}

/// Reads the whole schema into the page cache, because a production host has memory for the data that it serves.
const PREWARM: &str = "CREATE EXTENSION IF NOT EXISTS pg_prewarm SCHEMA extensions;
    SELECT extensions.pg_prewarm(oid, 'read')
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace
      AND relkind IN ('r', 'i')";

/// Rounds about a minute apart, of which the fastest counts, because the load of a shared machine varies.
const ROUNDS: u32 = 3;

/// Measures this schema alone, because the specification's statements read more as the data grows, and evict pages that
/// a host of this schema would keep in memory.
async fn measure_isolated(
    ours: &Database,
    measures: &[Measure],
    scale: f64,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut client = Client::open(ours.url()).await?;
    if client.number("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_prewarm'").await? > 0.0 {
        client.run(PREWARM).await?;
    }
    let of_scale = report.measures.iter_mut().filter(|measured| measured.scale == scale);
    let mut pairs: Vec<_> = measures.iter().zip(of_scale).collect();
    for round in 0..ROUNDS {
        for (measure, measured) in &mut pairs {
            let ms = measure.measure_isolated(&mut client).await?;
            measured.isolated_ms = if round == 0 { ms } else { measured.isolated_ms.min(ms) };
        }
    }
    for (_, measured) in &pairs {
        println!("{:>42} {:>8.3} ms in isolation", measured.name, measured.isolated_ms);
    }
    client.close().await
}

/// Measures triggers and policies, whole operations, the evening and the simulated days.
async fn measure_workloads(
    ours: &Database,
    samples: &[Sample],
    world: World,
    server: Option<u32>,
    options: &Compare,
    report: &mut Report,
) -> Result<(), Failure> {
    let url = ours.url();
    let mut capture = StatementCapture::new(ours.connect(1).await?);
    let sample = &samples[0];
    capture.sparc.as_user(sample.player).dice().roll(check(sample)?).await?;
    let roll = capture.last_statement().await?;
    let new = NewEvent { session_id: sample.session, kind: "wave".to_owned(), ..Default::default() };
    capture.sparc.as_user(sample.player).events().send(new).await?;
    let event = capture.last_statement().await?;
    let mut client = Client::open(url).await?;
    let cost = overhead::overhead(&mut client, sample, &roll.sql, &event.sql).await?;
    println!("a roll {:.3} ms, bare {:.3} ms: {:.2} times", cost.roll_ms, cost.bare_ms, cost.ratio);
    report.overhead = Some(cost);

    if let (Some(time), Some(pgbench)) = (options.operations(), Binaries::find()?.program("pgbench")) {
        let environment = operations::Environment { url, pgbench, samples, server, folder: &options.out, time };
        let capture = async || Ok(StatementCapture::new(ours.connect(1).await?));
        report.operations = operations::operations(&environment, capture).await?;
    }
    if !options.no_evening {
        report.evenings = evening::evenings(url, &world, server, 50, Delivery::Polling).await?;
    }
    if let Some(time) = options.days() {
        report.days = days::simulate(url, world, time).await?;
    }
    client.close().await
}
