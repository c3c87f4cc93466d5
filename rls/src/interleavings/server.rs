//! A model of one PostgreSQL server process and of the driver in front of it: the open transaction, the saved rows, the
//! unread response. It records every broken rule instead of panicking, because a connection may also be dropped while a
//! panic unwinds, and a second panic would abort the process.
//!
//! The random programs of the parent module send four statements that only the model knows. `INSERT 7 AS user` writes
//! row 7, and must run in the role `user`. `INSERT 7 AS user, SWITCH` does the same, and then changes the role and
//! leaves the session unclean. `ROWS 6` returns six rows. `REFUSE` fails.

mod error;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use error::ServerError;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use sea_orm::sqlx::{self, Execute, postgres::PgQueryResult};
use shuttle::{future::yield_now, rand::Rng};

use crate::{
    identity::{IDENTITY_CHANGED_SQLSTATE, TRANSACTION_ENDED_SQLSTATE},
    server_process::ServerProcess,
    sqlstate,
    text_row::TextRow,
    wire::{Connection, PgQuery, SimpleQueryResponse},
};

/// The role of the identity under test.
pub(super) const USER_ROLE: &str = "user";

/// The model, shared by a connection to it and the test.
#[derive(Clone, Debug, Default)]
pub(super) struct Server(Arc<Mutex<State>>);

/// The state of the server process, of the driver in front of it, and of the network between them.
#[derive(Debug, Default)]
pub(super) struct State {
    transaction: Option<OpenTransaction>,
    /// The numbers of the rows that were committed.
    pub(super) saved_row_numbers: BTreeSet<u32>,
    /// Whether a statement changed the database session beyond the transaction.
    is_session_unclean: bool,
    /// The response that the driver has not read yet.
    unread: Option<Response>,
    /// Whether the end of a response is still unread, as after an error.
    must_finish_response: bool,
    /// Whether the connection may be lost, at random.
    pub(super) may_lose_connection: bool,
    is_connection_lost: bool,
    /// How many connections are neither returned nor discarded.
    pub(super) unreleased_connection_count: usize,
    pub(super) broken_rules: Vec<String>,
}

#[derive(Debug)]
struct OpenTransaction {
    role: String,
    /// The numbers of the rows that it has written.
    row_numbers: Vec<u32>,
    has_failed: bool,
    savepoints: Vec<Savepoint>,
}

/// A savepoint, with what a rollback to it restores.
#[derive(Debug)]
struct Savepoint {
    name: String,
    row_count: usize,
    role: String,
}

/// The response to a message.
#[derive(Debug, Default)]
struct Response {
    /// The number of statements that completed.
    completed_count: usize,
    /// The last row of a message's statements.
    last_row: Option<TextRow>,
    /// The number of rows of a stream.
    stream_row_count: u32,
    error: Option<ServerError>,
}

const NO_ACTIVE_SQL_TRANSACTION: ServerError = ServerError("25P01");
const IN_FAILED_SQL_TRANSACTION: ServerError = ServerError(sqlstate::IN_FAILED_SQL_TRANSACTION);
const INVALID_SAVEPOINT_SPECIFICATION: ServerError = ServerError("3B001");
const CHECK_VIOLATION: ServerError = ServerError("23514");

