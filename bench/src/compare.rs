//! The whole run: two databases in one cluster, filled alike, measured in turns.

use std::{fs, time::Instant};

use chrono::Utc;
use sea_orm::ConnectionTrait;
use service::{Operations, events::NewEvent};
use testdb::{Binaries, Database, Server};

use crate::{
    Compare, Failure,
    captured::Capturing,
    client::Client,
    evening::{self, Looking},
    fill::{Side, fill, fill_events},
    growth::{Size, bytes_a_session, up, up_watched},
    indexes::{Uses, indexes},
    life,
    measure::Measure,
    operations, overhead, page,
    reads::{quoted, reads},
    report::{Report, Settings},
    samples::{Sample, samples},
    world::World,
    writes::{check, writes},
};

/// As a host has it: everything that is acknowledged is on the disk, and what is used fits in the buffers. What the planner
/// thinks of the disk is PostgreSQL's own default, on both sides.
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
const PLATFORM: &str = include_str!("../sql/platform.sql");

/// The two databases at one scale.
struct Both {
    specification: Database,
    ours: Database,
    world: World,
    samples: Vec<Sample>,
    size: Size,
}

/// Measures, and writes what came of it.
pub async fn compare(asked: &Compare) -> Result<(), Failure> {
    let begun = Instant::now();
    fs::create_dir_all(&asked.out)?;
    let server = Server::start_private(Some(&SETTINGS)).await?;
    let mut client = Client::open(server.url()).await?;
    let mut report = Report { settings: Settings::of(&mut client).await?, ..Report::default() };
    for (name, setting) in &report.settings.postgresql {
        println!("{name:>22} {setting}");
    }
    let postmaster = client.value("SELECT pg_read_file('postmaster.pid')").await?;
    let postmaster = postmaster.lines().next().and_then(|line| line.parse().ok());
    client.close().await?;

    let mut scales = asked.scale.clone();
    scales.sort_by(f64::total_cmp);
    // Whole operations, evening and long life at the scale that the goals speak of.
    let nearest = scales.iter().copied().min_by(|a, b| (a.ln().abs()).total_cmp(&b.ln().abs())).unwrap_or(1.0);
    for scale in scales {
        println!("scale {scale}");
        let both = lay(&server, scale).await?;
        let (uses, measures) = measure(&both, scale, asked, &mut report).await?;
        let Both { specification, ours, world, samples, size } = both;
        drop(specification);
        alone(&ours, &measures, scale, &mut report).await?;
        if scale == nearest {
            // Of a part of the measures it would say that nothing reads most of them.
            if asked.only.is_empty() {
                let mut client = Client::open(ours.url()).await?;
                report.indexes = indexes(&mut client, &uses).await?;
                client.close().await?;
            }
            whole(&ours, &samples, world, postmaster, asked, &mut report).await?;
        }
        report.sizes.push(size);
        report.settings.seconds = begun.elapsed().as_secs_f64();
        page::write(&report, &asked.out, asked.docs)?;
    }
    Ok(())
}

/// Lays both schemas, and fills both with the same.
async fn lay(server: &Server, scale: f64) -> Result<Both, Failure> {
    let world = World::at(scale);
    let now = Utc::now();
    let empty = server.empty().await?;
    let pool = empty.connect(2).await?;
    let up_empty_ms = up(&pool, None).await?;
    pool.close().await?;
    drop(empty);

    let specification = server.empty().await?;
    let pool = specification.connect(2).await?;
    // The platform alone: accounts, roles, who is asking.
    up(&pool, Some(1)).await?;
    pool.execute_unprepared(ACCOUNTS).await?;
    pool.execute_unprepared(SPECIFICATION).await?;
    pool.execute_unprepared(PLATFORM).await?;
    pool.close().await?;
    let ours = server.empty().await?;
    let pool = ours.connect(2).await?;
    up(&pool, None).await?;

    let filling = fill(ours.url(), Side::Ours, world, now);
    let (built, theirs) = tokio::try_join!(filling, fill(specification.url(), Side::Specification, world, now))?;
    drop(theirs);
    tokio::try_join!(fill_events(ours.url(), world, now), fill_events(specification.url(), world, now))?;
    let (up_full_ms, longest, longest_lock_of) = up_watched(&pool, ours.url()).await?;
    // Last: `up` would take it for a change of its own stand-in.
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
        prd_bytes_session: bytes_a_session(specification.url(), &world).await?,
        ours_bytes_session: bytes_a_session(ours.url(), &world).await?,
        indexes_ms: built.iter().map(|index| index.ms).sum(),
        indexes: built,
        up_empty_ms,
        up_full_ms,
        longest_lock_ms: longest.as_secs_f64() * 1000.0,
        longest_lock_of,
    };
    Ok(Both { specification, ours, world, samples, size })
}

