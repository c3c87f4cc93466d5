//! The routes of the web service, and their handlers.

use std::{future::ready, time::Duration};

use axum::{
    Extension, Json,
    extract::{Path, Query, State},
    http::{HeaderMap, Method},
    middleware::{from_fn, map_response},
    response::{Html, IntoResponse, Sse, sse},
};
use futures_util::{Stream, StreamExt};
use schemars::JsonSchema;
use serde::Deserialize;
use sparc::entity::{characters, dice_rolls, session_events, session_players, sessions};
use sparc::service::{
    Cursor, Error, JoinCode, Operations, Page,
    adventures::{AdventureSummary, CatalogueFilter, CatalogueOrder},
    characters::{HitPoints, NewCharacter},
    dice::{HistoryFilter, NewRoll, RollScope},
    events::NewEvent,
    sessions::{LobbyFilter, MySession, NewSession, SessionDetails, SessionSummary},
    users::{Profile, ProfileChanges},
};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    api_error::{ApiError, errors_as_json},
    app::App,
    callers::{User, Viewer},
    demo_visitors, game_state,
    log_position::{RequestConnections, add_log_position_header},
    openapi,
};

/// Returns the routes. Only a program with the demo has the route with which visitors sign up.
pub fn routes(has_demo: bool) -> axum::Router<App> {
    let mut api = openapi::Api::default();
    if has_demo {
        // This route signs a token for everyone who asks for one.
        api = api.route::<demo_visitors::SignUpRequest, demo_visitors::SignUpResponse, _>(
            Method::POST,
            "/api/demo-users",
            "Signs up a demo user",
            demo_visitors::sign_up,
        );
    }
    api.route::<(), Profile, _>(Method::GET, "/api/me", "The caller's profile", me)
        .route::<ProfileChanges, Profile, _>(Method::PATCH, "/api/me", "Changes the caller's profile", edit_me)
        .route::<(), Vec<characters::Model>, _>(
            Method::GET,
            "/api/characters",
            "The caller's characters that are not retired",
            my_living_characters,
        )
        .route::<NewCharacter, characters::Model, _>(
            Method::POST,
            "/api/characters",
            "Creates a character",
            create_character,
        )
        .route::<(), Page<AdventureSummary>, _>(Method::GET, "/api/adventures", "The published adventures", adventures)
        .route::<LobbyQuery, Page<SessionSummary>, _>(Method::GET, "/api/lobby", "Sessions with a free seat", lobby)
        .route::<(), Page<MySession>, _>(Method::GET, "/api/sessions", "The caller's live sessions", my_live_sessions)
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
        .event_stream::<session_events::Model, _>("/api/sessions/{id}/events", "Streams the session's events", events)
        .route::<(), Option<Uuid>, _>(
            Method::GET,
            "/api/demo-session",
            "The id of the session that the demo plays",
            demo_visitors::demo_session_id,
        )
        .router()
        .route("/", axum::routing::get(page))
        .layer(map_response(errors_as_json))
        .layer(from_fn(add_log_position_header))
}

type ApiResult<T> = Result<Json<T>, ApiError>;

async fn me(User(user): User) -> ApiResult<Profile> {
    Ok(Json(user.users().me().await?))
}

async fn edit_me(User(user): User, Json(changes): Json<ProfileChanges>) -> ApiResult<Profile> {
    Ok(Json(user.users().edit(changes).await?))
}

/// Returns the characters that are not retired.
async fn my_living_characters(User(user): User) -> ApiResult<Vec<characters::Model>> {
    Ok(Json(user.characters().living().await?))
}

async fn create_character(User(user): User, Json(new): Json<NewCharacter>) -> ApiResult<characters::Model> {
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
    /// The cursor that the previous page returned as `next`.
    after: Option<Cursor>,
}

async fn lobby(Viewer { caller, .. }: Viewer, Query(query): Query<LobbyQuery>) -> ApiResult<Page<SessionSummary>> {
    Ok(Json(caller.sessions().lobby(&query.filter, query.after.as_ref()).await?))
}

/// Returns the sessions that have not ended, and that the caller runs or has a seat in.
async fn my_live_sessions(User(user): User) -> ApiResult<Page<MySession>> {
    Ok(Json(user.sessions().my_live(None).await?))
}

async fn create_session(User(user): User, Json(new): Json<NewSession>) -> ApiResult<sessions::Model> {
    Ok(Json(user.sessions().create(new).await?))
}