impl Server {
    pub(super) fn connect(&self) -> ModelConnection {
        self.state().unreleased_connection_count += 1;
        ModelConnection { server: self.clone(), is_discarded: false }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Executes the statements of a message at once, up to the first error. A call sends its message when it is first
    /// polled, so a call that is dropped later loses only the answer.
    fn send(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        if self.unread.is_some() || self.must_finish_response {
            self.broken_rules.push(format!("{sql:?} was sent before the last response was read"));
        }
        let loses_connection = self.may_lose_connection && shuttle::rand::thread_rng().gen_ratio(1, 30);
        let loses_message_too = loses_connection && shuttle::rand::thread_rng().r#gen();
        if loses_message_too {
            self.lose_connection();
        }
        if self.is_connection_lost {
            return Err(connection_lost_error());
        }
        let mut response = Response::default();
        for statement in sql.split("; ").map(str::trim).filter(|statement| !statement.is_empty()) {
            match self.run(statement, &mut response) {
                Ok(()) => response.completed_count += 1,
                Err(error) => {
                    if let Some(transaction) = &mut self.transaction {
                        transaction.has_failed = true;
                    }
                    response.error = Some(error);
                    break;
                }
            }
        }
        self.unread = Some(response);
        if loses_connection {
            self.lose_connection();
            return Err(connection_lost_error());
        }
        Ok(())
    }

    fn lose_connection(&mut self) {
        self.is_connection_lost = true;
        self.transaction = None;
    }

    /// Executes one statement. Statements that the model does not know do nothing.
    fn run(&mut self, statement: &str, response: &mut Response) -> Result<(), ServerError> {
        let words: Vec<&str> = statement.split(' ').collect();
        if let ["ROLLBACK"] | ["COMMIT"] = *words {
            let committed =
                self.transaction.take().filter(|transaction| words == ["COMMIT"] && !transaction.has_failed);
            self.saved_row_numbers.extend(committed.into_iter().flat_map(|transaction| transaction.row_numbers));
            return Ok(());
        }
        if words[0] == "BEGIN" {
            if self.transaction.is_some() {
                self.broken_rules.push("BEGIN in a transaction".to_owned());
            }
            let role = "login".to_owned();
            self.transaction =
                Some(OpenTransaction { role, row_numbers: Vec::new(), has_failed: false, savepoints: Vec::new() });
            return Ok(());
        }
        // The query that counts prepared statements. The model has none.
        if statement.starts_with("SELECT count(*) FILTER") {
            response.last_row = Some(integer_row([0; 3]));
        }
        let Some(transaction) = &mut self.transaction else {
            // The SQL that cleans the database session begins with this statement.
            if statement == "SET SESSION AUTHORIZATION DEFAULT" {
                self.is_session_unclean = false;
            }
            return match *words {
                ["INSERT" | "ROWS", ..] => {
                    self.broken_rules.push(format!("{statement:?} ran outside of a transaction"));
                    Ok(())
                }
                ["SAVEPOINT" | "RELEASE", ..] | ["ROLLBACK", "TO", ..] => Err(NO_ACTIVE_SQL_TRANSACTION),
                // The check of the identity: before a COMMIT, or after a raw statement.
                ["SELECT", "CASE", ..] => Err(ServerError(TRANSACTION_ENDED_SQLSTATE)),
                _ => Ok(()),
            };
        };
        if let ["ROLLBACK", "TO", "SAVEPOINT", name] = *words {
            let Some(index) = transaction.savepoints.iter().rposition(|savepoint| savepoint.name == name) else {
                return Err(INVALID_SAVEPOINT_SPECIFICATION);
            };
            transaction.savepoints.truncate(index + 1);
            transaction.row_numbers.truncate(transaction.savepoints[index].row_count);
            transaction.role.clone_from(&transaction.savepoints[index].role);
            transaction.has_failed = false;
            return Ok(());
        }
        if transaction.has_failed {
            return Err(IN_FAILED_SQL_TRANSACTION);
        }
        match *words {
            ["SAVEPOINT", name] => transaction.savepoints.push(Savepoint {
                name: name.to_owned(),
                row_count: transaction.row_numbers.len(),
                role: transaction.role.clone(),
            }),
            ["RELEASE", "SAVEPOINT", name] => {
                let index = transaction
                    .savepoints
                    .iter()
                    .rposition(|savepoint| savepoint.name == name)
                    .ok_or(INVALID_SAVEPOINT_SPECIFICATION)?;
                transaction.savepoints.truncate(index);
            }
            // The statements that set a role: with `num_nulls` when the transaction begins, without it later.
            ["SELECT", "set_config('role'," | "num_nulls(set_config('role',", role, ..] => {
                role.trim_end_matches(',').trim_matches('\'').clone_into(&mut transaction.role);
                let (process_id, start_time) = ("1".to_owned(), "started".to_owned());
                response.last_row = Some(TextRow(vec![Some(process_id), Some(start_time)]));
            }
            // If the text contains `pg_prepared_statements`, this is the query that verifies the identity; otherwise it
            // is the check before a COMMIT.
            ["SELECT", "CASE", ..] => {
                let is_changed = transaction.role != USER_ROLE;
                if statement.contains("pg_prepared_statements") {
                    response.last_row = Some(integer_row([is_changed.into(), 0, 0, 0]));
                } else if is_changed {
                    return Err(ServerError(IDENTITY_CHANGED_SQLSTATE));
                }
            }
            ["INSERT", row_number, "AS", role, ref rest @ ..] => {
                let role = role.trim_end_matches(',');
                if transaction.role != role {
                    self.broken_rules.push(format!("{statement:?} ran as {}", transaction.role));
                }
                transaction.row_numbers.push(row_number.parse().unwrap_or_default());
                if *rest == ["SWITCH"] {
                    "another".clone_into(&mut transaction.role);
                    self.is_session_unclean = true;
                }
            }
            ["REFUSE"] => return Err(CHECK_VIOLATION),
            ["ROWS", count] => response.stream_row_count = count.parse().unwrap_or_default(),
            _ => {}
        }
        Ok(())
    }

    /// Reads the response. After an error, its end remains unread.
    fn read(&mut self) -> Result<Response, sqlx::Error> {
        if self.is_connection_lost {
            return Err(connection_lost_error());
        }
        let response = self.unread.take().unwrap_or_default();
        self.must_finish_response = response.error.is_some();
        Ok(response)
    }
}

fn integer_row<const COUNT: usize>(columns: [i64; COUNT]) -> TextRow {
    TextRow(columns.map(|column| Some(column.to_string())).to_vec())
}

fn connection_lost_error() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())
}

