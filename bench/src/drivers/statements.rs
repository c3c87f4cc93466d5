//! The statements that the service sends, and the values that each caller sends with them.

use std::sync::Arc;

use serde_json::Value;
use service::{
    Operations, Sparc,
    dice::{HistoryFilter, RollScope},
    sessions::LobbyFilter,
};
use testdb::PreparedStatement;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::{Answer, Operation, Output};
use crate::{Failure, capture::StatementCapture, samples::Sample, writes::check};

/// The identity of every hand-written transaction, set as PostgREST sets it.
pub const IDENTITY: &str = "SELECT set_config('role', $1, true), set_config('request.jwt.claims', $2, true)";

/// The role of every caller.
pub const ROLE: &str = "authenticated";

/// The row limit of a profile.
pub const ONE: i64 = 1;
/// The attribute of each roll.
pub const ATTRIBUTE: &str = "might";
/// The difficulty of each roll.
pub const DIFFICULTY: i32 = 9;
/// The kind of each roll.
pub const KIND: &str = "attribute_check";
/// The row limit of a page of rolls: fifty, and one that shows whether there is a next page.
pub const ROLLS: i64 = 51;

/// A statement of the service.
#[derive(Clone, Debug)]
pub struct ServiceStatement {
    pub sql: Arc<str>,
    /// The types of its parameters.
    pub types: Vec<Type>,
}

/// The statement of each operation.
#[derive(Clone, Debug)]
pub struct Statements(Vec<ServiceStatement>);

impl Statements {
    /// Captures the statements by running each operation once.
    pub async fn capture(mut capture: StatementCapture, sample: &Sample) -> Result<Self, Failure> {
        let mut all = Vec::new();
        for operation in Operation::ALL {
            run_service(&capture.sparc, operation, sample, Output::Value).await?;
            let PreparedStatement { sql, types } = capture.last_statement().await?;
            let types: Vec<Type> =
                types.split(", ").filter(|name| !name.is_empty()).map(type_of).collect::<Result<_, _>>()?;
            if types != operation.types() {
                let (name, expected) = (operation.name(), operation.types());
                let reason = format!("{name} must have the parameters {expected:?}, but has {types:?}: {sql}");
                return Err(Failure::Message(reason));
            }
            all.push(ServiceStatement { sql: sql.into(), types });
        }
        capture.close().await?;
        Ok(Self(all))
    }

    /// Returns the statement of an operation.
    pub fn of(&self, operation: Operation) -> &ServiceStatement {
        &self.0[operation as usize]
    }

    /// Returns all statements, in the order of the operations.
    pub fn all(&self) -> &[ServiceStatement] {
        &self.0
    }
}

impl Operation {
    /// The types of the values that both hand-written programs send.
    fn types(self) -> Vec<Type> {
        match self {
            Self::Profile => vec![Type::UUID, Type::INT8],
            Self::Lobby => Vec::new(),
            Self::Details => vec![Type::UUID],
            Self::Rolls => vec![Type::UUID, Type::INT8],
            Self::Roll => {
                let uuids = [Type::UUID, Type::UUID, Type::UUID, Type::UUID];
                uuids.into_iter().chain([Type::TEXT, Type::INT4, Type::TEXT, Type::JSONB, Type::TEXT]).collect()
            }
        }
    }
}

fn type_of(name: &str) -> Result<Type, Failure> {
    Ok(match name {
        "uuid" => Type::UUID,
        "bigint" => Type::INT8,
        "integer" => Type::INT4,
        "text" => Type::TEXT,
        "jsonb" => Type::JSONB,
        other => return Err(Failure::Message(format!("a statement of the service has a parameter of type {other}"))),
    })
}

/// The values of a call, for tokio-postgres.
pub struct Values<'a> {
    sample: &'a Sample,
    roll: Uuid,
    modifiers: Value,
}

impl<'a> Values<'a> {
    /// Returns the values of a new call.
    pub fn new(sample: &'a Sample) -> Self {
        Self { sample, roll: Uuid::new_v4(), modifiers: Value::Array(Vec::new()) }
    }

    /// Returns the values of an operation, in the order of its parameters.
    pub fn of(&self, operation: Operation) -> Vec<&(dyn ToSql + Sync)> {
        let Self { sample, roll, modifiers } = self;
        match operation {
            Operation::Profile => vec![&sample.player, &ONE],
            Operation::Lobby => Vec::new(),
            Operation::Details => vec![&sample.session],
            Operation::Rolls => vec![&sample.session, &ROLLS],
            Operation::Roll => vec![
                roll,
                &sample.session,
                &sample.hero,
                &None::<Uuid>,
                &ATTRIBUTE,
                &DIFFICULTY,
                &KIND,
                modifiers,
                &None::<&str>,
            ],
        }
    }
}

/// Returns the claims of a user's token.
pub fn claims(user: Uuid) -> String {
    serde_json::json!({ "role": ROLE, "sub": user }).to_string()
}

/// Runs the operation through the service.
pub async fn run_service(
    sparc: &Sparc,
    operation: Operation,
    sample: &Sample,
    output: Output,
) -> Result<Answer, Failure> {
    let ada = sparc.as_user(sample.player);
    match operation {
        Operation::Profile => output.convert(ada.users().profile(sample.player).await?),
        Operation::Lobby => output.convert(ada.sessions().lobby(&LobbyFilter::default(), None).await?.items),
        Operation::Details => output.convert(ada.sessions().details(sample.session).await?),
        Operation::Rolls => {
            let scope = RollScope::Session(sample.session);
            output.convert(ada.dice().history(scope, &HistoryFilter::default(), None).await?.items)
        }
        Operation::Roll => output.convert(ada.dice().roll(check(sample)?).await?),
    }
}
