//! What a measurement executes in one of the two schemas that are compared (the specification's and this project's):
//! prepared statements with the values of each argument set.

use std::time::Duration;

use crate::{argument_sets::ArgumentSet, client::Client, failure::Failure};

/// The database role that runs a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A signed-in user.
    Authenticated,
    /// A visitor.
    Anon,
    /// The service, when it acts for itself and not for a user.
    Service,
    /// The owner of the tables, here the superuser. It runs the database's own jobs.
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

/// The SQL that executes prepared statements with the values of one argument set.
#[derive(Clone, Debug, Default)]
pub struct Execution {
    /// The user's id; empty if the statements run for no user, as those of visitors, the service and the owner do.
    pub user: String,
    /// Statements that run untimed before the timed ones, in the same transaction, as the superuser.
    pub setup_sql: String,
    /// The timed statements, separated by `"; "`.
    pub timed_sql: String,
}

/// The prepared statements that do one thing in one of the two schemas, and the SQL that executes them.
#[derive(Debug)]
pub struct Workload {
    /// Names and texts of the prepared statements.
    pub prepared: Vec<(String, String)>,
    /// One execution per argument set; a single one is enough if it uses no values of the argument sets.
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

    /// Deallocates all prepared statements of the connection.
    pub async fn deallocate_all(&self, client: &mut Client) -> Result<(), Failure> {
        client.run("DEALLOCATE ALL").await.map(|_| ())
    }

    /// Runs the timed statements of an execution `repeats` times in one message, in a transaction that is rolled back.
    /// Returns the mean time and the mean number of rows of a repetition, or `None` after [`STATEMENT_TIMEOUT`].
    ///
    /// `index` selects the execution; after the last one, the first one follows again.
    pub async fn execute(
        &self,
        client: &mut Client,
        role: Role,
        index: usize,
        repeats: u32,
    ) -> Result<Option<(Duration, u64)>, Failure> {
        let execution = &self.executions[index % self.executions.len()];
        client.run(&begin_and_setup_sql(role, execution)).await?;
        let outcome = client.run_timed(&vec![execution.timed_sql.as_str(); repeats as usize].join("; ")).await;
        client.run("ROLLBACK").await?;
        match outcome {
            Ok((time, rows)) => Ok(Some((time / repeats, rows / u64::from(repeats)))),
            Err(error) if error.is_statement_timeout() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Returns the workload of one prepared statement, executed with each argument set. `user_and_values` returns the user
/// who executes the statement with an argument set, and the statement's values.
pub fn single_statement_workload(
    name: &str,
    sql: String,
    argument_sets: &[ArgumentSet],
    user_and_values: impl Fn(&ArgumentSet) -> (String, Vec<String>),
) -> Workload {
    let executions = argument_sets
        .iter()
        .map(|argument_set| {
            let (user, values) = user_and_values(argument_set);
            let values = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
            Execution { user, setup_sql: String::new(), timed_sql: format!("EXECUTE {name}{values}") }
        })
        .collect();
    Workload { prepared: vec![(name.to_owned(), sql)], executions }
}

/// Returns the SQL that begins the transaction, runs the setup, and sets the role and the claims that the caller's
/// token would have. For [`Role::Owner`] it sets neither: the connection's role owns the tables.
#[must_use]
pub fn begin_and_setup_sql(role: Role, execution: &Execution) -> String {
    // Without a user, the claims have no subject.
    let subject = if execution.user.is_empty() { String::new() } else { format!(", \"sub\": \"{}\"", execution.user) };
    let set_identity = match role {
        Role::Owner => String::new(),
        role => format!(
            "SELECT set_config('role', '{0}', true), \
             set_config('request.jwt.claims', '{{\"role\": \"{0}\"{subject}}}', true)",
            role.name()
        ),
    };
    format!(
        "BEGIN; SET LOCAL statement_timeout = {}; {}; {set_identity}",
        STATEMENT_TIMEOUT.as_millis(),
        execution.setup_sql
    )
}
