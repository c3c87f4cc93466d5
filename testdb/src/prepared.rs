//! What a client prepared on its connection: the statements of the service as the server was sent them.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement};

/// A statement with parameters `$1`, `$2` and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Its text.
    pub sql: String,
    /// The types of its parameters, with commas.
    pub types: String,
}

impl Prepared {
    /// The statement that prepares it again by that name.
    #[must_use]
    pub fn again(&self, name: &str) -> String {
        let types = if self.types.is_empty() { String::new() } else { format!(" ({})", self.types) };
        format!("PREPARE {name}{types} AS {}", self.sql)
    }

    /// Whether it puts an identity on rather than asks anything.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.sql.starts_with("SELECT set_config(")
    }
}

/// What was prepared on the one connection of a pool, the first first.
///
/// # Errors
///
/// The server is gone.
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