async fn details(
    State(app): State<App>,
    Extension(request_connections): Extension<RequestConnections>,
    Viewer { caller, .. }: Viewer,
    Path(session_id): Path<Uuid>,
) -> ApiResult<SessionDetails> {
    let reader = app.demo_session.connection_for_watching(caller, session_id, &request_connections).await?;
    Ok(Json(reader.sessions().details(session_id).await?))
}

async fn rolls(
    State(app): State<App>,
    Extension(request_connections): Extension<RequestConnections>,
    Viewer { caller, .. }: Viewer,
    Path(session_id): Path<Uuid>,
) -> ApiResult<Page<dice_rolls::Model>> {
    let reader = app.demo_session.connection_for_watching(caller, session_id, &request_connections).await?;
    Ok(Json(reader.dice().history(RollScope::Session(session_id), &HistoryFilter::default(), None).await?))
}

#[derive(Deserialize, JsonSchema)]
struct SeatRequest {
    character_id: Uuid,
}

async fn take_seat(
    State(app): State<App>,
    Extension(request_connections): Extension<RequestConnections>,
    User(user): User,
    Path(session_id): Path<Uuid>,
    Json(request): Json<SeatRequest>,
) -> ApiResult<session_players::Model> {
    let character_id = request.character_id;
    let demo_seat =
        app.demo_session.take_seat_in_demo_session(&user, session_id, character_id, &request_connections).await?;
    match demo_seat {
        Some(seat) => Ok(Json(seat)),
        None => Ok(Json(user.sessions().join_by_id(session_id, character_id).await?)),
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

async fn join(User(user): User, Json(request): Json<JoinRequest>) -> ApiResult<session_players::Model> {
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
    /// Hit points that the character loses; negative if it regains hit points.
    damage: i8,
}

async fn change_hit_points(
    User(seer): User,
    Path(session_id): Path<Uuid>,
    Json(change): Json<HitPointChange>,
) -> ApiResult<HitPoints> {
    Ok(Json(game_state::damage_or_heal(&seer, session_id, change.character_id, change.damage).await?))
}

async fn roll(User(user): User, Json(new): Json<NewRoll>) -> ApiResult<dice_rolls::Model> {
    Ok(Json(user.dice().roll(new).await?))
}

async fn use_heroic_save(User(user): User, Path(roll_id): Path<Uuid>) -> ApiResult<dice_rolls::Model> {
    Ok(Json(user.dice().use_heroic_save(roll_id).await?))
}

async fn send_event(User(user): User, Json(new): Json<NewEvent>) -> ApiResult<session_events::Model> {
    Ok(Json(user.events().send(new).await?))
}

/// Streams the events of a session. The id of each event in the stream is its number (`seq`), and a browser that
/// reconnects sends the last id as `Last-Event-ID`. The stream ends when the token expires. If the stream fails, its
/// last event is `failed`, with the error.
async fn events(
    State(app): State<App>,
    Extension(request_connections): Extension<RequestConnections>,
    Viewer { caller, token_expires_at }: Viewer,
    Path(session_id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, axum::Error>>>, ApiError> {
    let last_seq = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default().parse::<i64>()).transpose();
    let last_seq = last_seq.map_err(|_| Error::InvalidValue { field: "Last-Event-ID", rule: "must be a number" })?;
    // Without `Last-Event-ID`, the stream begins with the oldest event that the database has kept of the session,
    // because the page shows all of them.
    let reader = app.demo_session.connection_for_watching(caller, session_id, &request_connections).await?;
    let events = reader.events().subscribe(session_id, Some(last_seq.unwrap_or(0))).await?;
    // When this process stops, the stream ends without an error, and the client reconnects to the next process.
    let events = events.take_while(|event| ready(!matches!(event, Err(Error::PoolClosed)))).map(|event| match event {
        Ok(event) => sse::Event::default().id(event.seq.to_string()).json_data(event),
        Err(error) => sse::Event::default().event("failed").json_data(ApiError::from(error)),
    });
    // `sleep` limits `Duration::MAX`, for a visitor, to about thirty years.
    let time_until_expiry = token_expires_at.map_or(Duration::MAX, |expiry| {
        Duration::from_secs(expiry.saturating_sub(jsonwebtoken::get_current_timestamp()))
    });
    let events = events.take_until(Box::pin(sleep(time_until_expiry)));
    Ok(Sse::new(events).keep_alive(sse::KeepAlive::new().interval(Duration::from_secs(10))))
}

async fn page() -> impl IntoResponse {
    let security_policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    ([("content-security-policy", security_policy)], Html(include_str!("page.html")))
}
