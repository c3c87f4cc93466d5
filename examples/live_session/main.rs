//! A live session (a game that is being played) in the browser: an HTTP service on the data layer, small enough to
//! copy.
//!
//! `cargo run --example live_session` creates a new database and prints the URL of a page with a demo game. Visitors of
//! the page can watch, take a seat and roll. With `DATABASE_URL`, the program uses that database.
//! `cargo run --example live_session -- --help` lists the options.
//!
//! This file starts the service, and `routes.rs` has its routes, with the state of `app.rs`. `openapi.rs` describes the
//! routes, `callers.rs` authenticates requests with the tokens of `tokens.rs`, `log_position.rs` lets clients read
//! their own writes, and `api_error.rs` has the error responses. `demo.rs` plays the demo game, `demo_session.rs` and
//! `demo_visitors.rs` let visitors take part, and `game_state.rs` writes the game state of a session.

mod api_error;
mod app;
mod callers;
mod demo;
mod demo_session;
mod demo_visitors;
mod game_state;
mod log_position;
mod openapi;
mod routes;
mod tokens;

use std::{fs, net::Ipv4Addr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use app::App;
use clap::Parser;
use demo_session::CurrentDemoSession;
use sparc::service::{Options, Sparc};
use tokens::TokenKeys;
use tokio::{net::TcpListener, time::sleep};
use uuid::Uuid;

/// A live session of SPARC in the browser, with a demo game that plays by itself.
#[derive(Parser)]
struct Arguments {
    /// Port to listen on; 0 picks a free port.
    #[arg(long, env = "PORT", default_value_t = 8017)]
    port: u16,
    /// Stops after this many seconds; by default, the program runs until Ctrl-C.
    #[arg(long, value_name = "SECONDS")]
    for_seconds: Option<u64>,
    /// Seconds between two actions of the demo.
    #[arg(long, default_value_t = 3.5, value_name = "SECONDS")]
    action_interval: f32,
    /// Starts without the demo game, its players, and the sign-up of visitors.
    #[arg(long)]
    no_demo: bool,
    /// URLs of read replicas of the database, separated by commas.
    #[arg(long, env = "REPLICA_URLS", value_name = "URL", value_delimiter = ',', hide_env_values = true)]
    replicas: Vec<String>,
    /// Secret with which Supabase signs tokens (HS256); by default, a random secret at each start.
    #[arg(long, env = "JWT_SECRET", hide_env_values = true)]
    jwt_secret: Option<String>,
    /// File with the keys that Supabase publishes at /auth/v1/.well-known/jwks.json (ES256, RS256).
    #[arg(long, env = "JWKS", value_name = "FILE")]
    jwks: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let port = arguments.port;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
        format!("listening on port {port} failed: {error}; choose another with --port, or 0 for any free port")
    })?;
    let published_keys = match &arguments.jwks {
        Some(file) => serde_json::from_slice(&fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?)?,
        None => jsonwebtoken::jwk::JwkSet { keys: Vec::new() },
    };
    let secret = arguments.jwt_secret.unwrap_or_else(|| format!("{}{}", Uuid::new_v4(), Uuid::new_v4()));
    let token_keys = Arc::new(TokenKeys::new(&secret, &published_keys)?);
    let database = testdb::Database::open_and_migrate().await?;
    let options = Options::default().replicas(arguments.replicas);
    let sparc = Sparc::connect_with(database.url(), options).await?;
    let action_interval = Duration::try_from_secs_f32(arguments.action_interval)?;
    let demo_session = if arguments.no_demo {
        CurrentDemoSession::none(&sparc)
    } else {
        CurrentDemoSession::start(&sparc, action_interval).await
    };

    let message = if arguments.no_demo { "The service listens" } else { "A game is being played" };
    println!("{message} at http://{}\nPress Ctrl-C to stop.", listener.local_addr()?);
    let app = App { sparc: sparc.clone(), token_keys, demo_session };
    let routes = routes::routes(!arguments.no_demo);
    let shutdown_signal = async move {
        // `sleep` limits `Duration::MAX` to about thirty years.
        wait_for_stop_signal(arguments.for_seconds.map_or(Duration::MAX, Duration::from_secs)).await;
        // Closing ends the streams of events, for which the HTTP server would otherwise wait.
        let _ = sparc.close().await;
    };
    Ok(axum::serve(listener, routes.with_state(app)).with_graceful_shutdown(shutdown_signal).await?)
}

/// Waits for Ctrl-C or SIGTERM, but not longer than `max_time`.
async fn wait_for_stop_signal(max_time: Duration) {
    #[cfg(unix)]
    let sigterm = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let terminated = async {
        #[cfg(unix)]
        if let Ok(mut signal) = sigterm {
            return signal.recv().await;
        }
        std::future::pending::<Option<()>>().await
    };
    tokio::select! { _ = tokio::signal::ctrl_c() => {}, _ = terminated => {}, () = sleep(max_time) => {} }
}
