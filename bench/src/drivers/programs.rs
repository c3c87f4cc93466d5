//! The three compared implementations of the operations, which the report calls *programs*.

use std::sync::Arc;

use service::{Options, Sparc};

use super::{
    operation::{Operation, OptionalJson, ResultUse},
    pipelined::Pipelined,
    plain_sqlx::PlainSqlx,
    statements::{Statements, run_through_service},
};
use crate::{argument_sets::ArgumentSet, failure::Failure};

/// The size of each program's connection pool, which is the service's default.
pub(super) const POOL_SIZE: u32 = 10;

/// One of the three compared implementations.
pub(super) enum Program {
    /// The service.
    Service(Sparc),
    /// Plain sqlx.
    PlainSqlx(PlainSqlx),
    /// tokio-postgres with pipelining.
    Pipelined(Pipelined),
}

impl Program {
    /// Runs an operation.
    pub(super) async fn run(
        &self,
        operation: Operation,
        argument_set: &ArgumentSet,
        result_use: ResultUse,
    ) -> Result<OptionalJson, Failure> {
        match self {
            Self::Service(sparc) => run_through_service(sparc, operation, argument_set, result_use).await,
            Self::PlainSqlx(program) => program.run(operation, argument_set, result_use).await,
            Self::Pipelined(program) => program.run(operation, argument_set, result_use).await,
        }
    }
}

/// Creates the three programs, connected to the database at `url`.
pub(super) async fn connect_programs(url: &str, statements: &Statements) -> Result<[Arc<Program>; 3], Failure> {
    let sparc = Sparc::connect_with(url, Options::default().max_connections(POOL_SIZE)).await?;
    Ok([
        Program::Service(sparc),
        Program::PlainSqlx(PlainSqlx::connect(url, POOL_SIZE, statements.clone()).await?),
        Program::Pipelined(Pipelined::new(url, POOL_SIZE, statements.clone())?),
    ]
    .map(Arc::new))
}

/// Returns the failure for a list of programs that does not begin with [`Program::Service`].
pub(super) fn first_program_must_be_service() -> Failure {
    Failure::Message("the first program must be the service".to_owned())
}
