//! Opens connections to one server, with or without TLS.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use sea_orm::sqlx::{
    self, Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::sqlstate;

/// Timeout of each attempt to connect, for callers that have no timeout of their own. If an attempt timed out, the
/// message of the error that [`to_connect_error`](super::to_connect_error) returns names this timeout.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens connections to one server. Each connection, not only the first, is tried with and without TLS in the order
/// that `sslmode` prescribes: the server may have been down when the application connected, or may have been restarted
/// since with other requirements.
pub(crate) struct Opener {
    options: PgConnectOptions,
    /// Whether the second of the modes to try comes first, because the server refused the first one. This saves an
    /// attempt for each connection.
    is_order_reversed: AtomicBool,
}

impl Opener {
    pub(crate) fn new(options: PgConnectOptions) -> Self {
        Self { options, is_order_reversed: AtomicBool::new(false) }
    }

    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Opens a connection, for callers that have a timeout of their own.
    pub(crate) async fn open(&self) -> Result<PgConnection, sqlx::Error> {
        Ok(self.open_with_timeout(Duration::MAX).await?.0)
    }

    /// Opens a connection, with a timeout for each attempt. Returns the connection and the options of the attempt that
    /// succeeded. If both attempts fail, returns the more informative error.
    pub(super) async fn open_with_timeout(
        &self,
        timeout: Duration,
    ) -> Result<(PgConnection, PgConnectOptions), sqlx::Error> {
        let mut modes = match self.options.get_ssl_mode() {
            // The driver does not implement `allow`, and its `prefer` does not try again without TLS after a refusal.
            PgSslMode::Allow => vec![PgSslMode::Disable, PgSslMode::Require],
            PgSslMode::Prefer => vec![PgSslMode::Prefer, PgSslMode::Disable],
            mode => vec![mode],
        };
        let is_order_reversed = self.is_order_reversed.load(Ordering::Relaxed);
        if is_order_reversed {
            modes.reverse();
        }
        let mut attempts = modes.into_iter().map(|mode| self.options.clone().ssl_mode(mode));
        let first = attempts.next().unwrap_or_else(|| self.options.clone());
        let first_error = match connect_once(&first, timeout).await {
            Ok(connection) => return Ok((connection, first)),
            Err(error) => error,
        };
        let Some(second) = attempts.next().filter(|_| depends_on_tls(&first_error)) else { return Err(first_error) };
        // After a failed handshake, the order stays, because the next handshake may succeed.
        if may_be_refusal_before_password(&first_error) {
            self.is_order_reversed.store(!is_order_reversed, Ordering::Relaxed);
        }
        match connect_once(&second, timeout).await {
            Ok(connection) => Ok((connection, second)),
            // The server's error is not readable in the answer to a request for TLS.
            Err(error) if is_error_instead_of_tls(&first_error) => Err(error),
            // The server no longer objects to TLS, or to its absence, but to something else, which remains to be
            // corrected.
            Err(error @ sqlx::Error::Database(_)) if !may_be_refusal_before_password(&error) => Err(error),
            Err(_) => Err(first_error),
        }
    }
}

/// Makes one attempt to connect. A timeout is reported as `PoolTimedOut`.
pub(super) async fn connect_once(options: &PgConnectOptions, timeout: Duration) -> Result<PgConnection, sqlx::Error> {
    tokio::time::timeout(timeout, PgConnection::connect_with(options)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// Part of the driver's message if the server answers a request for TLS with an error (0x45 is `E`), for example
/// because it has no connections left.
pub(super) const ERROR_INSTEAD_OF_TLS: &str = "SSLRequest: 0x45";

fn is_error_instead_of_tls(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Protocol(text) if text.contains(ERROR_INSTEAD_OF_TLS))
}

/// Whether the error is one of rustls: the server's certificate is rejected, a side refused the handshake, or the
/// server's answer was not TLS. The driver reports errors of rustls as I/O errors of the kind `InvalidData`, which no
/// error of the network has.
pub(super) fn is_tls_error(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

/// Whether the attempt may have failed because it used TLS, or because it did not use TLS.
fn depends_on_tls(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => is_tls_error(error),
        sqlx::Error::Tls(_) => true,
        other => is_error_instead_of_tls(other) || may_be_refusal_before_password(other),
    }
}

/// Whether the server may have refused before it asked for a password: because of `pg_hba.conf`, or because a pooler
/// requires TLS. (The same SQLSTATE is also returned after the password check, for a role that may not log in.)
pub(super) fn may_be_refusal_before_password(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    error.code().as_deref() == Some(sqlstate::INVALID_AUTHORIZATION_SPECIFICATION)
        || error.message().contains("SSL")
        || error.message().contains("sslmode")
}
