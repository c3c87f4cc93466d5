//! The identity of a caller, and the SQL that sets and verifies the identity.

pub mod supabase;

use std::{
    borrow::Cow,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use uuid::Uuid;

use crate::{Error, server_process::STATEMENT_COUNTS_SQL, sqlstate};

/// The start time of the transaction. It identifies the transaction, because no two transactions of a connection have
/// the same start time, and no statement can change it. It is read as a number, because the text of a timestamp depends
/// on `TimeZone` and `DateStyle`, which a statement can change.
const STARTED_AT_SQL: &str = "extract(epoch FROM transaction_timestamp())";

/// The identity that statements run as: a role, and settings that policies read. Immutable and cheap to clone.
///
/// [`Identity::new`] works for any database; [`supabase`](crate::supabase) has the identities of that platform.
#[derive(Clone)]
pub struct Identity(Arc<Parts>);

#[derive(Clone)]
struct Parts {
    role: Cow<'static, str>,
    user_id: Option<Uuid>,
    /// Names and values.
    settings: Vec<(Cow<'static, str>, String)>,
    /// An SQL expression that is evaluated at the start of each transaction; see [`Identity::with_begin_check`].
    begin_check: Option<Cow<'static, str>>,
}

impl Identity {
    /// Creates an identity with that role and no settings.
    pub fn new(role: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Parts { role: role.into(), user_id: None, settings: Vec::new(), begin_check: None }))
    }

    /// Returns the same identity with a setting, which policies read with `current_setting(name, true)`. Set every
    /// setting that the policies read. If one has no value for this identity, set it to the empty string, so that the
    /// policies do not read a value that the connection URL or `ALTER ROLE` gave it. A second value for the same
    /// setting replaces the first. The settings `role` and `session_authorization` are refused when a transaction
    /// begins.
    #[must_use]
    pub fn with_setting(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        let settings = &mut Arc::make_mut(&mut self.0).settings;
        // PostgreSQL ignores the case of a setting's name.
        match settings.iter_mut().find(|(existing_name, _)| existing_name.eq_ignore_ascii_case(&name)) {
            Some((_, existing_value)) => *existing_value = value,
            None => settings.push((name, value)),
        }
        self
    }

    /// Returns the same identity with the id of a user. The id is not sent to the database. It stands for the identity
    /// in log messages. With replicas, the position in the server's write-ahead log that the identity has seen is
    /// remembered under this id.
    #[must_use]
    pub fn with_user_id(mut self, id: Uuid) -> Self {
        Arc::make_mut(&mut self.0).user_id = Some(id);
        self
    }

    /// Returns the same identity with an expression that each transaction evaluates after role and settings are set, in
    /// the same message. The expression can refuse the identity by raising an error, for example because the account is
    /// closed; its value is ignored.
    ///
    /// The expression is sent as it is, so it must not contain text from outside the application.
    #[must_use]
    pub fn with_begin_check(mut self, sql: impl Into<Cow<'static, str>>) -> Self {
        Arc::make_mut(&mut self.0).begin_check = Some(sql.into());
        self
    }

    /// Returns the role.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.0.role
    }

    /// Returns the id of the user, if the identity has one.
    #[must_use]
    pub fn user_id(&self) -> Option<Uuid> {
        self.0.user_id
    }

    /// Returns SQL columns, each after a comma, that read back the values of the
    /// [`settings_to_read_back`](Self::settings_to_read_back) as the server has stored them.
    pub(crate) fn read_back_columns(&self) -> String {
        let columns = self.settings_to_read_back().map(|(name, _)| format!(", current_setting({})", quoted(name)));
        columns.collect()
    }

    /// Returns the settings that PostgreSQL may store in another form than the one in which they were set: `5000`
    /// becomes `5s`. A setting whose name has a dot, which belongs to an application or an extension, is assumed to be
    /// stored as it was set.
    fn settings_to_read_back(&self) -> impl Iterator<Item = &(Cow<'static, str>, String)> {
        self.0.settings.iter().filter(|(name, _)| !name.contains('.'))
    }

    /// Returns how many columns [`read_back_columns`](Self::read_back_columns) has.
    pub(crate) fn read_back_column_count(&self) -> usize {
        self.settings_to_read_back().count()
    }

    /// Returns the same identity with the values that the server returned for the
    /// [`read_back_columns`](Self::read_back_columns).
    pub(crate) fn with_read_back_values(&self, values: &[Option<String>]) -> Self {
        let names = self.settings_to_read_back().map(|(name, _)| name.clone());
        let values = values.iter().map(|value| value.clone().unwrap_or_default());
        names.zip(values).fold(self.clone(), |identity, (name, value)| identity.with_setting(name, value))
    }

    /// Returns the SQL condition that the role and the settings are unchanged.
    fn unchanged_sql(&self) -> String {
        let mut condition = format!("current_setting('role') = {0} AND current_user::text = {0}", quoted(&self.0.role));
        for (name, value) in &self.0.settings {
            condition.push_str(&format!(
                " AND coalesce(current_setting({}, true), '') = {}",
                quoted(name),
                quoted(value)
            ));
        }
        condition
    }

    /// Returns the hash under which the [`ReadRequirement`](crate::position::ReadRequirement) of the identity is
    /// remembered: the hash of the user id, if the identity has one, and otherwise that of the role and the settings.
    pub(crate) fn read_requirement_key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self.0.user_id {
            Some(id) => id.hash(&mut hasher),
            None => (&self.0.role, &self.0.settings).hash(&mut hasher),
        }
        hasher.finish()
    }

    /// Returns the SQL that sets the role, the settings and, with a `timeout`, `statement_timeout` for the rest of the
    /// transaction. If the identity has a begin check, a second SELECT evaluates it. The last SELECT also returns
    /// `extra_columns` (SQL that is empty or begins with a comma) and, as its last column, the start time of the
    /// transaction.
    ///
    /// The SQL has the effect of SET LOCAL, but calls `set_config`. SET LOCAL would be slightly faster. But up to
    /// PostgreSQL 17, `pg_stat_statements` counts two SET LOCAL statements with different values as different
    /// statements, and would have an entry for every user.
    pub(crate) fn set_local_sql(&self, timeout: Option<Duration>, extra_columns: &str) -> String {
        // Every transaction needs this text, so it is usually built in one allocation. `num_nulls` evaluates all its
        // arguments, and returns one small column instead of each value.
        let mut sql = String::with_capacity(512) + "SELECT num_nulls(";
        push_set_config(&mut sql, "role", &self.0.role);
        for (name, value) in &self.0.settings {
            sql.push_str(", ");
            push_set_config(&mut sql, name, value);
        }
        if let Some(timeout) = timeout {
            // 0 would disable `statement_timeout`, so it is at least 1 ms.
            let milliseconds = timeout.as_millis().clamp(1, i32::MAX as u128).to_string();
            sql.push_str(", ");
            push_set_config(&mut sql, "statement_timeout", &milliseconds);
        }
        sql.push(')');
        if let Some(begin_check) = &self.0.begin_check {
            // The check is a separate statement, because the role must be set before the names in the check are
            // resolved, and PostgreSQL resolves all names in a statement before it runs the statement.
            sql.extend(["; SELECT ", begin_check]);
        }
        sql.extend([extra_columns, ", ", STARTED_AT_SQL]);
        sql
    }

    /// Returns a query of several columns. The first is 0 if the identity is unchanged, 1 if it was changed, and 2 if
    /// the query runs in a transaction other than the one that began at `started_at`. The others are the columns of
    /// [`STATEMENT_COUNTS_SQL`].
    pub(crate) fn verify_sql(&self, started_at: &str) -> String {
        let (unchanged, started_at) = (self.unchanged_sql(), quoted(started_at));
        format!(
            "SELECT CASE WHEN {STARTED_AT_SQL} <> {started_at} THEN 2 WHEN {unchanged} THEN 0 ELSE 1 END, \
             {STATEMENT_COUNTS_SQL}"
        )
    }

    /// Returns a statement that makes the same check as [`verify_sql`](Self::verify_sql), but raises an error if the
    /// check fails, so that the statements after it in the same message do not run. The error is
    /// [`TRANSACTION_ENDED_SQLSTATE`] if the statement runs in another transaction, and [`IDENTITY_CHANGED_SQLSTATE`]
    /// if the identity was changed. (The SQL uses `concat`, which is not immutable, so that the planner does not
    /// evaluate the branches that fail.)
    pub(crate) fn assert_unchanged_sql(&self, started_at: &str) -> String {
        let (unchanged, started_at) = (self.unchanged_sql(), quoted(started_at));
        format!(
            "SELECT CASE WHEN {STARTED_AT_SQL} <> {started_at} THEN 1 / length(concat('')) WHEN {unchanged} THEN 0 \
             ELSE concat('identity changed')::integer END"
        )
    }
}

