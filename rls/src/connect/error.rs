//! Why a connection could not be opened, in one sentence for a person.

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
    /// `sslcert` or `sslkey` is missing, or does not name a readable file.
    #[error(
        "sslcert and sslkey must name readable files with the client's certificate and its private key, in PEM format: \
         {0}."
    )]
    InvalidClientCertificate(String),
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
    /// No name service answered when the host name was looked up.
    #[error(
        "The host name \"{host}\" of the database URL could not be looked up, because no name service answers: try \
         again, or check this machine's DNS."
    )]
    NoNameService {
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
    /// The server cannot be reached, usually because no server listens on the host and port, or on the socket. This is
    /// also returned for any network error that no other variant names; for a host or network without a route, see
    /// [`NoRoute`](Self::NoRoute).
    #[error("No PostgreSQL server answers at {server}: start it, or correct the host and port of the URL.")]
    Unreachable {
        /// Host and port, or the socket.
        server: String,
    },
    /// The server did not answer in time.
    #[error(
        "{server} did not answer{}: it may be down, behind a firewall, or not a PostgreSQL server; check the host and \
         port of the URL.",
        .seconds.map(|seconds| format!(" within {seconds} seconds")).unwrap_or_default()
    )]
    NoAnswer {
        /// Host and port, or the socket.
        server: String,
        /// The timeout in seconds; `None` if the operating system gave up earlier.
        seconds: Option<u64>,
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
    /// The driver does not support the method by which the server authenticates the user.
    #[error(
        "The server at {server} authenticates user \"{user}\" by a method that this program does not support: choose \
         scram-sha-256 in the user's entry in the server's pg_hba.conf and reload that file (the driver said: \
         {reason})."
    )]
    UnsupportedAuthentication {
        /// Host and port, or the socket.
        server: String,
        /// User of the URL.
        user: String,
        /// The driver's message.
        reason: String,
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
    LoginNotPermitted {
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
    /// `DROP DATABASE` was interrupted, and the database can only be dropped.
    #[error(
        "Database \"{database}\" at {server} is invalid, because dropping it was interrupted: run DROP DATABASE \
         \"{database}\" again and create it, or use another database."
    )]
    InvalidDatabase {
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
        "The server at {server} accepts no connections now: wait until it runs, and try again (it said: {reason})."
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
    /// The TLS handshake failed, although not because of the server's certificate.
    #[error(
        "The TLS handshake with the server at {server} (sslmode={mode}) failed: allow TLS 1.2 or newer at the server; \
         if it requires a certificate of the client, name it with sslcert and sslkey (the reason: {reason})."
    )]
    TlsFailed {
        /// Host and port.
        server: String,
        /// The mode that asks for TLS.
        mode: &'static str,
        /// The message of the TLS library.
        reason: String,
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
            Self::NoNameService { .. }
                | Self::NoRoute { .. }
                | Self::Unreachable { .. }
                | Self::NoAnswer { .. }
                | Self::ClosedEarly { .. }
                | Self::TooManyConnections { .. }
                | Self::NotReady { .. }
                | Self::ErrorInsteadOfTls { .. }
        )
    }
}
