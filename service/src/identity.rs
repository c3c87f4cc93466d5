//! Who is asking, and how the database is told.

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use serde_json::json;
use uuid::Uuid;

/// In whose name statements run. Fixed when a connection is made for it; nothing changes it afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    /// A signed-in user: role `authenticated`.
    User(Uuid),
    /// A visitor: role `anon`.
    Anon,
    /// The server itself: role `service_role`, which row security does not bind.
    Service,
}

/// Transaction-local, so that nothing of it reaches the next user of a pooled connection.
const WEAR: &str = "SELECT set_config('role', $1, true), set_config('request.jwt.claims', $2, true)";

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

    /// Puts the identity on for the rest of the transaction: one round trip.
    pub(crate) async fn wear<C: ConnectionTrait>(self, transaction: &C) -> Result<(), DbErr> {
        let mut claims = json!({ "role": self.role() });
        if let Self::User(id) = self {
            claims["sub"] = json!(id);
        }
        let values = [self.role().into(), claims.to_string().into()];
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, WEAR, values);
        transaction.query_one_raw(statement).await.map(|_| ())
    }

    /// Puts on this identity's role, leaving the claims: the beginning and the end of an elevated section.
    pub(crate) async fn wear_role<C: ConnectionTrait>(self, transaction: &C) -> Result<(), DbErr> {
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, ROLE, [self.role().into()]);
        transaction.query_one_raw(statement).await.map(|_| ())
    }
}

/// Refuses raw SQL that would change who is asking, or end the transaction that says so. A statement is text, so the
/// compiler cannot tell; an identity that slipped must not be found out by its damage.
pub(crate) fn refuse_escape(sql: &str) -> Result<(), DbErr> {
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
    const ENDS: [&str; 6] = ["begin", "start transaction", "commit", "end", "rollback", "abort"];

    let words = sql.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let ends = words.split(';').map(str::trim).any(|statement| {
        ENDS.iter().any(|end| {
            statement.strip_prefix(end).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
                && !statement.starts_with("rollback to")
        })
    });
    if ends || ESCAPES.iter().any(|escape| words.contains(escape)) {
        return Err(DbErr::Custom(
            "identity_is_fixed: a statement may not change the role, the claims or the transaction of an identity; \
             take another identity from the handle instead"
                .to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::refuse_escape;

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
        ] {
            assert!(refuse_escape(statement).is_ok(), "{statement}");
        }
    }
}
