//! Settings and default privileges of a database or a role must change neither the schema nor the result of `check`.

use std::time::Duration;

use sea_orm::{ConnectionTrait, TransactionTrait};
use sparc::migration::{
    self, MANIFEST, check, connect,
    sea_orm_migration::{IntoSchemaManagerConnection, MigratorTrait},
};

use super::{
    Migrator, create_unmigrated_database, drift::create_migrated_database, query_lines, refusal_message,
    scripts::run_program,
};
use crate::world::server;

/// Settings that change how PostgreSQL reads, checks or prints SQL, or what a transaction sees.
const SETTINGS: [&str; 7] = [
    // With `off`, string literals would lose the backslashes of regular expressions in CHECK constraints and functions.
    "standard_conforming_strings = off",
    "quote_all_identifiers = on",
    "intervalstyle = sql_standard",
    "datestyle = 'German, DMY'",
    "default_transaction_isolation = serializable",
    "row_security = off",
    "check_function_bodies = off",
];

#[tokio::test]
async fn settings_of_the_database_do_not_affect_the_schema() {
    for setting in SETTINGS {
        let (database, db) = create_unmigrated_database().await;
        let database_name = query_lines(&db, "SELECT current_database()::text").await.concat();
        let superuser = connect(&database.superuser_url()).await.unwrap();
        superuser.execute_unprepared(&format!("ALTER DATABASE {database_name} SET {setting}")).await.unwrap();
        // Only a new connection has the setting.
        let db = connect(database.url()).await.unwrap();
        Migrator::up(&db, None).await.unwrap();
        let report = check(&db).await.unwrap();
        assert!(report.is_clean(), "{setting}: {report:#?}");
        db.execute_unprepared(
            "ALTER TABLE public.users DROP CONSTRAINT reserved_email_is_own; DROP TABLE public.tutorial_progress",
        )
        .await
        .unwrap();
        // Under this setting, `up` must be able not only to create the schema, but also to repair it.
        Migrator::up(&db, None).await.unwrap();
        assert_eq!(migration::full_manifest_of(&db).await.unwrap(), MANIFEST, "{setting}");

        let scripted_database = server().await.create_unmigrated().await.unwrap();
        let superuser = connect(&scripted_database.superuser_url()).await.unwrap();
        let database_name = query_lines(&superuser, "SELECT current_database()::text").await.concat();
        superuser.execute_unprepared(&format!("ALTER DATABASE {database_name} SET {setting}")).await.unwrap();
        let db = connect(scripted_database.url()).await.unwrap();
        let Some(outcome) = run_program(
            "psql",
            &["-X", "-q", "-v", "ON_ERROR_STOP=1", scripted_database.url()],
            &migration::install_script(),
        ) else {
            continue;
        };
        outcome.unwrap();
        assert!(check(&db).await.unwrap().is_clean(), "{setting}, created by the script");
    }
}

/// When the type of a column is changed from `timestamp` to `timestamptz`, PostgreSQL takes the values as times in the
/// time zone of the connection. `up` and the script both set that time zone to UTC, whatever the database's setting is.
#[tokio::test]
async fn the_script_of_a_dry_run_converts_values_as_up_does() {
    let mut values = Vec::new();
    for applies_script in [false, true] {
        let database = server().await.create_migrated().await.unwrap();
        let superuser = connect(&database.superuser_url()).await.unwrap();
        let database_name = query_lines(&superuser, "SELECT current_database()::text").await.concat();
        superuser
            .execute_unprepared(&format!(
                "ALTER DATABASE {database_name} SET timezone = 'Asia/Tokyo';
                 ALTER TABLE public.creatures ALTER created_at TYPE timestamp;
                 SET session_replication_role = replica;
                 INSERT INTO public.creatures (adventure_id, name, created_at)
                 VALUES (gen_random_uuid(), 'Wolf', '2026-01-02 03:04:05')"
            ))
            .await
            .unwrap();
        let db = connect(database.url()).await.unwrap();
        if applies_script {
            let script = migration::dry_run(&(&db).into_database_executor()).await.unwrap();
            let Some(outcome) = run_program("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", database.url()], &script)
            else {
                return;
            };
            outcome.unwrap();
        } else {
            Migrator::up(&db, None).await.unwrap();
        }
        let select_value = "SELECT (created_at AT TIME ZONE 'UTC')::text FROM public.creatures";
        values.push(query_lines(&db, select_value).await.concat());
    }
    assert_eq!(values, ["2026-01-02 03:04:05", "2026-01-02 03:04:05"]);
}

