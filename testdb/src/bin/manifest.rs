//! `cargo manifest`: makes `migration/manifest.txt` anew, from a plain database and a platform's project that it migrates.
//!
//! Each has lines that the other has not (the stand-in for `auth`, the policies of Realtime); where both have one, it must be
//! the same.

use std::{collections::BTreeSet, error::Error, fs, path::Path};

use migration::Migrator;
use migration::sea_orm_migration::MigratorTrait;
use testdb::Server;

fn main() -> Result<(), Box<dyn Error>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the workspace has no folder")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut lines = BTreeSet::new();
    let mut objects = BTreeSet::new();
    for is_platform in [false, true] {
        for line in runtime.block_on(manifest(is_platform))?.lines() {
            let object = migration::object(line).ok_or_else(|| format!("not a line of a manifest: {line}"))?;
            if lines.insert(line.to_owned()) && !objects.insert(object.to_owned()) {
                return Err(format!("a plain database and a platform differ in {object}").into());
            }
        }
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(workspace.join("migration/manifest.txt"), text)?;
    Ok(())
}

async fn manifest(is_platform: bool) -> Result<String, Box<dyn Error>> {
    // Whatever DATABASE_URL says: the manifest tells the schema, not what somebody's database has besides.
    let server = if is_platform { Server::start_platform(None).await? } else { Server::start_private(None).await? };
    let database = server.empty().await?;
    let db = database.connect(1).await?;
    Migrator::up(&db, None).await?;
    let manifest = migration::actual_manifest(&db).await?;
    db.close().await?;
    Ok(manifest)
}
