//! A caller who runs plain SQL as `anon`, `authenticated` or `service_role`, or in the role that logged in (the
//! schema's owner, a superuser, or the login of `World::with_users_login`), and the errors that the database returns.

use std::sync::Arc;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, IsolationLevel, RuntimeErr, SqlxError, SqlxPostgresError,
    Statement, TransactionTrait, TryGetable,
};
use serde_json::json;
use testdb::Database;
use uuid::Uuid;

use crate::sqlstates::INSUFFICIENT_PRIVILEGE;

/// An error that the database returned.
#[derive(Debug, PartialEq, Eq)]
pub struct SqlError {
    pub sqlstate: String,
    /// The error's constraint name: that of the violated constraint, or the one that a trigger set with `RAISE ...
    /// USING CONSTRAINT`; empty if there is none.
    pub constraint: String,
    pub message: String,
    /// The error's DETAIL, empty if there is none.
    pub detail: String,
    /// The error's HINT, empty if there is none.
    pub hint: String,
}

/// Runs plain SQL in a database role and, for `authenticated`, with the claims of one user.
#[derive(Clone)]
pub struct SqlCaller {
    pub(super) db: DatabaseConnection,
    /// Keeps the database from being dropped while it is in use.
    pub(super) _database: Arc<Database>,
    /// The role; empty to stay in the role that logged in.
    pub(super) role: &'static str,
    /// The user, for the role `authenticated`.
    pub id: Option<Uuid>,
}

impl SqlCaller {
    /// Runs one or more statements in a transaction of their own and returns the number of affected rows.
    pub async fn execute(&self, sql: &str) -> Result<u64, SqlError> {
        let transaction = self.begin().await;
        let result = transaction.execute_unprepared(sql).await.map_err(into_sql_error)?;
        transaction.commit().await.map_err(into_sql_error)?;
        Ok(result.rows_affected())
    }

    /// Runs a query and returns the first column of its first row; panics if there is no row.
    pub async fn fetch_value<T: TryGetable>(&self, sql: &str) -> Result<T, SqlError> {
        let transaction = self.begin().await;
        let row = transaction
            .query_one_raw(Statement::from_string(DbBackend::Postgres, sql))
            .await
            .map_err(into_sql_error)?
            .unwrap_or_else(|| panic!("no row: {sql}"));
        transaction.commit().await.map_err(into_sql_error)?;
        Ok(row.try_get_by_index(0).unwrap())
    }

    /// Runs a query and returns the first column of each row.
    pub async fn fetch_values<T: TryGetable>(&self, sql: &str) -> Result<Vec<T>, SqlError> {
        let transaction = self.begin().await;
        let rows = transaction
            .query_all_raw(Statement::from_string(DbBackend::Postgres, sql))
            .await
            .map_err(into_sql_error)?;
        transaction.commit().await.map_err(into_sql_error)?;
        Ok(rows.into_iter().map(|row| row.try_get_by_index(0).unwrap()).collect())
    }

    /// Counts the rows of a query. `from` is the SQL that follows `FROM`.
    pub async fn count(&self, from: &str) -> i64 {
        self.fetch_value(&format!("SELECT count(*) FROM {from}")).await.unwrap()
    }

    /// Waits until at least `waiter_count` backends of this database wait for a lock. Call it on `World::owner`: other
    /// roles do not see what backends wait for.
    pub async fn wait_until_backends_wait_for_locks(&self, waiter_count: i64) {
        let lock_waiters = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        for _ in 0..400 {
            if self.count(lock_waiters).await >= waiter_count {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        panic!("fewer than {waiter_count} backends wait for a lock");
    }

    /// Asserts that no connection of the tests or of the crate `service` to this database stays idle in a transaction
    /// for more than two seconds. These connections have the same login as this caller, and `application_name` is empty
    /// or `sparc`. (A transaction that is dropped stays open until a background task has rolled it back and returned
    /// its connection to the pool.) Call this on `World::owner`: other roles do not see in which state backends are.
    pub async fn assert_no_transaction_stays_idle(&self) {
        let idle_in_transaction =
            "pg_stat_activity WHERE datname = current_database() AND usename = session_user AND client_port IS NOT NULL
                      AND application_name IN ('', 'sparc') AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'";
        for _ in 0..200 {
            if self.count(idle_in_transaction).await == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("a transaction stays open and idle");
    }

    /// Begins a READ COMMITTED transaction with this caller's role and claims.
    pub async fn begin(&self) -> sea_orm::DatabaseTransaction {
        self.begin_at(IsolationLevel::ReadCommitted).await
    }

    /// Begins a REPEATABLE READ transaction whose snapshot is taken at once.
    pub async fn begin_with_snapshot(&self) -> sea_orm::DatabaseTransaction {
        self.begin_and_take_snapshot(IsolationLevel::RepeatableRead).await
    }

    /// Begins a transaction at the given isolation level, REPEATABLE READ or SERIALIZABLE, and takes its snapshot at
    /// once.
    pub async fn begin_and_take_snapshot(&self, level: IsolationLevel) -> sea_orm::DatabaseTransaction {
        let transaction = self.begin_at(level).await;
        transaction.execute_unprepared("SELECT").await.unwrap();
        transaction
    }

    async fn begin_at(&self, level: IsolationLevel) -> sea_orm::DatabaseTransaction {
        let transaction = self.db.begin_with_config(Some(level), None).await.unwrap();
        if !self.role.is_empty() {
            let claims = json!({ "role": self.role, "sub": self.id });
            let sql = format!("SET LOCAL ROLE {}; SET LOCAL request.jwt.claims = '{claims}'", self.role);
            transaction.execute_unprepared(&sql).await.unwrap();
        }
        transaction
    }

    /// Returns the user's id; panics for a role without one.
    pub fn user_id(&self) -> Uuid {
        self.id.unwrap()
    }
}

impl SqlError {
    /// Returns whether the error has the SQLSTATE `insufficient_privilege`: a privilege is missing, or row security, a
    /// trigger or a function refused the statement.
    pub fn is_insufficient_privilege(&self) -> bool {
        self.sqlstate == INSUFFICIENT_PRIVILEGE
    }

    /// Returns whether the error has this SQLSTATE and constraint.
    pub fn has(&self, sqlstate: &str, constraint: &str) -> bool {
        self.sqlstate == sqlstate && self.constraint == constraint
    }
}

/// Converts an error of SeaORM; panics if it did not come from the database.
pub fn into_sql_error(error: DbErr) -> SqlError {
    let inner = match &error {
        DbErr::Exec(RuntimeErr::SqlxError(inner)) | DbErr::Query(RuntimeErr::SqlxError(inner)) => inner,
        _ => panic!("not an error of the database: {error}"),
    };
    let SqlxError::Database(error) = &**inner else { panic!("not an error of the database: {inner}") };
    let error = error.downcast_ref::<SqlxPostgresError>();
    SqlError {
        sqlstate: error.code().to_owned(),
        constraint: error.constraint().unwrap_or_default().to_owned(),
        message: error.message().to_owned(),
        detail: error.detail().unwrap_or_default().to_owned(),
        hint: error.hint().unwrap_or_default().to_owned(),
    }
}
