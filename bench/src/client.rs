//! A connection that runs SQL text and returns rows and times.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sea_orm::sqlx::{
    self, AssertSqlSafe, Connection, Executor, PgConnection, Row,
    postgres::{PgConnectOptions, PgRow},
};

use crate::Failure;

/// A connection to one of the databases.
#[derive(Debug)]
pub struct Client {
    connection: PgConnection,
}

impl Client {
    /// Connects as the superuser of the private server.
    pub async fn open(url: &str) -> Result<Self, Failure> {
        let options: PgConnectOptions = url.parse()?;
        Ok(Self { connection: PgConnection::connect_with(&options).await? })
    }

    /// Runs statements and returns the number of rows.
    pub async fn run(&mut self, sql: &str) -> Result<u64, Failure> {
        let mut rows = self.connection.fetch_many(sqlx::raw_sql(AssertSqlSafe(sql)));
        let mut count = 0;
        while let Some(step) = rows.try_next().await.map_err(|error| Failure::of(sql, error))? {
            count += u64::from(step.is_right());
        }
        Ok(count)
    }

    /// Runs statements and returns the time from sending them to the last response, and the number of rows.
    pub async fn time(&mut self, sql: &str) -> Result<(Duration, u64), Failure> {
        let begun = Instant::now();
        let rows = self.run(sql).await?;
        Ok((begun.elapsed(), rows))
    }

    /// Returns the rows, each column as text; NULL is an empty string.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<String>>, Failure> {
        let rows = self.connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql))).await;
        rows.map_err(|error| Failure::of(sql, error))?.iter().map(texts).collect()
    }

    /// Returns the first column of the first row.
    pub async fn value(&mut self, sql: &str) -> Result<String, Failure> {
        Ok(self.rows(sql).await?.into_iter().next().and_then(|row| row.into_iter().next()).unwrap_or_default())
    }

    /// Returns the first column of the first row as a number, or 0 if it is not a number.
    pub async fn number(&mut self, sql: &str) -> Result<f64, Failure> {
        Ok(self.value(sql).await?.parse().unwrap_or_default())
    }

    /// Copies chunks of rows in COPY's text format into a table.
    pub async fn copy(&mut self, into: &str, chunks: impl Iterator<Item = String>) -> Result<u64, Failure> {
        let statement = format!("COPY {into} FROM STDIN");
        let mut copy = self.connection.copy_in_raw(&statement).await.map_err(|error| Failure::of(&statement, error))?;
        for chunk in chunks {
            copy.send(chunk.into_bytes()).await?;
        }
        copy.finish().await.map_err(|error| Failure::of(&statement, error))
    }

    /// Closes the connection.
    pub async fn close(self) -> Result<(), Failure> {
        Ok(self.connection.close().await?)
    }
}

fn texts(row: &PgRow) -> Result<Vec<String>, Failure> {
    (0..row.len())
        .map(|column| {
            let value = row.try_get_raw(column)?;
            Ok(sqlx::postgres::PgValueRef::as_str(&value).map(str::to_owned).unwrap_or_default())
        })
        .collect()
}
