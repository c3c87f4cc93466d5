//! The statements that a client prepared on its connection, as the server received them.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement};

/// A statement with parameters `$1`, `$2` and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The text of the statement.
    pub sql: String,
    /// The types of its parameters, separated by commas.
    pub types: String,
}

impl Prepared {
    /// Returns the `PREPARE` statement that prepares it under a name.
    #[must_use]
    pub fn prepare_statement(&self, name: &str) -> String {
        let types = if self.types.is_empty() { String::new() } else { format!(" ({})", self.types) };
        format!("PREPARE {name}{types} AS {}", self.sql)
    }

    /// Returns whether the statement sets the role of a transaction.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.sql.starts_with("SELECT set_config(")
    }
}

/// Returns the statements prepared on the single connection of a pool, in order of preparation.
///
/// # Errors
///
/// The server is down.
pub async fn prepared(pool_of_one: &DatabaseConnection) -> Result<Vec<Prepared>, DbErr> {
    let sql = "SELECT statement, array_to_string(parameter_types, ', ')
        FROM pg_catalog.pg_prepared_statements
        WHERE statement NOT LIKE '%pg_prepared_statements%'
        ORDER BY prepare_time";
    pool_of_one
        .query_all_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await?
        .iter()
        .map(|row| Ok(Prepared { sql: row.try_get_by_index(0)?, types: row.try_get_by_index(1)? }))
        .collect()
}
