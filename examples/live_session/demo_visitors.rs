//! How visitors of the page take part in the demo: they sign up with one click, watch the session that is being played,
//! and take a seat in it.

use std::time::Duration;

use axum::{Extension, Json, extract::State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sparc::entity::session_players::Model as Seat;
use sparc::service::{
    Error, IdentityConnection, Operations, Sparc,
    users::{NewAccount, Profile},
};
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

use crate::{App, api_error::ApiError, auth::RequestConnections, demo};

/// The session that the demo plays at the moment. When it has ended, the demo plays another. Unlike other sessions, it
/// can be watched by everyone, and players can take a seat after it has started.
#[derive(Clone)]
pub struct CurrentDemoSession {
    sparc: Sparc,
    current_session_id: watch::Receiver<Option<Uuid>>,
}

impl CurrentDemoSession {
    /// Starts the demo, and returns once the first session exists, or after 20 seconds if there is none by then.
    pub async fn start(sparc: &Sparc, action_interval: Duration) -> Self {
        let (sender, mut current_session_id) = watch::channel(None);
        tokio::spawn(demo::play(sparc.clone(), sender, action_interval));
        let _ = timeout(Duration::from_secs(20), current_session_id.wait_for(Option::is_some)).await;
        Self { sparc: sparc.clone(), current_session_id }
    }

    /// Returns a value without a session, for a program without the demo.
    pub fn none(sparc: &Sparc) -> Self {
        Self { sparc: sparc.clone(), current_session_id: watch::channel(None).1 }
    }

    fn is_current(&self, session_id: Uuid) -> bool {
        *self.current_session_id.borrow() == Some(session_id)
    }

    /// Returns the connection with which to read a session for the caller. Row-level security hides events and rolls
    /// from everyone who does not take part, so for them the demo's current session is read as the service.
    pub async fn connection_for_watching(
        &self,
        caller: IdentityConnection,
        session_id: Uuid,
        request_connections: &RequestConnections,
    ) -> Result<IdentityConnection, Error> {
        if !self.is_current(session_id) || takes_part(&caller, session_id).await? {
            return Ok(caller);
        }
        // The service must not read anything older than what the caller has written or read.
        Ok(request_connections.add(self.sparc.as_service().with_min_position(caller.position())))
    }

    /// Seats a player in the demo's current session. This is done as the service, because players can only join
    /// sessions that have not started. Returns `None`, and does nothing, if `session_id` is not that of the demo's
    /// current session.
    pub async fn take_seat_in_demo_session(
        &self,
        user: &IdentityConnection,
        session_id: Uuid,
        character_id: Uuid,
        request_connections: &RequestConnections,
    ) -> Result<Option<Seat>, Error> {
        let Some(player_id) = user.user_id().filter(|_| self.is_current(session_id)) else { return Ok(None) };
        let service = request_connections.add(self.sparc.as_service());
        Ok(Some(service.sessions().seat_player(session_id, player_id, character_id).await?))
    }
}

/// Returns whether the caller may read the session's events and rolls as a participant.
async fn takes_part(caller: &IdentityConnection, session_id: Uuid) -> Result<bool, Error> {
    Ok(caller.user_id().is_some() && caller.sessions().participation(session_id).await?.may_read_events())
}

/// Returns the id of the session that the demo plays at the moment.
pub async fn demo_session_id(State(app): State<App>) -> Json<Option<Uuid>> {
    Json(*app.demo_session.current_session_id.borrow())
}

/// What a visitor chooses at sign-up. Unlike [`NewAccount`], this has no id. If it had one, anybody could repeat
/// another visitor's sign-up with the same id, and would get a token for that visitor's account.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignUpRequest {
    display_name: String,
}

/// A new account of a visitor of the page, with a token.
#[derive(Serialize, JsonSchema)]
pub struct SignUpResponse {
    token: String,
    profile: Profile,
}

/// Creates an account for a visitor. On Supabase, the sign-up of Supabase Auth does this and returns the token.
pub async fn sign_up(
    State(app): State<App>,
    Extension(request_connections): Extension<RequestConnections>,
    Json(request): Json<SignUpRequest>,
) -> Result<Json<SignUpResponse>, ApiError> {
    let account = NewAccount { display_name: Some(request.display_name), ..Default::default() };
    let service = request_connections.add(app.sparc.as_service());
    let profile = service.users().sign_up(account).await?;
    Ok(Json(SignUpResponse { token: app.token_keys.issue(profile.id)?, profile }))
}
