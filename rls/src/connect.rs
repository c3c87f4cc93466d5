//! Opens a connection, or explains why that failed. [`Database::connect`](crate::Database::connect) and the migrations
//! use this module, so that both give the same explanations. `sslmode` and `sslrootcert` have the same meaning as in
//! libpq, with two exceptions, which [`options`] describes.

use std::{env, fs, path::PathBuf, time::Duration};

use sea_orm::sqlx::{
    self, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use url::Url;

mod error;
mod explain;
mod opener;

pub use error::ConnectError;
pub use explain::to_connect_error;
pub use opener::CONNECT_TIMEOUT;

use explain::socket_folder;
pub(crate) use explain::{server_address, to_connect_error_with_timeout};
pub(crate) use opener::Opener;
use opener::{connect_once, may_be_refusal_before_password};

use crate::sqlstate;

/// Returns the connect options of the URL. As in libpq, what the URL leaves out is taken from the environment (such as
/// `PGUSER` and `PGSSLMODE`), from the password file and from `~/.postgresql/root.crt`. Where certificates are
/// verified, two things differ from libpq. Certificates issued by public authorities are accepted in addition to those
/// that `sslrootcert` trusts; without a root certificate, only those of public authorities are accepted. And a server's
/// certificate that is marked as the certificate of an authority is refused.
///
/// # Errors
///
/// The URL does not parse, `sslmode` is unknown, the root certificate file cannot be read or contains no certificates,
/// `sslrootcert=system` is combined with a mode other than `verify-full`, or the client's certificate (`sslcert`) or
/// its key (`sslkey`) is missing or cannot be read.
pub fn options(url: &str) -> Result<PgConnectOptions, ConnectError> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(ConnectError::InvalidUrl);
    }
    let given_mode =
        parameter(url, &SSLMODE_PARAMETER_NAMES).or_else(|| env::var("PGSSLMODE").ok()).filter(|mode| !mode.is_empty());
    if let Some(mode) = given_mode.as_ref().filter(|mode| mode.parse::<PgSslMode>().is_err()) {
        return Err(ConnectError::InvalidSslMode(mode.clone()));
    }
    let mut options: PgConnectOptions = url.parse().map_err(|_| ConnectError::InvalidUrl)?;
    // The driver passes the brackets of an IPv6 address on to the name service, which does not know them.
    let address = options.get_host().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map(str::to_owned);
    if let Some(address) = address {
        options = options.host(&address);
    }
    // Unix sockets have no TLS, whatever the mode.
    if socket_folder(&options).is_some() {
        return Ok(options.ssl_mode(PgSslMode::Disable));
    }
    if !matches!(options.get_ssl_mode(), PgSslMode::Disable) {
        check_client_certificate(url)?;
    }
    let given_root_certificate = parameter(url, &SSLROOTCERT_PARAMETER_NAMES)
        .or_else(|| env::var("PGSSLROOTCERT").ok())
        .filter(|root| !root.is_empty());
    if given_root_certificate.as_deref() == Some("system") {
        if given_mode.is_some_and(|mode| mode != "verify-full") {
            return Err(ConnectError::WeakSslMode);
        }
        return Ok(options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert_from_pem(Vec::new()));
    }
    let root_certificate = given_root_certificate.map(PathBuf::from).or_else(|| {
        let default = PathBuf::from(env::var_os("HOME")?).join(".postgresql/root.crt");
        default.is_file().then_some(default)
    });
    // The driver would read a file without a name if `sslrootcert` is empty.
    let Some(root_certificate) = root_certificate else { return Ok(options.ssl_root_cert_from_pem(Vec::new())) };
    let pem = fs::read(&root_certificate)
        .map_err(|error| ConnectError::InvalidRootCertificate(format!("{}: {error}", root_certificate.display())))?;
    if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
        return Err(ConnectError::InvalidRootCertificate(format!("{} contains none", root_certificate.display())));
    }
    let mode = match options.get_ssl_mode() {
        PgSslMode::Require => PgSslMode::VerifyCa,
        mode => mode,
    };
    Ok(options.ssl_mode(mode).ssl_root_cert_from_pem(pem))
}

