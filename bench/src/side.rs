//! One side of a measure: what is prepared, what comes before, and what is timed.

use std::time::Duration;

use crate::{Failure, client::Client};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A signed-in user.
    Authenticated,
    /// A visitor.
    Anon,
    /// The server.
    Service,
    /// The login that owns the tables: jobs of the database itself.
    Owner,
}

impl Role {
    /// Its name in the database.
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

/// What is asked at one place of the world: who asks, what is done before, and what is timed.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The user in whose name.
    pub user: String,
    /// Done before as the superuser, in the same transaction, and not timed.
    pub before: String,
    /// Timed.
    pub timed: String,
}

/// One side.
#[derive(Debug)]
pub struct Asking {
    /// Statements that are prepared, each with its name.
    pub prepared: Vec<(String, String)>,
    /// What is asked, at each of several places.
    pub asked: Vec<Asked>,
}

/// Longer than this no statement is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

impl Asking {
    /// Prepares the statements.
    pub async fn prepare(&self, client: &mut Client) -> Result<(), Failure> {
        for (name, sql) in &self.prepared {
            client.run(&format!("PREPARE {name} AS {sql}")).await?;
        }
        Ok(())
    }

    /// Forgets them.
    pub async fn forget(&self, client: &mut Client) -> Result<(), Failure> {
        client.run("DEALLOCATE ALL").await.map(|_| ())
    }

    /// Asks in a transaction that is rolled back, so often in one message, and tells the time and the rows of one. None
    /// where the patience ends.
    pub async fn once(
        &self,
        client: &mut Client,
        role: Role,
        place: usize,
        times: u32,
    ) -> Result<Option<(Duration, u64)>, Failure> {
        let asked = &self.asked[place % self.asked.len()];
        client.run(&begin(role, asked)).await?;
        let timed = client.time(&vec![asked.timed.as_str(); times as usize].join("; ")).await;
        client.run("ROLLBACK").await?;
        match timed {
            Ok((time, rows)) => Ok(Some((time / times, rows / u64::from(times)))),
            Err(error) if error.is_out_of_time() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Opens the transaction, does what comes before, and puts the identity on.
#[must_use]
pub fn begin(role: Role, asked: &Asked) -> String {
    let identity = match role {
        Role::Owner => String::new(),
        role => format!(
            "SELECT set_config('role', '{0}', true), \
             set_config('request.jwt.claims', '{{\"role\": \"{0}\", \"sub\": \"{1}\"}}', true)",
            role.name(),
            asked.user
        ),
    };
    format!("BEGIN; SET LOCAL statement_timeout = {}; {}; {identity}", PATIENCE.as_millis(), asked.before)
}