/// The SQLSTATE with which [`Identity::assert_unchanged_sql`] fails if it runs in another transaction: the SQL then
/// divides by zero.
pub(crate) const TRANSACTION_ENDED_SQLSTATE: &str = sqlstate::DIVISION_BY_ZERO;
/// The SQLSTATE with which [`Identity::assert_unchanged_sql`] fails if the identity was changed: the text "identity
/// changed" cannot be converted to an integer.
pub(crate) const IDENTITY_CHANGED_SQLSTATE: &str = sqlstate::INVALID_TEXT_REPRESENTATION;

/// Appends the expression that sets a setting for the rest of the transaction.
fn push_set_config(sql: &mut String, name: &str, value: &str) {
    sql.push_str("set_config(");
    push_quoted(sql, name);
    sql.push_str(", ");
    push_quoted(sql, value);
    sql.push_str(", true)");
}

/// Refuses settings that would replace the role.
pub(crate) fn check_settings(identity: &Identity) -> Result<(), Error> {
    for (name, _) in &identity.0.settings {
        // `push_quoted` removes NUL characters from the name that is sent.
        let sent_name = name.replace('\0', "");
        if ["role", "session_authorization"].iter().any(|forbidden| sent_name.eq_ignore_ascii_case(forbidden)) {
            let reason = format!("an identity must not have the setting {name:?}; give the role to Identity::new");
            return Err(Error::Misconfigured { reason });
        }
    }
    Ok(())
}