/// The connection to the model.
#[derive(Debug)]
pub(super) struct ModelConnection {
    server: Server,
    is_discarded: bool,
}

impl ModelConnection {
    /// Sends a message, and reads the response.
    async fn exchange(&self, sql: &str) -> Result<Response, sqlx::Error> {
        self.server.state().send(sql)?;
        // The server answers later.
        yield_now().await;
        self.server.state().read()
    }
}

fn outcome(response: &Response) -> Result<(), sqlx::Error> {
    response.error.map_or(Ok(()), |error| Err(sqlx::Error::Database(Box::new(error))))
}

impl Connection for ModelConnection {
    type Row = u32;

    async fn simple_query(&mut self, sql: String, response: &mut SimpleQueryResponse) -> Result<(), sqlx::Error> {
        let model_response = self.exchange(&sql).await?;
        response.completed_count = model_response.completed_count;
        response.last_row.clone_from(&model_response.last_row);
        outcome(&model_response)
    }

    async fn execute(&mut self, query: PgQuery) -> Result<PgQueryResult, sqlx::Error> {
        let response = self.exchange(query.sql().as_str()).await?;
        outcome(&response).map(|()| PgQueryResult::default())
    }

    fn fetch(&mut self, query: PgQuery) -> BoxStream<'_, Result<u32, sqlx::Error>> {
        let sql = query.sql().as_str().to_owned();
        let server = self.server.clone();
        stream::unfold((server, Some(sql), 0), |(server, sql, next_row)| async move {
            let sent = sql.map_or(Ok(()), |sql| server.state().send(&sql));
            yield_now().await;
            if let Err(error) = sent {
                return Some((Err(error), (server, None, next_row)));
            }
            let has_more = server.state().unread.as_ref().is_some_and(|response| next_row < response.stream_row_count);
            if has_more {
                return Some((Ok(next_row), (server, None, next_row + 1)));
            }
            let response = server.state().read();
            let error = response.and_then(|response| outcome(&response)).err();
            error.map(|error| (Err(error), (server, None, next_row)))
        })
        .boxed()
    }

    async fn drain(&mut self) -> Result<Option<sqlx::Error>, sqlx::Error> {
        yield_now().await;
        let response = self.server.state().read()?;
        self.server.state().must_finish_response = false;
        Ok(outcome(&response).err())
    }

    fn cached_statement_count(&self) -> Option<i64> {
        Some(0)
    }

    async fn clear_cached_statements(&mut self) -> Result<(), sqlx::Error> {
        Ok(())
    }

    fn server_process(&mut self) -> Option<&mut ServerProcess> {
        None
    }

    fn release(self) {
        drop(self);
    }

    fn discard(mut self) {
        self.is_discarded = true;
        self.server.state().lose_connection();
    }
}

impl Drop for ModelConnection {
    fn drop(&mut self) {
        let mut state = self.server.state();
        state.unreleased_connection_count -= 1;
        if self.is_discarded || state.is_connection_lost {
            return;
        }
        if state.transaction.is_some()
            || state.unread.is_some()
            || state.must_finish_response
            || state.is_session_unclean
        {
            let broken_rule = format!("a connection was returned to its pool in this state: {state:?}");
            state.broken_rules.push(broken_rule);
        }
    }
}
