//! The statements of the measured operations ([`Operation`]), and the values of their parameters. The two hand-written
//! programs (plain sqlx, and tokio-postgres with pipelining) send the same statements as the service.

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

use super::operation::{Operation, OptionalJson, ResultUse};
use crate::{argument_sets::ArgumentSet, capture::StatementCapture, failure::Failure, roll::new_roll};

/// Sets the identity (the caller's role and claims). The hand-written programs send this in each transaction, as
/// PostgREST does.
pub const SET_IDENTITY_SQL: &str = "SELECT set_config('role', $1, true), set_config('request.jwt.claims', $2, true)";

/// The role of every caller.
pub const ROLE: &str = "authenticated";

/// The row limit of the statement that reads a profile.
pub const PROFILE_ROW_LIMIT: i64 = 1;
/// The attribute of each roll.
pub const ATTRIBUTE: &str = "might";
/// The difficulty of each roll.
pub const DIFFICULTY: i32 = 9;
/// The type of each roll.
pub const ROLL_TYPE: &str = "attribute_check";
/// The number of rolls on a page.
pub const HISTORY_PAGE_SIZE: usize = 50;
/// The row limit of the statement that reads a page of rolls: one more than [`HISTORY_PAGE_SIZE`], to find out whether
/// there is a next page.
pub const HISTORY_ROW_LIMIT: i64 = 51;
/// The number of sessions on a page of the lobby.
pub const LOBBY_PAGE_SIZE: usize = 20;

/// A statement of the service.
#[derive(Clone, Debug)]
pub struct ServiceStatement {
    /// Its text.
    pub sql: Arc<str>,
    /// The types of its parameters.
    pub types: Vec<Type>,
}

/// The statement of each operation, in the order of [`Operation::ALL`].
#[derive(Clone, Debug)]
pub struct Statements(Vec<ServiceStatement>);

impl Statements {
    /// Captures the statements by running each operation once through the service.
    pub async fn capture(mut capture: StatementCapture, argument_set: &ArgumentSet) -> Result<Self, Failure> {
        let mut statements = Vec::new();
        for operation in Operation::ALL {
            run_through_service(&capture.sparc, operation, argument_set, ResultUse::Discard).await?;
            let PreparedStatement { sql, types } = capture.last_new_statement().await?;
            let types: Vec<Type> =
                types.split(", ").filter(|name| !name.is_empty()).map(parse_type).collect::<Result<_, _>>()?;
            if types != operation.value_types() {
                let (name, expected) = (operation.name(), operation.value_types());
                let message = format!("{name} must have the parameters {expected:?}, but has {types:?}: {sql}");
                return Err(Failure::Message(message));
            }
            statements.push(ServiceStatement { sql: sql.into(), types });
        }
        capture.close().await?;
        Ok(Self(statements))
    }

    /// Returns the statement of an operation.
    pub fn for_operation(&self, operation: Operation) -> &ServiceStatement {
        &self.0[operation as usize]
    }

    /// Returns all statements, in the order of [`Operation::ALL`].
    pub fn all(&self) -> &[ServiceStatement] {
        &self.0
    }
}

impl Operation {
    /// Returns the types of the values that both hand-written programs send.
    fn value_types(self) -> Vec<Type> {
        match self {
            Self::Profile => vec![Type::UUID, Type::INT8],
            Self::Lobby => Vec::new(),
            Self::Details => vec![Type::UUID],
            Self::History => vec![Type::UUID, Type::INT8],
            Self::Roll => {
                // The ids of the roll, the session, the character and the creature.
                let ids = [Type::UUID, Type::UUID, Type::UUID, Type::UUID];
                // The attribute, the difficulty, the type of the roll, the modifiers and the description.
                let others = [Type::TEXT, Type::INT4, Type::TEXT, Type::JSONB, Type::TEXT];
                ids.into_iter().chain(others).collect()
            }
        }
    }
}

fn parse_type(name: &str) -> Result<Type, Failure> {
    Ok(match name {
        "uuid" => Type::UUID,
        "bigint" => Type::INT8,
        "integer" => Type::INT4,
        "text" => Type::TEXT,
        "jsonb" => Type::JSONB,
        other => return Err(Failure::Message(format!("a statement of the service has a parameter of type {other}"))),
    })
}

/// The values of one call of any of the operations, for tokio-postgres.
pub struct Values<'a> {
    argument_set: &'a ArgumentSet,
    /// The id of the new roll. Only [`Operation::Roll`] uses this field and the next ones.
    roll_id: Uuid,
    /// The modifiers: an empty array.
    modifiers: Value,
    /// The creature that makes the roll: none, because a character makes it.
    creature: Option<Uuid>,
    /// The description: none.
    description: Option<&'static str>,
}

impl<'a> Values<'a> {
    /// Creates the values of a new call, with a new id for its roll.
    pub fn new(argument_set: &'a ArgumentSet) -> Self {
        let modifiers = Value::Array(Vec::new());
        Self { argument_set, roll_id: Uuid::new_v4(), modifiers, creature: None, description: None }
    }

    /// Returns the values of an operation, in the order of its parameters.
    pub fn for_operation(&self, operation: Operation) -> Vec<&(dyn ToSql + Sync)> {
        let Self { argument_set, roll_id, modifiers, creature, description } = self;
        match operation {
            Operation::Profile => vec![&argument_set.player, &PROFILE_ROW_LIMIT],
            Operation::Lobby => Vec::new(),
            Operation::Details => vec![&argument_set.session],
            Operation::History => vec![&argument_set.session, &HISTORY_ROW_LIMIT],
            Operation::Roll => vec![
                roll_id,
                &argument_set.session,
                &argument_set.character,
                creature,
                &ATTRIBUTE,
                &DIFFICULTY,
                &ROLL_TYPE,
                modifiers,
                description,
            ],
        }
    }
}

/// Returns the claims of a user's token, as JSON.
pub fn claims(user: Uuid) -> String {
    serde_json::json!({ "role": ROLE, "sub": user }).to_string()
}

/// Runs the operation through the service.
pub async fn run_through_service(
    sparc: &Sparc,
    operation: Operation,
    argument_set: &ArgumentSet,
    result_use: ResultUse,
) -> Result<OptionalJson, Failure> {
    let caller = sparc.as_user(argument_set.player);
    match operation {
        Operation::Profile => result_use.discard_or_convert(caller.users().profile(argument_set.player).await?),
        Operation::Lobby => {
            result_use.discard_or_convert(caller.sessions().lobby(&LobbyFilter::default(), None).await?.items)
        }
        Operation::Details => result_use.discard_or_convert(caller.sessions().details(argument_set.session).await?),
        Operation::History => {
            let scope = RollScope::Session(argument_set.session);
            result_use.discard_or_convert(caller.dice().history(scope, &HistoryFilter::default(), None).await?.items)
        }
        Operation::Roll => result_use.discard_or_convert(caller.dice().roll(new_roll(argument_set)?).await?),
    }
}
