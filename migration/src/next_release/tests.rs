//! What `up`, a dry run and `down` do with the migration of the next release.

use sea_orm_migration::{
    MigrationName,
    sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement, TransactionTrait},
};
use testdb::{Database, Server};

use super::{Migration, use_next_release, use_this_release};
use crate::{Command, INVARIANTS, SchemaChange, check, count_accounts_losing_data, dry_run, query, repeatable, run};

/// Returns a database as an earlier release might have left it: a function and a policy have other definitions than
/// in this release. It contains a user's account, and a view that an operator has created.
async fn create_database_of_earlier_release() -> (Database, DatabaseConnection) {
    let database = Server::open().await.unwrap().create_migrated().await.unwrap();
    let db = database.connect(2).await.unwrap();
    let sql = "INSERT INTO auth.users (email) VALUES ('ada@x.org');
        CREATE VIEW public.names AS SELECT display_name FROM public.users;
        DROP FUNCTION private.event_number_progress() CASCADE;
        CREATE FUNCTION private.event_number_progress() RETURNS text LANGUAGE sql AS $$ SELECT 'none' $$;
        ALTER POLICY \"Users can update own profile\" ON public.users USING (true)";
    db.execute_unprepared(sql).await.unwrap();
    (database, db)
}

#[tokio::test]
async fn a_numbered_migration_upgrades_a_schema_and_can_be_undone_without_the_earlier_ones() {
    let (_database, db) = create_database_of_earlier_release().await;
    let upgrade = SchemaChange::Applied(Migration.name().to_owned());
    use_next_release();
    assert_eq!(check(&db).await.unwrap().pending, [Migration.name()]);
    let changes = run(&(&db).into(), Command::Up(None)).await.unwrap();
    assert!(changes.contains(&upgrade), "{changes:?}");
    assert!(
        changes.contains(&SchemaChange::Changed("function private.event_number_progress()".to_owned())),
        "{changes:?}"
    );
    assert!(check(&db).await.unwrap().is_clean());
    assert_eq!(run(&(&db).into(), Command::Up(None)).await.unwrap(), []);
    db.execute_unprepared("SELECT note FROM public.users, public.names, public.notes").await.unwrap();

    // The operator's view uses only a table that stays, so the migration can be undone, and the view is kept.
    run(&(&db).into(), Command::Down(Some(1))).await.unwrap();
    db.execute_unprepared("SELECT FROM public.names").await.unwrap();
    assert_eq!(check(&db).await.unwrap().pending, [Migration.name()]);
    assert!(run(&(&db).into(), Command::Up(None)).await.unwrap().contains(&upgrade));
    assert!(check(&db).await.unwrap().is_clean());
}

#[tokio::test]
async fn only_commands_that_drop_the_tables_lose_the_data_of_accounts() {
    let (_database, db) = create_database_of_earlier_release().await;
    let count_after = async |command| count_accounts_losing_data(&(&db).into(), command).await.unwrap();
    assert_eq!(count_after(Command::Down(Some(1))).await, 1, "the last migration of this release creates the tables");
    use_next_release();
    run(&(&db).into(), Command::Up(None)).await.unwrap();
    for (command, account_count) in [
        (Command::Up(None), 0),
        (Command::Down(Some(0)), 0),
        (Command::Down(Some(1)), 0),
        (Command::Down(Some(2)), 1),
        (Command::Down(None), 1),
        (Command::Reset, 1),
        (Command::Refresh, 1),
    ] {
        assert_eq!(count_after(command).await, account_count, "{command:?}");
    }
    // The record in `private.sparc_record` counts too, because the commands undo the migrations that it names.
    db.execute_unprepared("DELETE FROM public.sparc_migrations").await.unwrap();
    assert_eq!(count_after(Command::Down(Some(1))).await, 0);
    use_this_release();
}

/// Asserts that the `up` of this release repairs what `damage` has changed, and that the next release then upgrades.
async fn assert_upgrade_succeeds_after_repair(db: &DatabaseConnection, damage: &str) {
    use_this_release();
    run(&db.into(), Command::Up(None)).await.unwrap();
    assert!(check(db).await.unwrap().is_clean(), "{damage}");
    use_next_release();
    run(&db.into(), Command::Up(None)).await.unwrap();
    assert!(check(db).await.unwrap().is_clean(), "{damage}");
    use_this_release();
}

