//! Converts database errors to [`Error`], by their SQLSTATE and constraint. If a privilege is missing, the error says
//! who may write the table, or which columns to use instead.

use std::sync::Arc;

use entity::sea_orm_active_enums::SessionStatus;
use rls::{pg_error, sqlx_error};
use sea_orm::{ActiveEnum, DbErr, Iterable, SqlxPostgresError};

use super::{
    Error,
    constraints::{check_constraint_error, referenced_kind, unique_constraint_error},
};

/// Maps each error to its variant. A database error that is not listed in this file or in `constraints.rs` becomes
/// [`Error::Database`], because a caller can do nothing about it.
impl From<rls::Error> for Error {
    fn from(error: rls::Error) -> Self {
        match error {
            rls::Error::NestedTransactionOpen => Self::NestedTransactionOpen,
            rls::Error::TransactionOver => Self::TransactionOver,
            rls::Error::TransactionFailed => Self::TransactionFailed,
            rls::Error::IdentityChanged => Self::IdentityChanged,
            rls::Error::TransactionEndedByStatement => Self::TransactionEndedByStatement,
            rls::Error::InvalidStatement { reason } => Self::InvalidStatement { reason },
            rls::Error::DeadlineExceeded => Self::DeadlineExceeded,
            rls::Error::PoolTimeout => Self::PoolExhausted,
            rls::Error::PoolClosed => Self::PoolClosed,
            rls::Error::Misconfigured { reason } => Self::Misconfigured { reason },
            rls::Error::NoPrimary => Self::ReadOnly,
            rls::Error::Connect(error) => Self::ConnectFailed(error),
            rls::Error::ConnectionLost(source) => Self::ConnectionLost(source),
            rls::Error::CommitUnknown(source) => Self::CommitUnknown(source),
            rls::Error::InvalidClaims { rule } => Self::InvalidClaims { rule },
            rls::Error::Application(source) => match source.downcast_ref::<MissingPrivilege>() {
                Some(MissingPrivilege { table, instead }) => Self::ColumnNotGranted { table, instead },
                None => Self::Database(rls::Error::Application(source).into()),
            },
            rls::Error::Database(error) => translate_db_err(error),
            // `rls::Error` is non-exhaustive: a variant that is added later is not listed here.
            other => Self::Database(other.into()),
        }
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        rls::Error::from(error).into()
    }
}

/// Translates an error that `rls` does not explain: one of SeaORM, or one of the server.
fn translate_db_err(error: DbErr) -> Error {
    match &error {
        // An entity's update matched no row: the row does not exist, or the caller may not change it.
        DbErr::RecordNotUpdated => return Error::NotFound { what: "row that you may change" },
        DbErr::RecordNotFound(_) => return Error::NotFound { what: "row" },
        DbErr::RecordNotInserted => return Error::IdConflict { what: "row" },
        _ => {}
    }
    let Some(server_error) = sqlx_error(&error).and_then(pg_error) else { return Error::Database(error) };
    match server_error.code() {
        // Duplicate prepared statement, invalid SQL statement name: a pooler moved the transaction to a connection on
        // which other statements are prepared.
        "42P05" | "26000" => Error::Misconfigured { reason: UNTRACKED_STATEMENTS_REASON.to_owned() },
        // Class 53 (insufficient resources), or 58030 (I/O error). `rls` maps 53300 (too many connections) to
        // `PoolTimeout`.
        code if code.starts_with("53") || code == "58030" => Error::ServerExhausted(error),
        _ => translate_sqlstate(server_error).unwrap_or(Error::Database(error)),
    }
}