/// Refuses the role `none`: to PostgreSQL, it means that no role is set, so statements would run as the login.
pub(crate) fn check_role(role: &str) -> Result<(), Error> {
    // `push_quoted` removes NUL characters, so they are ignored here too.
    if role.chars().filter(|character| *character != '\0').eq("none".chars()) {
        let reason = "an identity's role must not be none, which stands for the login itself".to_owned();
        return Err(Error::Misconfigured { reason });
    }
    Ok(())
}

/// Returns the statement that changes only the role, for the rest of the transaction. The settings still identify the
/// caller.
pub(crate) fn set_role_statement(role: &str) -> String {
    let mut sql = "SELECT ".to_owned();
    push_set_config(&mut sql, "role", role);
    sql
}

/// Returns the text as an SQL literal.
fn quoted(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    push_quoted(&mut literal, text);
    literal
}

/// Appends the text as an SQL literal, whatever it contains and however the server reads backslashes. NUL is removed,
/// because the protocol cannot carry it.
fn push_quoted(sql: &mut String, text: &str) {
    if text.contains('\\') {
        sql.push('E');
    }
    sql.push('\'');
    for character in text.chars().filter(|character| *character != '\0') {
        if matches!(character, '\'' | '\\') {
            sql.push(character);
        }
        sql.push(character);
    }
    sql.push('\'');
}

