//! Who asks: tokens as the platform signs them, and what a request's token makes of it.

use axum::{extract::FromRequestParts, http::request::Parts};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode, get_current_timestamp,
    jwk::{AlgorithmParameters, EllipticCurve, JwkSet},
};
use serde::{Deserialize, Serialize};
use sparc::service::IdentityConnection;
use uuid::Uuid;

use crate::{App, Failure};

/// What the platform says of a signed-in user.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: Uuid,
    exp: u64,
    aud: String,
    role: String,
}

/// The audience and the role of every signed-in user.
const AUTHENTICATED: &str = "authenticated";

/// The keys that tokens are verified with, and the one that signs for demo visitors.
pub struct Tokens {
    verifying: Vec<(Option<String>, Algorithm, DecodingKey)>,
    signing: EncodingKey,
}

impl Tokens {
    /// The platform's shared secret (HS256), and its published keys (ES256, RS256).
    pub fn new(secret: &str, published: &JwkSet) -> Result<Self, jsonwebtoken::errors::Error> {
        let mut verifying = vec![(None, Algorithm::HS256, DecodingKey::from_secret(secret.as_bytes()))];
        for jwk in &published.keys {
            // The kind of key decides, never the token: a public key must not serve as a shared secret.
            let algorithm = match &jwk.algorithm {
                AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
                AlgorithmParameters::RSA(_) => Algorithm::RS256,
                _ => continue,
            };
            verifying.push((jwk.common.key_id.clone(), algorithm, DecodingKey::from_jwk(jwk)?));
        }
        Ok(Self { verifying, signing: EncodingKey::from_secret(secret.as_bytes()) })
    }

    /// A token for a demo visitor, good for a day. On the platform, signing in gives one.
    pub fn issue(&self, user: Uuid) -> Result<String, Failure> {
        let exp = get_current_timestamp() + 24 * 60 * 60;
        let claims = Claims { sub: user, exp, aud: AUTHENTICATED.into(), role: AUTHENTICATED.into() };
        encode(&Header::default(), &claims, &self.signing).map_err(|_| Failure::internal())
    }

    fn verify(&self, token: &str) -> Result<Claims, jsonwebtoken::errors::Error> {
        let header = decode_header(token)?;
        let mut refused = jsonwebtoken::errors::ErrorKind::InvalidAlgorithm.into();
        for (id, algorithm, key) in &self.verifying {
            if *algorithm != header.alg || (id.is_some() && header.kid.is_some() && *id != header.kid) {
                continue;
            }
            let mut rules = Validation::new(*algorithm);
            rules.leeway = 0;
            rules.validate_nbf = true;
            rules.set_audience(&[AUTHENTICATED]);
            rules.set_required_spec_claims(&["exp", "aud", "sub"]);
            match decode::<Claims>(token, key, &rules) {
                Ok(token) => return Ok(token.claims),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

/// Somebody who has signed in; else the request is refused.
pub struct User(pub IdentityConnection);

/// Whoever asks: somebody who has signed in, with the end of the token, or a visitor. A token that is there must be good.
pub struct Viewer(pub IdentityConnection, pub Option<u64>);

impl FromRequestParts<App> for Viewer {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let Some(header) = parts.headers.get("authorization") else { return Ok(Self(app.sparc.as_anon(), None)) };
        let token = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).unwrap_or_default();
        let claims = app.tokens.verify(token).map_err(|error| Failure::token(&error))?;
        Ok(Self(app.sparc.as_user(claims.sub), Some(claims.exp)))
    }
}

impl FromRequestParts<App> for User {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let Viewer(caller, signed_in) = Viewer::from_request_parts(parts, app).await?;
        signed_in.ok_or(sparc::service::Error::NotSignedIn)?;
        Ok(Self(caller))
    }
}
