//! A database connection that runs SQL text, and returns rows and times.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sea_orm::sqlx::{
    self, AssertSqlSafe, Connection, Executor, PgConnection, Row,
    postgres::{PgConnectOptions, PgRow},
};

use crate::failure::Failure;

/// A connection to a database of a server that the benchmark has started.
#[derive(Debug)]
pub struct Client {
    connection: PgConnection,
}

impl Client {
    /// Connects to the database at `url`. The role in the URL must be a superuser, because the measurements set roles
    /// and disable triggers.
    pub async fn open(url: &str) -> Result<Self, Failure> {
        let options: PgConnectOptions = url.parse()?;
        Ok(Self { connection: PgConnection::connect_with(&options).await? })
    }

    /// Runs statements, and returns the total number of rows that they returned.
    pub async fn run(&mut self, sql: &str) -> Result<u64, Failure> {
        let mut results = self.connection.fetch_many(sqlx::raw_sql(AssertSqlSafe(sql)));
        let mut row_count = 0;
        while let Some(result_or_row) = results.try_next().await.map_err(|error| Failure::in_statement(sql, error))? {
            row_count += u64::from(result_or_row.is_right());
        }
        Ok(row_count)
    }

    /// Runs statements. Returns the time from sending them until the last response, and the total number of rows.
    pub async fn run_timed(&mut self, sql: &str) -> Result<(Duration, u64), Failure> {
        let start = Instant::now();
        let row_count = self.run(sql).await?;
        Ok((start.elapsed(), row_count))
    }

    /// Runs a query, and returns its rows, each column as text; NULL is an empty string.
    pub async fn fetch_rows(&mut self, sql: &str) -> Result<Vec<Vec<String>>, Failure> {
        let rows = self.connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql))).await;
        rows.map_err(|error| Failure::in_statement(sql, error))?.iter().map(values_as_text).collect()
    }

    /// Runs a query, and returns the first column of the first row, or an empty string if there is no row.
    pub async fn fetch_value(&mut self, sql: &str) -> Result<String, Failure> {
        Ok(self.fetch_rows(sql).await?.into_iter().next().and_then(|row| row.into_iter().next()).unwrap_or_default())
    }

    /// Runs a query, and returns the first column of the first row as a number, or 0 if there is no row or the value is
    /// not a number.
    pub async fn fetch_number(&mut self, sql: &str) -> Result<f64, Failure> {
        Ok(self.fetch_value(sql).await?.parse().unwrap_or_default())
    }

    /// Returns the process id of the postmaster, whose child processes run the statements. `None` if the server's file
    /// `postmaster.pid` does not begin with a number.
    pub async fn postmaster_pid(&mut self) -> Result<Option<u32>, Failure> {
        let pid_file = self.fetch_value("SELECT pg_read_file('postmaster.pid')").await?;
        Ok(pid_file.lines().next().and_then(|line| line.parse().ok()))
    }

    /// Copies chunks of rows in COPY's text format into a table, and returns the number of rows. `copy_target` is the
    /// name of the table, followed by the list of columns in parentheses.
    pub async fn copy_in(&mut self, copy_target: &str, chunks: impl Iterator<Item = String>) -> Result<u64, Failure> {
        let copy_sql = format!("COPY {copy_target} FROM STDIN");
        let mut copy =
            self.connection.copy_in_raw(&copy_sql).await.map_err(|error| Failure::in_statement(&copy_sql, error))?;
        for chunk in chunks {
            copy.send(chunk.into_bytes()).await?;
        }
        copy.finish().await.map_err(|error| Failure::in_statement(&copy_sql, error))
    }

    /// Closes the connection.
    pub async fn close(self) -> Result<(), Failure> {
        Ok(self.connection.close().await?)
    }
}

/// Returns the values of a row of the simple query protocol, which sends every value as text.
fn values_as_text(row: &PgRow) -> Result<Vec<String>, Failure> {
    (0..row.len())
        .map(|column| {
            let value = row.try_get_raw(column)?;
            Ok(sqlx::postgres::PgValueRef::as_str(&value).map(str::to_owned).unwrap_or_default())
        })
        .collect()
}
