//! Who is asking, and how the database is told.

use std::{
    borrow::Cow,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value};
use uuid::Uuid;

/// When the transaction began, which no two of a connection share and no statement can change, however it writes times.
const BEGUN: &str = "extract(epoch FROM transaction_timestamp())::text";

/// In whose name statements run: a role, and settings that policies read. Cheap to clone; nothing changes it after it
/// was made.
///
/// [`Identity::new`] is for any database; [`supabase`](crate::supabase) has those of that platform.
#[derive(Clone)]
pub struct Identity(Arc<Parts>);

struct Parts {
    role: Cow<'static, str>,
    user_id: Option<Uuid>,
    settings: Vec<(Cow<'static, str>, String)>,
    /// What each transaction begins with.
    admission: Option<Cow<'static, str>>,
    /// What sets role and settings, in a list of expressions.
    set: String,
    /// Whether they are as they were set, as a condition.
    holds: String,
}

impl Identity {
    /// An identity of that role, without settings.
    pub fn new(role: impl Into<Cow<'static, str>>) -> Self {
        Self::of(role.into(), None, Vec::new(), None)
    }

    /// The same with a setting that policies read by `current_setting(name, true)`. Name every setting that they read: one
    /// that has no value for this identity is set to the empty text, so that nothing can be left over in it.
    #[must_use]
    pub fn with_setting(self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        let mut settings = self.0.settings.clone();
        settings.push((name.into(), value.into()));
        Self::of(self.0.role.clone(), self.0.user_id, settings, self.0.admission.clone())
    }

    /// The same, of the user with that id.
    #[must_use]
    pub fn with_user_id(self, id: Uuid) -> Self {
        Self::of(self.0.role.clone(), Some(id), self.0.settings.clone(), self.0.admission.clone())
    }

    /// The same, with an expression that each transaction evaluates once role and settings are set, in the same message. It
    /// raises an error where the identity may not enter (an account that is closed); its value does not matter.
    ///
    /// It is the program's own text, and nobody else's.
    #[must_use]
    pub fn with_admission(self, sql: impl Into<Cow<'static, str>>) -> Self {
        Self::of(self.0.role.clone(), self.0.user_id, self.0.settings.clone(), Some(sql.into()))
    }

    /// The role.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.0.role
    }

    /// The user, if it is one with an id.
    #[must_use]
    pub fn user_id(&self) -> Option<Uuid> {
        self.0.user_id
    }

    fn of(
        role: Cow<'static, str>,
        user_id: Option<Uuid>,
        settings: Vec<(Cow<'static, str>, String)>,
        admission: Option<Cow<'static, str>>,
    ) -> Self {
        // SET LOCAL would be a little faster; but the server's statistics of statements take each of those for one of its
        // own, a line for every user.
        let mut set = set_config("role", &role);
        let mut holds = format!("current_setting('role') = {0} AND current_user::text = {0}", quoted(&role));
        for (name, value) in &settings {
            set.push_str(", ");
            set.push_str(&set_config(name, value));
            holds.push_str(&format!(" AND coalesce(current_setting({}, true), '') = {}", quoted(name), quoted(value)));
        }
        Self(Arc::new(Parts { role, user_id, settings, admission, set, holds }))
    }

    /// Tells one identity from another: a user by the id, whatever token they came with, anybody else by role and settings.
    pub(crate) fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self.0.user_id {
            Some(id) => id.hash(&mut hasher),
            None => self.0.set.hash(&mut hasher),
        }
        hasher.finish()
    }

    /// What sets the identity for the rest of the transaction, and how long a statement may take; then `besides`. The last
    /// column says when the transaction began.
    pub(crate) fn set_local_sql(&self, timeout: Option<Duration>, besides: &str) -> String {
        // 0 would disable `statement_timeout`, so it is at least 1 ms.
        let timeout = timeout.map_or_else(String::new, |time| {
            format!(", set_config('statement_timeout', '{}', true)", time.as_millis().clamp(1, i32::MAX as u128))
        });
        let set = &self.0.set;
        match &self.0.admission {
            None => format!("SELECT {set}{timeout}{besides}, {BEGUN}"),
            // A statement of its own: its names are looked up when the role is set.
            Some(admission) => format!("SELECT {set}{timeout}; SELECT {admission}{besides}, {BEGUN}"),
        }
    }

