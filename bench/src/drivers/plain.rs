//! The operations in plain sqlx, as a careful author writes them: one pool, prepared statements, and a transaction with
//! the caller's role and claims.

use sea_orm::sqlx::{
    self, AssertSqlSafe, PgPool, Postgres,
    postgres::{PgArguments, PgPoolOptions, PgRow},
    query::Query,
};
use uuid::Uuid;

use super::{
    Answer, Operation, Output, POOL,
    statements::{ATTRIBUTE, DIFFICULTY, IDENTITY, KIND, ONE, ROLE, ROLLS, Statements, claims},
    typed::{DecodeRow, LobbySession, Profile, Roll, SessionDetails},
};
use crate::{Failure, samples::Sample};

/// The program's pool.
pub struct Plain {
    pool: PgPool,
    statements: Statements,
}

impl Plain {
    /// Connects.
    pub async fn connect(url: &str, statements: Statements) -> Result<Self, Failure> {
        // By default, the pool also pings each connection before it hands it out: one more round trip per operation.
        let options = PgPoolOptions::new().max_connections(POOL).test_before_acquire(false);
        Ok(Self { pool: options.connect(url).await?, statements })
    }

    /// Runs an operation.
    pub async fn run(&self, operation: Operation, sample: &Sample, output: Output) -> Result<Answer, Failure> {
        let mut transaction = self.pool.begin().await?;
        let identity = sqlx::query(IDENTITY).bind(ROLE).bind(claims(sample.player));
        identity.execute(&mut *transaction).await?;
        let rows = self.query(operation, sample).fetch_all(&mut *transaction).await?;
        let answer = match operation {
            Operation::Profile => output.convert(one::<Profile>(&rows)?)?,
            Operation::Lobby => output.convert(all::<LobbySession>(&rows, 20)?)?,
            Operation::Details => output.convert(one::<SessionDetails>(&rows)?)?,
            Operation::Rolls => output.convert(all::<Roll>(&rows, 50)?)?,
            Operation::Roll => output.convert(one::<Roll>(&rows)?)?,
        };
        transaction.commit().await?;
        Ok(answer)
    }

    fn query(&self, operation: Operation, sample: &Sample) -> Query<'static, Postgres, PgArguments> {
        let query = sqlx::query(AssertSqlSafe(self.statements.of(operation).sql.clone()));
        match operation {
            Operation::Profile => query.bind(sample.player).bind(ONE),
            Operation::Lobby => query,
            Operation::Details => query.bind(sample.session),
            Operation::Rolls => query.bind(sample.session).bind(ROLLS),
            Operation::Roll => query
                .bind(Uuid::new_v4())
                .bind(sample.session)
                .bind(sample.hero)
                .bind(None::<Uuid>)
                .bind(ATTRIBUTE)
                .bind(DIFFICULTY)
                .bind(KIND)
                .bind(serde_json::json!([]))
                .bind(None::<&str>),
        }
    }
}

fn one<T: DecodeRow>(rows: &[PgRow]) -> Result<T, Failure> {
    let row = rows.first().ok_or_else(|| Failure::Message("a statement of plain sqlx returned no row".to_owned()))?;
    Ok(T::from_sqlx(row)?)
}

fn all<T: DecodeRow>(rows: &[PgRow], limit: usize) -> Result<Vec<T>, Failure> {
    Ok(rows.iter().take(limit).map(T::from_sqlx).collect::<Result<_, _>>()?)
}