/// Opens a connection, trying with and without TLS in the order that `sslmode` prescribes. `timeout` applies to each
/// attempt. Returns the connection and the options of the attempt that succeeded.
///
/// # Errors
///
/// The most informative error of all attempts.
pub async fn open(
    options: &PgConnectOptions,
    timeout: Duration,
) -> Result<(PgConnection, PgConnectOptions), ConnectError> {
    let error = match Opener::new(options.clone()).open_with_timeout(timeout).await {
        Ok(opened) => return Ok(opened),
        Err(error) => error,
    };
    if matches!(options.get_ssl_mode(), PgSslMode::Disable) && may_be_refusal_before_password(&error) {
        // An attempt with TLS shows whether the server requires TLS. This second attempt exposes the password no more
        // than the first one, without TLS, did.
        let with_tls = connect_once(&options.clone().ssl_mode(PgSslMode::Require), timeout).await;
        if with_tls.is_ok() || with_tls.is_err_and(|error| is_password_or_database_refusal(&error)) {
            return Err(ConnectError::TlsRequired { server: server_address(options) });
        }
    }
    Err(to_connect_error_with_timeout(options, &error, timeout))
}

/// Whether the server accepted the connection, and then rejected the password or the database.
fn is_password_or_database_refusal(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        matches!(error.code().as_deref(), Some(sqlstate::INVALID_PASSWORD | sqlstate::INVALID_CATALOG_NAME))
    })
}

/// The parameters of a URL that say where the server is.
const ADDRESS_PARAMETERS: [&str; 3] = ["host", "hostaddr", "port"];

/// Returns `login_url` with the address (host and port, or socket) of a replica, `replica_url`. Everything else, such
/// as user, password, database and `sslmode`, is that of `login_url`: the login is valid there too, because a replica
/// has the roles and databases of its primary.
pub(crate) fn with_address_of(replica_url: &str, login_url: &str) -> Result<String, ConnectError> {
    let parse = |url: &str| Url::parse(url).map_err(|_| ConnectError::InvalidUrl);
    let (server, login) = (parse(replica_url)?, parse(login_url)?);
    let mut url = login.clone();
    // A URL with a user must have a host, even if a parameter replaces it.
    let host = server.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost");
    url.set_host(Some(host)).map_err(|_| ConnectError::InvalidUrl)?;
    url.set_port(server.port()).map_err(|()| ConnectError::InvalidUrl)?;
    let is_address = |name: &str| ADDRESS_PARAMETERS.contains(&name);
    let parameters = login.query_pairs().filter(|(name, _)| !is_address(name));
    let address = server.query_pairs().filter(|(name, _)| is_address(name));
    url.query_pairs_mut().clear().extend_pairs(parameters.chain(address));
    Ok(url.into())
}

/// The names of `sslmode` that the driver accepts.
const SSLMODE_PARAMETER_NAMES: [&str; 2] = ["sslmode", "ssl-mode"];
/// The names of `sslrootcert` that the driver accepts.
const SSLROOTCERT_PARAMETER_NAMES: [&str; 3] = ["sslrootcert", "ssl-root-cert", "ssl-ca"];
/// For the client's certificate and for its key: the names that the driver accepts, and the environment variable.
const CLIENT_CERTIFICATE_PARAMETER_NAMES: [([&str; 2], &str); 2] =
    [(["sslcert", "ssl-cert"], "PGSSLCERT"), (["sslkey", "ssl-key"], "PGSSLKEY")];

/// Checks that the files of the client's certificate and of its key can be read. The driver reads them only during the
/// handshake, and reports a missing file as it reports an error of the network.
fn check_client_certificate(url: &str) -> Result<(), ConnectError> {
    let given = CLIENT_CERTIFICATE_PARAMETER_NAMES
        .map(|(names, variable)| parameter(url, &names).or_else(|| env::var(variable).ok()));
    if given.iter().flatten().count() == 1 {
        return Err(ConnectError::InvalidClientCertificate("one of the two is missing".to_owned()));
    }
    for path_or_pem in given.into_iter().flatten() {
        // In an environment variable, the driver also accepts the text of the file.
        if !path_or_pem.trim_start().starts_with("-----BEGIN") {
            fs::read(&path_or_pem)
                .map_err(|error| ConnectError::InvalidClientCertificate(format!("\"{path_or_pem}\": {error}")))?;
        }
    }
    Ok(())
}

