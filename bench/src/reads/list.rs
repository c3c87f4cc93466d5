//! The list of the measured reads.

use testdb::PreparedStatement;

use crate::{
    argument_sets::ArgumentSet,
    measure::StatementPair,
    workload::{Role, single_statement_workload},
};

/// The list of reads, to which each of the `add_…_reads` functions adds some.
pub(super) struct Reads<'a> {
    /// The argument sets with which each statement is executed.
    pub(super) argument_sets: &'a [ArgumentSet],
    /// The reads so far.
    pub(super) pairs: Vec<StatementPair>,
}

impl Reads<'_> {
    /// Adds a read. For each of the two schemas, it takes the statement, and a function that returns the user and the
    /// statement's values for an argument set.
    pub(super) fn add(
        &mut self,
        name: &'static str,
        role: Role,
        specification_sql: &str,
        specification_user_and_values: impl Fn(&ArgumentSet) -> (String, Vec<String>),
        our_statement: &PreparedStatement,
        ours_user_and_values: impl Fn(&ArgumentSet) -> (String, Vec<String>),
    ) {
        self.pairs.push(StatementPair {
            name,
            role,
            is_repeatable: true,
            specification: single_statement_workload(
                "specification",
                specification_sql.to_owned(),
                self.argument_sets,
                specification_user_and_values,
            ),
            ours: single_statement_workload(
                "ours",
                our_statement.sql.clone(),
                self.argument_sets,
                ours_user_and_values,
            ),
        });
    }
}
