//! Checks of versions: of the server, and of the program that last migrated the database.

use sea_orm_migration::{prelude::*, sea_orm::FromQueryResult};

use crate::{MigrationError, migrations::migration_names, query, record::Record};

/// Checks the server's version. Every command needs this check first, because an older server rejects the queries that
/// read its catalog.
pub(crate) async fn check_server_version<C: ConnectionTrait>(db: &C) -> Result<(), DbErr> {
    #[derive(FromQueryResult)]
    struct ServerVersion {
        number: i32,
        text: String,
    }
    let found: ServerVersion = query::fetch_one(
        db,
        "SELECT current_setting('server_version_num')::integer AS number, current_setting('server_version') AS text",
    )
    .await?;
    if found.number < 150_000 { Err(MigrationError::ServerTooOld { found: found.text }.into()) } else { Ok(()) }
}

/// Checks that this program has every applied migration. `recorded_version` is the version of the program that last
/// migrated the database.
pub(crate) fn check_migrations_known(applied: &[String], recorded_version: Option<&str>) -> Result<(), MigrationError> {
    let known = migration_names();
    let unknown: Vec<String> = applied.iter().filter(|name| !known.contains(name)).cloned().collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let database_version = recorded_version
        .filter(|version| *version != env!("CARGO_PKG_VERSION"))
        .map_or("a newer version".to_owned(), |version| format!("version {version}"));
    Err(MigrationError::UnknownMigrations { found: unknown, database_version })
}

/// Checks that no newer version of this program has migrated the database.
pub(crate) fn check_not_migrated_by_newer_version(record: &Record) -> Result<(), MigrationError> {
    match &record.version {
        Some(version) if is_newer(version, env!("CARGO_PKG_VERSION")) => {
            Err(MigrationError::NewerVersion { database_version: version.clone() })
        }
        _ => Ok(()),
    }
}

/// Whether the first version is newer than the second. A recorded text that is not a version (somebody has changed the
/// record) does not count as newer.
fn is_newer(version: &str, than: &str) -> bool {
    match (semver::Version::parse(version), semver::Version::parse(than)) {
        (Ok(version), Ok(than)) => version > than,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_newer;

    #[test]
    fn versions_are_compared_as_semantic_versions() {
        for (version, than, expected) in [
            ("0.17.1", "0.17.0", true),
            ("0.17.0", "0.17.0", false),
            ("0.9.0", "0.17.0", false),
            ("1.0.0", "0.17.0", true),
            ("0.17.0-rc.1", "0.17.0", false),
            ("0.17.0", "0.17.0-rc.1", true),
            ("0.18.0-rc.1", "0.17.0", true),
            ("edited by hand", "0.17.0", false),
        ] {
            assert_eq!(is_newer(version, than), expected, "{version} compared with {than}");
        }
    }
}
