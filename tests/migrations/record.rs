//! The record that the migration program keeps in `private.sparc_record`: if entries are missing, `check` reports them,
//! and `up` restores them. Also: privileges on that table and on the list of applied migrations, `sparc_migrations`.

use sea_orm::ConnectionTrait;
use sparc::migration::{SchemaChange, check};

use super::{
    drift::{create_migrated_database, up},
    query_lines,
};

#[tokio::test]
async fn a_missing_or_incomplete_entry_is_reported_and_restored() {
    for (sql, entry) in [
        ("DELETE FROM private.sparc_record WHERE name = 'version'", "version"),
        ("DELETE FROM private.sparc_record WHERE name = 'migrations'", "migrations"),
        (
            "UPDATE private.sparc_record SET value = split_part(value, E'\\n', 1) WHERE name = 'migrations'",
            "migrations",
        ),
        ("DELETE FROM private.sparc_record WHERE name = 'objects'", "objects"),
        (
            "UPDATE private.sparc_record SET value = replace(value, 'function private.is_seer(uuid)', '')
             WHERE name = 'objects'",
            "objects",
        ),
        ("DELETE FROM private.sparc_record WHERE name = 'schemas'", "schemas"),
        ("TRUNCATE private.sparc_record", "migrations"),
    ] {
        let (_database, owner, _superuser) = create_migrated_database().await;
        let select_entries = "SELECT name || '=' || value FROM private.sparc_record ORDER BY 1";
        let entries_before = query_lines(&owner, select_entries).await;
        owner.execute_unprepared(sql).await.unwrap();
        let object = format!("entry {entry} of private.sparc_record");
        let report = check(&owner).await.unwrap();
        assert!(report.differences.iter().any(|difference| difference.object == object), "{sql}: {report:#?}");
        let changes = up(&owner).await;
        let is_restored = |change: &SchemaChange| matches!(change, SchemaChange::Created(named) | SchemaChange::Changed(named) if *named == object);
        assert!(changes.iter().any(is_restored), "{sql}: {changes:?}");
        assert!(check(&owner).await.unwrap().is_clean(), "{sql}");
        assert_eq!(query_lines(&owner, select_entries).await, entries_before, "{sql}");
        assert_eq!(up(&owner).await, [], "{sql}");
    }
}

/// A role without USAGE on schema `cron` sees no jobs and schedules none. (Instead of `pg_cron`, the database has the
/// stand-in of `pg_cron.sql`.)
#[tokio::test]
async fn jobs_that_up_could_not_schedule_are_not_recorded_as_scheduled() {
    let (_database, owner, superuser) = create_migrated_database().await;
    superuser.execute_unprepared(include_str!("pg_cron.sql")).await.unwrap();
    // Renaming the schema stands for a role without USAGE on it, because in both layouts of test databases the owner
    // has that privilege on every schema: as a superuser, or as a member of `pg_read_all_data`.
    superuser.execute_unprepared("ALTER SCHEMA cron RENAME TO hidden").await.unwrap();
    let record_older_version = "UPDATE private.sparc_record SET value = '0.1.0' WHERE name = 'version'";
    owner.execute_unprepared(record_older_version).await.unwrap();
    assert_eq!(up(&owner).await, []);
    superuser.execute_unprepared("ALTER SCHEMA hidden RENAME TO cron").await.unwrap();
    let report = check(&owner).await.unwrap();
    assert!(report.differences.iter().all(|difference| difference.object.starts_with("job ")), "{report:#?}");
    assert!(!report.differences.is_empty(), "the jobs must be missing");
    up(&owner).await;
    assert!(check(&owner).await.unwrap().is_clean());
    // If an operator ran `jobs/schedule.sql`, the jobs exist but are not recorded. `up` then records them, so that no
    // later `up` schedules them again.
    owner.execute_unprepared("DELETE FROM private.sparc_record WHERE name = 'jobs'").await.unwrap();
    assert_eq!(up(&owner).await, []);
    let select_entry = "SELECT value FROM private.sparc_record WHERE name = 'jobs'";
    assert_eq!(query_lines(&owner, select_entry).await, ["scheduled"]);
}

#[tokio::test]
async fn an_operators_grants_on_a_recreated_list_or_record_stay() {
    for sql in [
        "ALTER TABLE sparc_migrations DROP COLUMN applied_at; ALTER TABLE private.sparc_record DROP COLUMN value",
        "ALTER TABLE sparc_migrations ALTER applied_at TYPE text; ALTER TABLE private.sparc_record ALTER value TYPE varchar",
    ] {
        let (_database, owner, _superuser) = create_migrated_database().await;
        // `pg_monitor` stands for any role of the operator's. A column that is not part of the schema is lost, and with
        // it the privilege on the column.
        owner
            .execute_unprepared(&format!(
                "SET search_path = public;
                 ALTER TABLE sparc_migrations ADD COLUMN note text;
                 GRANT SELECT ON sparc_migrations TO pg_monitor;
                 GRANT UPDATE (version, note) ON sparc_migrations TO pg_monitor;
                 GRANT SELECT ON private.sparc_record TO pg_monitor WITH GRANT OPTION;
                 {sql}"
            ))
            .await
            .unwrap();
        up(&owner).await;
        assert!(check(&owner).await.unwrap().is_clean(), "{sql}");
        let select_privileges = "SELECT concat_ws(' ',
                      has_table_privilege('pg_monitor', 'public.sparc_migrations', 'SELECT'),
                      has_column_privilege('pg_monitor', 'public.sparc_migrations', 'version', 'UPDATE'),
                      has_column_privilege('pg_monitor', 'public.sparc_migrations', 'applied_at', 'UPDATE'),
                      has_table_privilege('pg_monitor', 'private.sparc_record', 'SELECT WITH GRANT OPTION'))";
        assert_eq!(query_lines(&owner, select_privileges).await, ["t t f t"], "{sql}");
    }
}