/// Translates an error by its SQLSTATE; `constraints.rs` translates violated constraints. Class `SP` is this project's;
/// the schema raises each code of the class with a constraint name. Numbers that are missing here are not in use.
/// Returns `None` if the SQLSTATE is not listed.
fn translate_sqlstate(error: &SqlxPostgresError) -> Option<Error> {
    let constraint = error.constraint().unwrap_or_default();
    Some(match error.code() {
        "SP001" => Error::CharacterLimitReached,
        "SP002" => Error::SessionFull,
        "SP003" => {
            let (from, to) = error.detail()?.split_once(" -> ")?;
            Error::IllegalTransition { from: parse_status(from)?, to: parse_status(to)? }
        }
        "SP004" => Error::SessionOver,
        "SP005" => Error::SessionStarted,
        "SP006" => Error::CharacterNotYours,
        "SP007" => Error::CharacterRetired,
        "SP008" => Error::CharacterSeated,
        "SP009" => Error::AdventureNotPlayable,
        "SP010" => Error::AdventurePublished,
        "SP011" => Error::HeroicSaveSpent,
        "SP012" => Error::HeroicSaveNotNeeded,
        "SP013" => Error::HeroicSaveTooLate,
        "SP015" => Error::RollNotSaveable,
        "SP016" => Error::InvalidValue { field: "roller", rule: "must be one character or one creature" },
        "SP017" => Error::CreatureNotInAdventure,
        "SP018" => Error::NotYourChoice,
        "SP019" => Error::AccountClosed,
        "SP020" => Error::UnknownJoinCode,
        "SP021" => Error::TutorialOutOfOrder,
        "SP022" => Error::RetiredLimitReached,
        "SP023" => Error::SeatLimitReached,
        "SP024" => Error::SessionLimitReached,
        "SP025" => Error::AdventureLimitReached,
        "SP026" => Error::CreatureLimitReached,
        "SP027" => Error::TooManyRows,
        "SP028" => Error::PlayerRemoved,
        "SP029" => Error::SessionHasNoPlayer,
        "SP030" => Error::InvalidValue { field: "scheduled_start", rule: "must not be more than an hour in the past" },
        "SP031" => Error::SessionLive,
        "SP032" => Error::UnknownAccount,
        "SP037" => no_event_access_error(),
        "SP038" => Error::NotFound { what: "session" },
        "SP039" => Error::InvalidValue { field: "session_id", rule: "must be the same in all rows of a statement" },
        // Unique violation.
        "23505" => unique_constraint_error(constraint),
        // Foreign key violation: the row is still referenced, or references a row that does not exist. Only the message
        // tells which, so the server's messages must be in English (docs/operations.md).
        "23503" if error.message().starts_with("update or delete") => Error::StillReferenced,
        "23503" => Error::NotFound { what: referenced_kind(constraint) },
        // NOT NULL violation. A roll gets the name of its character. If the character does not exist, the name is NULL.
        "23502" if error.column() == Some("character_name") => Error::NotFound { what: "character" },
        "23502" => Error::RuleViolated { constraint: format!("{} NOT NULL", error.column().unwrap_or_default()) },
        // Check violation.
        "23514" => match check_constraint_error(error.table().unwrap_or_default(), constraint) {
            Some(error) => error,
            None => Error::RuleViolated { constraint: constraint.to_owned() },
        },
        // Insufficient privilege: a policy refused the row, or a privilege is missing.
        "42501" => policy_error(constraint).unwrap_or_else(|| Error::NotAllowed { rule: table_rule(error) }),
        // Serialization failure, deadlock, lock not available.
        "40001" | "40P01" | "55P03" => Error::Busy,
        // Triggered data change violation, which the schema's triggers raise too.
        "27000" => Error::InvalidStatement {
            reason: "a function that the statement calls must not change a row that the statement itself changes"
                .to_owned(),
        },
        // In failed SQL transaction.
        "25P02" => Error::TransactionFailed,
        // Read-only SQL transaction.
        "25006" => Error::ReadOnly,
        // Character not in repertoire, untranslatable character: text and JSON cannot contain NUL.
        "22021" | "22P05" => Error::InvalidValue { field: "text", rule: "must not contain NUL" },
        // Numeric value out of range.
        "22003" => Error::InvalidValue { field: "number", rule: "must be within the range of its type" },
        // Invalid text representation.
        "22P02" => Error::InvalidValue { field: "value", rule: "must have the format of its type" },
        // Null value not allowed.
        "22004" => Error::InvalidValue { field: "value", rule: "must not be null" },
        // Datetime field overflow.
        "22008" => Error::InvalidValue { field: "time", rule: "must be a valid date and time" },
        // The statement is wrong for every caller: syntax error; undefined table, parameter, column or function;
        // datatype mismatch, indeterminate datatype, ambiguous column or function, cannot coerce, wrong object type;
        // invalid schema name, nonstandard use of escape character, feature not supported.
        "42601" | "42P01" | "42P02" | "42703" | "42883" | "42804" | "42P18" | "42702" | "42725" | "42846" | "42809"
        | "3F000" | "22P06" | "0A000" => Error::InvalidStatement { reason: error.message().to_owned() },
        // Active SQL transaction, no active SQL transaction: the statement must run outside a transaction, or inside
        // one, respectively.
        "25001" | "25P01" => Error::InvalidStatement { reason: error.message().to_owned() },
        // Program limit exceeded.
        "54000" => Error::InvalidValue { field: "text", rule: "must be shorter" },
        // Statement too complex: the stack depth limit was exceeded.
        "54001" => Error::InvalidValue { field: "document", rule: "must be nested less deeply" },
        _ => return None,
    })
}

