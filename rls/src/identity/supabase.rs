//! The identities of Supabase, and of other systems with the same roles and claims. `auth.uid()`, `auth.role()`,
//! `auth.jwt()` and `auth.email()` read exactly the settings that these identities set.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::Identity;
use crate::Error;

/// The role of a signed-in user.
pub const AUTHENTICATED: &str = "authenticated";
/// The role of a visitor who has not signed in.
pub const ANON: &str = "anon";
/// The role of the service, which bypasses row-level security.
pub const SERVICE_ROLE: &str = "service_role";

/// Older settings, which the functions of the schema `auth` prefer to `request.jwt.claims`. An identity sets them to
/// the empty string, so that the functions use the claims.
const LEGACY_SETTINGS: [&str; 4] =
    ["request.jwt.claim", "request.jwt.claim.sub", "request.jwt.claim.role", "request.jwt.claim.email"];

/// Returns the identity of a signed-in user.
#[must_use]
pub fn user(id: Uuid) -> Identity {
    let claims = [("role", AUTHENTICATED.to_owned()), ("sub", id.to_string())];
    from_claims_unchecked(
        AUTHENTICATED,
        claims.map(|(name, value)| (name.to_owned(), Value::String(value))).into_iter().collect(),
    )
    .with_user_id(id)
}

/// Returns the identity of a visitor who has not signed in.
#[must_use]
pub fn anon() -> Identity {
    from_role(ANON)
}

/// Returns the identity of the service itself.
#[must_use]
pub fn service() -> Identity {
    from_role(SERVICE_ROLE)
}

fn from_role(role: &'static str) -> Identity {
    from_claims_unchecked(role, [("role".to_owned(), Value::String(role.to_owned()))].into_iter().collect())
}

/// Returns the identity that the claims of a token describe. `auth.jwt()` returns all the claims, unchanged except that
/// `sub` is spelled as PostgreSQL prints a UUID. The caller must have verified the token, including its expiry.
///
/// # Errors
///
/// [`Error::InvalidClaims`] unless the role is `authenticated` and `sub` is a UUID, or the role is `anon` and there is
/// no `sub`; also if a claim contains a NUL character. A token with the role of the service is refused; use [`service`]
/// instead.
pub fn from_claims(mut claims: Map<String, Value>) -> Result<Identity, Error> {
    let invalid_claims = |rule| Err(Error::InvalidClaims { rule });
    if claims.values().any(has_nul) || claims.keys().any(|name| name.contains('\0')) {
        return invalid_claims("the claims must not contain a NUL character");
    }
    let subject = match claims.get("sub") {
        None => None,
        Some(Value::String(text)) => match Uuid::parse_str(text) {
            Ok(id) => Some(id),
            Err(_) => return invalid_claims("sub must be the UUID of an account"),
        },
        Some(_) => return invalid_claims("sub must be the UUID of an account"),
    };
    match (claims.get("role").and_then(Value::as_str), subject) {
        (Some(AUTHENTICATED), Some(id)) => {
            // A UUID has several spellings; PostgreSQL prints this one.
            claims.insert("sub".to_owned(), Value::String(id.to_string()));
            Ok(from_claims_unchecked(AUTHENTICATED, claims).with_user_id(id))
        }
        (Some(AUTHENTICATED), None) => invalid_claims("sub must be the UUID of an account"),
        (Some(ANON), None) => Ok(from_claims_unchecked(ANON, claims)),
        (Some(ANON), Some(_)) => invalid_claims("a visitor's claims must have no sub"),
        _ => invalid_claims("role must be authenticated or anon"),
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Returns an identity with this role and these claims, which are not checked. For the claims of a token, use
/// [`from_claims`].
#[must_use]
pub fn from_claims_unchecked(role: &'static str, claims: Map<String, Value>) -> Identity {
    let claims = Value::Object(claims).to_string();
    LEGACY_SETTINGS
        .into_iter()
        .fold(Identity::new(role).with_setting("request.jwt.claims", claims), |identity, name| {
            identity.with_setting(name, "")
        })
}
