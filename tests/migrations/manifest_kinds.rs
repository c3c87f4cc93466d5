//! Each kind of object and attribute in the manifest: after it was broken, `check` names it and `up` repairs it.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DbErr};
use sparc::migration::{self, Command, MANIFEST, SchemaChange, check, sea_orm_migration::IntoSchemaManagerConnection};

use super::{breakages::BREAKAGES, drift::create_migrated_database};
use crate::world::is_platform_layout_requested;

#[tokio::test]
async fn each_kind_of_broken_object_is_named_and_repaired() {
    let mut failures = Vec::new();
    for (sql, object) in BREAKAGES {
        failures.extend(break_and_repair(sql, object).await.err());
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), BREAKAGES.len(), failures.join("\n"));
}

/// Breaks an object and repairs it. Returns what went wrong as an error.
async fn break_and_repair(sql: &str, object: &str) -> Result<(), String> {
    // In a database that is laid out like a Supabase project, schema `auth` and its functions belong to the platform,
    // and a `public` that the superuser has created again would belong to the superuser. `up` could repair neither.
    let unrepairable_fragments = ["FUNCTION auth.", "SCHEMA auth", "DROP SCHEMA public"];
    if is_platform_layout_requested() && unrepairable_fragments.iter().any(|text| sql.contains(text)) {
        return Ok(());
    }
    let (_database, owner, superuser) = create_migrated_database().await;
    // The owner breaks the objects wherever it may, because some of these statements create an object again, which must
    // still belong to the owner. The superuser runs only the statements that the owner may not run. (`auth` also
    // matches statements with `authenticated`, but none of them creates an object that has an owner.)
    let needs_superuser = ["auth", "OWNER TO", "LEAKPROOF", "SCHEMA public"].iter().any(|text| sql.contains(text));
    let connection = if needs_superuser { &superuser } else { &owner };
    let context = |action: &'static str| move |error: DbErr| format!("{sql}: {action}: {error}");
    connection.execute_unprepared(&format!("SET search_path = public; {sql}")).await.map_err(context("breaking it"))?;
    let ensure = |condition: bool, failure: String| if condition { Ok(()) } else { Err(format!("{sql}: {failure}")) };
    let report = check(&owner).await.map_err(context("check"))?;
    let is_named = report.differences.iter().any(|difference| difference.object == object);
    ensure(is_named, format!("check does not name it: {report:#?}"))?;
    let up = || async { migration::run(&(&owner).into_database_executor(), Command::Up(None)).await };
    let changes = up().await.map_err(context("up"))?;
    let is_repaired = changes
        .iter()
        .any(|change| matches!(change, SchemaChange::Created(named) | SchemaChange::Changed(named) if named == object));
    ensure(is_repaired, format!("up does not repair it: {changes:#?}"))?;
    let after_up = check(&owner).await.map_err(context("check"))?;
    ensure(after_up.is_clean(), format!("differences are left: {after_up:#?}"))?;
    let manifest = migration::full_manifest_of(&owner).await.map_err(context("manifest"))?;
    ensure(manifest == MANIFEST, "the manifest differs".to_owned())?;
    let second_changes = up().await.map_err(context("up"))?;
    ensure(second_changes.is_empty(), format!("a second up must do nothing: {second_changes:#?}"))
}

/// Every kind of line in the manifest must be in [`BREAKAGES`], except jobs (they need `pg_cron`), and roles and
/// `session_replication_role` (their tests are in `roles_and_settings`).
#[test]
fn every_kind_of_manifest_line_is_in_breakages() {
    let kind = |object: &str| {
        let words: Vec<&str> = object.split(' ').take(3).collect();
        match words[0] {
            "grant" => format!("grant on {}", words[2]),
            "publication" => format!("publication{}", if words.len() > 2 { " of" } else { "" }),
            "row" => "row security".to_owned(),
            other => other.to_owned(),
        }
    };
    let broken_kinds: BTreeSet<String> = BREAKAGES.iter().map(|(_, object)| kind(object)).collect();
    let kinds_in_manifest: BTreeSet<String> = MANIFEST
        .lines()
        .filter_map(migration::object_of_line)
        .map(kind)
        .filter(|kind| !["job", "role", "session_replication_role"].contains(&kind.as_str()))
        .collect();
    assert_eq!(kinds_in_manifest.difference(&broken_kinds).collect::<Vec<_>>(), Vec::<&String>::new());
}
