//! The workload of a measurement in one of the two schemas: prepared statements, and their executions.

use std::time::Duration;

use crate::{Failure, client::Client};

/// The database role that runs a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A signed-in user.
    Authenticated,
    /// A visitor.
    Anon,
    /// The service.
    Service,
    /// The owner of the tables, which runs the database's own jobs.
    Owner,
}

impl Role {
    /// The role's name in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Authenticated => "authenticated",
            Self::Anon => "anon",
            Self::Service => "service_role",
            Self::Owner => "postgres",
        }
    }
}

/// One execution, for one sample.
#[derive(Clone, Debug, Default)]
pub struct Execution {
    /// The user's id; empty for a visitor, the service and the owner.
    pub user: String,
    /// Statements that run before it in the same transaction, as the superuser; not timed.
    pub before: String,
    /// The timed statement.
    pub timed: String,
}

/// The statements that are run in one of the two schemas.
#[derive(Debug)]
pub struct Workload {
    /// Names and texts of the prepared statements.
    pub prepared: Vec<(String, String)>,
    /// One execution per sample.
    pub executions: Vec<Execution>,
}

/// Timeout of each statement.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

impl Workload {
    /// Prepares the statements on the connection.
    pub async fn prepare(&self, client: &mut Client) -> Result<(), Failure> {
        for (name, sql) in &self.prepared {
            client.run(&format!("PREPARE {name} AS {sql}")).await?;
        }
        Ok(())
    }

    /// Deallocates the prepared statements.
    pub async fn deallocate(&self, client: &mut Client) -> Result<(), Failure> {
        client.run("DEALLOCATE ALL").await.map(|_| ())
    }

    /// Runs an execution `times` times in one message, in a transaction that is rolled back. Returns the time and the
    /// number of rows divided by `times`, or `None` after [`STATEMENT_TIMEOUT`].
    pub async fn execute(
        &self,
        client: &mut Client,
        role: Role,
        sample: usize,
        times: u32,
    ) -> Result<Option<(Duration, u64)>, Failure> {
        let execution = &self.executions[sample % self.executions.len()];
        client.run(&begin(role, execution)).await?;
        let timed = client.time(&vec![execution.timed.as_str(); times as usize].join("; ")).await;
        client.run("ROLLBACK").await?;
        match timed {
            Ok((time, rows)) => Ok(Some((time / times, rows / u64::from(times)))),
            Err(error) if error.is_timeout() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Returns the SQL that begins the transaction, runs the untimed statements, and sets the identity.
#[must_use]
pub fn begin(role: Role, execution: &Execution) -> String {
    // The claims of the service and of a visitor name no user.
    let user = if execution.user.is_empty() { String::new() } else { format!(", \"sub\": \"{}\"", execution.user) };
    let identity = match role {
        Role::Owner => String::new(),
        role => format!(
            "SELECT set_config('role', '{0}', true), \
             set_config('request.jwt.claims', '{{\"role\": \"{0}\"{user}}}', true)",
            role.name()
        ),
    };
    format!("BEGIN; SET LOCAL statement_timeout = {}; {}; {identity}", STATEMENT_TIMEOUT.as_millis(), execution.before)
}
