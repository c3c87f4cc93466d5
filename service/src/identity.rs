//! Who is asking, and how the database is told.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use uuid::Uuid;

/// In whose name statements run. Fixed when a connection is made for it; nothing changes it afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A signed-in user: role `authenticated`.
    User(Uuid),
    /// A visitor: role `anon`.
    Anon,
    /// The server itself: role `service_role`, which row security does not bind.
    Service,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(id) => id.fmt(f),
            Self::Anon => f.write_str("anon"),
            Self::Service => f.write_str("service"),
        }
    }
}

/// Whether it is on as it was put on: the transaction was not ended, nothing put on another.
const VERIFY: &str = "SELECT current_setting('role') = $1
    AND current_setting('request.jwt.claims', true) IS NOT DISTINCT FROM $2
    AND coalesce(current_setting('request.jwt.claim.sub', true), '') = ''";

/// Changes the role alone: the claims still tell who asked.
const ROLE: &str = "SELECT set_config('role', $1, true)";

impl Identity {
    /// The user, if it is one.
    pub(crate) fn user(self) -> Option<Uuid> {
        match self {
            Self::User(id) => Some(id),
            Self::Anon | Self::Service => None,
        }
    }

    fn role(self) -> &'static str {
        match self {
            Self::User(_) => "authenticated",
            Self::Anon => "anon",
            Self::Service => "service_role",
        }
    }

    fn claims(self) -> String {
        let role = self.role();
        match self {
            Self::User(id) => format!(r#"{{"role":"{role}","sub":"{id}"}}"#),
            Self::Anon | Self::Service => format!(r#"{{"role":"{role}"}}"#),
        }
    }

    /// What puts the identity on for the rest of the transaction, so that nothing of it reaches the next user of a pooled
    /// connection, and says how long a statement may take. To be sent as it stands, with what begins the transaction: a role of
    /// ours and an id need no quoting. (SET LOCAL would be a little faster; but the server's statistics of statements take
    /// each of those for one of its own, a line for every user.)
    pub(crate) fn wear(self, time: Option<Duration>) -> String {
        let (role, claims) = (self.role(), self.claims());
        // None at all would be no bound.
        let time = time.map_or_else(String::new, |time| {
            format!(", set_config('statement_timeout', '{}', true)", time.as_millis().clamp(1, i32::MAX as u128))
        });
        format!("SELECT set_config('role', '{role}', true), set_config('request.jwt.claims', '{claims}', true){time}")
    }

    /// Looks whether it is still on: one round trip.
    pub(crate) async fn verify<C: ConnectionTrait>(self, transaction: &C) -> Result<(), DbErr> {
        let values = [self.role().into(), self.claims().into()];
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, VERIFY, values);
        let row = transaction.query_one_raw(statement).await?;
        match row.map(|row| row.try_get_by_index(0)).transpose()? {
            Some(true) => Ok(()),
            _ => Err(DbErr::Custom(CHANGED.to_owned())),
        }
    }

    /// What puts on this identity's role, leaving the claims: the beginning and the end of an elevated section.
    pub(crate) fn wear_role(self) -> Statement {
        Statement::from_sql_and_values(DbBackend::Postgres, ROLE, [self.role().into()])
    }
}

/// What a transaction says whose identity a statement changed.
pub(crate) const CHANGED: &str = "identity_changed: a statement changed the role, the claims or the transaction of an \
     identity; nothing was committed";

/// What a transaction says when a future was dropped in the middle of what changes it.
pub(crate) const TORN: &str = "transaction_failed: a nested transaction or an operation was dropped half way; nothing \
     was committed";

/// What a nested transaction says when the one around it has ended.
pub(crate) const OVER: &str = "transaction_failed: the transaction is over";

/// What a statement is told that would.
pub(crate) const FIXED: &str = "identity_is_fixed: a statement may not change the role, the claims or the transaction \
     of an identity; take another identity from the handle instead";

/// Words that change who is asking.
const ESCAPES: [&str; 9] = [
    "set role",
    "set local role",
    "set session role",
    "reset role",
    "reset all",
    "discard all",
    "session authorization",
    "set_config",
    "request.jwt",
];

/// Statements that end a transaction, or begin one.
const ENDS: [&str; 7] = ["begin", "start transaction", "commit", "end", "rollback", "abort", "prepare transaction"];