/// Returns the value of the URL's parameter that has one of these names, decoded as the driver decodes it. If there are
/// several such parameters, the last one counts, as in the driver.
fn parameter(url: &str, names: &[&str]) -> Option<String> {
    let url = Url::parse(url).ok()?;
    url.query_pairs().filter(|(key, _)| names.contains(&key.as_ref())).last().map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::{ConnectError, options, parameter, with_address_of};

    #[test]
    fn a_tcp_address_and_a_socket_can_replace_each_other() {
        let tcp = "postgres://a:b@h1:5001/d1?sslmode=require";
        let socket = "postgres://c:d@localhost/d2?host=/run/x&port=5002";
        let options_of = |server_url, login_url| options(&with_address_of(server_url, login_url).unwrap()).unwrap();
        let moved_to_tcp = options_of(tcp, socket);
        assert_eq!((moved_to_tcp.get_host(), moved_to_tcp.get_port()), ("h1", 5001));
        assert_eq!((moved_to_tcp.get_username(), moved_to_tcp.get_database()), ("c", Some("d2")));
        assert!(moved_to_tcp.get_socket().is_none());
        let moved_to_socket = options_of(socket, tcp);
        assert_eq!(moved_to_socket.get_socket().unwrap().to_str(), Some("/run/x"));
        assert_eq!((moved_to_socket.get_port(), moved_to_socket.get_username()), (5002, "a"));
        assert!(options_of("postgres:///d2?host=/run/x", tcp).get_socket().is_some());
    }

    #[test]
    fn an_ipv6_address_has_no_brackets_for_the_driver() {
        assert_eq!(options("postgres://a:b@[::1]:5433/d").unwrap().get_host(), "::1");
    }

    #[test]
    fn a_parameter_is_decoded_and_its_last_occurrence_counts() {
        let url = "postgres://a:b@h/d?sslmode=require&sslrootcert=%2Ftmp%2Fa%20b.crt";
        assert_eq!(parameter(url, &["sslmode"]).as_deref(), Some("require"));
        assert_eq!(parameter(url, &["sslrootcert"]).as_deref(), Some("/tmp/a b.crt"));
        assert_eq!(parameter(url, &["sslkey"]), None);
        assert_eq!(parameter(&format!("{url}&sslmode=disable"), &["sslmode"]).as_deref(), Some("disable"));
        // %73 is `s`.
        assert_eq!(parameter("postgres://a:b@h/d?%73slmode=require#x", &["sslmode"]).as_deref(), Some("require"));
    }

    #[test]
    fn invalid_tls_parameters_are_refused() {
        let error = |query: &str| options(&format!("postgres://a:b@h/d?{query}")).unwrap_err();
        assert!(matches!(error("sslmode=maybe"), ConnectError::InvalidSslMode(_)));
        assert!(matches!(error("sslrootcert=/no/such/file"), ConnectError::InvalidRootCertificate(_)));
        assert!(matches!(error("sslrootcert=system&sslmode=require"), ConnectError::WeakSslMode));
        assert!(options("postgres://a:b@h/d?sslrootcert=system").is_ok());
        // The driver's other names for the same parameters.
        assert!(matches!(error("ssl-mode=maybe"), ConnectError::InvalidSslMode(_)));
        for root in ["ssl-root-cert=/no/such/file", "ssl-ca=/no/such/file"] {
            assert!(matches!(error(root), ConnectError::InvalidRootCertificate(_)), "{root}");
        }
        assert!(matches!(error("ssl-ca=system&ssl-mode=require"), ConnectError::WeakSslMode));
    }

    #[test]
    fn a_client_certificate_without_its_key_and_files_that_do_not_exist_are_refused() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let parse = |query: &str| options(&format!("postgres://a:b@h/d?{query}"));
        for query in [
            format!("sslcert={file}"),
            format!("ssl-key={file}"),
            format!("sslcert=/no/such/file&sslkey={file}"),
            format!("ssl-cert={file}&ssl-key=/no/such/file"),
        ] {
            let error = parse(&query).unwrap_err();
            assert!(matches!(error, ConnectError::InvalidClientCertificate(_)), "{query}: {error}");
            // Without TLS, the files are not used.
            assert!(parse(&format!("{query}&sslmode=disable")).is_ok(), "{query}");
        }
        assert!(parse(&format!("sslcert={file}&sslkey={file}")).is_ok());
    }
}
