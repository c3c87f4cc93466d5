//! Explains why opening a connection failed, from the messages of the driver, the server and poolers.

use std::{io, time::Duration};

use sea_orm::sqlx::{
    self,
    postgres::{PgConnectOptions, PgDatabaseError, PgSslMode},
};

use super::{CONNECT_TIMEOUT, ERROR_INSTEAD_OF_TLS};
use crate::sqlstate;

/// The reason why a connection could not be opened. Its message is one sentence for a person: what failed and, as far
/// as they are known, the likeliest cause and the remedy. No message contains a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL does not parse as a PostgreSQL URL.
    #[error(
        "The database URL does not parse: write it as postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special \
         characters of the password percent-encoded."
    )]
    InvalidUrl,
    /// `sslmode` is not one of libpq's modes.
    #[error("sslmode must be disable, allow, prefer, require, verify-ca or verify-full, not \"{0}\".")]
    InvalidSslMode(String),
    /// `sslrootcert` does not name a file with certificates.
    #[error("sslrootcert must name a readable file of certificates in PEM format, or be \"system\": {0}.")]
    InvalidRootCertificate(String),
    /// `sslrootcert=system` is combined with an `sslmode` other than `verify-full`. The host name must be verified,
    /// because anybody can obtain a certificate from a public authority.
    #[error(
        "sslrootcert=system requires sslmode=verify-full: leave sslmode out, because verify-full is then the default."
    )]
    WeakSslMode,
    /// The host name does not resolve.
    #[error("The host name \"{host}\" of the database URL is unknown: correct it, or check this machine's DNS.")]
    UnknownHost {
        /// Host of the URL.
        host: String,
    },
    /// This machine has no route to the host.
    #[error(
        "There is no network route to {server}: check the network; if the host has only an IPv6 address (on Supabase, \
         the direct connection), use its pooler, which has an IPv4 address."
    )]
    NoRoute {
        /// Host and port.
        server: String,
    },
    /// The server cannot be reached, usually because none listens on the host and port, or on the socket. This is also
    /// returned for any network error that no other variant names; for a host or network without a route, see
    /// [`NoRoute`](Self::NoRoute).
    #[error("No PostgreSQL server answers at {server}: start it, or correct the host and port of the URL.")]
    Unreachable {
        /// Host and port, or the socket.
        server: String,
    },
    /// The server did not answer within the timeout.
    #[error(
        "{server} did not answer within {seconds} seconds: it may be down, behind a firewall, or not a PostgreSQL \
         server; check the host and port of the URL."
    )]
    NoAnswer {
        /// Host and port, or the socket.
        server: String,
        /// The timeout in seconds.
        seconds: u64,
    },
    /// The connection was closed before the server answered.
    #[error(
        "{server} closed the connection without an answer: the server is starting or stopping, or it is not a \
         PostgreSQL server; try again, or correct the host and port of the URL."
    )]
    ClosedEarly {
        /// Host and port, or the socket.
        server: String,
    },
    /// The server does not speak PostgreSQL's protocol.
    #[error(
        "The service at {server} is not a PostgreSQL server (its answer is not in PostgreSQL's protocol): correct the \
         host and port of the URL; the https URL of a project or API is not its database."
    )]
    NotPostgres {
        /// Host and port, or the socket.
        server: String,
    },
    /// The password is wrong or missing, or the user does not exist.
    #[error(
        "The server at {server} does not accept the password of user \"{user}\": correct the user and password of the \
         URL, with special characters percent-encoded."
    )]
    PasswordRejected {
        /// Host and port, or the socket.
        server: String,
        /// User of the URL.
        user: String,
    },
    /// `pg_hba.conf` has no entry for this connection, or an entry that rejects it.
    #[error(
        "The server at {server} does not let user \"{user}\" connect to database \"{database}\" from here: add an \
         entry for this user to the server's pg_hba.conf and reload that file, or connect from a permitted host (the \
         server said: {reason})."
    )]
    RejectedByPgHba {
        /// Host and port, or the socket.
        server: String,
        /// User of the URL.
        user: String,
        /// Database of the URL.
        database: String,
        /// The server's message.
        reason: String,
    },
    /// The role exists but may not log in.
    #[error(
        "Role \"{user}\" on the server at {server} may not log in: have an administrator run ALTER ROLE \"{user}\" \
         LOGIN, or use a role that may."
    )]
    NoLogin {
        /// Host and port, or the socket.
        server: String,
        /// User of the URL.
        user: String,
    },
    /// The server has no such role.
    #[error("The server at {server} has no role \"{user}\": create it, or correct the user of the URL.")]
    NoRole {
        /// Host and port, or the socket.
        server: String,
        /// User of the URL.
        user: String,
    },
    /// A pooler that serves the databases of several projects does not know the project that the user of the URL names.
    #[error(
        "The pooler at {server} knows no project for user \"{user}\": its users are written ROLE.PROJECT (on Supabase, \
         postgres.abcdefghijklmnop); correct the user, or the region in the host of the URL."
    )]
    UnknownProject {
        /// Host and port.
        server: String,
        /// User of the URL.
        user: String,
    },
    /// The server rejected the login for a reason that no other variant names.
    #[error(
        "The server at {server} refuses user \"{user}\": correct the user and password of the URL, or the server's \
         pg_hba.conf (the server said: {reason})."
    )]
    LoginRejected {
        /// Host and port, or the socket.
        server: String,
        /// User of the URL.
        user: String,
        /// The server's message.
        reason: String,
    },
    /// The server has no such database.
    #[error(
        "The server at {server} has no database \"{database}\": create it (createdb {database}), or correct the URL."
    )]
    NoDatabase {
        /// Host and port, or the socket.
        server: String,
        /// Database of the URL.
        database: String,
    },
    /// The database accepts no connections, whoever asks.
    #[error(
        "Database \"{database}\" at {server} accepts no connections: use another database, or run ALTER \
         DATABASE \"{database}\" WITH ALLOW_CONNECTIONS true."
    )]
    ConnectionsNotAllowed {
        /// Host and port, or the socket.
        server: String,
        /// Database of the URL.
        database: String,
    },
    /// The role may not connect to the database.
    #[error(
        "Role \"{user}\" may not connect to database \"{database}\" at {server}: have its owner run GRANT CONNECT ON \
         DATABASE \"{database}\" TO \"{user}\", or use another database (the server said: {reason})."
    )]
    NoConnectPrivilege {
        /// Host and port, or the socket.
        server: String,
        /// User of the URL.
        user: String,
        /// Database of the URL.
        database: String,
        /// The server's message.
        reason: String,
    },
    /// The server, the database, the role or a pooler has reached its limit on connections.
    #[error(
        "The server at {server} has no connection left for user \"{user}\": end idle ones, make the services' pools \
         smaller, or raise the limit (the server said: {reason})."
    )]
    TooManyConnections {
        /// Host and port, or the socket.
        server: String,
        /// User of the URL.
        user: String,
        /// The server's message.
        reason: String,
    },
    /// The server is starting, stopping or recovering.
    #[error(
        "The server at {server} accepts no connections yet: wait until it runs, and try again (it said: {reason})."
    )]
    NotReady {
        /// Host and port, or the socket.
        server: String,
        /// The server's message.
        reason: String,
    },
    /// The server answered the request for TLS with an error, whose text the driver does not read.
    #[error(
        "The server at {server} answers the request for TLS with an error: it may be starting, or have no connection \
         left; try again, or read its log."
    )]
    ErrorInsteadOfTls {
        /// Host and port.
        server: String,
    },
    /// `sslmode` requires TLS, which the server does not support.
    #[error(
        "The server at {server} does not support TLS, which sslmode={mode} asks for: switch TLS on at the server (ssl \
         = on), or use sslmode=prefer where the network is trusted."
    )]
    NoTls {
        /// Host and port.
        server: String,
        /// The mode that requires TLS.
        mode: &'static str,
    },
    /// The server accepts only TLS, and `sslmode` disables it.
    #[error(
        "The server at {server} requires TLS, which sslmode=disable rules out: use sslmode=require or verify-full."
    )]
    TlsRequired {
        /// Host and port.
        server: String,
    },
    /// The server's certificate is not trusted, has expired, or was issued for another host.
    #[error("The certificate of the server at {server} is not accepted by sslmode={mode}: {reason}.")]
    CertificateRejected {
        /// Host and port.
        server: String,
        /// The mode that verifies the certificate.
        mode: &'static str,
        /// What is wrong with the certificate, and the remedy.
        reason: String,
    },
    /// Any other error of the server or the driver.
    #[error("Connecting to {server} failed: {reason}.")]
    Other {
        /// Host and port, or the socket.
        server: String,
        /// The message of the server or the driver.
        reason: String,
    },
}

