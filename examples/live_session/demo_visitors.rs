//! How visitors of the page take part in the demo: they sign up with one click, and learn which session is being
//! played.

use axum::{Extension, Json, extract::State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sparc::service::{
    Operations,
    users::{NewAccount, Profile},
};
use uuid::Uuid;

use crate::{api_error::ApiError, app::App, log_position::RequestConnections};

/// Returns the id of the session that the demo plays at the moment.
pub async fn demo_session_id(State(app): State<App>) -> Json<Option<Uuid>> {
    Json(app.demo_session.id())
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
