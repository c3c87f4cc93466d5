//! A connection, or one sentence that says why there is none. `sslmode` and `sslrootcert` mean what they mean to libpq.

use std::{env, fs, path::PathBuf, time::Duration};

use sea_orm_migration::sea_orm::{
    DatabaseConnection, DbErr, RuntimeErr, SqlxPostgresConnector,
    sqlx::{
        self, ConnectOptions, Connection, PgConnection,
        postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
    },
};

/// Why there is no connection, as a sentence for a person. No sentence holds a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is not one of PostgreSQL.
    #[error(
        "The database address does not parse: write it as postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special \
         characters of the password percent-encoded."
    )]
    Address,
    /// `sslmode` is none of libpq's.
    #[error("sslmode must be disable, allow, prefer, require, verify-ca or verify-full, not \"{0}\".")]
    SslMode(String),
    /// `sslrootcert` names no certificates.
    #[error("sslrootcert must name a readable file of certificates in PEM format, or be \"system\": {0}.")]
    RootCertificate(String),
    /// Certificates of the system prove nothing without the host's name.
    #[error("sslrootcert=system must go with sslmode=verify-full, which is its default: leave sslmode out.")]
    WeakMode,
    /// Nobody listens there.
    #[error("No PostgreSQL server answers at {host}:{port}: start it, or correct the host and port of the address.")]
    Unreachable {
        /// Host of the address.
        host: String,
        /// Port of the address.
        port: u16,
    },
    /// The server refused the password, or the user.
    #[error(
        "The server at {host}:{port} refuses user \"{user}\": correct the user or password of the address, or the \
         server's pg_hba.conf."
    )]
    Login {
        /// Host of the address.
        host: String,
        /// Port of the address.
        port: u16,
        /// User of the address.
        user: String,
    },
    /// The server has no such database.
    #[error(
        "The server at {host}:{port} has no database \"{database}\": create it (createdb {database}), or correct the \
         address."
    )]
    NoDatabase {
        /// Host of the address.
        host: String,
        /// Port of the address.
        port: u16,
        /// Database of the address.
        database: String,
    },
    /// The address asks for TLS, and the server has none.
    #[error(
        "The server at {host}:{port} does not support TLS, which sslmode={mode} asks for: switch TLS on at the server \
         (ssl = on), or use sslmode=prefer where the network is trusted."
    )]
    NoTls {
        /// Host of the address.
        host: String,
        /// Port of the address.
        port: u16,
        /// The mode that asks for TLS.
        mode: &'static str,
    },
    /// The server permits nothing but TLS, and the address rules it out.
    #[error(
        "The server at {host}:{port} requires TLS, which sslmode=disable rules out: use sslmode=require or verify-full."
    )]
    TlsRequired {
        /// Host of the address.
        host: String,
        /// Port of the address.
        port: u16,
    },
    /// The server's certificate is not trusted, or not for this host.
    #[error("The certificate of the server at {host}:{port} is not accepted by sslmode={mode}: {reason}.")]
    Certificate {
        /// Host of the address.
        host: String,
        /// Port of the address.
        port: u16,
        /// The mode that checks it.
        mode: &'static str,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Anything else that the server or the driver said.
    #[error("Connecting to {host}:{port} failed: {reason}.")]
    Other {
        /// Host of the address.
        host: String,
        /// Port of the address.
        port: u16,
        /// What was said.
        reason: String,
    },
}

/// Timeout for one attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How the server's list of sessions shows this program.
pub(crate) const APPLICATION_NAME: &str = "sparc migration";

/// Connects to the database at `url`, through a pool of one connection that keeps no prepared statements.
///
/// # Errors
///
/// [`ConnectError`], at once when nobody listens, and after ten seconds when nothing answers at all.
pub async fn connect(url: &str) -> Result<DatabaseConnection, ConnectError> {
    // A pooler in transaction mode knows neither statements by name nor every setting.
    let options = options(url)?
        .application_name(APPLICATION_NAME)
        .statement_cache_capacity(0)
        .extra_float_digits(None)
        .disable_statement_logging();
    // A pool goes on trying until its time is up; one connection says at once what is wrong.
    let (connection, options) = open(&options).await?;
    let explain = |error| explain(&options, &error);
    connection.close().await.map_err(explain)?;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_with(options.clone())
        .await
        .map_err(explain)?;
    Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
}

