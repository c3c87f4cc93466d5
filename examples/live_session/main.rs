//! A live session in the browser: an HTTP service on the data layer, small enough to copy.
//!
//! `cargo run --example live_session` creates a new database and prints the URL of a page with a demo game. Visitors of
//! the page can watch, take a seat and roll. With `DATABASE_URL`, the program uses that database.
//! `cargo run --example live_session -- --help` lists the options.
//!
//! This file has the program and its routes. `auth.rs` authenticates requests, `api_error.rs` has the error responses,
//! and `openapi.rs` describes the routes. `demo.rs` plays the demo game, and `demo_session.rs` lets visitors take part.

mod api_error;
mod auth;
mod demo;
mod demo_session;
mod openapi;

use std::{fs, future::ready, net::Ipv4Addr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use api_error::ApiError;
use auth::{TokenKeys, User, Viewer};
use axum::{
    Json,
    extract::{FromRequest, Path, Query, Request, State},
    http::{HeaderMap, Method},
    response::{Html, IntoResponse, Sse, sse},
};
use clap::Parser;
use futures_util::{Stream, StreamExt};
use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use sparc::entity::{characters, dice_rolls, session_events, session_players, sessions};
use sparc::service::{
    Cursor, Error, JoinCode, Operations, Options, Page, Sparc,
    adventures::{AdventureSummary, CatalogueFilter, CatalogueOrder},
    characters::{HitPoints, NewCharacter},
    dice::{HistoryFilter, NewRoll, RollScope},
    events::NewEvent,
    sessions::{LobbyFilter, MySession, NewSession, SessionDetails, SessionSummary},
    users::{Profile, ProfileChanges},
};
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
    pace: f32,
    /// Starts without the demo game and its players.
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

/// More seconds than any process runs. It is half of the maximum, so that it can be added to the current time.
const FOREVER_SECONDS: u64 = u64::MAX / 2;

/// The state that all handlers share.
#[derive(Clone)]
struct App {
    sparc: Sparc,
    token_keys: Arc<TokenKeys>,
    demo_session: demo_session::CurrentDemoSession,
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
    let database = testdb::Database::open_migrated().await?;
    let options = Options::default().replicas(arguments.replicas);
    let sparc = Sparc::connect_with(database.url(), options).await?;
    let pace = Duration::try_from_secs_f32(arguments.pace)?;
    let demo_session = if arguments.no_demo {
        demo_session::CurrentDemoSession::none(&sparc)
    } else {
        demo_session::CurrentDemoSession::start(&sparc, pace).await
    };

    let message = if arguments.no_demo { "The service listens" } else { "A game is being played" };
    println!("{message} at http://{}\nPress Ctrl-C to stop.", listener.local_addr()?);
    let app = App { sparc: sparc.clone(), token_keys, demo_session };
    let shutdown = async move {
        wait_for_stop_signal(Duration::from_secs(arguments.for_seconds.unwrap_or(FOREVER_SECONDS))).await;
        // Closing ends the live streams, for which the HTTP server would otherwise wait.
        let _ = sparc.close().await;
    };
    Ok(axum::serve(listener, routes().with_state(app)).with_graceful_shutdown(shutdown).await?)
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
        std::future::pending().await
    };
    tokio::select! { _ = tokio::signal::ctrl_c() => {}, _ = terminated => {}, () = sleep(max_time) => {} }
}

