//! `cargo manifest`: migrates a plain database and a Supabase project, and regenerates `migration/manifest.txt` from
//! both. The manifest lists every object of the migrated schema with its definition, one per line.
//!
//! Only the plain database has the stand-in for Supabase's schema `auth`, which the migration creates there, and only
//! the Supabase project has policies on `realtime.messages`. So the manifest contains the lines of both databases. If
//! both have a line for the same object, the lines must be equal.

use std::{collections::BTreeSet, error::Error, fs, path::Path};

use migration::sea_orm_migration::sea_orm::ConnectionTrait;
use testdb::Server;

fn main() -> Result<(), Box<dyn Error>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the workspace folder was not found")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut lines = BTreeSet::new();
    let mut listed_objects = BTreeSet::new();
    for is_supabase_project in [false, true] {
        for line in runtime.block_on(partial_manifest_after_migration(is_supabase_project))?.lines() {
            let object = migration::object_of_line(line).ok_or_else(|| format!("not a line of a manifest: {line}"))?;
            // The line is new, but its object is not: the two databases have different lines for the object.
            if lines.insert(line.to_owned()) && !listed_objects.insert(object.to_owned()) {
                return Err(format!("a plain database and a Supabase project differ in {object}").into());
            }
        }
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(workspace.join("migration/manifest.txt"), text)?;
    Ok(())
}

async fn partial_manifest_after_migration(is_supabase_project: bool) -> Result<String, Box<dyn Error>> {
    // The server of `DATABASE_URL` is not used, because its new databases may contain objects that do not belong to the
    // schema: copies of those in its database `template1`.
    let server =
        if is_supabase_project { Server::start_supabase(None).await? } else { Server::start_plain(None).await? };
    let database = server.create_unmigrated().await?;
    let db = database.connect(1).await?;
    // `Migrator::up` is not used, because it fails if the result differs from the committed manifest.
    db.execute_unprepared(&migration::install_script()).await?;
    let partial_manifest = migration::partial_manifest_of(&db).await?;
    db.close().await?;
    Ok(partial_manifest)
}
