//! Identities on a schema with tenants, identified by a setting.

#![allow(missing_docs)]

use rls::{Database, Error, Identity, IdentityConnection, Options};
use sea_orm::{ConnectionTrait, DbBackend, Statement, TransactionTrait};

/// Creates a database whose rows belong to tenants, and the role that they share.
async fn tenants() -> (testdb::Database, Database, String) {
    let database = testdb::Server::start().await.unwrap().empty().await.unwrap();
    let role = format!("tenant_{}", uuid::Uuid::new_v4().simple());
    let schema = format!(
        "CREATE ROLE {role};
         CREATE TABLE notes (tenant text DEFAULT current_setting('app.tenant'), text text NOT NULL);
         ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON notes TO {role} USING (tenant = current_setting('app.tenant', true));
         GRANT SELECT, INSERT ON notes TO {role}"
    );
    database.connect(1).await.unwrap().execute_unprepared(&schema).await.unwrap();
    let mut options = Options::default();
    options.max_connections = 2;
    let pool = Database::connect(database.url(), &options).await.unwrap();
    (database, pool, role)
}

fn tenant(pool: &Database, role: &str, name: &str) -> IdentityConnection {
    pool.as_identity(Identity::new(role.to_owned()).with_setting("app.tenant", name).with_setting("app.admin", ""))
}

async fn notes(who: &impl ConnectionTrait) -> usize {
    let all = Statement::from_string(DbBackend::Postgres, "SELECT text FROM notes");
    who.query_all_raw(all).await.unwrap().len()
}

fn code<T>(outcome: Result<T, sea_orm::DbErr>) -> &'static str {
    outcome.map_or_else(|error| Error::from(error).code(), |_| "done")
}

#[tokio::test]
async fn each_tenant_sees_its_own_rows_whatever_its_name() {
    let (_database, pool, role) = tenants().await;
    for name in ["acme", "o'hara", r"back\slash", "'; RESET ROLE; --", ""] {
        let who = tenant(&pool, &role, name);
        who.execute_unprepared("INSERT INTO notes (text) VALUES ('hello')").await.unwrap();
        assert_eq!(notes(&who).await, 1, "{name}");
    }
    assert_eq!(notes(&tenant(&pool, &role, "other")).await, 0);
    pool.close().await.unwrap();
    assert_eq!(code(tenant(&pool, &role, "acme").begin().await), "pool_closed");
}

#[tokio::test]
async fn the_settings_of_an_identity_are_verified_and_not_left_over() {
    let (_database, pool, role) = tenants().await;
    let (acme, other) = (tenant(&pool, &role, "acme"), tenant(&pool, &role, "other"));
    other.execute_unprepared("INSERT INTO notes (text) VALUES ('hello')").await.unwrap();
    for change in ["SET LOCAL app.tenant = 'other'", "SET app.tenant = 'other'", "SET app.admin = 'yes'", "RESET ROLE"]
    {
        let tx = acme.begin().await.unwrap();
        assert_eq!(code(tx.execute_unprepared(change).await), "identity_changed", "{change}");
        assert_eq!(code(tx.commit().await), "identity_changed", "{change}");
        assert_eq!(code(acme.execute_unprepared(change).await), "identity_changed", "{change}");
        assert_eq!(notes(&acme).await, 0, "{change}");
    }
}

#[tokio::test]
async fn nested_transactions_form_a_stack() {
    let (_database, pool, role) = tenants().await;
    let acme = tenant(&pool, &role, "acme");
    let insert = "INSERT INTO notes (text) VALUES ('hello')";
    let outer = acme.begin().await.unwrap();
    outer.execute_unprepared(insert).await.unwrap();
    let inner = outer.begin().await.unwrap();
    inner.execute_unprepared(insert).await.unwrap();
    assert_eq!(code(outer.execute_unprepared(insert).await), "nested_transaction_open");
    assert_eq!(code(inner.execute_unprepared("SELECT 1 / 0").await), "database");
    assert_eq!(code(inner.commit().await), "transaction_failed");
    assert_eq!(notes(&outer).await, 1);
    outer.commit().await.unwrap();
    assert_eq!(notes(&acme).await, 1);
}

#[tokio::test]
async fn a_role_that_the_login_cannot_assume_fails_with_misconfigured() {
    let (_database, pool, _) = tenants().await;
    let nobody = pool.as_identity(Identity::new("no_such_role"));
    assert_eq!(code(nobody.execute_unprepared("SELECT 1").await), "misconfigured");
    let external = Database::from_connection(sea_orm::DatabaseConnection::default());
    assert_eq!(code(external.as_identity(Identity::new("any")).begin().await), "misconfigured");
}
