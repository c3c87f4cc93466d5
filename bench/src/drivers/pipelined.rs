//! The operations in tokio-postgres with pipelining: the four messages of a transaction (BEGIN, identity, statement,
//! COMMIT) are sent before the first response arrives, so a caller waits for one round trip.

use deadpool::managed::{Manager, Metrics, Pool, RecycleError, RecycleResult};
use futures_util::future::join4;
use tokio_postgres::{Client, Config, NoTls, Row, Statement};

use super::{
    decode::decode_result,
    operation::{Operation, OptionalJson, ResultUse},
    statements::{ROLE, SET_IDENTITY_SQL, ServiceStatement, Statements, Values, claims},
};
use crate::{argument_sets::ArgumentSet, failure::Failure};

/// The implementation in tokio-postgres with pipelining (one of the *programs* that the report compares), with its pool
/// of connections.
pub struct Pipelined {
    pool: Pool<Connector>,
}

/// A connection, and the statements that were prepared on it when it was opened.
pub struct PreparedConnection {
    client: Client,
    /// The statement that sets the identity.
    set_identity: Statement,
    /// The statement of each operation, in the order of [`Operation::ALL`].
    statements: Vec<Statement>,
}

/// Opens connections for the pool.
pub struct Connector {
    config: Config,
    statements: Statements,
}

impl Manager for Connector {
    type Type = PreparedConnection;
    type Error = tokio_postgres::Error;

    async fn create(&self) -> Result<PreparedConnection, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(NoTls).await?;
        tokio::spawn(connection);
        let set_identity = client.prepare(SET_IDENTITY_SQL).await?;
        let mut statements = Vec::new();
        for ServiceStatement { sql, types } in self.statements.all() {
            statements.push(client.prepare_typed(sql, types).await?);
        }
        Ok(PreparedConnection { client, set_identity, statements })
    }

    async fn recycle(&self, connection: &mut PreparedConnection, _: &Metrics) -> RecycleResult<tokio_postgres::Error> {
        if connection.client.is_closed() {
            return Err(RecycleError::message("the connection was lost"));
        }
        Ok(())
    }
}

impl Pipelined {
    /// Creates the pool, of the given size.
    pub fn new(url: &str, pool_size: u32, statements: Statements) -> Result<Self, Failure> {
        let connector = Connector { config: url.parse()?, statements };
        let pool = Pool::builder(connector).max_size(pool_size as usize).build();
        Ok(Self { pool: pool.map_err(|error| Failure::Message(error.to_string()))? })
    }

    /// Runs an operation.
    pub async fn run(
        &self,
        operation: Operation,
        argument_set: &ArgumentSet,
        result_use: ResultUse,
    ) -> Result<OptionalJson, Failure> {
        let rows = self.run_transaction(operation, argument_set).await?;
        decode_result(operation, &rows, result_use)
    }

    /// Runs the operation's statement in a transaction, and returns its rows. If the statement fails, the server
    /// answers COMMIT with a rollback, and this function returns the statement's error.
    async fn run_transaction(&self, operation: Operation, argument_set: &ArgumentSet) -> Result<Vec<Row>, Failure> {
        let connection = self.pool.get().await.map_err(|error| Failure::Message(error.to_string()))?;
        let PreparedConnection { client, set_identity, statements } = &*connection;
        let (claims, values) = (claims(argument_set.player), Values::new(argument_set));
        // Each future sends its message when first polled, so all messages are sent before the first response arrives.
        let (begin_result, identity_result, rows, commit_result) = join4(
            client.batch_execute("BEGIN"),
            client.execute(set_identity, &[&ROLE, &claims]),
            client.query(&statements[operation as usize], &values.for_operation(operation)),
            client.batch_execute("COMMIT"),
        )
        .await;
        begin_result?;
        identity_result?;
        let rows = rows?;
        commit_result?;
        Ok(rows)
    }
}
