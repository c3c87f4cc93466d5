//! The beginning of a transaction: one message that begins it, sets the identity, and reads what is needed later, such
//! as the start time.

use std::{sync::Arc, time::Duration};

use sea_orm::sqlx;

use super::{EndReason, Frame, OUTERMOST_FRAME_ID, Pending, TransactionState};
use crate::{
    Identity, pooler, sqlstate,
    text_row::TextRow,
    tracked_server::TrackedServer,
    wire::{
        Connection, PreparedStatementMode, REPLICATION_STATUS_COLUMN_COUNT, REPLICATION_STATUS_SQL, ReplicationStatus,
        SimpleQueryResponse,
    },
};

/// A column with the isolation level of the transaction, which may be the database's default.
const ISOLATION_COLUMN: &str = ", current_setting('transaction_isolation')";

/// The transaction mode in which nothing can be written, with the space that separates it from BEGIN.
pub(crate) const READ_ONLY: &str = " READ ONLY";

/// The parameters of a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BeginRequest<'a> {
    pub(crate) identity: &'a Identity,
    /// The transaction modes, with the space that separates them from BEGIN.
    pub(crate) modes: &'a str,
    /// The time limit of each statement, counted from its start.
    pub(crate) statement_deadline: Option<Duration>,
    /// Whether the caller need not wait for the end of the transaction, because the transaction only reads.
    pub(crate) allows_background_end: bool,
}

/// The columns that are added to the last SELECT of [`Identity::set_local_sql`]. That SELECT has two columns of its
/// own, and the added ones stand between these two. Its own first column is the result of the begin check
/// ([`Identity::with_begin_check`]), or of setting the identity if there is no check; its own last column is the start
/// time of the transaction.
struct BeginColumns<'a> {
    identity: &'a Identity,
    includes_isolation: bool,
    includes_replication_status: bool,
}

/// The values of the columns of [`BeginColumns`], and the start time.
#[derive(Default)]
struct BeginValues {
    /// The identity with its settings as the server prints them (`5s` for `5000`), if that may differ from the given
    /// text.
    read_back_identity: Option<Identity>,
    isolation: Option<String>,
    replication_status: Option<ReplicationStatus>,
    process_id: Option<i64>,
    started_at: String,
}

impl BeginColumns<'_> {
    fn sql(&self) -> String {
        let mut sql = self.identity.read_back_columns();
        if self.includes_isolation {
            sql.push_str(ISOLATION_COLUMN);
        }
        if self.includes_replication_status {
            sql.extend([", ", REPLICATION_STATUS_SQL]);
        }
        sql.push_str(", pg_backend_pid()");
        sql
    }

    /// Reads the row, from its last column to its first.
    fn read(&self, mut row: TextRow) -> Option<BeginValues> {
        let mut values = BeginValues { started_at: row.0.pop()??, ..BeginValues::default() };
        values.process_id = row.integer(row.0.len().checked_sub(1)?);
        row.0.pop();
        if self.includes_replication_status {
            let first_column = row.0.len().checked_sub(REPLICATION_STATUS_COLUMN_COUNT)?;
            values.replication_status = ReplicationStatus::read(&row, first_column);
            row.0.truncate(first_column);
        }
        if self.includes_isolation {
            values.isolation = row.0.pop()?;
        }
        let read_back_count = self.identity.read_back_column_count();
        if read_back_count > 0 {
            let first_column = row.0.len().checked_sub(read_back_count)?;
            values.read_back_identity = Some(self.identity.with_read_back_values(&row.0[first_column..]));
        }
        Some(values)
    }
}