#[tokio::test]
async fn a_damaged_list_of_migrations_must_be_repaired_before_an_upgrade() {
    for sql in ["DELETE FROM public.sparc_migrations", "ALTER TABLE public.sparc_migrations DROP COLUMN version"] {
        let (_database, db) = create_database_of_earlier_release().await;
        db.execute_unprepared(sql).await.unwrap();
        use_next_release();
        let message = run(&(&db).into(), Command::Up(None)).await.unwrap_err().to_string();
        assert!(message.contains("run `up` of version"), "{sql}: {message}");
        assert_upgrade_succeeds_after_repair(&db, sql).await;
    }
}

#[tokio::test]
async fn the_sql_of_a_dry_run_upgrades_a_schema() {
    let (_database, db) = create_database_of_earlier_release().await;
    use_next_release();
    let sql = dry_run(&(&db).into()).await.unwrap();
    assert_eq!(check(&db).await.unwrap().pending, [Migration.name()], "a dry run must change nothing");
    db.execute_unprepared(&sql).await.unwrap();
    assert!(check(&db).await.unwrap().is_clean());
    assert_eq!(dry_run(&(&db).into()).await.unwrap(), "");
}

/// The record lists a policy of an earlier release that this version does not have. As long as the policy exists, it
/// gives access.
#[tokio::test]
async fn an_upgrade_drops_what_the_new_version_no_longer_has() {
    for applies_script in [false, true] {
        let (_database, db) = create_database_of_earlier_release().await;
        let sql = "CREATE POLICY former ON public.users FOR SELECT TO anon USING (true);
            UPDATE private.sparc_record SET value = value || E'\\npolicy former on public.users' WHERE name = 'objects'";
        db.execute_unprepared(sql).await.unwrap();
        use_next_release();
        if applies_script {
            db.execute_unprepared(&dry_run(&(&db).into()).await.unwrap()).await.unwrap();
        } else {
            let changes = run(&(&db).into(), Command::Up(None)).await.unwrap();
            assert!(
                changes.contains(&SchemaChange::Dropped("policy former on public.users".to_owned())),
                "{changes:?}"
            );
            let repairs_of_record = changes.iter().filter(|change| change.to_string().contains("sparc_record"));
            assert_eq!(repairs_of_record.count(), 0, "{changes:?}");
        }
        let policy_exists_sql = "SELECT EXISTS (SELECT FROM pg_policy WHERE polname = 'former') AS answer";
        assert!(!query::fetch_bool(&db, policy_exists_sql).await.unwrap());
        assert!(check(&db).await.unwrap().is_clean());
        use_this_release();
    }
}

/// Few servers offer `pg_cron`, so the database has a stand-in for it.
#[tokio::test]
async fn an_upgrade_schedules_the_jobs_if_pg_cron_was_installed_since_the_last_up() {
    for applies_script in [false, true] {
        let (_database, db) = create_database_of_earlier_release().await;
        db.execute_unprepared(include_str!("../../../tests/migrations/pg_cron.sql")).await.unwrap();
        use_next_release();
        if applies_script {
            db.execute_unprepared(&dry_run(&(&db).into()).await.unwrap()).await.unwrap();
        } else {
            run(&(&db).into(), Command::Up(None)).await.unwrap();
        }
        let job_names = query::fetch_names(&db, "SELECT jobname AS name FROM cron.job").await.unwrap();
        assert_eq!(job_names.len(), repeatable::jobs().len());
        assert!(check(&db).await.unwrap().is_clean());
        use_this_release();
    }
}

