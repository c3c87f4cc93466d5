//! The operations in plain sqlx, as a careful author writes them: one pool, prepared statements, and a transaction with
//! the caller's role and claims.

use sea_orm::sqlx::{
    self, AssertSqlSafe, PgPool, Postgres,
    postgres::{PgArguments, PgPoolOptions},
    query::Query,
};
use uuid::Uuid;

use super::{
    decode::decode_result,
    operation::{Operation, OptionalJson, ResultUse},
    statements::{
        ATTRIBUTE, DIFFICULTY, HISTORY_ROW_LIMIT, PROFILE_ROW_LIMIT, ROLE, ROLL_TYPE, SET_IDENTITY_SQL, Statements,
        claims,
    },
};
use crate::{argument_sets::ArgumentSet, failure::Failure};

/// The implementation in plain sqlx (one of the *programs* that the report compares), with its pool of connections.
pub struct PlainSqlx {
    pool: PgPool,
    statements: Statements,
}

impl PlainSqlx {
    /// Creates the pool, of the given size, and connects to the database.
    pub async fn connect(url: &str, pool_size: u32, statements: Statements) -> Result<Self, Failure> {
        // By default, the pool pings a connection before each use, which would cost one more round trip per operation.
        let options = PgPoolOptions::new().max_connections(pool_size).test_before_acquire(false);
        Ok(Self { pool: options.connect(url).await?, statements })
    }

    /// Runs an operation.
    pub async fn run(
        &self,
        operation: Operation,
        argument_set: &ArgumentSet,
        result_use: ResultUse,
    ) -> Result<OptionalJson, Failure> {
        let mut transaction = self.pool.begin().await?;
        let set_identity = sqlx::query(SET_IDENTITY_SQL).bind(ROLE).bind(claims(argument_set.player));
        set_identity.execute(&mut *transaction).await?;
        let rows = self.bound_query(operation, argument_set).fetch_all(&mut *transaction).await?;
        let result = decode_result(operation, &rows, result_use)?;
        transaction.commit().await?;
        Ok(result)
    }

    /// Returns the operation's query, with its values bound.
    fn bound_query(&self, operation: Operation, argument_set: &ArgumentSet) -> Query<'static, Postgres, PgArguments> {
        let query = sqlx::query(AssertSqlSafe(self.statements.for_operation(operation).sql.clone()));
        match operation {
            Operation::Profile => query.bind(argument_set.player).bind(PROFILE_ROW_LIMIT),
            Operation::Lobby => query,
            Operation::Details => query.bind(argument_set.session),
            Operation::History => query.bind(argument_set.session).bind(HISTORY_ROW_LIMIT),
            Operation::Roll => {
                let (roll_id, creature, modifiers) = (Uuid::new_v4(), None::<Uuid>, serde_json::json!([]));
                let description = None::<&str>;
                query
                    .bind(roll_id)
                    .bind(argument_set.session)
                    .bind(argument_set.character)
                    .bind(creature)
                    .bind(ATTRIBUTE)
                    .bind(DIFFICULTY)
                    .bind(ROLL_TYPE)
                    .bind(modifiers)
                    .bind(description)
            }
        }
    }
}