/// Returns the error for the reason why a policy refused a statement. A policy gives the reason as a constraint name,
/// and only to callers who may know it; otherwise `constraint` is empty. `None` if it is empty or not listed.
fn policy_error(constraint: &str) -> Option<Error> {
    Some(match constraint {
        "seated" => Error::NotSeated,
        "run_by_seer" => Error::NotSessionSeer,
        "session_active" => Error::SessionNotActive,
        "session_not_started" => Error::SessionStarted,
        "session_not_ended" => Error::SessionOver,
        "own_choice" => Error::NotYourChoice,
        "own_character" => Error::CharacterNotYours,
        "living_character" => Error::CharacterRetired,
        "own_adventure" => Error::AdventureNotYours,
        _ => return None,
    })
}

/// Explains an error about the number of bound values. An operation always binds as many values as its statement has
/// parameters. So the cause is a pooler that moved the transaction to a connection on which another statement is
/// prepared under the same name. Returns other errors unchanged.
pub(crate) fn explain_bind_mismatch(error: Error) -> Error {
    match error {
        // PostgreSQL's message: "bind message supplies 2 parameters, but prepared statement … requires 1".
        Error::InvalidStatement { reason } if reason.starts_with("bind message supplies") => {
            Error::Misconfigured { reason: UNTRACKED_STATEMENTS_REASON.to_owned() }
        }
        error => error,
    }
}

const UNTRACKED_STATEMENTS_REASON: &str = "a pooler in transaction mode does not track prepared statements; use \
    Options::without_prepared_statement_cache, or PgBouncer 1.21 or later with max_prepared_statements";

/// Returns the error for a caller who may not read a session's events.
pub(crate) fn no_event_access_error() -> Error {
    Error::NotAllowed { rule: "only the Seer, players and players who left may read a session's events" }
}

/// What errors say when the caller may not write a database table, or uses a column of the table that is not granted.
struct TableAccess {
    table: &'static str,
    /// Who may write the table.
    rule: &'static str,
    /// What to do instead.
    instead: &'static str,
}

