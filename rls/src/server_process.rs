//! The server process in which a connection's transactions run, and how many prepared statements it has.

use crate::text_row::TextRow;

/// The server process in which the last transaction of a connection ran.
#[derive(Debug, Default)]
pub(crate) struct ServerProcess {
    /// `None` before the first transaction.
    pub(crate) id: Option<i64>,
    /// Whether the pooler has been seen to give prepared statements names of its own.
    pub(crate) pooler_tracks_statements: bool,
}

impl ServerProcess {
    /// Returns whether the names of the prepared statements in the process `id`, where the next transaction runs, must
    /// be checked.
    pub(crate) fn requires_name_check_in(&self, id: Option<i64>) -> bool {
        self.id.is_some() && self.id != id && !self.pooler_tracks_statements
    }
}

/// How many prepared statements the server process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatementCounts {
    /// Those under names that the driver gives.
    pub(crate) named_by_driver: i64,
    /// Those under names that a pooler gives, for any of its clients.
    pub(crate) named_by_pooler: i64,
    /// Those of the SQL statement PREPARE. The other two counts do not include them.
    pub(crate) from_sql: i64,
}

/// The SQL of [`StatementCounts`]: three columns, and the FROM that belongs to them.
pub(crate) const STATEMENT_COUNTS_SQL: &str = r"count(*) FILTER (WHERE NOT from_sql AND name LIKE 'sqlx\_s\_%'),
     count(*) FILTER (WHERE NOT from_sql AND name ~* '^(pgbouncer|pgcat|odyssey|supavisor)_'),
     count(*) FILTER (WHERE from_sql) FROM pg_catalog.pg_prepared_statements";

impl StatementCounts {
    /// Reads the columns of [`STATEMENT_COUNTS_SQL`], which begin at `first_column` of the row.
    pub(crate) fn read(row: &TextRow, first_column: usize) -> Option<Self> {
        let count = |column| row.integer(first_column + column);
        Some(Self { named_by_driver: count(0)?, named_by_pooler: count(1)?, from_sql: count(2)? })
    }

    /// Whether the driver can still use the `cached_count` prepared statements that it remembers. Without a pooler that
    /// tracks prepared statements, it can if the process has as many. Behind such a pooler, the numbers may differ: the
    /// process also has the statements of other clients, and perhaps only some of this client's. But if the process has
    /// none, a statement may have deallocated all of them, and then such a pooler no longer knows them either.
    pub(crate) fn driver_can_reuse_statements(self, cached_count: Option<i64>) -> bool {
        Some(self.named_by_driver) == cached_count || self.are_tracked()
    }

    /// Whether a pooler has given names of its own to all statements.
    pub(crate) fn are_tracked(self) -> bool {
        self.named_by_driver == 0 && self.named_by_pooler > 0
    }
}

#[cfg(test)]
mod tests {
    use super::{ServerProcess, StatementCounts};

    #[test]
    fn names_of_prepared_statements_are_checked_only_in_a_different_process() {
        let mut process = ServerProcess::default();
        assert!(!process.requires_name_check_in(Some(7)), "the first process");
        process.id = Some(7);
        assert!(!process.requires_name_check_in(Some(7)), "the same process");
        assert!(process.requires_name_check_in(Some(8)), "another process");
        process.pooler_tracks_statements = true;
        assert!(!process.requires_name_check_in(Some(8)), "a pooler that tracks prepared statements");
    }

    #[test]
    fn the_drivers_statements_are_prepared_again_only_if_they_may_have_been_deallocated() {
        for (named_by_driver, named_by_pooler, can_reuse_statements) in [
            (3, 0, true),
            // One was deallocated.
            (2, 0, false),
            (0, 0, false),
            // A pooler that tracks prepared statements has those of several clients, or only some of this one's.
            (0, 7, true),
            (0, 1, true),
            // One is not under a name of the pooler, so the pooler does not track them all.
            (1, 7, false),
        ] {
            let counts = StatementCounts { named_by_driver, named_by_pooler, from_sql: 0 };
            assert_eq!(counts.driver_can_reuse_statements(Some(3)), can_reuse_statements, "{counts:?}");
        }
    }
}