impl<C: Connection> TransactionState<C> {
    /// Begins a transaction on the connection. Returns the transaction and, if there are replicas, the server's
    /// replication status. `server` tracks log positions; it is `None` without replicas.
    pub(crate) async fn begin(
        connection: C,
        prepared_statement_mode: PreparedStatementMode,
        request: &BeginRequest<'_>,
        server: Option<TrackedServer>,
    ) -> Result<(Self, Option<ReplicationStatus>), sqlx::Error> {
        let BeginRequest { identity, modes, statement_deadline, allows_background_end } = *request;
        let mut state = Self {
            connection: Some(connection),
            frames: vec![Frame::new(OUTERMOST_FRAME_ID)],
            pending: Some(Pending::Begin),
            must_finish_response: false,
            end_reason: None,
            must_clean_session: false,
            has_unknown_raw_commit: Arc::default(),
            has_outdated_statement: false,
            highest_frame_id: OUTERMOST_FRAME_ID,
            started_at: String::new(),
            identity: identity.clone(),
            read_back_identity: identity.clone(),
            statement_deadline,
            prepared_statement_mode,
            need_not_await_end: false,
            is_repeatable_read: false,
            is_read_only: modes.contains(READ_ONLY),
            tracked_server: server,
        };
        let columns = BeginColumns {
            identity,
            includes_isolation: allows_background_end || state.tracked_server.is_some(),
            includes_replication_status: state.tracked_server.is_some(),
        };
        let set_identity = identity.set_local_sql(statement_deadline, &columns.sql());
        let sql = format!("BEGIN{modes}; {}{set_identity}", prepared_statement_mode.sql_after_begin());
        let mut response = SimpleQueryResponse::default();
        let outcome = match state.connection.as_mut() {
            Some(connection) => connection.simple_query(sql, &mut response).await,
            None => Ok(()),
        };
        // BEGIN and, if it is sent, DEALLOCATE ALL precede the statement that sets the identity.
        let statement_count_before_identity =
            1 + usize::from(prepared_statement_mode == PreparedStatementMode::PerTransaction);
        state.record_outcome(OUTERMOST_FRAME_ID, outcome).map_err(|error| {
            if response.completed_count <= statement_count_before_identity {
                explain_identity_error(error, identity.role())
            } else {
                // The begin check has failed. It may refuse the identity with any SQLSTATE, so the error is passed on
                // unchanged.
                error
            }
        })?;
        let values = response.last_row.and_then(|row| columns.read(row)).unwrap_or_default();
        let replication_status = values.replication_status;
        state.started_at = values.started_at;
        // What a SERIALIZABLE transaction reads is valid only once it is committed, so the caller must wait for its
        // end.
        state.need_not_await_end =
            allows_background_end && values.isolation.as_deref().is_some_and(|isolation| isolation != "serializable");
        state.is_repeatable_read = values.isolation.as_deref() == Some("repeatable read");
        if let Some(read_back_identity) = values.read_back_identity {
            state.read_back_identity = read_back_identity;
        }
        if let (Some(server), Some(status)) = (&mut state.tracked_server, replication_status) {
            server.record_begin(status);
        }
        if let (PreparedStatementMode::Cached, Some(connection)) = (prepared_statement_mode, &mut state.connection) {
            state.pending = Some(Pending::Begin);
            if let Err(error) = pooler::prevent_statement_name_collisions(connection, values.process_id).await {
                // The server rolls the transaction back when the connection closes. No handle of this transaction
                // exists yet, so nobody reads its end reason.
                state.close(EndReason::EndedByCrate);
                return Err(error);
            }
            state.pending = None;
        }
        Ok((state, replication_status))
    }
}

/// Explains an error of the statement that sets the identity. A role that cannot be assumed and a setting that is
/// refused have the same SQLSTATEs. The message of an error about the role contains the role's name, whatever the
/// language of the message; that of an error about a setting contains it only by coincidence.
fn explain_identity_error(error: sqlx::Error, role: &str) -> sqlx::Error {
    let Some(refusal) = error.as_database_error() else { return error };
    if !matches!(refusal.code().as_deref(), Some(sqlstate::INSUFFICIENT_PRIVILEGE | sqlstate::INVALID_PARAMETER_VALUE))
    {
        return error;
    }
    let reason = if refusal.message().contains(role) {
        format!("the pool's login must be a member of the role {role}: {error}")
    } else {
        format!("the server must accept the identity's settings: {error}")
    };
    sqlx::Error::Configuration(reason.into())
}