impl ConnectError {
    /// Returns whether the same URL may work a moment later without any correction.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NoRoute { .. }
                | Self::Unreachable { .. }
                | Self::NoAnswer { .. }
                | Self::ClosedEarly { .. }
                | Self::TooManyConnections { .. }
                | Self::NotReady { .. }
                | Self::ErrorInsteadOfTls { .. }
        )
    }
}

/// Whether the text is a message of rustls, whose errors the driver reports as I/O errors.
pub(super) fn is_tls_message(text: &str) -> bool {
    text.contains("peer certificate") || text.contains("received fatal alert") || text.contains("corrupt message")
}

/// Returns host and port, or the path of the Unix socket.
pub(crate) fn server_address(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None if options.get_host().contains(':') => format!("[{}]:{}", options.get_host(), options.get_port()),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// Converts the driver's error, with the server's message in it, to the reason why a connection could not be opened. If
/// the attempt timed out, the message says that the server did not answer within [`CONNECT_TIMEOUT`].
#[must_use]
pub fn to_connect_error(options: &PgConnectOptions, error: &sqlx::Error) -> ConnectError {
    to_connect_error_with_timeout(options, error, CONNECT_TIMEOUT)
}

/// Does the same as [`to_connect_error`], but after a timeout, the message says that the server did not answer within
/// `timeout`.
pub(crate) fn to_connect_error_with_timeout(
    options: &PgConnectOptions,
    error: &sqlx::Error,
    timeout: Duration,
) -> ConnectError {
    let server = server_address(options);
    let mode = match options.get_ssl_mode() {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    };
    let text = error.to_string();
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) if text.contains("peer certificate") => {
            let reason = certificate_reason(&text, options.get_host());
            ConnectError::CertificateRejected { server, mode, reason }
        }
        sqlx::Error::Tls(_) if text.contains("does not support TLS") => ConnectError::NoTls { server, mode },
        // The server's answer to the TLS handshake was not TLS.
        sqlx::Error::Io(_) if text.contains("corrupt message") => ConnectError::NotPostgres { server },
        sqlx::Error::Io(_) if is_tls_message(&text) => ConnectError::Other { server, reason: text },
        sqlx::Error::Io(error) => explain_network_error(options, server, error, timeout),
        // `connect_once` and the monitor of a cluster report a timeout as this error.
        sqlx::Error::PoolTimedOut => ConnectError::NoAnswer { server, seconds: timeout.as_secs().max(1) },
        // The connection was closed before a byte was read.
        sqlx::Error::Protocol(text) if text.contains("SSLRequest: 0x00") => ConnectError::ClosedEarly { server },
        sqlx::Error::Protocol(text) if text.contains(ERROR_INSTEAD_OF_TLS) => {
            ConnectError::ErrorInsteadOfTls { server }
        }
        sqlx::Error::Protocol(_) => ConnectError::NotPostgres { server },
        sqlx::Error::Database(refusal) => match refusal.try_downcast_ref::<PgDatabaseError>() {
            Some(refusal) => explain_server_error(options, server, refusal),
            None => ConnectError::Other { server, reason: text },
        },
        _ => ConnectError::Other { server, reason: text },
    }
}

