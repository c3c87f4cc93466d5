//! Authentication: verifies tokens that are signed as Supabase Auth signs them, and gives each request its caller's
//! identity. (Supabase is a hosting platform for PostgreSQL; Supabase Auth is its service for sign-up and sign-in.)

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderName, HeaderValue, request::Parts},
    middleware::Next,
    response::Response,
};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
    errors::ErrorKind,
    get_current_timestamp,
    jwk::{AlgorithmParameters, EllipticCurve, JwkSet},
};
use serde::{Deserialize, Serialize};
use sparc::service::{IdentityConnection, LogPosition};
use uuid::Uuid;

use crate::{App, api_error::ApiError};

/// The claims of a signed-in user's token. A token that lacks any of them is refused.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    /// The user's id.
    sub: Uuid,
    /// When the token expires, in seconds since 1970.
    exp: u64,
    /// The audience; must be [`AUTHENTICATED`].
    aud: String,
    /// Required but not used: the data layer gives every signed-in user the database role `authenticated`.
    role: String,
}

/// The audience (`aud`) and the role in the token of every signed-in user.
const AUTHENTICATED: &str = "authenticated";

/// The keys that verify tokens, and the key that signs the tokens of the demo's users.
pub struct TokenKeys {
    verifying_keys: Vec<VerifyingKey>,
    signing_key: EncodingKey,
}

struct VerifyingKey {
    /// The key's id (`kid`), if it has one.
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl TokenKeys {
    /// Creates the keys from the secret that this program shares with Supabase Auth (HS256), and from the keys that
    /// Supabase Auth publishes (ES256, RS256). The shared secret also signs the tokens of the demo's users.
    pub fn new(secret: &str, published_keys: &JwkSet) -> Result<Self, jsonwebtoken::errors::Error> {
        let shared_key = DecodingKey::from_secret(secret.as_bytes());
        let mut verifying_keys = vec![VerifyingKey { id: None, algorithm: Algorithm::HS256, key: shared_key }];
        for jwk in &published_keys.keys {
            // The key, not the token, determines the algorithm, so that a token cannot make this program use a public
            // key as a shared secret.
            let algorithm = match &jwk.algorithm {
                AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
                AlgorithmParameters::RSA(_) => Algorithm::RS256,
                _ => continue,
            };
            let (id, key) = (jwk.common.key_id.clone(), DecodingKey::from_jwk(jwk)?);
            verifying_keys.push(VerifyingKey { id, algorithm, key });
        }
        Ok(Self { verifying_keys, signing_key: EncodingKey::from_secret(secret.as_bytes()) })
    }

    /// Issues a token to a user of the demo, valid for a day. On Supabase, Supabase Auth issues the tokens instead.
    pub fn issue(&self, user_id: Uuid) -> Result<String, ApiError> {
        let exp = get_current_timestamp() + 24 * 60 * 60;
        let claims = Claims { sub: user_id, exp, aud: AUTHENTICATED.into(), role: AUTHENTICATED.into() };
        encode(&Header::default(), &claims, &self.signing_key).map_err(|_| ApiError::internal())
    }

    /// Verifies a token and returns its claims. Tries each key whose algorithm is that of the token. If both the key
    /// and the token have a key id (`kid`), the ids must be equal.
    fn verify(&self, token: &str) -> Result<Claims, jsonwebtoken::errors::Error> {
        let header = decode_header(token)?;
        // The error of the last key that was tried; at first, the error for a token that no key fits.
        let mut last_error = ErrorKind::InvalidAlgorithm.into();
        for VerifyingKey { id, algorithm, key } in &self.verifying_keys {
            if *algorithm != header.alg || (id.is_some() && header.kid.is_some() && *id != header.kid) {
                continue;
            }
            let mut validation = Validation::new(*algorithm);
            validation.leeway = 0;
            validation.validate_nbf = true;
            validation.set_audience(&[AUTHENTICATED]);
            validation.set_required_spec_claims(&["exp", "aud", "sub"]);
            match decode::<Claims>(token, key, &validation) {
                Ok(decoded) => return Ok(decoded.claims),
                // The signature is verified before the expiry, so this key has signed the token, and no other has.
                Err(error) if *error.kind() == ErrorKind::ExpiredSignature => return Err(error),
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }
}

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
        if let Some(position) = parts.headers.get(POSITION_HEADER) {
            // The caller then reads only from a server that has replayed this position.
            caller = caller.with_min_position(position.to_str().ok().and_then(|text| text.parse::<LogPosition>().ok()));
        }
        if let Some(request_connections) = parts.extensions.get::<RequestConnections>() {
            request_connections.add(caller.clone());
        }
        Ok(Self { caller, token_expires_at })
    }
}

/// The header with a *log position*: a position in PostgreSQL's write-ahead log, as text (`1-0/16B3748`: timeline and
/// LSN). A response has the position of what its [`RequestConnections`] last wrote or read, if there is one. A client
/// that sends the position with its next request reads its own writes, even through another process of this program or
/// from a replica. An invalid value is ignored.
const POSITION_HEADER: &str = "sparc-position";

/// The connections with which a request was handled: that of its [`User`] or [`Viewer`], and that of the service if the
/// program did something on the caller's behalf. It is an extension of each request.
#[derive(Clone, Default)]
pub struct RequestConnections(Arc<Mutex<Vec<IdentityConnection>>>);

impl RequestConnections {
    /// Adds a connection, and returns it.
    pub fn add(&self, connection: IdentityConnection) -> IdentityConnection {
        self.lock().push(connection.clone());
        connection
    }

    fn latest_position(&self) -> Option<LogPosition> {
        self.lock().iter().filter_map(IdentityConnection::position).max()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<IdentityConnection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Middleware that adds the log position of the [`RequestConnections`] to the response, in the header
/// [`POSITION_HEADER`].
pub async fn add_log_position_header(mut request: Request, next: Next) -> Response {
    let request_connections = RequestConnections::default();
    request.extensions_mut().insert(request_connections.clone());
    let mut response = next.run(request).await;
    let position = request_connections.latest_position();
    let position = position.and_then(|position| HeaderValue::try_from(position.to_string()).ok());
    response.headers_mut().extend(position.map(|position| (HeaderName::from_static(POSITION_HEADER), position)));
    response
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
