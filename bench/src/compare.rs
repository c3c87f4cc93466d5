//! The whole run: two databases in one cluster, filled alike, measured in turns.

use std::{fs, path::Path, time::Instant};

use chrono::Utc;
use sea_orm::ConnectionTrait;
use service::{Operations, events::NewEvent};
use throwaway::{Database, Programs, Server};

use crate::{
    Compare, Failure,
    captured::Capturing,
    client::Client,
    evening,
    fill::{Side, fill, fill_events},
    growth::{Size, bytes_a_session, up, up_watched},
    indexes::{Uses, indexes},
    life, operations, overhead, page, plots,
    reads::{quoted, reads},
    report::{Report, Settings},
    samples::{Sample, samples},
    world::World,
    writes::{check, writes},
};

/// As a host has it: everything that is acknowledged is on the disk, and what is used fits in the buffers. What the planner
/// thinks of the disk is PostgreSQL's own default, on both sides.
const SETTINGS: [&str; 8] = [
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
const ACCOUNTS: &str = include_str!("../sql/accounts.sql");
const PLATFORM: &str = include_str!("../sql/platform.sql");

/// The tables and all rules; what comes after renews what earlier versions laid.
const FIRST_STEPS: u32 = 6;

impl Compare {
    /// What was measured before.
    fn before(&self) -> Result<Report, Failure> {
        self.after.as_ref().map_or_else(|| Ok(Report::default()), |path| Ok(serde_json::from_slice(&fs::read(path)?)?))
    }
}

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
    let mut report = Report { settings: Settings::of(&mut client).await?, ..asked.before()? };
    for (name, setting) in &report.settings.postgresql {
        println!("{name:>22} {setting}");
    }
    let postmaster = client.value("SELECT pg_read_file('postmaster.pid')").await?;
    let postmaster = postmaster.lines().next().and_then(|line| line.parse().ok());
    client.close().await?;

    report.leave_out(&asked.scale);
    let mut scales = asked.scale.clone();
    scales.sort_by(f64::total_cmp);
    // Whole operations, evening and long life at the scale that the goals speak of.
    let nearest = scales.iter().copied().min_by(|a, b| (a.ln().abs()).total_cmp(&b.ln().abs())).unwrap_or(1.0);
    for scale in scales {
        println!("scale {scale}");
        let both = lay(&server, scale).await?;
        let uses = measure(&both, scale, asked, &mut report).await?;
        // An earlier report has them.
        if scale == nearest && asked.after.is_none() {
            let mut client = Client::open(both.ours.url()).await?;
            report.indexes = indexes(&mut client, &uses).await?;
            client.close().await?;
            whole(&both, postmaster, asked, &mut report).await?;
        }
        report.sizes.push(both.size);
        report.settings.seconds = begun.elapsed().as_secs_f64();
        write(&report, asked)?;
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
    up(&pool, Some(FIRST_STEPS)).await?;
    pool.execute_unprepared(ACCOUNTS).await?;

    let filling = fill(ours.url(), Side::Ours, world, now);
    let (built, theirs) = tokio::try_join!(filling, fill(specification.url(), Side::Specification, world, now))?;
    drop(theirs);
    tokio::try_join!(fill_events(ours.url(), world, now), fill_events(specification.url(), world, now))?;
    let (up_full_ms, longest, longest_lock_of) = up_watched(&pool, ours.url()).await?;
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
async fn measure(both: &Both, scale: f64, asked: &Compare, report: &mut Report) -> Result<Uses, Failure> {
    let mut capturing = Capturing::of(both.ours.connect(1).await?);
    let mut measures = reads(&mut capturing, &both.samples).await?;
    measures.extend(writes(&mut capturing, &both.samples).await?);
    capturing.close().await?;
    let mut theirs = Client::open(both.specification.url()).await?;
    let mut ours = Client::open(both.ours.url()).await?;
    let mut uses = Uses::since_now(&mut ours).await?;
    for measure in &measures {
        if asked.only.as_ref().is_some_and(|only| !measure.name.contains(only.as_str())) {
            continue;
        }
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
    Ok(uses)
}

/// What is done at one scale alone.
async fn whole(both: &Both, server: Option<u32>, asked: &Compare, report: &mut Report) -> Result<(), Failure> {
    let url = both.ours.url();
    let mut capturing = Capturing::of(both.ours.connect(1).await?);
    let sample = &both.samples[0];
    capturing.sparc.as_user(sample.player).dice().roll(check(sample)?).await?;
    let roll = capturing.newest().await?;
    let new = NewEvent { session_id: sample.session, kind: "wave".to_owned(), ..Default::default() };
    capturing.sparc.as_user(sample.player).events().send(new).await?;
    let event = capturing.newest().await?;
    let mut client = Client::open(url).await?;
    let cost = overhead::overhead(&mut client, sample, &roll.sql, &event.sql).await?;
    println!("a roll {:.3} ms, bare {:.3} ms: {:.2} times", cost.roll_ms, cost.bare_ms, cost.ratio);
    report.overhead = Some(cost);

    if let (Some(time), Some(pgbench)) = (asked.operations(), Programs::find()?.program("pgbench")) {
        let place = operations::Place { url, pgbench, samples: &both.samples, server, folder: &asked.out, time };
        let capturing = async || Ok(Capturing::of(both.ours.connect(1).await?));
        report.operations = operations::operations(&place, capturing).await?;
    }
    if !asked.no_evening {
        report.evenings = evening::evenings(url, &both.world, server).await?;
    }
    if let Some(time) = asked.life() {
        report.days = life::life(url, both.world, time).await?;
    }
    client.close().await
}

fn write(report: &Report, asked: &Compare) -> Result<(), Failure> {
    fs::write(asked.out.join("report.json"), serde_json::to_string_pretty(report)?)?;
    plots::plots(report, &asked.out)?;
    fs::write(asked.out.join("performance.md"), page::page(report, ""))?;
    if asked.docs {
        let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let pictures = documents.join("performance");
        fs::create_dir_all(&pictures)?;
        plots::plots(report, &pictures)?;
        fs::write(documents.join("performance.md"), page::page(report, "performance/"))?;
    }
    Ok(())
}