/// Refuses SQL that would change who is asking, or end the transaction that says so. A statement is text, so the
/// compiler cannot tell; an identity that slipped must not be found out by its damage.
pub(crate) fn refuse_escape(sql: &str) -> Result<(), DbErr> {
    if is_escape(sql) || is_escape(&without_comments(sql)) {
        return Err(DbErr::Custom(FIXED.to_owned()));
    }
    Ok(())
}

fn is_escape(sql: &str) -> bool {
    let words = sql.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    // What a DO block holds cannot end the transaction that it runs in.
    let ends = without_bodies(&words).split(';').map(str::trim).any(|statement| {
        ENDS.iter().any(|end| {
            statement.strip_prefix(end).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
                && !statement.starts_with("rollback to")
        })
    });
    ends || ESCAPES.iter().any(|escape| words.contains(escape))
}

/// The statement with a space for every comment, which PostgreSQL reads as one.
fn without_comments(sql: &str) -> String {
    let mut kept = String::with_capacity(sql.len());
    let mut rest = sql;
    loop {
        let line = rest.find("--");
        let block = rest.find("/*");
        let Some(begin) = [line, block].into_iter().flatten().min() else {
            kept.push_str(rest);
            return kept;
        };
        kept.push_str(&rest[..begin]);
        kept.push(' ');
        let comment = &rest[begin..];
        let end = if line == Some(begin) { comment.find('\n') } else { block_end(comment) };
        rest = end.map_or("", |end| &comment[end..]);
    }
}

/// The statement without what stands between dollar quotes.
fn without_bodies(sql: &str) -> String {
    let mut kept = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(begin) = rest.find('$') {
        let (before, from) = rest.split_at(begin);
        kept.push_str(before);
        let tag = from[1..].find('$').map(|end| &from[..end + 2]).filter(|tag| {
            tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_')
                && !tag[1..].starts_with(char::is_numeric)
        });
        let body = tag.and_then(|tag| from[tag.len()..].find(tag).map(|end| end + 2 * tag.len()));
        // Not a quote, or one that nobody closes: the rest is looked at as it is.
        let end = body.unwrap_or(1);
        if body.is_none() {
            kept.push('$');
        }
        rest = &from[end..];
    }
    kept.push_str(rest);
    kept
}

/// Where a block comment ends; they nest.
fn block_end(comment: &str) -> Option<usize> {
    let bytes = comment.as_bytes();
    let (mut depth, mut place) = (0, 0);
    while place + 1 < bytes.len() {
        match &bytes[place..place + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                place += 1;
                continue;
            }
        }
        place += 2;
        if depth == 0 {
            return Some(place);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Identity, refuse_escape};

    #[test]
    fn a_span_tells_who_asks() {
        let id = uuid::Uuid::new_v4();
        assert_eq!(Identity::User(id).to_string(), id.to_string());
        assert_eq!((Identity::Anon.to_string(), Identity::Service.to_string()), ("anon".into(), "service".into()));
    }

    #[test]
    fn a_statement_cannot_change_who_is_asking() {
        for escape in [
            "RESET ROLE",
            "set  local\n role service_role",
            "SELECT set_config('role', 'postgres', true)",
            "SELECT 1; COMMIT; SELECT 2",
            "SET LOCAL request.jwt.claims = '{}'",
            "set session authorization default",
            "ROLLBACK",
            "/* a /* nested */ comment */ COMMIT",
            "-- a line\nRESET/**/ROLE",
            "PREPARE TRANSACTION 'x'",
            "DO $$ BEGIN END $$; COMMIT",
            "SELECT $1; COMMIT; SELECT $1",
            // No tags of a quote, and what follows one that has ended.
            "SELECT $1$; COMMIT; SELECT $1$",
            "SELECT $a b$; COMMIT; SELECT $a b$",
            "SELECT $body$x$body$abc$; COMMIT; SELECT $abc$",
        ] {
            assert!(refuse_escape(escape).is_err(), "{escape}");
        }
    }

    #[test]
    fn an_ordinary_statement_passes() {
        for statement in [
            "SELECT * FROM characters",
            "UPDATE sessions SET status = 'active'",
            "SELECT id FROM users ORDER BY ended_at",
            "ROLLBACK TO SAVEPOINT here",
            "DO $$ BEGIN PERFORM 1; END $$",
            "DO $do$ BEGIN PERFORM '$$'; END $do$",
            "DO $a_long_name$ BEGIN; COMMIT; $a_long_name$",
            "SELECT $1, $2",
            "SELECT 1 -- reset nothing",
            "SELECT '/* an open one",
        ] {
            assert!(refuse_escape(statement).is_ok(), "{statement}");
        }
    }
}
