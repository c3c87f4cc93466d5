//! Poolers in transaction mode, which may run each transaction of a connection in a different server process.
//!
//! The driver prepares each statement once per connection, under a name that contains a number. In a server process
//! where another client has prepared statements, that name may belong to a different statement, which would then run
//! instead. A pooler that tracks prepared statements prevents this by giving them names of its own. With any other
//! pooler, `begin` fails with [`Error::Misconfigured`](crate::Error::Misconfigured) if the transaction runs in a server
//! process other than the last one, and that process already has a prepared statement under a name that the driver
//! gives. With `Options::without_prepared_statement_cache`, each transaction begins with DEALLOCATE ALL instead. In a
//! pool that the application already had, the names are not checked, because the server process of a connection's last
//! transaction is not known there.

use sea_orm::sqlx;

use crate::{
    server_process::{STATEMENT_COUNTS_SQL, StatementCounts},
    wire::{Connection, SimpleQueryResponse},
};

/// The reason of [`Error::Misconfigured`](crate::Error::Misconfigured) if the pooler does not track prepared
/// statements.
const UNTRACKED_STATEMENTS_REASON: &str = "a pooler in transaction mode does not track prepared statements; use \
     Options::without_prepared_statement_cache, or PgBouncer 1.21 or later with max_prepared_statements";

/// Makes sure, at the beginning of a transaction, that no prepared statement of another client can be mistaken for one
/// of this connection. Fails if that is not possible. This takes a round trip or two, but only if the process is not
/// that of the connection's last transaction, and the pooler is not known to track prepared statements.
pub(crate) async fn prevent_statement_name_collisions(
    connection: &mut impl Connection,
    process_id: Option<i64>,
) -> Result<(), sqlx::Error> {
    let requires_name_check =
        connection.server_process().is_some_and(|process| process.requires_name_check_in(process_id));
    if requires_name_check {
        ensure_safe_statement_names(connection).await?;
    }
    // The id is recorded only now: if this call is dropped during the check, the next transaction must check again.
    if let Some(process) = connection.server_process() {
        process.id = process_id;
    }
    Ok(())
}

/// Counts the prepared statements in the server process. Depending on who has named them, makes the driver forget its
/// own, records that the pooler tracks them, or fails.
async fn ensure_safe_statement_names(connection: &mut impl Connection) -> Result<(), sqlx::Error> {
    let mut response = SimpleQueryResponse::default();
    connection.simple_query(format!("SELECT {STATEMENT_COUNTS_SQL}"), &mut response).await?;
    match response.last_row.and_then(|row| StatementCounts::read(&row, 0)) {
        // This connection prepared its statements in another process. In the present one, other clients may later use
        // the same names for their statements. So the driver forgets its statements, and prepares them again.
        Some(StatementCounts { named_by_driver: 0, named_by_pooler: 0, .. }) => {
            connection.clear_cached_statements().await
        }
        // The pooler gives the statements of all its clients names of its own, so also those of this connection.
        Some(counts) if counts.are_tracked() => {
            if let Some(process) = connection.server_process() {
                process.pooler_tracks_statements = true;
            }
            Ok(())
        }
        // The process has statements under names that the driver gives, perhaps those of another client.
        _ => Err(sqlx::Error::Configuration(UNTRACKED_STATEMENTS_REASON.into())),
    }
}
