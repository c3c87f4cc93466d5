//! The API's roles, and settings that disable triggers: both belong to the cluster, so these tests have servers of their
//! own.

use sea_orm::{ConnectionTrait, DatabaseConnection};
use sparc::migration::{
    self, SchemaChange, check, connect,
    sea_orm_migration::{IntoSchemaManagerConnection, MigratorTrait},
};
use testdb::{Database, Server};

use super::{
    Migrator,
    drift::{up, up_refusal},
    query_lines, refusal_message,
    scripts::run_program,
};

/// Creates a migrated database on a plain server of its own, and connects to it as the superuser, who owns it.
async fn create_migrated_database_on_own_server() -> (Server, Database, DatabaseConnection) {
    let server = Server::start_private(None).await.unwrap();
    let database = server.create_empty().await.unwrap();
    let db = connect(database.url()).await.unwrap();
    Migrator::up(&db, None).await.unwrap();
    (server, database, db)
}

#[tokio::test]
async fn an_api_role_that_was_changed_is_named_and_repaired() {
    let (_server, _database, db) = create_migrated_database_on_own_server().await;
    for (sql, object) in [
        ("ALTER ROLE anon BYPASSRLS", "role anon"),
        ("ALTER ROLE authenticated SUPERUSER", "role authenticated"),
        ("GRANT service_role TO authenticated", "role authenticated"),
        ("CREATE ROLE support BYPASSRLS; GRANT support TO anon", "role anon"),
        ("GRANT postgres TO anon", "role anon"),
        ("ALTER ROLE service_role NOBYPASSRLS", "role service_role"),
    ] {
        db.execute_unprepared(sql).await.unwrap();
        let report = check(&db).await.unwrap();
        // There may be more differences: privileges that come with the membership.
        assert!(report.differences.iter().any(|difference| difference.object == object), "{sql}: {report:#?}");
        let changes = up(&db).await;
        assert!(changes.contains(&SchemaChange::Changed(object.to_owned())), "{sql}: {changes:?}");
        assert!(check(&db).await.unwrap().is_clean(), "{sql}");
    }
}

#[tokio::test]
async fn a_setting_that_disables_triggers_is_named_and_reset() {
    let (_server, database, db) = create_migrated_database_on_own_server().await;
    let name = query_lines(&db, "SELECT quote_ident(current_database())").await.concat();
    db.execute_unprepared("CREATE ROLE users_login LOGIN; GRANT anon TO users_login; CREATE ROLE \"Other\"")
        .await
        .unwrap();
    for target in [
        format!("DATABASE {name}"),
        "ROLE ALL".to_owned(),
        format!("ROLE postgres IN DATABASE {name}"),
        "ROLE authenticated".to_owned(),
        "ROLE users_login".to_owned(),
    ] {
        db.execute_unprepared(&format!("ALTER {target} SET session_replication_role = Replica")).await.unwrap();
        // Only a new connection has the setting.
        let new_connection = connect(database.url()).await.unwrap();
        let report = check(&new_connection).await.unwrap();
        let objects: Vec<&str> = report.differences.iter().map(|difference| difference.object.as_str()).collect();
        assert_eq!(objects, ["session_replication_role"], "{target}");
        let script = migration::dry_run(&(&new_connection).into_database_executor()).await.unwrap();
        assert!(script.contains("SET LOCAL session_replication_role = origin"), "{script}");
        let changes = up(&new_connection).await;
        assert_eq!(changes, [SchemaChange::Changed("session_replication_role".to_owned())], "{target}");
        assert!(check(&connect(database.url()).await.unwrap()).await.unwrap().is_clean(), "{target}");
    }
    // The setting of a role that has nothing to do with the schema.
    db.execute_unprepared("ALTER ROLE \"Other\" SET session_replication_role = replica").await.unwrap();
    assert!(check(&db).await.unwrap().is_clean());
}

#[tokio::test]
async fn up_is_refused_on_a_connection_whose_options_disable_triggers() {
    let (server, database, db) = create_migrated_database_on_own_server().await;
    let empty_database = server.create_empty().await.unwrap();
    let with_option = |url: &str| {
        format!("{url}{}options=-csession_replication_role%3Dreplica", if url.contains('?') { "&" } else { "?" })
    };
    let connection = connect(&with_option(database.url())).await.unwrap();
    assert!(!check(&connection).await.unwrap().is_clean());
    let message = up_refusal(&connection).await;
    assert!(message.contains("session_replication_role") && message.contains("client"), "{message}");
    assert!(check(&db).await.unwrap().is_clean());

    let connection = connect(&with_option(empty_database.url())).await.unwrap();
    let message = refusal_message(Migrator::up(&connection, None).await.unwrap_err());
    assert!(message.contains("session_replication_role = replica"), "{message}");
    // The script sets the setting for its transaction.
    let url = with_option(empty_database.url());
    let Some(outcome) = run_program("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", &url], &migration::sql()) else {
        return;
    };
    outcome.unwrap();
    assert!(check(&connect(empty_database.url()).await.unwrap()).await.unwrap().is_clean());
}
