//! Explains why opening a connection failed, from the messages of the driver, the server and poolers.

use std::{io, path::PathBuf, time::Duration};

use sea_orm::sqlx::{
    self,
    postgres::{PgConnectOptions, PgDatabaseError, PgSslMode},
};

use super::{
    ConnectError,
    opener::{CONNECT_TIMEOUT, ERROR_INSTEAD_OF_TLS, is_tls_error},
};
use crate::sqlstate;

/// Returns the folder of the server's Unix socket, or `None` if the connection uses TCP.
pub(super) fn socket_folder(options: &PgConnectOptions) -> Option<PathBuf> {
    // The driver returns a path from `PGHOST` as the host, not as the socket.
    let host = options.get_host();
    options.get_socket().cloned().or_else(|| host.starts_with('/').then(|| PathBuf::from(host)))
}

/// Returns host and port, or the path of the Unix socket.
pub(crate) fn server_address(options: &PgConnectOptions) -> String {
    let (host, port) = (options.get_host(), options.get_port());
    match socket_folder(options) {
        // Several servers may have their sockets in one folder. The port tells them apart, as part of the file's name.
        Some(folder) => folder.join(format!(".s.PGSQL.{port}")).display().to_string(),
        None if host.contains(':') => format!("[{host}]:{port}"),
        None => format!("{host}:{port}"),
    }
}

/// Converts the driver's error, which contains the server's message if there is one, to the reason why a connection
/// could not be opened. If the attempt timed out, the message says that the server did not answer within
/// [`CONNECT_TIMEOUT`].
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
        sqlx::Error::Io(error) if is_tls_error(error) => {
            ConnectError::TlsFailed { server, mode, reason: error.to_string() }
        }
        sqlx::Error::Io(error) => explain_network_error(options, server, error),
        // `connect_once`, the monitor of a cluster and the migrations' pool report a timeout as this error.
        sqlx::Error::PoolTimedOut => ConnectError::NoAnswer { server, seconds: Some(timeout.as_secs().max(1)) },
        // The connection was closed before a byte was read.
        sqlx::Error::Protocol(text) if text.contains("SSLRequest: 0x00") => ConnectError::ClosedEarly { server },
        sqlx::Error::Protocol(text) if text.contains(ERROR_INSTEAD_OF_TLS) => {
            ConnectError::ErrorInsteadOfTls { server }
        }
        sqlx::Error::Protocol(text) if mentions(text, &NOT_POSTGRES_PHRASES) => ConnectError::NotPostgres { server },
        sqlx::Error::Protocol(text) if mentions(text, &UNSUPPORTED_AUTHENTICATION_PHRASES) => {
            let user = options.get_username().to_owned();
            ConnectError::UnsupportedAuthentication { server, user, reason: text.clone() }
        }
        sqlx::Error::Protocol(text) => ConnectError::Other { server, reason: text.clone() },
        sqlx::Error::Database(refusal) => match refusal.try_downcast_ref::<PgDatabaseError>() {
            Some(refusal) => explain_server_error(options, server, refusal),
            None => ConnectError::Other { server, reason: text },
        },
        _ => ConnectError::Other { server, reason: text },
    }
}

/// Parts of the driver's messages about bytes that are not in PostgreSQL's protocol.
const NOT_POSTGRES_PHRASES: [&str; 3] = ["response from SSLRequest", "unknown message type", "unexpected message"];

/// Parts of the driver's messages if it does not support the method by which the server asks it to authenticate.
const UNSUPPORTED_AUTHENTICATION_PHRASES: [&str; 2] = ["authentication method", "SASL authentication mechanisms"];

/// Parts of the messages of getaddrinfo if the name service does not answer: those of glibc and macOS, and of musl.
const NO_NAME_SERVICE_PHRASES: [&str; 3] = ["Temporary failure", "temporary failure", "Try again"];

fn mentions(text: &str, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| text.contains(phrase))
}

fn explain_network_error(options: &PgConnectOptions, server: String, error: &io::Error) -> ConnectError {
    let (host, text) = (options.get_host().to_owned(), error.to_string());
    match error.kind() {
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ConnectError::NoRoute { server },
        // The operating system gave up before the timeout of the attempt, after a time of its own.
        io::ErrorKind::TimedOut => ConnectError::NoAnswer { server, seconds: None },
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            ConnectError::ClosedEarly { server }
        }
        // If the connection uses TCP, this kind of error means that a file does not exist. `connect::options` has
        // checked that the client's certificate and key exist, but the driver reads them again for each connection.
        io::ErrorKind::NotFound if socket_folder(options).is_none() => {
            let reason = "a file that sslcert, sslkey or sslrootcert names does not exist; correct its path".to_owned();
            ConnectError::Other { server, reason }
        }
        // The standard library has no error kind for a name that does not resolve.
        _ if text.contains("lookup") && mentions(&text, &NO_NAME_SERVICE_PHRASES) => {
            ConnectError::NoNameService { host }
        }
        _ if text.contains("lookup") => ConnectError::UnknownHost { host },
        _ => ConnectError::Unreachable { server },
    }
}