    /// 0 where all is as it was set, 1 where the identity was changed, 2 where this is another transaction; then how many
    /// statements the driver has prepared in the session.
    pub(crate) fn verify_sql(&self, begun: &str) -> String {
        let (holds, begun) = (&self.0.holds, quoted(begun));
        format!(
            "SELECT CASE WHEN {BEGUN} <> {begun} THEN 2 WHEN {holds} THEN 0 ELSE 1 END, \
             (SELECT count(*) FROM pg_catalog.pg_prepared_statements WHERE NOT from_sql)"
        )
    }

    /// The same as a statement that fails unless all is as it was set, so that what follows in the message is not run:
    /// with [`ENDED`] where this is another transaction, with [`CHANGED`] where the identity was changed. (`concat` is not
    /// immutable: nothing is evaluated before it is needed.)
    pub(crate) fn require_sql(&self, begun: &str) -> String {
        let (holds, begun) = (&self.0.holds, quoted(begun));
        format!(
            "SELECT CASE WHEN {BEGUN} <> {begun} THEN 1 / length(concat('')) WHEN {holds} THEN 0 \
             ELSE concat('identity changed')::integer END"
        )
    }
}

/// SQLSTATEs of the failures of [`Identity::require_sql`]: a division by zero, and a text that is no number.
pub(crate) const ENDED: &str = "22012";
pub(crate) const CHANGED: &str = "22P02";

fn set_config(name: &str, value: &str) -> String {
    format!("set_config({}, {}, true)", quoted(name), quoted(value))
}

/// Changes the role alone: the claims still tell who asked.
pub(crate) fn set_role_statement(role: &str) -> String {
    format!("SELECT {}", set_config("role", role))
}

/// The text as a literal, whatever is in it and however the server reads backslashes. The protocol cannot carry NUL.
fn quoted(text: &str) -> String {
    let text = text.replace('\0', "").replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", text.replace('\\', "\\\\")) } else { format!("'{text}'") }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.0.set == other.0.set && self.0.admission == other.0.admission
    }
}

impl Eq for Identity {}

/// Claims are personal: they are not shown.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("role", &self.0.role).field("user_id", &self.0.user_id).finish_non_exhaustive()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.user_id {
            Some(id) => id.fmt(f),
            None => f.write_str(&self.0.role),
        }
    }
}

/// The identities of Supabase, and of whoever uses its roles and claims: `auth.uid()`, `auth.role()`, `auth.jwt()` and
/// `auth.email()` read what these set, and nothing else.
pub mod supabase {
    use super::{Identity, Map, Uuid, Value};
    use crate::Error;

    /// Role of a signed-in user.
    pub const AUTHENTICATED: &str = "authenticated";
    /// Role of a visitor.
    pub const ANON: &str = "anon";
    /// Role of the server, which row security does not bind.
    pub const SERVICE_ROLE: &str = "service_role";

    /// Settings that the platform's functions look into before the claims.
    const LEGACY: [&str; 4] =
        ["request.jwt.claim", "request.jwt.claim.sub", "request.jwt.claim.role", "request.jwt.claim.email"];

    /// A signed-in user.
    #[must_use]
    pub fn user(id: Uuid) -> Identity {
        let claims = [("role", AUTHENTICATED.to_owned()), ("sub", id.to_string())];
        with_claims(
            AUTHENTICATED,
            claims.map(|(name, value)| (name.to_owned(), Value::String(value))).into_iter().collect(),
        )
        .with_user_id(id)
    }

    /// A visitor who has not signed in.
    #[must_use]
    pub fn anon() -> Identity {
        role_alone(ANON)
    }

    /// The server itself.
    #[must_use]
    pub fn service() -> Identity {
        role_alone(SERVICE_ROLE)
    }

    fn role_alone(role: &'static str) -> Identity {
        with_claims(role, [("role".to_owned(), Value::String(role.to_owned()))].into_iter().collect())
    }