/// With `session_replication_role = replica`, no trigger of the schema fires, not even those of its foreign keys. `up`
/// and the script therefore set it to `origin`. A role that may not change this parameter gets an error.
#[tokio::test]
async fn up_enables_triggers_or_refuses() {
    let (database, owner, superuser) = super::create_platform_database().await;
    Migrator::up(&owner, None).await.unwrap();
    let database_name = query_lines(&superuser, "SELECT current_database()::text").await.concat();
    let disable_triggers = format!("ALTER DATABASE {database_name} SET session_replication_role = replica");
    // `up` restores the trigger, and therefore runs its backfill, which inserts this account's profile. A trigger on
    // `public.users` then creates the account's gate (its row in `private.account_gates`).
    let add_account_and_drop_trigger = "SET session_replication_role = replica;
        INSERT INTO auth.users (id, email) VALUES (gen_random_uuid(), 'ada@x.org');
        DROP TRIGGER on_auth_user_created ON auth.users";
    superuser.execute_unprepared(&format!("{add_account_and_drop_trigger}; {disable_triggers}")).await.unwrap();
    let owner = connect(database.url()).await.unwrap();
    let message = refusal_message(Migrator::up(&owner, None).await.unwrap_err());
    assert!(message.contains("session_replication_role") && message.contains("RESET"), "{message}");
    let script = migration::dry_run(&(&owner).into_database_executor()).await.unwrap();
    let error = owner.execute_unprepared(&script).await.unwrap_err().to_string();
    assert!(error.contains("session_replication_role"), "{error}");
    let superuser = connect(&database.superuser_url()).await.unwrap();
    Migrator::up(&superuser, None).await.unwrap();
    let select_gates = "SELECT is_open::text FROM private.account_gates";
    assert_eq!(query_lines(&superuser, select_gates).await, ["true"]);
}

/// Each command waits for a lock for longer than the database's `statement_timeout`.
#[tokio::test]
async fn the_databases_statement_timeout_does_not_apply_to_commands_that_only_read() {
    let (database, owner, superuser) = create_migrated_database().await;
    let database_name = query_lines(&owner, "SELECT current_database()::text").await.concat();
    superuser
        .execute_unprepared(&format!("ALTER DATABASE {database_name} SET statement_timeout = '1s'"))
        .await
        .unwrap();
    let lock_holder = superuser.begin().await.unwrap();
    lock_holder.execute_unprepared("LOCK TABLE private.sparc_record").await.unwrap();
    let (first, second, third) =
        tokio::try_join!(connect(database.url()), connect(database.url()), connect(database.url())).unwrap();
    let (second_executor, third_executor) = ((&second).into_database_executor(), (&third).into_database_executor());
    let unlock_when_all_have_waited = async {
        let count_long_waits = "SELECT count(*)::text FROM pg_locks
             WHERE NOT granted AND relation = 'private.sparc_record'::regclass
               AND waitstart < clock_timestamp() - interval '1500 ms'";
        let all_wait = async {
            while query_lines(&owner, count_long_waits).await != ["3"] {
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        };
        // Shorter than the commands' `lock_timeout`.
        let have_all_waited = tokio::time::timeout(Duration::from_secs(9), all_wait).await.is_ok();
        lock_holder.commit().await.unwrap();
        have_all_waited
    };
    let (report, script, status, have_all_waited) = tokio::join!(
        check(&first),
        migration::dry_run(&second_executor),
        migration::status(&third_executor),
        unlock_when_all_have_waited
    );
    assert!(report.unwrap().is_clean());
    assert_eq!(script.unwrap(), "");
    assert!(status.unwrap().report.is_clean());
    assert!(have_all_waited);
}

#[tokio::test]
async fn default_privileges_of_the_migrating_role_do_not_affect_the_schema() {
    // `pg_monitor` stands for any role that the schema does not know.
    let grants = "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
                 ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC;
                 ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO PUBLIC;
                 ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC;
                 ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO pg_monitor, PUBLIC";
    let revocations = "ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM PUBLIC;
                 ALTER DEFAULT PRIVILEGES REVOKE ALL ON TYPES FROM PUBLIC";
    let breaking_sql = "DROP TABLE public.tutorial_progress, public.session_events CASCADE; DROP VIEW public.profiles;
                  DROP SCHEMA private CASCADE; DROP TYPE public.attribute CASCADE";
    for sql in [grants, revocations] {
        let (_database, db) = create_unmigrated_database().await;
        db.execute_unprepared(sql).await.unwrap();
        Migrator::up(&db, None).await.unwrap();
        let report = check(&db).await.unwrap();
        assert!(report.is_clean(), "{sql}: {report:#?}");
        // Only now can `anon` be named, because `up` creates the API's roles.
        db.execute_unprepared("ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO anon").await.unwrap();
        db.execute_unprepared(breaking_sql).await.unwrap();
        Migrator::up(&db, None).await.unwrap();
        assert_eq!(migration::full_manifest_of(&db).await.unwrap(), MANIFEST, "{sql}");

        let (_database, db) = create_unmigrated_database().await;
        db.execute_unprepared(sql).await.unwrap();
        db.execute_unprepared(&migration::install_script()).await.unwrap();
        assert!(check(&db).await.unwrap().is_clean(), "{sql}, created by the script");
    }
}
