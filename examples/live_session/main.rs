//! A live session in the browser: an HTTP service over the data layer, in the size that one copies.
//!
//! `cargo run --example live_session` starts a database of its own and prints an address; a demo game plays there, and
//! whoever opens the page watches, sits down and rolls. With `DATABASE_URL` it runs there instead. `-- --help` has more.

mod api;
mod auth;
mod demo;

use std::{fs, net::Ipv4Addr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use api::{Api, Failure, Input};
use auth::{Tokens, User, Viewer};
use axum::{
    Json,
    extract::{Path, Query, State},
    http::{HeaderMap, Method},
    response::{
        Html, IntoResponse, Sse,
        sse::{Event, KeepAlive},
    },
};
use clap::Parser;
use futures_util::{Stream, StreamExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sparc::entity::{characters, dice_rolls, session_events, session_players, sessions};
use sparc::service::{
    Cursor, Error, JoinCode, Operations, Page, Sparc,
    adventures::{AdventureSummary, CatalogueFilter, CatalogueOrder},
    characters::{HitPoints, NewCharacter},
    dice::NewRoll,
    events::NewEvent,
    sessions::{LobbyFilter, MySession, NewSession, SessionDetails, SessionSummary},
    users::{NewAccount, Profile, ProfileChanges},
};
use tokio::{net::TcpListener, sync::watch};
use uuid::Uuid;

/// A live session of SPARC in the browser, with a demo game that plays by itself.
#[derive(Parser)]
struct Arguments {
    /// Port to listen at; 0 picks a free one.
    #[arg(long, env = "PORT", default_value_t = 8017)]
    port: u16,
    /// Ends by itself after that many seconds, instead of at Ctrl-C.
    #[arg(long, value_name = "SECONDS")]
    for_seconds: Option<u64>,
    /// Seconds between one thing that happens in the demo and the next.
    #[arg(long, default_value_t = 3.5, value_name = "SECONDS")]
    pace: f32,
    /// Secret that the platform signs tokens with (HS256); drawn at each start by default.
    #[arg(long, env = "JWT_SECRET", hide_env_values = true)]
    jwt_secret: Option<String>,
    /// File with the keys that the platform publishes at /auth/v1/.well-known/jwks.json (ES256, RS256).
    #[arg(long, env = "JWKS", value_name = "FILE")]
    jwks: Option<PathBuf>,
}

/// What every handler has.
#[derive(Clone)]
struct App {
    sparc: Sparc,
    tokens: Arc<Tokens>,
    /// The session that the demo plays.
    show: watch::Receiver<Option<Uuid>>,
}

type Answer<T> = Result<Json<T>, Failure>;

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
        format!("port {port} cannot be listened at ({error}); name another with --port, or 0 for any that is free")
    })?;
    let published = match &arguments.jwks {
        Some(file) => serde_json::from_slice(&fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?)?,
        None => jsonwebtoken::jwk::JwkSet { keys: Vec::new() },
    };
    let secret = arguments.jwt_secret.unwrap_or_else(|| format!("{}{}", Uuid::new_v4(), Uuid::new_v4()));
    let database = testdb::Database::open_migrated().await?;
    let sparc = Sparc::connect(database.url()).await?;
    let (showing, show) = watch::channel(None);
    let demo =
        tokio::spawn(demo::play(sparc.clone(), showing, Duration::from_secs_f32(arguments.pace.clamp(0.1, 3600.0))));
    let app = App { sparc: sparc.clone(), tokens: Arc::new(Tokens::new(&secret, &published)?), show };

    println!("A game is being played at http://{}\nCtrl-C ends it.", listener.local_addr()?);
    let end = async move {
        stop_signal(arguments.for_seconds.map(Duration::from_secs)).await;
        demo.abort();
        // Ends the live streams, which the server would else wait for.
        let _ = sparc.close().await;
    };
    Ok(axum::serve(listener, routes().with_state(app)).with_graceful_shutdown(end).await?)
}