/// The user id is not compared, because the database does not see it.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        (&self.0.role, &self.0.settings, &self.0.begin_check)
            == (&other.0.role, &other.0.settings, &other.0.begin_check)
    }
}

impl Eq for Identity {}

/// Omits the settings, which may contain personal data.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use uuid::Uuid;

    use super::{Identity, STARTED_AT_SQL, quoted, supabase};
    use crate::Error;

    #[test]
    fn display_shows_the_user_id_or_else_the_role() {
        let id = Uuid::new_v4();
        assert_eq!(supabase::user(id).to_string(), id.to_string());
        assert_eq!(
            (supabase::anon().to_string(), supabase::service().to_string()),
            ("anon".into(), "service_role".into())
        );
    }

    #[test]
    fn only_claims_of_a_user_or_of_a_visitor_are_accepted() {
        let id = Uuid::new_v4().to_string();
        let from_json = |claims: serde_json::Value| match claims {
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
            // PostgreSQL's texts cannot contain NUL.
            json!({ "role": "authenticated", "sub": id, "name": "a\0b" }),
            json!({ "role": "authenticated", "sub": id, "deep": [{ "a\0b": 1 }] }),
        ] {
            assert!(matches!(from_json(claims.clone()), Err(Error::InvalidClaims { .. })), "{claims}");
        }
        let user = from_json(json!({ "role": "authenticated", "sub": id.to_uppercase(), "aal": "aal2" })).unwrap();
        assert_eq!((user.role(), user.user_id().unwrap().to_string()), ("authenticated", id));
        assert_eq!(from_json(json!({ "role": "anon" })).unwrap().role(), "anon");
    }

    #[test]
    fn the_value_of_a_setting_cannot_break_out_of_its_sql_literal() {
        assert_eq!(quoted("it's"), "'it''s'");
        assert_eq!(quoted(r"\'; DROP"), r"E'\\''; DROP'");
        assert_eq!(quoted("a\0b"), "'ab'");
    }

    #[test]
    fn identities_that_differ_in_a_setting_or_the_begin_check_are_unequal() {
        let identity = |name: &'static str, value| Identity::new("tenant").with_setting(name, value);
        let (first, second) = (identity("app.tenant", "1"), identity("app.tenant", "2"));
        assert_eq!(first, identity("app.tenant", "1"));
        assert_ne!(first, second);
        // `with_setting` and `with_begin_check` change a copy.
        assert_ne!(first.clone().with_setting("app.region", "eu"), first);
        assert_ne!(first.clone().with_begin_check("check()"), first);
        assert_eq!(first, identity("app.tenant", "1"));
        assert_ne!(identity("app.region", "1"), first);
    }

    #[test]
    fn without_a_user_id_the_read_requirement_key_depends_on_the_settings() {
        let key_of_tenant =
            |name: &str| Identity::new("tenant").with_setting("app.tenant", name).read_requirement_key();
        assert_eq!(key_of_tenant("1"), key_of_tenant("1"));
        assert_ne!(key_of_tenant("1"), key_of_tenant("2"));
    }

    #[test]
    fn the_settings_are_followed_by_the_begin_check_and_the_other_columns() {
        let timeout = Some(Duration::from_secs(2));
        let tenant = Identity::new("tenant").with_setting("app.tenant", "it's");
        let set = "SELECT num_nulls(set_config('role', 'tenant', true), set_config('app.tenant', 'it''s', true)";
        assert_eq!(tenant.set_local_sql(None, ""), format!("{set}), {STARTED_AT_SQL}"));
        assert_eq!(
            tenant.with_begin_check("check()").set_local_sql(timeout, ", 1"),
            format!("{set}, set_config('statement_timeout', '2000', true)); SELECT check(), 1, {STARTED_AT_SQL}")
        );
    }

    #[test]
    fn debug_shows_no_setting() {
        let shown = format!("{:?}", Identity::new("tenant").with_setting("app.tenant", "secret"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
