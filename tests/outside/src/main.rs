//! Plays a session and runs ten short programs (the functions of `programs.rs`), which resemble the services of a game.
//! This package is outside of the workspace and depends on no crate of the data layer except `sparc`.
//!
//! This command, in the root of the workspace, runs it on a new migrated database, which is removed afterwards:
//! `cargo with-database cargo run --manifest-path tests/outside/Cargo.toml`.

mod programs;
mod started_game;

use std::error::Error as StdError;

use sparc::service::{Operations, Options, Sparc};

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let url = std::env::var("DATABASE_URL")?;
    let sparc = Sparc::connect_with(&url, Options::default().max_connections(4)).await?;
    let game = started_game::start_demo_game(&sparc).await?;
    programs::run_all(&game).await?;
    game.seer.sessions().complete(game.session).await?;
    println!("games run: {}", game.seer.users().me().await?.games_run);
    Ok(sparc.close().await?)
}