    /// The identity of a token's claims, which the database sees as they are (`auth.jwt()`). Whoever calls this has verified
    /// the token, its expiry too.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidClaims`] unless the role is `authenticated`, with a UUID as `sub`, or `anon`, without one. The server's
    /// role is no token's to take on: [`service`].
    pub fn from_claims(mut claims: Map<String, Value>) -> Result<Identity, Error> {
        let refuse = |rule| Err(Error::InvalidClaims { rule });
        if claims.values().any(has_nul) || claims.keys().any(|name| name.contains('\0')) {
            return refuse("no claim may have a NUL in it");
        }
        let subject = match claims.get("sub") {
            None => None,
            Some(Value::String(text)) => match Uuid::parse_str(text) {
                Ok(id) => Some(id),
                Err(_) => return refuse("sub must be the UUID of an account"),
            },
            Some(_) => return refuse("sub must be the UUID of an account"),
        };
        match (claims.get("role").and_then(Value::as_str), subject) {
            (Some(AUTHENTICATED), Some(id)) => {
                // A UUID has several spellings; PostgreSQL reads this one.
                claims.insert("sub".to_owned(), Value::String(id.to_string()));
                Ok(with_claims(AUTHENTICATED, claims).with_user_id(id))
            }
            (Some(AUTHENTICATED), None) => refuse("sub must be the UUID of an account"),
            (Some(ANON), None) => Ok(with_claims(ANON, claims)),
            (Some(ANON), Some(_)) => refuse("a visitor's claims must have no sub"),
            _ => refuse("role must be authenticated or anon"),
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

    /// An identity of that role with those claims, whatever they are: [`from_claims`] is for those of a token.
    #[must_use]
    pub fn with_claims(role: &'static str, claims: Map<String, Value>) -> Identity {
        let claims = Value::Object(claims).to_string();
        LEGACY.into_iter().fold(Identity::new(role).with_setting("request.jwt.claims", claims), |all, name| {
            all.with_setting(name, "")
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::{Identity, quoted, supabase};
    use crate::Error;

    #[test]
    fn a_span_tells_who_asks() {
        let id = Uuid::new_v4();
        assert_eq!(supabase::user(id).to_string(), id.to_string());
        assert_eq!(
            (supabase::anon().to_string(), supabase::service().to_string()),
            ("anon".into(), "service_role".into())
        );
    }

    #[test]
    fn claims_without_a_user_or_with_another_role_are_refused() {
        let id = Uuid::new_v4().to_string();
        let of = |claims: serde_json::Value| match claims {
            serde_json::Value::Object(claims) => supabase::from_claims(claims),
            _ => unreachable!(),
        };
        for claims in [
            json!({}),
            json!({ "sub": id }),
            json!({ "role": "authenticated" }),
            json!({ "role": "authenticated", "sub": null }),
            json!({ "role": "authenticated", "sub": 7 }),
            json!({ "role": "authenticated", "sub": "ada" }),
            json!({ "role": "anon", "sub": id }),
            json!({ "role": "service_role", "sub": id }),
            json!({ "role": "service_role" }),
            json!({ "role": "postgres", "sub": id }),
            json!({ "role": "AUTHENTICATED", "sub": id }),
            json!({ "role": ["authenticated"], "sub": id }),
            json!({ "role": "authenticated", "sub": id, "name": "a\0b" }),
            json!({ "role": "authenticated", "sub": id, "deep": [{ "a\0b": 1 }] }),
        ] {
            assert!(matches!(of(claims.clone()), Err(Error::InvalidClaims { .. })), "{claims}");
        }
        let user = of(json!({ "role": "authenticated", "sub": id.to_uppercase(), "aal": "aal2" })).unwrap();
        assert_eq!((user.role(), user.user_id().unwrap().to_string()), ("authenticated", id));
        assert_eq!(of(json!({ "role": "anon" })).unwrap().role(), "anon");
    }

    #[test]
    fn a_setting_cannot_leave_its_literal() {
        assert_eq!(quoted("it's"), "'it''s'");
        assert_eq!(quoted(r"\'; DROP"), r"E'\\''; DROP'");
        assert_eq!(quoted("a\0b"), "'ab'");
    }

    #[test]
    fn no_claim_is_shown() {
        let shown = format!("{:?}", Identity::new("tenant").with_setting("app.tenant", "secret"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
