//! Objects of a stranger (a role that does not own our objects) that imitate ours: no command adopts such an object,
//! and none refuses to run because of it. A renamed table, column or PostgreSQL schema of ours is recognized by its
//! comment, but only if it belongs to the owner of our objects.

use sea_orm::ConnectionTrait;
use sparc::migration::{check, sea_orm_migration::MigratorTrait};

use super::{Migrator, drift::create_migrated_database, query_lines};

/// Returns SQL that plants, in the given schema, a table that has the comment of `public.creatures`. `pg_monitor`
/// stands for the stranger: every server has this role, so no test has to create one.
fn plant_table_sql(schema: &str) -> String {
    format!(
        "CREATE TABLE {schema}.planted (id uuid, armor integer);
         ALTER TABLE {schema}.planted OWNER TO pg_monitor;
         DO $$ BEGIN EXECUTE format(
           'COMMENT ON TABLE {schema}.planted IS %L', obj_description('public.creatures'::regclass)
         ); END $$;"
    )
}

const SELECT_OWNER_OF_PLANTED_TABLE: &str = "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'planted'";

#[tokio::test]
async fn up_creates_a_missing_table_instead_of_adopting_the_table_of_a_stranger() {
    for schema in ["public", "elsewhere"] {
        let (_database, owner, superuser) = create_migrated_database().await;
        superuser
            .execute_unprepared(&format!(
                "CREATE SCHEMA elsewhere; {} DROP TABLE public.creatures CASCADE",
                plant_table_sql(schema)
            ))
            .await
            .unwrap();
        let report = check(&owner).await.unwrap();
        assert!(!report.is_clean(), "the dropped table must be reported");
        assert!(report.differences.iter().all(|difference| difference.renamed_to.is_none()), "{report:#?}");
        Migrator::up(&owner, None).await.unwrap();
        assert!(check(&owner).await.unwrap().is_clean(), "planted in {schema}");
        assert_eq!(query_lines(&owner, SELECT_OWNER_OF_PLANTED_TABLE).await, ["pg_monitor"], "planted in {schema}");
    }
}

#[tokio::test]
async fn a_strangers_table_with_our_comment_prevents_neither_up_nor_reset() {
    let (_database, owner, superuser) = create_migrated_database().await;
    superuser.execute_unprepared(&plant_table_sql("public")).await.unwrap();
    // The missing trigger gives `up` something to repair.
    superuser.execute_unprepared("DROP TRIGGER set_updated_at ON public.users").await.unwrap();
    Migrator::up(&owner, None).await.unwrap();
    assert!(check(&owner).await.unwrap().is_clean());
    superuser.execute_unprepared("COMMENT ON TABLE public.creatures IS NULL").await.unwrap();
    Migrator::up(&owner, None).await.unwrap();
    assert!(check(&owner).await.unwrap().is_clean(), "`up` must restore the comment of our table");
    Migrator::reset(&owner).await.unwrap();
    assert_eq!(query_lines(&owner, SELECT_OWNER_OF_PLANTED_TABLE).await, ["pg_monitor"]);
}

#[tokio::test]
async fn up_creates_a_missing_schema_instead_of_adopting_the_schema_of_a_stranger() {
    let (_database, owner, superuser) = create_migrated_database().await;
    superuser
        .execute_unprepared(
            "CREATE SCHEMA planted;
             DO $$ BEGIN EXECUTE format(
               'COMMENT ON SCHEMA planted IS %L', obj_description('private'::regnamespace, 'pg_namespace')
             ); END $$;
             ALTER SCHEMA planted OWNER TO pg_monitor;
             DROP SCHEMA private CASCADE",
        )
        .await
        .unwrap();
    Migrator::up(&owner, None).await.unwrap();
    assert!(check(&owner).await.unwrap().is_clean());
    let select_owner = "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'planted'";
    assert_eq!(query_lines(&owner, select_owner).await, ["pg_monitor"]);
}
