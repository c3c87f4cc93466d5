//! What the service allocates for an operation, by a heap profiler.

use std::path::Path;

use service::{
    Operations,
    sessions::{NewSession, Visibility},
};
use testdb::DemoGame;

use crate::Failure;

/// Where every allocation is counted.
#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Operations of each kind that are profiled.
const TIMES: u32 = 1000;

/// Rolls and full pages, after the pool is warm: how often and how much each allocates, and the profile in the folder.
pub async fn heap(folder: &Path) -> Result<(), Failure> {
    use crate::operations::{Doing, once};
    std::fs::create_dir_all(folder)?;
    let night = DemoGame::start().await?;
    let sparc = service::Sparc::connect(night.url()).await?;
    let ada = sparc.as_user(night.player);
    let sample = crate::samples::Sample { session: night.session, hero: night.hero, ..Default::default() };
    let seer = sparc.as_user(night.seer);
    for _ in 0..25 {
        let new = NewSession { adventure_id: night.adventure, visibility: Visibility::Public, ..NewSession::default() };
        seer.sessions().create(new).await?;
    }
    // What is rolled first fills the page of rolls.
    for (doing, name) in [(Doing::Roll, "a roll"), (Doing::Lobby, "a lobby page"), (Doing::History, "fifty rolls")] {
        for _ in 0..20 {
            once(doing, &ada, &sample).await?;
        }
        let profiler = dhat::Profiler::builder().file_name(folder.join(format!("{doing:?}.json"))).build();
        for _ in 0..TIMES {
            once(doing, &ada, &sample).await?;
        }
        let stats = dhat::HeapStats::get();
        println!(
            "{name}: {:.0} allocations, {:.0} bytes each",
            stats.total_blocks as f64 / f64::from(TIMES),
            stats.total_bytes as f64 / f64::from(TIMES)
        );
        drop(profiler);
    }
    Ok(())
}