/// Reads and writes, side by side, and which indexes they use.
async fn measure(
    both: &Both,
    scale: f64,
    asked: &Compare,
    report: &mut Report,
) -> Result<(Uses, Vec<Measure>), Failure> {
    let mut capturing = Capturing::of(both.ours.connect(1).await?);
    let mut measures = reads(&mut capturing, &both.samples).await?;
    measures.extend(writes(&mut capturing, &both.samples).await?);
    measures
        .retain(|measure| asked.only.is_empty() || asked.only.iter().any(|only| measure.name.contains(only.as_str())));
    capturing.close().await?;
    let mut theirs = Client::open(both.specification.url()).await?;
    let mut ours = Client::open(both.ours.url()).await?;
    let mut uses = Uses::since_now(&mut ours).await?;
    for measure in &measures {
        let measured = measure.take(&mut theirs, &mut ours, scale).await?;
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
            measured.planned
        );
        uses.note(&mut ours, measure.name).await?;
        report.measures.push(measured);
    }
    theirs.close().await?;
    ours.close().await?;
    Ok((uses, measures))
}

/// Into the system's memory with all of it, where the server has the means: a host has memory for what it serves.
const WARM: &str = "CREATE EXTENSION IF NOT EXISTS pg_prewarm SCHEMA extensions;
    SELECT extensions.pg_prewarm(oid, 'read')
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace
      AND relkind IN ('r', 'i')";

/// Each is asked in so many rounds, about a minute apart: a machine that others share has worse moments and better ones.
const ROUNDS: u32 = 3;

/// Ours by itself. What the specification's statements read grows with the world, and drives out of memory and caches what ours
/// would find there on a host of its own.
async fn alone(ours: &Database, measures: &[Measure], scale: f64, report: &mut Report) -> Result<(), Failure> {
    let mut client = Client::open(ours.url()).await?;
    if client.number("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_prewarm'").await? > 0.0 {
        client.run(WARM).await?;
    }
    let of_scale = report.measures.iter_mut().filter(|measured| measured.scale == scale);
    let mut pairs: Vec<_> = measures.iter().zip(of_scale).collect();
    for round in 0..ROUNDS {
        for (measure, measured) in &mut pairs {
            let ms = measure.alone(&mut client).await?;
            measured.alone_ms = if round == 0 { ms } else { measured.alone_ms.min(ms) };
        }
    }
    for (_, measured) in &pairs {
        println!("{:>42} {:>8.3} ms alone", measured.name, measured.alone_ms);
    }
    client.close().await
}

/// What is done at one scale alone.
async fn whole(
    ours: &Database,
    samples: &[Sample],
    world: World,
    server: Option<u32>,
    asked: &Compare,
    report: &mut Report,
) -> Result<(), Failure> {
    let url = ours.url();
    let mut capturing = Capturing::of(ours.connect(1).await?);
    let sample = &samples[0];
    capturing.sparc.as_user(sample.player).dice().roll(check(sample)?).await?;
    let roll = capturing.newest().await?;
    let new = NewEvent { session_id: sample.session, kind: "wave".to_owned(), ..Default::default() };
    capturing.sparc.as_user(sample.player).events().send(new).await?;
    let event = capturing.newest().await?;
    let mut client = Client::open(url).await?;
    let cost = overhead::overhead(&mut client, sample, &roll.sql, &event.sql).await?;
    println!("a roll {:.3} ms, bare {:.3} ms: {:.2} times", cost.roll_ms, cost.bare_ms, cost.ratio);
    report.overhead = Some(cost);

    if let (Some(time), Some(pgbench)) = (asked.operations(), Binaries::find()?.program("pgbench")) {
        let place = operations::Place { url, pgbench, samples, server, folder: &asked.out, time };
        let capturing = async || Ok(Capturing::of(ours.connect(1).await?));
        report.operations = operations::operations(&place, capturing).await?;
    }
    if !asked.no_evening {
        report.evenings = evening::evenings(url, &world, server, 50, Looking::Polls).await?;
    }
    if let Some(time) = asked.life() {
        report.days = life::life(url, world, time).await?;
    }
    client.close().await
}