fn routes() -> axum::Router<App> {
    openapi::Api::default()
        .route::<demo_session::SignUpRequest, demo_session::SignUpResponse, _>(
            Method::POST,
            "/api/demo-users",
            "Signs up a demo user",
            demo_session::sign_up,
        )
        .route::<(), Profile, _>(Method::GET, "/api/me", "The caller's profile", me)
        .route::<ProfileChanges, Profile, _>(Method::PATCH, "/api/me", "Changes the caller's profile", edit_me)
        .route::<(), Vec<characters::Model>, _>(
            Method::GET,
            "/api/characters",
            "The caller's characters",
            my_characters,
        )
        .route::<NewCharacter, characters::Model, _>(
            Method::POST,
            "/api/characters",
            "Creates a character",
            create_character,
        )
        .route::<(), Page<AdventureSummary>, _>(Method::GET, "/api/adventures", "The published adventures", adventures)
        .route::<LobbyQuery, Page<SessionSummary>, _>(Method::GET, "/api/lobby", "Sessions with a free seat", lobby)
        .route::<(), Page<MySession>, _>(Method::GET, "/api/sessions", "The caller's sessions", my_sessions)
        .route::<NewSession, sessions::Model, _>(Method::POST, "/api/sessions", "Creates a session", create_session)
        .route::<(), SessionDetails, _>(Method::GET, "/api/sessions/{id}", "A session with its participants", details)
        .route::<(), Page<dice_rolls::Model>, _>(
            Method::GET,
            "/api/sessions/{id}/rolls",
            "The session's newest rolls",
            rolls,
        )
        .route::<SeatRequest, session_players::Model, _>(
            Method::POST,
            "/api/sessions/{id}/seat",
            "Takes a seat",
            take_seat,
        )
        .route::<(), session_players::Model, _>(Method::DELETE, "/api/sessions/{id}/seat", "Gives up the seat", leave)
        .route::<JoinRequest, session_players::Model, _>(
            Method::POST,
            "/api/join",
            "Takes a seat with the join code",
            join,
        )
        .route::<(), sessions::Model, _>(
            Method::POST,
            "/api/sessions/{id}/{action}",
            "Starts, pauses, resumes or ends the session (Seer)",
            change_status,
        )
        .route::<(), sessions::Model, _>(
            Method::PUT,
            "/api/sessions/{id}/scene/{scene}",
            "Changes the scene (Seer)",
            set_scene,
        )
        .route::<HitPointChange, HitPoints, _>(
            Method::POST,
            "/api/sessions/{id}/hit-points",
            "Damages or heals a character (Seer)",
            change_hit_points,
        )
        .route::<NewRoll, dice_rolls::Model, _>(Method::POST, "/api/rolls", "Rolls dice", roll)
        .route::<(), dice_rolls::Model, _>(Method::POST, "/api/rolls/{id}/save", "Makes a heroic save", use_heroic_save)
        .route::<NewEvent, session_events::Model, _>(
            Method::POST,
            "/api/events",
            "Sends an event to the session",
            send_event,
        )
        .event_stream::<session_events::Model, _>("/api/sessions/{id}/events", "Streams live events", events)
        .route::<(), Option<Uuid>, _>(
            Method::GET,
            "/api/demo-session",
            "The id of the session that the demo plays",
            demo_session::current_session_id,
        )
        .router()
        .layer(axum::middleware::from_fn(auth::add_log_position_header))
        .route("/", axum::routing::get(page))
}

type ApiResult<T> = Result<Json<T>, ApiError>;

async fn me(User(user): User) -> ApiResult<Profile> {
    Ok(Json(user.users().me().await?))
}

async fn edit_me(User(user): User, Input(changes): Input<ProfileChanges>) -> ApiResult<Profile> {
    Ok(Json(user.users().edit(changes).await?))
}

async fn my_characters(User(user): User) -> ApiResult<Vec<characters::Model>> {
    Ok(Json(user.characters().living().await?))
}

async fn create_character(User(user): User, Input(new): Input<NewCharacter>) -> ApiResult<characters::Model> {
    Ok(Json(user.characters().create(new).await?))
}

