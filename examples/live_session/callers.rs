//! The caller of a request: gives each request the identity of the token that it has.

use axum::{extract::FromRequestParts, http::request::Parts};
use sparc::service::IdentityConnection;

use crate::{
    api_error::ApiError,
    app::App,
    log_position::{RequestConnections, with_position_of_request},
};

/// The caller of a request that needs a token: a signed-in user. A request without a token is refused.
pub struct User(pub IdentityConnection);

/// The caller of a request that needs no token: a signed-in user or a visitor. If there is a token, it must be valid.
pub struct Viewer {
    pub caller: IdentityConnection,
    /// When the token expires, in seconds since 1970; `None` for a visitor.
    pub token_expires_at: Option<u64>,
}

impl FromRequestParts<App> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let (mut caller, mut token_expires_at) = (app.sparc.as_anon(), None);
        if let Some(header) = parts.headers.get("authorization") {
            let token = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).unwrap_or_default();
            let claims = app.token_keys.verify(token).map_err(|error| ApiError::invalid_token(&error))?;
            (caller, token_expires_at) = (app.sparc.as_user(claims.sub), Some(claims.exp));
        }
        caller = with_position_of_request(caller, &parts.headers);
        if let Some(request_connections) = parts.extensions.get::<RequestConnections>() {
            request_connections.add(caller.clone());
        }
        Ok(Self { caller, token_expires_at })
    }
}

impl FromRequestParts<App> for User {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Viewer { caller, token_expires_at } = Viewer::from_request_parts(parts, app).await?;
        // Only a request without a token has no expiry.
        token_expires_at.ok_or(sparc::service::Error::NotSignedIn)?;
        Ok(Self(caller))
    }
}