/// What the address says, and what the environment (`PGSSLMODE`, `PGSSLROOTCERT`) and `~/.postgresql/root.crt` add, as
/// libpq understands it. In one point it is less strict: certificates of the public authorities are accepted beside those
/// of `sslrootcert`, and alone where there are none.
///
/// # Errors
///
/// An address that does not parse, an unknown mode, a file that holds no certificates.
pub fn options(url: &str) -> Result<PgConnectOptions, ConnectError> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(ConnectError::Address);
    }
    let given_mode = parameter(url, "sslmode").or_else(|| env::var("PGSSLMODE").ok()).filter(|mode| !mode.is_empty());
    if let Some(mode) = given_mode.as_ref().filter(|mode| mode.parse::<PgSslMode>().is_err()) {
        return Err(ConnectError::SslMode(mode.clone()));
    }
    let options: PgConnectOptions = url.parse().map_err(|_| ConnectError::Address)?;
    // A socket of this machine has no TLS, whatever the mode.
    if options.get_socket().is_some() {
        return Ok(options.ssl_mode(PgSslMode::Disable));
    }
    let given_root =
        parameter(url, "sslrootcert").or_else(|| env::var("PGSSLROOTCERT").ok()).filter(|root| !root.is_empty());
    if given_root.as_deref() == Some("system") {
        if given_mode.is_some_and(|mode| mode != "verify-full") {
            return Err(ConnectError::WeakMode);
        }
        return Ok(options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert_from_pem(Vec::new()));
    }
    let root = given_root.map(PathBuf::from).or_else(|| {
        let default = PathBuf::from(env::var_os("HOME")?).join(".postgresql/root.crt");
        default.is_file().then_some(default)
    });
    let Some(root) = root else { return Ok(options) };
    let pem = fs::read(&root).map_err(|error| ConnectError::RootCertificate(format!("{}: {error}", root.display())))?;
    if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
        return Err(ConnectError::RootCertificate(format!("{} holds none", root.display())));
    }
    let mode = match options.get_ssl_mode() {
        PgSslMode::Require => PgSslMode::VerifyCa,
        mode => mode,
    };
    Ok(options.ssl_mode(mode).ssl_root_cert_from_pem(pem))
}

/// Connects once, with and without TLS in the order of `sslmode`. With the connection come the options that led to it.
///
/// # Errors
///
/// The reason of the last attempt.
pub async fn open(options: &PgConnectOptions) -> Result<(PgConnection, PgConnectOptions), ConnectError> {
    let with = |mode: PgSslMode| options.clone().ssl_mode(mode);
    let attempts = match options.get_ssl_mode() {
        PgSslMode::Allow => vec![with(PgSslMode::Disable), with(PgSslMode::Require)],
        PgSslMode::Prefer => vec![with(PgSslMode::Prefer), with(PgSslMode::Disable)],
        _ => vec![options.clone()],
    };
    let mut reason = None;
    for attempt in attempts {
        match once(&attempt).await {
            Ok(connection) => return Ok((connection, attempt)),
            // The first reason says more than that of the second best way.
            Err(error) if reason.is_none() && depends_on_tls(&error) => reason = Some(error),
            Err(error) => return Err(explain(options, reason.as_ref().unwrap_or(&error))),
        }
    }
    let reason = reason.unwrap_or(sqlx::Error::PoolTimedOut);
    if matches!(options.get_ssl_mode(), PgSslMode::Disable) && is_refused(&reason) {
        // Whether TLS is what is missing, another attempt says; a password goes with it no more openly than before.
        let encrypted = once(&with(PgSslMode::Require)).await;
        if encrypted.is_ok() || encrypted.is_err_and(|error| is_password(&error)) {
            return Err(ConnectError::TlsRequired { host: options.get_host().to_owned(), port: options.get_port() });
        }
    }
    Err(explain(options, &reason))
}

