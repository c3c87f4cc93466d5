//! The reason why a measurement failed.

use std::time::Duration;

use sea_orm::{DbErr, sqlx};

/// The reason why a measurement failed.
#[derive(Debug)]
pub enum Failure {
    /// This statement failed.
    Statement(String, sqlx::Error),
    /// An error of the driver without the text of a statement, for example when connecting or closing.
    Connection(sqlx::Error),
    /// A statement exceeded the statement timeout on this project's schema. (On the specification's schema, a timeout
    /// is no failure, but a result.)
    TooSlow {
        /// The statement's name in the report.
        name: &'static str,
        /// The statement timeout.
        timeout: Duration,
    },
    /// Any other failure.
    Message(String),
}

impl Failure {
    /// Returns the failure of the statement `sql`.
    pub fn in_statement(sql: &str, error: sqlx::Error) -> Self {
        Self::Statement(sql.to_owned(), error)
    }

    /// Whether the server cancelled the statement (`statement_timeout`).
    pub fn is_statement_timeout(&self) -> bool {
        matches!(self, Self::Statement(_, error)
            if error.as_database_error().and_then(|error| error.code()).as_deref() == Some("57014"))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Statement(sql, error) => write!(f, "{error}\nin: {sql}"),
            Self::Connection(error) => error.fmt(f),
            Self::TooSlow { name, timeout } => write!(f, "{name} did not finish within {} s", timeout.as_secs()),
            Self::Message(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Failure {}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Connection(error)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        // The error's own text names only its kind; its source has the server's message.
        let source = std::error::Error::source(&error).map(ToString::to_string);
        Self::Message(source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")))
    }
}

/// Implements the conversion of errors of these types into [`Failure::Message`].
macro_rules! impl_failure_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Message(error.to_string())
            }
        })*
    };
}

impl_failure_from!(DbErr, service::Error, serde_json::Error, std::io::Error, testdb::Error);