/// Ctrl-C, what a supervisor sends, or the end of the time.
async fn stop_signal(time: Option<Duration>) {
    let terminated = async {
        #[cfg(unix)]
        if let Ok(mut signal) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            signal.recv().await;
            return;
        }
        std::future::pending::<()>().await;
    };
    let over = async {
        match time {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! { _ = tokio::signal::ctrl_c() => {}, () = terminated => {}, () = over => {} }
}

fn routes() -> axum::Router<App> {
    Api::new()
        .at::<NewAccount, Visitor, _>(Method::POST, "/api/visitors", "Signs a demo visitor up", sign_up)
        .at::<(), Profile, _>(Method::GET, "/api/me", "The caller's profile", me)
        .at::<ProfileChanges, Profile, _>(Method::PATCH, "/api/me", "Changes the caller's profile", edit_me)
        .at::<(), Profile, _>(Method::GET, "/api/profiles/{id}", "Somebody's profile", profile)
        .at::<(), Vec<characters::Model>, _>(Method::GET, "/api/characters", "The caller's characters", characters)
        .at::<NewCharacter, characters::Model, _>(
            Method::POST,
            "/api/characters",
            "Makes a character",
            create_character,
        )
        .at::<(), Page<AdventureSummary>, _>(Method::GET, "/api/adventures", "What may be played", adventures)
        .at::<(), Page<SessionSummary>, _>(Method::GET, "/api/lobby", "Sessions with a free seat", lobby)
        .at::<(), Page<MySession>, _>(Method::GET, "/api/sessions", "The caller's sessions", my_sessions)
        .at::<NewSession, sessions::Model, _>(Method::POST, "/api/sessions", "Opens a session", create_session)
        .at::<(), SessionDetails, _>(Method::GET, "/api/sessions/{id}", "A session with its people", details)
        .at::<Join, session_players::Model, _>(Method::POST, "/api/join", "Takes a seat by code", join)
        .at::<Seat, session_players::Model, _>(Method::POST, "/api/sessions/{id}/seat", "Takes a seat", sit_down)
        .at::<(), session_players::Model, _>(Method::DELETE, "/api/sessions/{id}/seat", "Gives the seat up", leave)
        .at::<(), sessions::Model, _>(Method::POST, "/api/sessions/{id}/{step}", "The Seer starts, pauses, ends", turn)
        .at::<Scene, sessions::Model, _>(
            Method::PUT,
            "/api/sessions/{id}/scene",
            "The Seer moves to a scene",
            set_scene,
        )
        .at::<Points, HitPoints, _>(Method::POST, "/api/sessions/{id}/wound", "The Seer takes hit points", wound)
        .at::<Points, HitPoints, _>(Method::POST, "/api/sessions/{id}/mend", "The Seer gives hit points back", mend)
        .at::<NewRoll, dice_rolls::Model, _>(Method::POST, "/api/rolls", "Rolls", roll)
        .at::<(), dice_rolls::Model, _>(Method::POST, "/api/rolls/{id}/save", "A heroic save", save)
        .at::<NewEvent, session_events::Model, _>(Method::POST, "/api/events", "Tells the table something", tell)
        .at::<(), session_events::Model, _>(
            Method::GET,
            "/api/sessions/{id}/events",
            "Live, as text/event-stream",
            events,
        )
        .at::<(), Show, _>(Method::GET, "/api/show", "The session that the demo plays", show)
        .router()
        .route("/", axum::routing::get(page))
}

#[derive(Serialize, JsonSchema)]
struct Visitor {
    token: String,
    profile: Profile,
}

/// On the platform, its own sign-up does this.
async fn sign_up(State(app): State<App>, Input(new): Input<NewAccount>) -> Answer<Visitor> {
    let profile = app.sparc.as_service().users().sign_up(new).await?;
    Ok(Json(Visitor { token: app.tokens.issue(profile.id)?, profile }))
}

async fn me(User(user, _): User) -> Answer<Profile> {
    Ok(Json(user.users().me().await?))
}

async fn edit_me(User(user, _): User, Input(changes): Input<ProfileChanges>) -> Answer<Profile> {
    Ok(Json(user.users().edit(changes).await?))
}

async fn profile(Viewer(viewer, _): Viewer, Path(id): Path<Uuid>) -> Answer<Profile> {
    Ok(Json(viewer.users().profile(id).await?))
}

async fn characters(User(user, _): User) -> Answer<Vec<characters::Model>> {
    Ok(Json(user.characters().list().await?))
}

async fn create_character(User(user, _): User, Input(new): Input<NewCharacter>) -> Answer<characters::Model> {
    Ok(Json(user.characters().create(new).await?))
}

async fn adventures(Viewer(viewer, _): Viewer) -> Answer<Page<AdventureSummary>> {
    Ok(Json(viewer.adventures().catalogue(&CatalogueFilter::default(), CatalogueOrder::Newest, None).await?))
}

/// The filter is the query; where the page before ended, the header `after`.
async fn lobby(viewer: Viewer, Query(filter): Query<LobbyFilter>, headers: HeaderMap) -> Answer<Page<SessionSummary>> {
    let after = headers.get("after").and_then(|text| text.to_str().ok()).map(|text| Cursor::from(text.to_owned()));
    Ok(Json(viewer.0.sessions().lobby(&filter, after.as_ref()).await?))
}

async fn my_sessions(User(user, _): User) -> Answer<Page<MySession>> {
    Ok(Json(user.sessions().mine(None).await?))
}

async fn create_session(User(user, _): User, Input(new): Input<NewSession>) -> Answer<sessions::Model> {
    Ok(Json(user.sessions().create(new).await?))
}

/// Row security hides people and events of a session from who is not in it. The demo's is a show: there, a visitor sees
/// what the service sees.
async fn details(State(app): State<App>, viewer: Viewer, Path(id): Path<Uuid>) -> Answer<SessionDetails> {
    let as_whom = if *app.show.borrow() == Some(id) { app.sparc.as_service() } else { viewer.0 };
    Ok(Json(as_whom.sessions().details(id).await?))
}

#[derive(Deserialize, JsonSchema)]
struct Join {
    code: JoinCode,
    character_id: Uuid,
}

async fn join(User(user, _): User, Input(seat): Input<Join>) -> Answer<session_players::Model> {
    Ok(Json(user.sessions().join(&seat.code, seat.character_id).await?))
}

#[derive(Deserialize, JsonSchema)]
struct Seat {
    character_id: Uuid,
}

/// New seats are for sessions that wait. The demo keeps its door open: there, the service seats who comes late.
async fn sit_down(
    State(app): State<App>,
    User(user, claims): User,
    Path(id): Path<Uuid>,
    Input(seat): Input<Seat>,
) -> Answer<session_players::Model> {
    if *app.show.borrow() == Some(id) {
        user.characters().get(seat.character_id).await?;
        return Ok(Json(app.sparc.as_service().sessions().seat(id, claims.sub, seat.character_id).await?));
    }
    Ok(Json(user.sessions().join_public(id, seat.character_id).await?))
}

async fn leave(User(user, _): User, Path(id): Path<Uuid>) -> Answer<session_players::Model> {
    Ok(Json(user.sessions().leave(id).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Step {
    Start,
    Pause,
    Resume,
    Complete,
    Cancel,
}

async fn turn(User(seer, _): User, Path((id, step)): Path<(Uuid, Step)>) -> Answer<sessions::Model> {
    let sessions = seer.sessions();
    Ok(Json(match step {
        Step::Start => sessions.start(id).await?,
        Step::Pause => sessions.pause(id).await?,
        Step::Resume => sessions.resume(id).await?,
        Step::Complete => sessions.complete(id).await?,
        Step::Cancel => sessions.cancel(id).await?,
    }))
}

#[derive(Deserialize, JsonSchema)]
struct Scene {
    scene: Option<String>,
}

async fn set_scene(User(seer, _): User, Path(id): Path<Uuid>, Input(to): Input<Scene>) -> Answer<sessions::Model> {
    Ok(Json(seer.sessions().set_scene(id, to.scene.as_deref()).await?))
}

#[derive(Deserialize, JsonSchema)]
struct Points {
    character_id: Uuid,
    points: u8,
}

async fn wound(User(seer, _): User, Path(id): Path<Uuid>, Input(hit): Input<Points>) -> Answer<HitPoints> {
    let left = seer.characters().damage(hit.character_id, hit.points).await?;
    Ok(Json(demo::show_hit_points(&seer, id, left).await?))
}

async fn mend(User(seer, _): User, Path(id): Path<Uuid>, Input(hit): Input<Points>) -> Answer<HitPoints> {
    let left = seer.characters().heal(hit.character_id, hit.points).await?;
    Ok(Json(demo::show_hit_points(&seer, id, left).await?))
}

async fn roll(User(user, _): User, Input(new): Input<NewRoll>) -> Answer<dice_rolls::Model> {
    Ok(Json(user.dice().roll(new).await?))
}

async fn save(User(user, _): User, Path(id): Path<Uuid>) -> Answer<dice_rolls::Model> {
    Ok(Json(user.dice().heroic_save(id).await?))
}

async fn tell(User(user, _): User, Input(new): Input<NewEvent>) -> Answer<session_events::Model> {
    Ok(Json(user.events().send(new).await?))
}

/// Each event has its `seq` as its id, so that a browser which comes back says where it was. The stream is good for as
/// long as the token; its last word, if it is refused, is the event `refused`.
async fn events(
    State(app): State<App>,
    Viewer(viewer, claims): Viewer,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, Failure> {
    let after = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok()).unwrap_or(0);
    let events = match viewer.events().subscribe(id, Some(after)).await {
        Err(Error::NotAllowed { .. } | Error::NotSignedIn) if *app.show.borrow() == Some(id) => {
            app.sparc.as_service().events().subscribe(id, Some(after)).await?
        }
        other => other?,
    };
    let events = events.map(|event| match event {
        Ok(event) => Event::default().id(event.seq.to_string()).json_data(event),
        Err(error) => Event::default().event("refused").json_data(Failure::from(error)),
    });
    let good_for = claims.map_or(u64::MAX, |claims| claims.exp.saturating_sub(jsonwebtoken::get_current_timestamp()));
    let expiry = tokio::time::sleep(Duration::from_secs(good_for.min(30 * 24 * 60 * 60)));
    let events = events.take_until(Box::pin(expiry));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(10))))
}

#[derive(Serialize, JsonSchema)]
struct Show {
    session_id: Option<Uuid>,
}

async fn show(State(app): State<App>) -> Answer<Show> {
    Ok(Json(Show { session_id: *app.show.borrow() }))
}

async fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
                  connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    ([("content-security-policy", policy)], Html(include_str!("page.html")))
}
