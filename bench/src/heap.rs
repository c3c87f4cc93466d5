//! What the service allocates for an operation, by a heap profiler.

use std::path::Path;

use throwaway::Night;

use crate::Failure;

/// Where every allocation is counted.
#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Operations of each kind that are profiled.
const TIMES: u32 = 1000;

/// Rolls and lobby pages, after the pool is warm: how often and how much each allocates, and the profile in the folder.
pub async fn heap(folder: &Path) -> Result<(), Failure> {
    use crate::operations::{Doing, once};
    std::fs::create_dir_all(folder)?;
    let night = Night::begin().await?;
    let sparc = service::Sparc::connect(night.url()).await?;
    let ada = sparc.as_user(night.player);
    let sample = crate::samples::Sample { session: night.session, hero: night.hero, ..Default::default() };
    for (doing, name) in [(Doing::Lobby, "a lobby page"), (Doing::History, "rolls"), (Doing::Roll, "a roll")] {
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
