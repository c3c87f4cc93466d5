//! The statements that a client prepared on its connection, as the server received them.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement};

/// A statement that a client prepared. Its parameters are `$1`, `$2` and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedStatement {
    /// The text of the statement.
    pub sql: String,
    /// The types of its parameters, separated by `, `.
    pub types: String,
}

impl PreparedStatement {
    /// Returns the text of a `PREPARE` that prepares the statement under the given name.
    #[must_use]
    pub fn prepare_sql(&self, name: &str) -> String {
        let types = if self.types.is_empty() { String::new() } else { format!(" ({})", self.types) };
        format!("PREPARE {name}{types} AS {}", self.sql)
    }

    /// Returns whether the statement changes only the role, and not the settings that policies read. (The role and the
    /// settings together are an identity.) To run one statement of a transaction as a different role, the crate `rls`
    /// changes the role before that statement and restores it afterwards, with prepared statements of this kind.
    #[must_use]
    pub fn changes_only_role(&self) -> bool {
        // No other prepared statement begins like this. The SQL that sets a whole identity is never prepared.
        self.sql.starts_with("SELECT set_config(")
    }
}

/// Returns the statements that are prepared on the only connection of the pool, the oldest first, without those that
/// read `pg_prepared_statements`, such as this function's own query.
///
/// # Errors
///
/// The server is down.
pub async fn prepared_statements(single_connection: &DatabaseConnection) -> Result<Vec<PreparedStatement>, DbErr> {
    let sql = "SELECT statement, array_to_string(parameter_types, ', ')
        FROM pg_catalog.pg_prepared_statements
        WHERE statement NOT LIKE '%pg_prepared_statements%'
        ORDER BY prepare_time";
    single_connection
        .query_all_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await?
        .iter()
        .map(|row| Ok(PreparedStatement { sql: row.try_get_by_index(0)?, types: row.try_get_by_index(1)? }))
        .collect()
}