async fn adventures(Viewer { caller, .. }: Viewer) -> ApiResult<Page<AdventureSummary>> {
    Ok(Json(caller.adventures().catalogue(&CatalogueFilter::default(), CatalogueOrder::Newest, None).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LobbyQuery {
    #[serde(flatten)]
    filter: LobbyFilter,
    /// The cursor of the previous page.
    after: Option<Cursor>,
}

async fn lobby(Viewer { caller, .. }: Viewer, Query(query): Query<LobbyQuery>) -> ApiResult<Page<SessionSummary>> {
    Ok(Json(caller.sessions().lobby(&query.filter, query.after.as_ref()).await?))
}

async fn my_sessions(User(user): User) -> ApiResult<Page<MySession>> {
    Ok(Json(user.sessions().my_live(None).await?))
}

async fn create_session(User(user): User, Input(new): Input<NewSession>) -> ApiResult<sessions::Model> {
    Ok(Json(user.sessions().create(new).await?))
}

async fn details(State(app): State<App>, viewer: Viewer, Path(session_id): Path<Uuid>) -> ApiResult<SessionDetails> {
    let reader = app.demo_session.connection_for_watching(viewer.caller, session_id);
    Ok(Json(reader.sessions().details(session_id).await?))
}

async fn rolls(Viewer { caller, .. }: Viewer, Path(session_id): Path<Uuid>) -> ApiResult<Page<dice_rolls::Model>> {
    Ok(Json(caller.dice().history(RollScope::Session(session_id), &HistoryFilter::default(), None).await?))
}

#[derive(Deserialize, JsonSchema)]
struct SeatRequest {
    character_id: Uuid,
}

async fn take_seat(
    State(app): State<App>,
    User(user): User,
    Path(session_id): Path<Uuid>,
    Input(request): Input<SeatRequest>,
) -> ApiResult<session_players::Model> {
    match app.demo_session.take_seat_in_demo_session(&user, session_id, request.character_id).await? {
        Some(seat) => Ok(Json(seat)),
        None => Ok(Json(user.sessions().join_public(session_id, request.character_id).await?)),
    }
}

async fn leave(User(user): User, Path(session_id): Path<Uuid>) -> ApiResult<session_players::Model> {
    Ok(Json(user.sessions().leave(session_id).await?))
}

#[derive(Deserialize, JsonSchema)]
struct JoinRequest {
    code: JoinCode,
    character_id: Uuid,
}

async fn join(User(user): User, Input(request): Input<JoinRequest>) -> ApiResult<session_players::Model> {
    Ok(Json(user.sessions().join(&request.code, request.character_id).await?))
}

async fn change_status(
    User(seer): User,
    Path((session_id, action)): Path<(Uuid, String)>,
) -> ApiResult<sessions::Model> {
    Ok(Json(match action.as_str() {
        "start" => seer.sessions().start(session_id).await?,
        "pause" => seer.sessions().pause(session_id).await?,
        "resume" => seer.sessions().resume(session_id).await?,
        "complete" => seer.sessions().complete(session_id).await?,
        "cancel" => seer.sessions().cancel(session_id).await?,
        _ => {
            return Err(ApiError::new(404, "not_found", "the action must be start, pause, resume, complete or cancel"));
        }
    }))
}

async fn set_scene(User(seer): User, Path((session_id, scene_id)): Path<(Uuid, String)>) -> ApiResult<sessions::Model> {
    Ok(Json(seer.sessions().set_scene(session_id, Some(&scene_id)).await?))
}

#[derive(Deserialize, JsonSchema)]
struct HitPointChange {
    character_id: Uuid,
    /// Hit points that the character loses; negative if it gets them back.
    damage: i8,
}

async fn change_hit_points(
    User(seer): User,
    Path(session_id): Path<Uuid>,
    Input(change): Input<HitPointChange>,
) -> ApiResult<HitPoints> {
    let (characters, amount) = (seer.characters(), change.damage.unsigned_abs());
    let hit_points = match change.damage {
        ..0 => characters.heal(change.character_id, amount).await?,
        0.. => characters.damage(change.character_id, amount).await?,
    };
    demo::write_hit_points_to_game_state(&seer, session_id, hit_points).await?;
    Ok(Json(hit_points))
}

async fn roll(User(user): User, Input(new): Input<NewRoll>) -> ApiResult<dice_rolls::Model> {
    Ok(Json(user.dice().roll(new).await?))
}

async fn use_heroic_save(User(user): User, Path(roll_id): Path<Uuid>) -> ApiResult<dice_rolls::Model> {
    Ok(Json(user.dice().use_heroic_save(roll_id).await?))
}

async fn send_event(User(user): User, Input(new): Input<NewEvent>) -> ApiResult<session_events::Model> {
    Ok(Json(user.events().send(new).await?))
}

/// Streams the events of a session. Each event has its `seq` as id, and a browser that reconnects sends the last id as
/// `Last-Event-ID`. The stream ends when the token expires. If the stream fails, its last event is `ended`, with the
/// error.
async fn events(
    State(app): State<App>,
    Viewer { caller, token_expires_at }: Viewer,
    Path(session_id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, axum::Error>>>, ApiError> {
    let last_seq = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default().parse::<i64>()).transpose();
    let last_seq = last_seq.map_err(|_| Error::InvalidValue { field: "Last-Event-ID", rule: "must be a number" })?;
    // Without `Last-Event-ID`, the stream begins with the oldest event that the database has kept of the session,
    // because the page shows all of them.
    let reader = app.demo_session.connection_for_watching(caller, session_id);
    let events = reader.events().subscribe(session_id, Some(last_seq.unwrap_or(0))).await?;
    // When this process stops, the stream ends without an error, and the client reconnects to the next process.
    let events = events.take_while(|event| ready(!matches!(event, Err(Error::PoolClosed)))).map(|event| match event {
        Ok(event) => sse::Event::default().id(event.seq.to_string()).json_data(event),
        Err(error) => sse::Event::default().event("ended").json_data(ApiError::from(error)),
    });
    let seconds_until_expiry =
        token_expires_at.map_or(FOREVER_SECONDS, |expiry| expiry.saturating_sub(jsonwebtoken::get_current_timestamp()));
    let events = events.take_until(Box::pin(sleep(Duration::from_secs(seconds_until_expiry))));
    Ok(Sse::new(events).keep_alive(sse::KeepAlive::new().interval(Duration::from_secs(10))))
}

async fn page() -> impl IntoResponse {
    let security_policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    ([("content-security-policy", security_policy)], Html(include_str!("page.html")))
}

/// The body of a request, deserialized from JSON.
struct Input<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let Json(input) = Json::from_request(request, app)
            .await
            .map_err(|rejection| ApiError::new(rejection.status().as_u16(), "invalid_input", rejection.body_text()))?;
        Ok(Self(input))
    }
}
