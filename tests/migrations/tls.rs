//! TLS with libpq's modes, against a real server whose certificate was issued by a private authority.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sea_orm::{DatabaseConnection, TransactionTrait};
use sparc::{
    migration::{ConnectError, connect, sea_orm_migration::MigratorTrait},
    service::{Operations, Options, Sparc},
};
use testdb::Server;

use super::{Migrator, query_lines};
use crate::{
    faults::network::{CUT, OPEN, Proxy},
    world::outcome_code,
};

/// Certificates in a folder that is removed when this value is dropped.
struct Certificates {
    folder: PathBuf,
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn create_authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Certificates {
    /// Creates two authorities, and a certificate for `localhost` that the first one issued.
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("sparc-tls-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let authority = create_authority();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        fs::write(folder.join("authority.crt"), authority.pem()).unwrap();
        fs::write(folder.join("other_authority.crt"), create_authority().pem()).unwrap();
        fs::write(folder.join("server.crt"), certificate.pem()).unwrap();
        let key_file = folder.join("server.key");
        fs::write(&key_file, key.serialize_pem()).unwrap();
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
        // If the tests run as root, the server runs as another user, who must own the key to read it.
        let uid_of = |user_name: &str| {
            let output = Command::new("id").args(["-u", user_name]).output().ok()?;
            String::from_utf8_lossy(&output.stdout).trim().parse().ok()
        };
        if let Some(uid) = uid_of("postgres").or_else(|| uid_of("nobody")) {
            let _ = std::os::unix::fs::chown(&key_file, Some(uid), None);
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn write_pg_hba(&self, connection_type: &str) {
        let entry = format!("{connection_type} all all 127.0.0.1/32 password\n");
        fs::write(self.folder.join("pg_hba.conf"), entry).unwrap();
    }

    /// Starts a server with these certificates. Its `pg_hba.conf` has one entry, of the given connection type (`host`,
    /// `hostssl` or `hostnossl`).
    async fn start_server(&self, connection_type: &str) -> Server {
        self.write_pg_hba(connection_type);
        let settings = [
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", self.path("server.crt")),
            format!("ssl_key_file={}", self.path("server.key")),
            format!("hba_file={}", self.path("pg_hba.conf")),
        ];
        Server::start_plain(Some(&settings.each_ref().map(String::as_str))).await.unwrap()
    }
}

async fn is_encrypted(db: &DatabaseConnection) -> bool {
    query_lines(db, "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await == ["true"]
}

#[tokio::test]
async fn sslmode_behaves_as_in_libpq() {
    let certificates = Certificates::new();
    let server = certificates.start_server("host").await;
    let localhost_url = server.url().replace("127.0.0.1", "localhost");
    let (authority, other_authority) = (certificates.path("authority.crt"), certificates.path("other_authority.crt"));

    for (url, expects_encryption) in [
        (server.url().to_owned(), true),
        (format!("{}?sslmode=prefer", server.url()), true),
        (format!("{}?sslmode=allow", server.url()), false),
        (format!("{}?sslmode=disable", server.url()), false),
        (format!("{}?sslmode=require", server.url()), true),
        (format!("{}?sslmode=require&sslrootcert={authority}", server.url()), true),
        (format!("{}?sslmode=verify-ca&sslrootcert={authority}", server.url()), true),
        (format!("{localhost_url}?sslmode=verify-full&sslrootcert={authority}"), true),
    ] {
        let db = connect(&url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(is_encrypted(&db).await, expects_encryption, "{url}");
    }

    for (url, expected) in [
        (format!("{}?sslmode=verify-full&sslrootcert={authority}", server.url()), "is not for \"127.0.0.1\""),
        (format!("{localhost_url}?sslmode=verify-full"), "no trusted authority has signed it"),
        (format!("{localhost_url}?sslmode=verify-full&sslrootcert="), "no trusted authority has signed it"),
        (
            format!("{localhost_url}?sslmode=verify-full&sslrootcert={other_authority}"),
            "no trusted authority has signed it",
        ),
        (
            format!("{localhost_url}?sslmode=verify-ca&sslrootcert={other_authority}"),
            "no trusted authority has signed it",
        ),
        (
            format!("{localhost_url}?sslmode=require&sslrootcert={other_authority}"),
            "no trusted authority has signed it",
        ),
        (format!("{localhost_url}?sslrootcert=system"), "no trusted authority has signed it"),
    ] {
        let error = connect(&url).await.unwrap_err();
        assert!(matches!(error, ConnectError::CertificateRejected { .. }), "{url}: {error}");
        assert!(error.to_string().contains(expected), "{url}: {error}");
    }
    let error = connect(&format!("{}?sslmode=require", with_wrong_password(server.url()))).await.unwrap_err();
    assert!(matches!(error, ConnectError::PasswordRejected { .. }), "{error}");
}

fn with_wrong_password(url: &str) -> String {
    let (credentials, address) = url.split_once('@').unwrap();
    format!("{}:wrong@{address}", credentials.rsplit_once(':').unwrap().0)
}

#[tokio::test]
async fn a_mode_that_the_server_does_not_support_is_reported_and_the_others_connect() {
    let server_without_tls = Server::start_plain(None).await.unwrap();
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = connect(&format!("{}?sslmode={mode}", server_without_tls.url())).await.unwrap_err();
        assert!(matches!(error, ConnectError::NoTls { .. }) && error.to_string().contains(mode), "{error}");
    }
    for mode in ["prefer", "allow", "disable"] {
        assert!(!is_encrypted(&connect(&format!("{}?sslmode={mode}", server_without_tls.url())).await.unwrap()).await);
    }

    let certificates = Certificates::new();
    let hostssl_server = certificates.start_server("hostssl").await;
    for mode in ["prefer", "allow", "require"] {
        assert!(
            is_encrypted(&connect(&format!("{}?sslmode={mode}", hostssl_server.url())).await.unwrap()).await,
            "{mode}"
        );
    }
    let error = connect(&format!("{}?sslmode=disable", hostssl_server.url())).await.unwrap_err();
    assert!(matches!(error, ConnectError::TlsRequired { .. }), "{error}");
    assert!(!error.to_string().contains("password"), "must not blame the password: {error}");

    // If a server accepts no TLS from this client, `prefer` (the default) falls back to an unencrypted connection, as
    // in libpq.
    let hostnossl_server = certificates.start_server("hostnossl").await;
    assert!(!is_encrypted(&connect(hostnossl_server.url()).await.unwrap()).await);

    // The server refuses the first attempt because of TLS, and the second one because of the password or the database.
    for (server, mode) in [(&hostssl_server, "allow"), (&hostnossl_server, "prefer")] {
        let error = connect(&format!("{}?sslmode={mode}", with_wrong_password(server.url()))).await.unwrap_err();
        assert!(matches!(error, ConnectError::PasswordRejected { .. }), "{mode}: {error}");
        let server_url = server.url().rsplit_once('/').unwrap().0;
        let error = connect(&format!("{server_url}/no_such_database?sslmode={mode}")).await.unwrap_err();
        assert!(matches!(error, ConnectError::NoDatabase { .. }), "{mode}: {error}");
    }

    // With replicas, `Sparc` decides for each server whether to use TLS. The error `schema_missing` shows that it could
    // connect.
    for (server, mode) in [(&hostssl_server, "prefer"), (&hostssl_server, "allow"), (&hostnossl_server, "prefer")] {
        let url = format!("{}?sslmode={mode}", server.url());
        let error = Sparc::connect_with(&url, Options::default().replicas([url.clone()])).await.unwrap_err();
        assert_eq!(error.code(), "schema_missing", "{mode}: {error}");
    }
}

#[tokio::test]
async fn whether_to_use_tls_is_decided_again_after_a_server_was_unreachable_or_restarted() {
    let certificates = Certificates::new();
    for (connection_type, mode, later_connection_type) in
        [("hostssl", "allow", "hostnossl"), ("hostnossl", "prefer", "hostssl")]
    {
        let server = certificates.start_server(connection_type).await;
        let url = format!("{}?sslmode={mode}", server.url());
        Migrator::up(&connect(&url).await.unwrap(), None).await.unwrap();
        // Two proxies of the same server. At first, the second one closes every connection, as if the server were down.
        let (first_proxy, second_proxy) = (Proxy::start_for_url(&url).await, Proxy::start_for_url(&url).await);
        second_proxy.set_state(CUT);
        let options = Options::default().replicas([second_proxy.url.clone()]).acquire_timeout(Duration::from_secs(30));
        let sparc = Sparc::connect_with(&first_proxy.url, options).await.unwrap();
        assert_eq!(outcome_code(sparc.as_anon().users().profiles(&[]).await), "done", "{mode}");
        second_proxy.set_state(OPEN);
        first_proxy.set_state(CUT);
        assert_eq!(outcome_code(sparc.as_anon().users().profiles(&[]).await), "done", "{mode}");
        sparc.close().await.unwrap();

        let sparc = Sparc::connect(&second_proxy.url).await.unwrap();
        let first_transaction = sparc.as_anon().begin().await.unwrap();
        let accepted_before = second_proxy.accepted_count();
        let second_transaction = sparc.as_anon().begin().await.unwrap();
        assert_eq!(
            second_proxy.accepted_count(),
            accepted_before + 1,
            "the pool must know what the server requires: {mode}"
        );
        drop((first_transaction, second_transaction));
        certificates.write_pg_hba(later_connection_type);
        server.crash_and_restart().unwrap();
        assert_eq!(outcome_code(sparc.as_anon().users().profiles(&[]).await), "done", "{mode}");
        sparc.close().await.unwrap();
    }
}
