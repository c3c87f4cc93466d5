//! A column whose type somebody has changed: `up` restores the type only if no value would change.

use sea_orm::{ConnectionTrait, DatabaseConnection};
use sparc::migration::{
    self, MANIFEST,
    sea_orm_migration::{IntoSchemaManagerConnection, MigratorTrait},
};
use testdb::Database;

use super::{
    Migrator,
    drift::{create_migrated_database, up_refusal},
    query_lines,
};

/// Creates a migrated database with one creature, and connects to it as its owner and as a superuser.
async fn create_database_with_creature() -> (Database, DatabaseConnection, DatabaseConnection) {
    let (database, owner, superuser) = create_migrated_database().await;
    superuser
        .execute_unprepared(
            "ALTER TABLE public.creatures DISABLE TRIGGER ALL;
             INSERT INTO public.creatures (adventure_id, name, armor, hit_points)
             VALUES (gen_random_uuid(), 'Wolf', 2, 6);
             ALTER TABLE public.creatures ENABLE TRIGGER ALL",
        )
        .await
        .unwrap();
    (database, owner, superuser)
}

/// SQL that changes the type of a column and writes a value that our type cannot hold, and how the message names the
/// column.
const UNRESTORABLE_TYPE_CHANGES: &[(&str, &str)] = &[
    (
        "ALTER TABLE public.creatures ALTER armor TYPE numeric; UPDATE public.creatures SET armor = 2.5",
        "column armor of public.creatures",
    ),
    (
        "ALTER TABLE public.creatures ALTER armor TYPE double precision; UPDATE public.creatures SET armor = 2.25",
        "column armor of public.creatures",
    ),
    (
        "ALTER TABLE public.archived_sessions ALTER code TYPE text;
         INSERT INTO public.archived_sessions (id, code, adventure_id, seer_id)
         SELECT gen_random_uuid(), 'ABCDEFG', gen_random_uuid(), gen_random_uuid()",
        "column code of public.archived_sessions",
    ),
    (
        "DROP POLICY \"Archived sessions visible to participants or public\" ON public.archived_sessions;
         ALTER TABLE public.archived_sessions ALTER is_public DROP DEFAULT, ALTER is_public TYPE integer USING 0;
         INSERT INTO public.archived_sessions (id, code, adventure_id, seer_id, is_public)
         SELECT gen_random_uuid(), 'ABCDEF', gen_random_uuid(), gen_random_uuid(), 5",
        "column is_public of public.archived_sessions",
    ),
    // PostgreSQL would round the seventh digit.
    (
        "ALTER TABLE public.creatures ALTER created_at DROP DEFAULT, DROP CONSTRAINT bounded_times,
           ALTER created_at TYPE text;
         UPDATE public.creatures SET created_at = '2026-01-02 03:04:05.1234567+00'",
        "column created_at of public.creatures",
    ),
];

#[tokio::test]
async fn up_refuses_to_restore_a_type_if_a_value_would_change() {
    for (sql, column) in UNRESTORABLE_TYPE_CHANGES {
        let (_database, owner, superuser) = create_database_with_creature().await;
        superuser.execute_unprepared(&format!("SET session_replication_role = replica; {sql}")).await.unwrap();
        let select_rows = "SELECT creatures::text FROM public.creatures
            UNION ALL SELECT archived_sessions::text FROM public.archived_sessions";
        let rows_before = query_lines(&superuser, select_rows).await;
        let message = up_refusal(&owner).await;
        assert!(message.contains(column) && message.contains("values of 1 row"), "{sql}: {message}");
        let script = migration::dry_run(&(&owner).into_database_executor()).await.unwrap();
        let error = owner.execute_unprepared(&script).await.unwrap_err().to_string();
        assert!(error.contains("values of 1 row"), "{sql}: {error}");
        owner.execute_unprepared("ROLLBACK").await.unwrap();
        assert_eq!(query_lines(&superuser, select_rows).await, rows_before, "{sql}");
    }
}

#[tokio::test]
async fn up_restores_a_type_that_can_hold_every_value() {
    let (_database, owner, superuser) = create_database_with_creature().await;
    superuser
        .execute_unprepared(
            "ALTER TABLE public.creatures DROP CONSTRAINT creatures_hit_points_check;
             ALTER TABLE public.creatures
               ALTER armor TYPE numeric, ALTER hit_points DROP DEFAULT, ALTER hit_points TYPE text,
               ALTER created_at TYPE timestamp, ALTER id DROP DEFAULT;
             ALTER TABLE public.tutorial_progress ALTER completed_steps TYPE varchar(20)[];
             ALTER TABLE public.archived_sessions ALTER game_state DROP DEFAULT, ALTER game_state TYPE json;
             SET session_replication_role = replica;
             UPDATE public.creatures SET armor = 3.0, created_at = '2026-01-02 03:04:05.678'",
        )
        .await
        .unwrap();
    Migrator::up(&owner, None).await.unwrap();
    assert_eq!(migration::full_manifest_of(&owner).await.unwrap(), MANIFEST);
    let select_values = "SELECT concat_ws(' ', armor, hit_points, created_at AT TIME ZONE 'UTC') FROM public.creatures";
    assert_eq!(query_lines(&owner, select_values).await, ["3 6 2026-01-02 03:04:05.678"]);
}