async fn once(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(options))
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// Whether the attempt may have failed for its having, or not having, TLS.
fn depends_on_tls(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => is_tls(&error.to_string()),
        sqlx::Error::Tls(_) => true,
        other => is_refused(other),
    }
}

/// Refused before a password was asked for: `pg_hba.conf`, or a pooler that wants TLS.
fn is_refused(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    error.code().as_deref() == Some("28000") || error.message().contains("SSL") || error.message().contains("sslmode")
}

fn is_password(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| matches!(error.code().as_deref(), Some("28P01" | "3D000")))
}

/// What rustls says, which the driver passes on as an error of the socket.
fn is_tls(said: &str) -> bool {
    said.contains("peer certificate") || said.contains("received fatal alert") || said.contains("corrupt message")
}

/// Why there is no connection.
#[must_use]
pub fn explain(options: &PgConnectOptions, error: &sqlx::Error) -> ConnectError {
    let host = options.get_host().to_owned();
    let port = options.get_port();
    let mode = match options.get_ssl_mode() {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    };
    let said = error.to_string();
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) if said.contains("peer certificate") => {
            let reason = certificate_reason(&said, &host);
            ConnectError::Certificate { host, port, mode, reason }
        }
        sqlx::Error::Tls(_) if said.contains("does not support TLS") => ConnectError::NoTls { host, port, mode },
        sqlx::Error::Io(_) if is_tls(&said) => ConnectError::Other { host, port, reason: said },
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => ConnectError::Unreachable { host, port },
        sqlx::Error::Database(refusal) => match refusal.code().as_deref() {
            Some("28P01" | "28000") => ConnectError::Login { host, port, user: options.get_username().to_owned() },
            Some("3D000") => ConnectError::NoDatabase {
                host,
                port,
                database: options.get_database().unwrap_or_else(|| options.get_username()).to_owned(),
            },
            _ => ConnectError::Other { host, port, reason: refusal.message().trim_end_matches('.').to_owned() },
        },
        _ => ConnectError::Other { host, port, reason: said },
    }
}

fn certificate_reason(said: &str, host: &str) -> String {
    if said.contains("UnknownIssuer") || said.contains("BadSignature") {
        "nobody it trusts has signed it; give the certificate of its authority with sslrootcert=FILE".to_owned()
    } else if said.contains("NotValidForName") || said.contains("not valid for name") {
        format!("it is not for \"{host}\"; use the host name that it was issued for, or sslmode=verify-ca")
    } else if said.contains("xpired") {
        "it has expired; renew it at the server".to_owned()
    } else if said.contains("CaUsedAsEndEntity") {
        "it is an authority's own certificate; give the server one that the authority has issued".to_owned()
    } else {
        said.to_owned()
    }
}

/// A parameter of the address, decoded as far as a file name needs.
fn parameter(url: &str, name: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    let value = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1;
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        let mut hex = || char::from(rest.next()?).to_digit(16);
        bytes.push(match byte {
            b'%' => {
                let (high, low) = (hex()?, hex()?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The SQLSTATE of what the database said.
pub(crate) fn sqlstate(error: &DbErr) -> Option<String> {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error))
        | DbErr::Conn(RuntimeErr::SqlxError(error)) => Some(error.as_database_error()?.code()?.into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{ConnectError, options, parameter};

    #[test]
    fn a_parameter_is_found_and_decoded() {
        let url = "postgres://a:b@h/d?sslmode=require&sslrootcert=%2Ftmp%2Fa%20b.crt";
        assert_eq!(parameter(url, "sslmode").as_deref(), Some("require"));
        assert_eq!(parameter(url, "sslrootcert").as_deref(), Some("/tmp/a b.crt"));
        assert_eq!(parameter(url, "sslkey"), None);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let of = |query: &str| options(&format!("postgres://a:b@h/d?{query}")).unwrap_err();
        assert!(matches!(of("sslmode=maybe"), ConnectError::SslMode(_)));
        assert!(matches!(of("sslrootcert=/no/such/file"), ConnectError::RootCertificate(_)));
        assert!(matches!(of("sslrootcert=system&sslmode=require"), ConnectError::WeakMode));
        assert!(options("postgres://a:b@h/d?sslrootcert=system").is_ok());
    }
}
