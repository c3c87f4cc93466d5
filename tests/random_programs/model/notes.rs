//! The insert into `notes`, a table that these tests create, and the assertion that a statement ran as its caller.

use sea_orm::{
    ConnectionTrait, DbBackend, QueryResult, Statement,
    sea_query::{Alias, Query},
};
use sparc::service::{Error, Transaction};
use uuid::Uuid;

/// How a row is inserted.
#[derive(Clone, Copy)]
pub(super) enum InsertMethod {
    RawSql,
    QueryBuilder,
}

impl InsertMethod {
    /// Returns one method for even keys and the other for odd ones, so that both are used.
    pub(super) fn for_key(key: i64) -> Self {
        if key % 2 == 0 { Self::RawSql } else { Self::QueryBuilder }
    }
}

pub(super) fn raw_statement(text: String) -> Statement {
    Statement::from_string(DbBackend::Postgres, text)
}

/// Inserts a row into `notes`. With raw SQL, also asserts the role and the user that inserted it.
pub(super) async fn insert(tx: &Transaction, key: i64, method: InsertMethod, user: Uuid) -> Result<(), Error> {
    match method {
        InsertMethod::RawSql => {
            let text = format!(
                "INSERT INTO notes (key) VALUES ({key}) RETURNING current_user::text AS role, auth.uid() AS id"
            );
            assert_caller(&tx.query_one_raw(raw_statement(text)).await?.unwrap(), user);
        }
        InsertMethod::QueryBuilder => {
            let mut insert = Query::insert();
            insert.into_table(Alias::new("notes")).columns([Alias::new("key")]).values_panic([key.into()]);
            assert_eq!(tx.execute(&insert).await?.rows_affected(), 1);
        }
    }
    Ok(())
}

/// Asserts that the statement which returned the row ran in the role and with the claims of the user.
pub(super) fn assert_caller(row: &QueryResult, user: Uuid) {
    assert_eq!(row.try_get::<String>("", "role").unwrap(), "authenticated");
    assert_eq!(row.try_get::<Uuid>("", "id").unwrap(), user);
}
