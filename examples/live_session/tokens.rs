//! Tokens: issues and verifies them as Supabase Auth does. (Supabase is a hosting platform for PostgreSQL; Supabase
//! Auth is its service for sign-up and sign-in.)

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
    errors::ErrorKind,
    get_current_timestamp,
    jwk::{AlgorithmParameters, EllipticCurve, JwkSet},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api_error::ApiError;

/// The claims of a signed-in user's token. A token that lacks any of them is refused.
#[derive(Debug, Serialize, Deserialize)]
pub struct Claims {
    /// The user's id.
    pub sub: Uuid,
    /// When the token expires, in seconds since 1970.
    pub exp: u64,
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
    pub fn verify(&self, token: &str) -> Result<Claims, jsonwebtoken::errors::Error> {
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