const TABLE_ACCESS: [TableAccess; 12] = [
    TableAccess {
        table: "archived_session_players",
        rule: "only maintenance writes the archive",
        instead: "only read it",
    },
    TableAccess { table: "archived_dice_rolls", rule: "only maintenance writes the archive", instead: "only read it" },
    TableAccess { table: "archived_sessions", rule: "only maintenance writes the archive", instead: "only read it" },
    TableAccess {
        table: "session_players",
        rule: "users take seats only for themselves, in a waiting public session or with the join code; only the \
            Seer removes players and lets them back in",
        instead: "set only session_id, user_id, character_id, is_active and removed_at",
    },
    TableAccess {
        table: "session_events",
        rule: "only participants may send events, of types that begin with `client.`",
        instead: "set only id, session_id, event_type and payload",
    },
    TableAccess {
        table: "tutorial_progress",
        rule: "only the user may see and change their progress in the tutorial",
        instead: "set only user_id, path, current_step, completed_steps, completed_at and skipped",
    },
    TableAccess {
        table: "dice_rolls",
        rule: "only participants of an active session may roll: a player for their own seated character, the Seer \
            for any seated character, their own characters and the creatures",
        instead: "set only what is rolled; the database computes the results",
    },
    TableAccess {
        table: "characters",
        rule: "only the owner of a character may do that",
        instead: "on insert, set only id, user_id, name, class, attributes, equipment and special_ability; on update, \
            only name, equipment, special_ability, hit_points and retired_at",
    },
    TableAccess {
        table: "adventures",
        rule: "only the creator of an adventure may do that; only the service sets rating and validation",
        instead: "do not set is_valid, validation_errors, times_played, average_rating or the timestamps; the service \
            or the database does",
    },
    TableAccess {
        table: "creatures",
        rule: "only the creator of the adventure may do that with its creatures",
        instead: "do not change id, adventure_id or the timestamps",
    },
    TableAccess {
        table: "sessions",
        rule: "only the session's Seer may do that",
        instead: "on insert, set only id, seer_id, adventure_id, is_public, max_players, looking_for and \
            scheduled_start; on update, only is_public, max_players, looking_for, scheduled_start, status, \
            current_scene_id, current_encounter_id and game_state",
    },
    TableAccess {
        table: "users",
        rule: "only the user may edit their profile; only the service changes badge, counters and accounts",
        instead: "read with `into_partial_model::<service::users::Profile>()`, which leaves out the e-mail address; \
            write only display_name, avatar_url and bio",
    },
];

/// Finds the entry of [`TABLE_ACCESS`] for the table that the message of an error about privileges or policies names.
/// In these errors, PostgreSQL names the table nowhere else.
fn find_table_access(message: &str) -> Option<&'static TableAccess> {
    let words: Vec<&str> = message.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    TABLE_ACCESS.iter().find(|access| words.contains(&access.table))
}

/// Returns the rule for a missing privilege, or for a policy that gives no reason: who may write the table that the
/// error's message names. If the message names none of [`TABLE_ACCESS`], the rule is that only the service may do that.
fn table_rule(error: &SqlxPostgresError) -> &'static str {
    find_table_access(error.message()).map_or("only the service may do that", |access| access.rule)
}

/// A caller's statement needs a privilege on a table, or on one of its columns, that users lack.
#[derive(Debug, thiserror::Error)]
#[error("users must not use the table {table}, or some of its columns, in this way: {instead}")]
struct MissingPrivilege {
    table: &'static str,
    instead: &'static str,
}

/// Replaces PostgreSQL's `permission denied`, if a user gets it for a table of [`TABLE_ACCESS`], with an error that
/// says what to do instead. Returns other errors unchanged.
pub(crate) fn explain_missing_privilege(identity: &rls::Identity, error: DbErr) -> DbErr {
    // Only users are told which columns to use: a visitor must sign in first, and `instead` does not apply to the
    // service, which may use more columns.
    if identity.user_id().is_none() {
        return error;
    }
    // A policy's refusal has the same SQLSTATE, but PostgreSQL raises it in another routine.
    let permission_denied = sqlx_error(&error)
        .and_then(pg_error)
        .filter(|server_error| server_error.code() == "42501" && server_error.routine() == Some("aclcheck_error"));
    match permission_denied.and_then(|server_error| find_table_access(server_error.message())) {
        Some(&TableAccess { table, instead, .. }) => {
            rls::Error::Application(Arc::new(MissingPrivilege { table, instead })).into()
        }
        None => error,
    }
}

fn parse_status(text: &str) -> Option<SessionStatus> {
    SessionStatus::iter().find(|status| status.to_value().value == text)
}