/// Parts, in lower case, of the messages with which PgBouncer and the various versions of Supavisor refuse a further
/// client.
const TOO_MANY_CLIENTS_PHRASES: [&str; 5] =
    ["max_client_conn", "client connections exceeded", "max client connections", "max clients", "maxclients"];

/// Explains an error of the server or a pooler. Phrases of poolers come first, because poolers have no SQLSTATEs of
/// their own for these causes. Then the SQLSTATE decides, and where one SQLSTATE has several causes, the message.
fn explain_server_error(options: &PgConnectOptions, server: String, refusal: &PgDatabaseError) -> ConnectError {
    let user = options.get_username().to_owned();
    let database = options.get_database().unwrap_or_else(|| options.get_username()).to_owned();
    let reason = refusal.message().trim_end_matches('.').replace('\n', " ");
    let mentions = |phrases: &[&str]| mentions(&reason, phrases);
    match refusal.code() {
        _ if mentions(&["Tenant or user not found", "tenant/user"]) => ConnectError::UnknownProject { server, user },
        _ if TOO_MANY_CLIENTS_PHRASES.iter().any(|phrase| reason.to_lowercase().contains(phrase)) => {
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
            ConnectError::LoginNotPermitted { server, user }
        }
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION if mentions(&["does not exist"]) => {
            ConnectError::NoRole { server, user }
        }
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION => ConnectError::LoginRejected { server, user, reason },
        sqlstate::INVALID_CATALOG_NAME => ConnectError::NoDatabase { server, database },
        sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE if mentions(&["invalid database"]) => {
            ConnectError::InvalidDatabase { server, database }
        }
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

#[cfg(test)]
mod tests {
    use std::io;

    use sea_orm::sqlx::{self, postgres::PgConnectOptions};

    use super::{server_address, to_connect_error};
    use crate::ConnectError;

    fn options_of(url: &str) -> PgConnectOptions {
        url.parse().unwrap()
    }

    #[test]
    fn servers_at_different_ports_or_sockets_have_different_addresses() {
        for (url, expected) in [
            ("postgres://a:b@h:5433/d", "h:5433"),
            ("postgres://a:b@localhost/d?host=::1&port=5433", "[::1]:5433"),
            ("postgres://a:b@localhost/d?host=/run/x&port=5433", "/run/x/.s.PGSQL.5433"),
            ("postgres://a:b@%2Frun%2Fx%2F:5434/d", "/run/x/.s.PGSQL.5434"),
        ] {
            assert_eq!(server_address(&options_of(url)), expected, "{url}");
        }
        // As with `PGHOST=/run/x`.
        assert_eq!(server_address(&PgConnectOptions::new().host("/run/x").port(5433)), "/run/x/.s.PGSQL.5433");
    }

    /// The test constructs these errors, because it cannot provoke them: they depend on other machines, on a name
    /// service, or on a file that disappears while a program runs.
    #[test]
    fn errors_of_the_operating_system_are_explained() {
        let lookup_error = |reason: &str| io::Error::other(format!("failed to lookup address information: {reason}"));
        for (url, error, expected, is_retryable) in [
            (
                "postgres://h/d",
                lookup_error("Name or service not known"),
                "\"h\" of the database URL is unknown",
                false,
            ),
            ("postgres://h/d", lookup_error("Temporary failure in name resolution"), "no name service answers", true),
            ("postgres://h/d", lookup_error("Try again"), "no name service answers", true),
            ("postgres://h:1/d", io::ErrorKind::TimedOut.into(), "h:1 did not answer: it may be down", true),
            ("postgres://h:1/d", io::ErrorKind::NotFound.into(), "sslrootcert names does not exist", false),
            ("postgres:///d?host=/x", io::ErrorKind::NotFound.into(), "No PostgreSQL server answers at /x/", true),
        ] {
            let connect_error = to_connect_error(&options_of(url), &sqlx::Error::Io(error));
            assert!(connect_error.to_string().contains(expected), "{url}: {connect_error}");
            assert_eq!(connect_error.is_retryable(), is_retryable, "{connect_error}");
        }
        // For a timeout of the attempt itself, the error contains the number of seconds.
        let attempt_timeout = to_connect_error(&options_of("postgres://h:1/d"), &sqlx::Error::PoolTimedOut);
        assert_eq!(attempt_timeout, ConnectError::NoAnswer { server: "h:1".to_owned(), seconds: Some(10) });
    }
}