#[tokio::test]
async fn a_damaged_record_must_be_repaired_before_an_upgrade() {
    for sql in [
        "DELETE FROM private.sparc_record WHERE name = 'migrations'",
        "DELETE FROM private.sparc_record WHERE name = 'objects'",
        "DELETE FROM private.sparc_record WHERE name = 'version'",
        "TRUNCATE private.sparc_record",
        "ALTER TABLE private.sparc_record DROP COLUMN value",
        "DROP TABLE private.sparc_record",
        "DELETE FROM private.sparc_record WHERE name = 'version'; DROP TABLE public.sparc_migrations",
        "DELETE FROM private.sparc_record WHERE name = 'version';
         ALTER TABLE public.sparc_migrations DROP COLUMN version",
    ] {
        let (_database, db) = create_database_of_earlier_release().await;
        db.execute_unprepared(sql).await.unwrap();
        use_next_release();
        for outcome in [run(&(&db).into(), Command::Up(None)).await.map(drop), dry_run(&(&db).into()).await.map(drop)] {
            let message = outcome.unwrap_err().to_string();
            assert!(message.contains("sparc_record") && message.contains("run `up` of "), "{sql}: {message}");
        }
        assert_upgrade_succeeds_after_repair(&db, sql).await;
    }
}

/// A query for whether a role of the API may read or write a table or view of the schema, or a column of one. (The view
/// `names` is an operator's.)
const HAS_ACCESS_SQL: &str = "SELECT EXISTS (
    SELECT
    FROM pg_class
    CROSS JOIN unnest(ARRAY['anon', 'authenticated', 'service_role']) AS role (name)
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS checked (privilege)
    WHERE relnamespace = 'public'::regnamespace
      AND relkind IN ('r', 'v')
      AND relname <> 'names'
      AND (
        has_any_column_privilege(role.name, pg_class.oid, privilege)
        OR has_table_privilege(role.name, pg_class.oid, 'DELETE, TRUNCATE, TRIGGER')
      )
  ) AS answer";

/// Inserts a character of the only account, as its user.
async fn insert_character(db: &DatabaseConnection) -> Result<(), DbErr> {
    let transaction = db.begin().await?;
    let sql = "SELECT set_config('request.jwt.claims', json_build_object('sub', id)::text, true) FROM auth.users;
        SET LOCAL ROLE authenticated;
        INSERT INTO public.characters (user_id, name, class, might, grace, wit, heart, special_ability)
        SELECT auth.uid(), 'Brunhild', 'warrior', 2, 2, 2, 2, '{}'";
    transaction.execute_unprepared(sql).await?;
    transaction.commit().await
}

/// If `down` undoes a migration but keeps the tables, it drops the functions, and with them the triggers, restrictive
/// policies and constraints that limit what users write.
#[tokio::test]
async fn after_a_partial_down_users_have_no_access_until_the_next_up() {
    for next_step in ["up", "script", "up of this release"] {
        let (_database, db) = create_database_of_earlier_release().await;
        use_next_release();
        run(&(&db).into(), Command::Up(None)).await.unwrap();
        let has_no_policies_sql = "SELECT count(*) = 0 AS answer FROM pg_policies WHERE schemaname = 'public'";
        // The next release has a higher version. Its `down` must delete that version from the record; otherwise the
        // `up` of this release would refuse the database.
        let record_newer_version_sql = "UPDATE private.sparc_record SET value = '0.99.0' WHERE name = 'version'";
        db.execute_unprepared(record_newer_version_sql).await.unwrap();

        run(&(&db).into(), Command::Down(Some(1))).await.unwrap();
        let error = insert_character(&db).await.unwrap_err().to_string();
        assert!(error.contains("permission denied for table characters"), "{error}");
        assert!(!query::fetch_bool(&db, HAS_ACCESS_SQL).await.unwrap());
        assert!(query::fetch_bool(&db, has_no_policies_sql).await.unwrap(), "no policy must be left");

        match next_step {
            "up" => drop(run(&(&db).into(), Command::Up(None)).await.unwrap()),
            "script" => drop(db.execute_unprepared(&dry_run(&(&db).into()).await.unwrap()).await.unwrap()),
            _ => {
                use_this_release();
                run(&(&db).into(), Command::Up(None)).await.unwrap();
            }
        }
        let report = check(&db).await.unwrap();
        assert!(report.is_clean(), "{next_step}: {report:#?}");
        insert_character(&db).await.unwrap();
        let violations = db.query_all_raw(Statement::from_string(DbBackend::Postgres, INVARIANTS)).await.unwrap();
        assert_eq!(violations.len(), 0, "{next_step}");
        use_this_release();
    }
}
