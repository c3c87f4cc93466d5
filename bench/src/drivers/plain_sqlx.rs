//! The operations in plain sqlx, as a careful author writes them: one pool, prepared statements, and a transaction with
//! the caller's role and claims.

use sea_orm::sqlx::{
    self, AssertSqlSafe, PgPool, Postgres,
    postgres::{PgArguments, PgPoolOptions, PgRow},
    query::Query,
};
use uuid::Uuid;

use super::{
    Operation, OptionalJson, POOL_SIZE, ResultUse,
    decode::{DecodeRow, LobbySession, Profile, Roll, SessionDetails},
    statements::{
        ATTRIBUTE, DIFFICULTY, HISTORY_LIMIT, HISTORY_PAGE_SIZE, LOBBY_PAGE_SIZE, PROFILE_LIMIT, ROLE, ROLL_TYPE,
        SET_IDENTITY_SQL, Statements, claims,
    },
};
use crate::{Failure, argument_sets::ArgumentSet};

/// The program in plain sqlx, with its pool of connections.
pub struct PlainSqlx {
    pool: PgPool,
    statements: Statements,
}

impl PlainSqlx {
    /// Creates the pool and connects to the database.
    pub async fn connect(url: &str, statements: Statements) -> Result<Self, Failure> {
        // By default, the pool pings a connection before each use, which would cost one more round trip per operation.
        let options = PgPoolOptions::new().max_connections(POOL_SIZE).test_before_acquire(false);
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
        let result = match operation {
            Operation::Profile => result_use.discard_or_convert(decode_one::<Profile>(&rows)?)?,
            Operation::Lobby => result_use.discard_or_convert(decode_page::<LobbySession>(&rows, LOBBY_PAGE_SIZE)?)?,
            Operation::Details => result_use.discard_or_convert(decode_one::<SessionDetails>(&rows)?)?,
            Operation::History => result_use.discard_or_convert(decode_page::<Roll>(&rows, HISTORY_PAGE_SIZE)?)?,
            Operation::Roll => result_use.discard_or_convert(decode_one::<Roll>(&rows)?)?,
        };
        transaction.commit().await?;
        Ok(result)
    }

    /// Returns the operation's query, with its values bound.
    fn bound_query(&self, operation: Operation, argument_set: &ArgumentSet) -> Query<'static, Postgres, PgArguments> {
        let query = sqlx::query(AssertSqlSafe(self.statements.for_operation(operation).sql.clone()));
        match operation {
            Operation::Profile => query.bind(argument_set.player).bind(PROFILE_LIMIT),
            Operation::Lobby => query,
            Operation::Details => query.bind(argument_set.session),
            Operation::History => query.bind(argument_set.session).bind(HISTORY_LIMIT),
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

fn decode_one<T: DecodeRow>(rows: &[PgRow]) -> Result<T, Failure> {
    let row = rows.first().ok_or_else(|| Failure::Message("a statement of plain sqlx returned no row".to_owned()))?;
    Ok(T::from_sqlx(row)?)
}

/// Decodes the rows of a page. A row beyond the page only shows that there is a next page; it is not decoded.
fn decode_page<T: DecodeRow>(rows: &[PgRow], page_size: usize) -> Result<Vec<T>, Failure> {
    Ok(rows.iter().take(page_size).map(T::from_sqlx).collect::<Result<_, _>>()?)
}
