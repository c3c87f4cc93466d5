//! The command `allocations`: the service's heap allocations per operation, counted by the heap profiler `dhat`.

use std::path::Path;

use service::{
    Operations,
    sessions::{NewSession, Visibility},
};
use testdb::DemoGame;

use crate::{
    argument_sets::ArgumentSet,
    failure::Failure,
    operations::{Operation, run_once},
};

/// Records every allocation while a profiler exists.
#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// The number of profiled executions of each operation.
const EXECUTIONS: u32 = 1000;

/// Runs the command `allocations`: profiles rolls and the reading of full pages, after a warm-up that is not profiled.
/// Prints the mean number of allocations and bytes per execution, and writes the profiles into the folder.
pub async fn run(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    let game = DemoGame::start().await?;
    let sparc = service::Sparc::connect(game.url()).await?;
    let player = sparc.as_user(game.player);
    let argument_set = ArgumentSet { session: game.session, character: game.hero, ..Default::default() };
    let seer = sparc.as_user(game.seer);
    // These are more than the twenty sessions of a full lobby page. Two users open them, because an account may be the
    // Seer of at most twenty sessions that have not ended.
    for number in 0..25 {
        let new_session =
            NewSession { adventure_id: game.adventure, visibility: Visibility::Public, ..NewSession::default() };
        let opener = if number % 2 == 0 { &seer } else { &player };
        opener.sessions().create(new_session).await?;
    }
    // The rolls of the first operation fill the page that the last operation reads.
    for (operation, name) in
        [(Operation::Roll, "a roll"), (Operation::Lobby, "a lobby page"), (Operation::History, "fifty rolls")]
    {
        // The warm-up.
        for _ in 0..20 {
            run_once(operation, &player, &argument_set).await?;
        }
        let profiler = dhat::Profiler::builder().file_name(folder.join(format!("{operation:?}.json"))).build();
        for _ in 0..EXECUTIONS {
            run_once(operation, &player, &argument_set).await?;
        }
        let stats = dhat::HeapStats::get();
        println!(
            "{name}: {:.0} allocations and {:.0} bytes per execution",
            stats.total_blocks as f64 / f64::from(EXECUTIONS),
            stats.total_bytes as f64 / f64::from(EXECUTIONS)
        );
        drop(profiler);
    }
    Ok(())
}