fn explain_network_error(
    options: &PgConnectOptions,
    server: String,
    error: &io::Error,
    timeout: Duration,
) -> ConnectError {
    match error.kind() {
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ConnectError::NoRoute { server },
        io::ErrorKind::TimedOut => ConnectError::NoAnswer { server, seconds: timeout.as_secs().max(1) },
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            ConnectError::ClosedEarly { server }
        }
        // The standard library has no error kind for a name that does not resolve.
        _ if error.to_string().contains("lookup") => ConnectError::UnknownHost { host: options.get_host().to_owned() },
        _ => ConnectError::Unreachable { server },
    }
}

/// Explains an error of the server or a pooler. Phrases of poolers come first, because poolers have no SQLSTATEs of
/// their own for these causes. Then the SQLSTATE decides, and where one SQLSTATE has several causes, the message.
fn explain_server_error(options: &PgConnectOptions, server: String, refusal: &PgDatabaseError) -> ConnectError {
    let user = options.get_username().to_owned();
    let database = options.get_database().unwrap_or_else(|| options.get_username()).to_owned();
    let reason = refusal.message().trim_end_matches('.').replace('\n', " ");
    let mentions = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    match refusal.code() {
        _ if mentions(&["Tenant or user not found", "tenant/user"]) => ConnectError::UnknownProject { server, user },
        _ if mentions(&["max_client_conn", "max clients", "MaxClients"]) => {
            ConnectError::TooManyConnections { server, user, reason }
        }
        _ if mentions(&["no such database"]) => ConnectError::NoDatabase { server, database },
        sqlstate::INVALID_PASSWORD => ConnectError::PasswordRejected { server, user },
        // PgBouncer's error for a wrong password and for an unknown user.
        sqlstate::PROTOCOL_VIOLATION if mentions(&["authentication failed", "no such user"]) => {
            ConnectError::PasswordRejected { server, user }
        }
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION if mentions(&["pg_hba.conf"]) => {
            ConnectError::RejectedByPgHba { server, user, database, reason }
        }
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION if mentions(&["not permitted to log in"]) => {
            ConnectError::NoLogin { server, user }
        }
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION if mentions(&["does not exist"]) => {
            ConnectError::NoRole { server, user }
        }
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION => ConnectError::LoginRejected { server, user, reason },
        sqlstate::INVALID_CATALOG_NAME => ConnectError::NoDatabase { server, database },
        sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE => ConnectError::ConnectionsNotAllowed { server, database },
        sqlstate::INSUFFICIENT_PRIVILEGE => ConnectError::NoConnectPrivilege { server, user, database, reason },
        sqlstate::TOO_MANY_CONNECTIONS => ConnectError::TooManyConnections { server, user, reason },
        // The server is shutting down or starting.
        code if code.starts_with("57P") => ConnectError::NotReady { server, reason },
        _ => ConnectError::Other { server, reason },
    }
}

/// Returns what is wrong with the server's certificate, and the remedy, from the message of rustls.
fn certificate_reason(text: &str, host: &str) -> String {
    if text.contains("UnknownIssuer") || text.contains("BadSignature") {
        "no trusted authority has signed it; give the certificate of its authority with sslrootcert=FILE".to_owned()
    } else if text.contains("NotValidForName") || text.contains("not valid for name") {
        format!("it is not for \"{host}\"; use the host name that it was issued for, or sslmode=verify-ca")
    } else if text.contains("Expired") || text.contains("expired") {
        "it has expired; renew it at the server".to_owned()
    } else if text.contains("CaUsedAsEndEntity") {
        "it is an authority's own certificate; give the server one that the authority has issued".to_owned()
    } else {
        text.to_owned()
    }
}
