//! The only place that converts database errors to [`Error`]: SQLSTATEs, constraints, and the rules about who may do
//! what.

use std::sync::Arc;

use entity::sea_orm_active_enums::SessionStatus;
use rls::{pg_error, sqlx_error};
use sea_orm::{ActiveEnum, DbErr, Iterable, SqlxPostgresError};

use super::Error;

/// Maps each kind of failure to its variant. What is neither a connection error nor in the table below is
/// [`Error::Database`], including states of the server on which a caller cannot act.
impl From<rls::Error> for Error {
    fn from(error: rls::Error) -> Self {
        match error {
            rls::Error::NestedTransactionOpen => Self::NestedTransactionOpen,
            rls::Error::TransactionOver => Self::TransactionOver,
            rls::Error::TransactionFailed => Self::TransactionFailed,
            rls::Error::IdentityChanged => Self::IdentityChanged,
            rls::Error::TransactionEnded => Self::TransactionEnded,
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
            rls::Error::Application(source) => match source.downcast_ref::<UngrantedColumn>() {
                Some(UngrantedColumn { table, instead }) => Self::ColumnNotGranted { table, instead },
                None => Self::Database(rls::Error::Application(source).into()),
            },
            rls::Error::Database(error) => translate_error(error),
            // A variant that this crate does not know yet.
            other => Self::Database(other.into()),
        }
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        rls::Error::from(error).into()
    }
}

fn translate_error(error: DbErr) -> Error {
    match &error {
        // An entity's update matched no row: it does not exist, or the caller may not change it.
        DbErr::RecordNotUpdated => return Error::NotFound { what: "row that you may change" },
        DbErr::RecordNotFound(_) => return Error::NotFound { what: "row" },
        DbErr::RecordNotInserted => return Error::IdConflict { what: "row" },
        _ => {}
    }
    let Some(server_error) = sqlx_error(&error).and_then(pg_error) else { return Error::Database(error) };
    match server_error.code() {
        // Another client of a pooler has used the name for a statement of its own.
        "42P05" | "26000" => Error::Misconfigured { reason: WITHOUT_PREPARED_STATEMENTS.to_owned() },
        // Out of disk space or memory, or an I/O error.
        code if code.starts_with("53") || code == "58030" => Error::ServerExhausted(error),
        _ => translate_sqlstate(server_error).unwrap_or(Error::Database(error)),
    }
}

/// The table of SQLSTATEs and constraints. Class `SP` is this project's; the schema raises each code with a constraint
/// name.
fn translate_sqlstate(error: &SqlxPostgresError) -> Option<Error> {
    let constraint = error.constraint().unwrap_or_default();
    Some(match error.code() {
        "SP001" => Error::CharacterLimitReached,
        "SP002" => Error::SessionFull,
        "SP003" => {
            let (from, to) = error.detail()?.split_once(" -> ")?;
            Error::IllegalTransition { from: status(from)?, to: status(to)? }
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
        "SP031" => Error::SessionLive,
        "SP032" => Error::UnknownAccount,
        "SP037" => not_listener(),
        "SP038" => Error::NotFound { what: "session" },
        "SP039" => Error::InvalidValue { field: "session_id", rule: "must be the same in all rows of a statement" },
        "SP030" => Error::InvalidValue { field: "scheduled_start", rule: "must be in the future" },
        "23505" => unique_violation(constraint),
        "23503" if error.message().starts_with("update or delete") => Error::StillReferenced,
        "23503" => Error::NotFound { what: referenced_kind(constraint) },
        "23514" => match check_violation(error.table().unwrap_or_default(), constraint) {
            Some(error) => error,
            None => Error::RuleViolated { constraint: constraint.to_owned() },
        },
        "42501" => policy_error(constraint).unwrap_or_else(|| Error::NotAllowed { rule: permission_rule(error) }),
        "40001" | "40P01" | "55P03" => Error::Busy,
        "25P02" => Error::TransactionFailed,
        "25006" => Error::ReadOnly,
        "57014" => Error::DeadlineExceeded,
        // Text and JSON cannot contain NUL.
        "22021" | "22P05" => Error::InvalidValue { field: "text", rule: "must not contain NUL" },
        "22003" => Error::InvalidValue { field: "number", rule: "must be within the range of its type" },
        "22P02" => Error::InvalidValue { field: "value", rule: "must have the format of its type" },
        "22004" => Error::InvalidValue { field: "value", rule: "must not be null" },
        "22008" => Error::InvalidValue { field: "time", rule: "must be a valid date and time" },
        // The statement is wrong for every caller: syntax, names or types.
        "42601" | "42P01" | "42P02" | "42703" | "42883" | "42804" | "42P18" | "42702" | "42725" | "42846" | "42809"
        | "3F000" | "22P06" | "0A000" => Error::InvalidStatement { reason: error.message().to_owned() },
        "25001" | "25P01" => Error::InvalidStatement { reason: error.message().to_owned() },
        "54000" => Error::InvalidValue { field: "text", rule: "must be shorter" },
        "54001" => Error::InvalidValue { field: "document", rule: "must be nested less deeply" },
        _ => return None,
    })
}

/// Returns the reason of a policy's error, if the caller may know it.
fn policy_error(constraint: &str) -> Option<Error> {
    Some(match constraint {
        "seated" => Error::NotSeated,
        "run_by_seer" => Error::NotSessionSeer,
        "session_active" => Error::SessionNotActive,
        "session_not_started" => Error::SessionStarted,
        "session_live" => Error::SessionOver,
        "own_choice" => Error::NotYourChoice,
        "own_character" => Error::CharacterNotYours,
        "living_character" => Error::CharacterRetired,
        "own_adventure" => Error::AdventureNotYours,
        _ => return None,
    })
}

/// Explains an error of an operation's own statement, which has as many values as it needs: if it does not, a pooler
/// moved the transaction to a connection where another statement has the name.
pub(crate) fn of_own_statement(error: Error) -> Error {
    match error {
        Error::InvalidStatement { reason } if reason.starts_with("bind message supplies") => {
            Error::Misconfigured { reason: WITHOUT_PREPARED_STATEMENTS.to_owned() }
        }
        error => error,
    }
}

const WITHOUT_PREPARED_STATEMENTS: &str = "a pooler in transaction mode does not track prepared statements; use \
    Options::without_prepared_statements, or PgBouncer 1.21 or later with max_prepared_statements";

/// Returns the error for a caller who may not listen to a session.
pub(crate) fn not_listener() -> Error {
    Error::NotAllowed { rule: "only the Seer and current or former players may listen to a session" }
}

fn unique_violation(constraint: &str) -> Error {
    let what = match constraint {
        "unique_user_character_name" => return Error::CharacterNameTaken,
        "idx_dice_rolls_original" => return Error::RollAlreadySaved,
        // Two sessions generated the same code at once. A retry generates another.
        "sessions_code_key" => return Error::Busy,
        "users_email_key" => return Error::InvalidValue { field: "email", rule: "must not be another account's" },
        "users_pkey" | "users_account_id_key" => "account",
        "characters_pkey" => "character",
        "adventures_pkey" => "adventure",
        "creatures_pkey" => "creature",
        "sessions_pkey" | "archived_sessions_pkey" => "session",
        "session_players_pkey" | "session_players_replica_id_key" | "archived_session_players_pkey" => "seat",
        "dice_rolls_pkey" | "archived_dice_rolls_pkey" => "roll",
        "session_events_pkey" | "idx_session_events_seq" => "event",
        "tutorial_progress_pkey" => "tutorial",
        _ => "row",
    };
    Error::IdConflict { what }
}

/// Returns what a foreign key references.
fn referenced_kind(constraint: &str) -> &'static str {
    const COLUMNS: [(&str, &str); 5] = [
        ("_adventure_id_fkey", "adventure"),
        ("_character_id_fkey", "character"),
        ("_creature_id_fkey", "creature"),
        ("_session_id_fkey", "session"),
        ("_original_roll_id_fkey", "roll"),
    ];
    COLUMNS.iter().find(|(column, _)| constraint.ends_with(column)).map_or("user", |(_, what)| what)
}

fn check_violation(table: &str, constraint: &str) -> Option<Error> {
    let (field, rule) = match constraint {
        "seats_within_limit" => return Some(Error::MaxPlayersBelowSeated),
        "character_not_seated" => return Some(Error::CharacterSeated),
        "character_limit" => return Some(Error::CharacterLimitReached),
        "retired_character_limit" => return Some(Error::RetiredLimitReached),
        "live_seat_limit" => return Some(Error::SeatLimitReached),
        "live_session_limit" => return Some(Error::SessionLimitReached),
        "adventure_limit" => return Some(Error::AdventureLimitReached),
        "creature_limit" => return Some(Error::CreatureLimitReached),
        "clean_name" => (
            if table == "users" { "display_name" } else { "name" },
            "must have a visible character and no control, bidirectional or zero-width characters",
        ),
        "reserved_email_is_own" => ("email", "must not be in a reserved domain"),
        "web_avatar_url" => ("avatar_url", "must be an http or https URL, or a path"),
        "web_thumbnail_url" => ("thumbnail_url", "must be an http or https URL, or a path"),
        "web_artwork_url" => ("artwork_url", "must be an http or https URL, or a path"),
        "account_is_own" => ("account_id", "must equal the id"),
        "removed_is_inactive" => ("removed_at", "must be null while the player is seated"),
        "adventures_average_rating_check" => ("average_rating", "must be 0 to 5"),
        "published_is_valid" => return Some(Error::AdventureInvalid(Vec::new())),
        "valid_name" => (
            "name",
            match table {
                "characters" => "must have 2 to 50 characters",
                "adventures" => "must have 3 to 100 characters",
                _ => "must have 1 to 100 characters",
            },
        ),
        "valid_modifiers" => (
            "modifiers",
            "must be at most ten: dice modifiers from -5 to 5 and flat ones from -10 to 10, each with a source",
        ),
        "valid_stats" => ("stats", "must have might, grace, wit and heart, integers from 1 to 10"),
        "valid_player_range" => ("min_players", "must not be above max_players"),
        "adventures_min_players_check" => ("min_players", "must be 1 to 6"),
        "adventures_max_players_check" => ("max_players", "must be 1 to 6"),
        "adventures_estimated_duration_check" => ("estimated_duration", "must be one minute or more"),
        "adventures_times_played_check" => ("times_played", "must not be negative"),
        "sessions_max_players_check" => ("max_players", "must be 2 to 6"),
        "valid_code" => ("code", "must have six letters or digits"),
        "characters_hit_points_check" => ("hit_points", "must be 0 to the maximum"),
        "characters_max_hit_points_check" => ("max_hit_points", "must be 1 to 10"),
        "characters_level_check" => ("level", "must be 1 to 10"),
        "characters_experience_check" => ("experience", "must not be negative"),
        "characters_might_check" => ("might", "must be 1 to 6"),
        "characters_grace_check" => ("grace", "must be 1 to 6"),
        "characters_wit_check" => ("wit", "must be 1 to 6"),
        "characters_heart_check" => ("heart", "must be 1 to 6"),
        "creatures_hit_points_check" => ("hit_points", "must be 0 to 1000"),
        "creatures_armor_check" => ("armor", "must be 0 to 100"),
        "dice_rolls_difficulty_check" => ("difficulty", "must be 3 to 18"),
        "dice_rolls_dice_count_check" => ("dice_count", "must be 1 to 10"),
        "valid_results" => ("results", "must have one result per die, each 1 to 6"),
        "valid_total" => ("total", "must be the sum of the results"),
        "valid_modified_total" => ("modified_total", "must be the total plus the flat modifiers"),
        "valid_margin" => ("margin", "must be the modified total minus the difficulty"),
        "valid_outcome" => ("outcome", "must follow from the results and the difficulty"),
        "valid_success" => ("success", "must follow from the outcome"),
        "valid_roller" => ("roller", "must be one character or one creature"),
        "valid_heroic_save" => ("original_roll_id", "must be set for a heroic save, and only for one"),
        "valid_event_type" => {
            ("kind", "must have 1 to 64 characters, including the prefix `client.`, and no control characters")
        }
        "valid_step" => ("current_step", "must be a step of the tutorial"),
        "users_games_played_check" => ("games_played", "must not be negative"),
        "users_games_run_check" => ("games_run", "must not be negative"),
        "readable_document" => {
            ("document", "must have at most a hundred levels, and no number beyond 1e308 or closer to 0 than 1e-308")
        }
        _ if constraint.starts_with("bounded_") => return size_limit(table, constraint),
        "adventures_creature_count_check" => ("creature_count", "must not be negative"),
        "users_adventure_count_check" => ("adventure_count", "must not be negative"),
        "users_living_characters_check" => ("living_characters", "must not be negative"),
        "users_retired_characters_check" => ("retired_characters", "must not be negative"),
        "users_live_sessions_check" => ("live_sessions", "must not be negative"),
        _ if constraint.ends_with("_live_seats_check") => ("live_seats", "must not be negative"),
        _ if constraint.ends_with("_seats_taken_check") => ("seats_taken", "must not be negative"),
        _ if constraint.ends_with("_encounters_begun_check") => ("encounters_begun", "must not be negative"),
        _ if constraint.ends_with("_game_state_version_check") => ("game_state_version", "must not be negative"),
        _ if constraint.ends_with("_heroic_saves_used_check") => ("heroic_saves_used", "must not be negative"),
        _ if constraint.ends_with("_heroic_saves_encounter_check") => {
            ("heroic_saves_encounter", "must not be negative")
        }
        _ => return None,
    };
    Some(Error::InvalidValue { field, rule })
}

/// Returns the error for a size limit (decision "Bounds").
fn size_limit(table: &str, constraint: &str) -> Option<Error> {
    let (field, rule) = match (table, constraint) {
        (_, "bounded_display_name") => ("display_name", "must have 1 to 100 characters"),
        (_, "bounded_avatar_url") => ("avatar_url", "must have at most 2,000 characters"),
        (_, "bounded_bio") => ("bio", "must have at most 2,000 characters"),
        (_, "bounded_equipment") => ("equipment", "must take at most 64 KiB"),
        (_, "bounded_special_ability") => ("special_ability", "must take at most 16 KiB"),
        ("adventures", "bounded_description") => ("description", "must have at most 10,000 characters"),
        ("creatures", "bounded_description") => ("description", "must have at most 5,000 characters"),
        (_, "bounded_description") => ("description", "must have at most 500 characters"),
        (_, "bounded_thumbnail_url") => ("thumbnail_url", "must have at most 2,000 characters"),
        (_, "bounded_artwork_url") => ("artwork_url", "must have at most 2,000 characters"),
        (_, "bounded_content") => ("content", "must take at most 1 MiB"),
        (_, "bounded_stats") => ("stats", "must take at most 16 KiB"),
        (_, "bounded_abilities") => ("abilities", "must take at most 64 KiB"),
        (_, "bounded_looking_for") => ("looking_for", "must have at most 500 characters"),
        (_, "bounded_schedule") => ("scheduled_start", "must be between the years 2000 and 2999"),
        (_, "bounded_scene") => ("scene", "must have at most 200 characters"),
        (_, "bounded_encounter") => ("encounter", "must have at most 200 characters"),
        (_, "bounded_game_state") => ("game_state", "must take at most 256 KiB"),
        (_, "bounded_payload") => ("payload", "must take at most 16 KiB"),
        (_, "bounded_modifiers") => ("modifiers", "must take at most 8 KiB"),
        _ => return None,
    };
    Some(Error::InvalidValue { field, rule })
}

/// For each table: who may write it, and what to use if a column is not granted.
const TABLES: [(&str, &str, &str); 12] = [
    // Longer names come first, because one may be part of another.
    ("archived_session_players", "only maintenance writes the archive", "read only"),
    ("archived_dice_rolls", "only maintenance writes the archive", "read only"),
    ("archived_sessions", "only maintenance writes the archive", "read only"),
    (
        "session_players",
        "only players take their own seats, in a waiting public session or with the join code; only the Seer removes \
         players and lets them back in",
        "set only session_id, user_id, character_id, is_active and removed_at",
    ),
    (
        "session_events",
        "only participants may send events, of types that begin with `client.`",
        "set only id, session_id, event_type and payload",
    ),
    (
        "tutorial_progress",
        "only the user may see and change their progress in the tutorial",
        "set only path, current_step, completed_steps, completed_at and skipped",
    ),
    (
        "dice_rolls",
        "only participants of an active session may roll: a player for their own seated character, the Seer for any \
         seated character, their own characters and the creatures",
        "set only what is rolled; the database computes the results",
    ),
    (
        "characters",
        "only the owner of a character may do that",
        "on insert, set only name, class, attributes, equipment and special_ability; on update, only name, equipment, \
         special_ability, hit_points and retired_at",
    ),
    (
        "adventures",
        "only the creator of an adventure may do that; only the service sets rating and validation",
        "do not set is_valid, validation_errors, times_played, average_rating or the timestamps; the server does",
    ),
    (
        "creatures",
        "only the creator of the adventure may do that with its creatures",
        "do not change id, adventure_id or the timestamps",
    ),
    (
        "sessions",
        "only the session's Seer may do that",
        "do not set seer_id, code, the counters or the timestamps; the server does",
    ),
    (
        "users",
        "only the user may edit their profile; only the service changes badge, counters and accounts",
        "read with `into_partial_model::<service::users::Profile>()`, which leaves out the e-mail address; write only \
         display_name, avatar_url and bio",
    ),
];

/// Returns the entry of the table that an error is about. PostgreSQL names it only in the message, which may be in any
/// language.
fn table_of(text: &str) -> Option<&'static (&'static str, &'static str, &'static str)> {
    TABLES.iter().find(|(name, _, _)| text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *name))
}

fn permission_rule(error: &SqlxPostgresError) -> &'static str {
    match table_of(error.message()) {
        Some((_, rule, _)) => rule,
        None => "only the service may do that",
    }
}

/// A statement of a caller's uses a column that is not granted to users.
#[derive(Debug, thiserror::Error)]
#[error("a statement must not use a column of {table} that is not granted to users: {instead}")]
struct UngrantedColumn {
    table: &'static str,
    instead: &'static str,
}

/// Replaces PostgreSQL's `permission denied`, which does not say what to use, with the error that does.
pub(crate) fn name_closed_columns(identity: &rls::Identity, error: DbErr) -> DbErr {
    // A visitor may read none of these columns, and the service may read all.
    if identity.user_id().is_none() {
        return error;
    }
    let server_error = sqlx_error(&error).and_then(pg_error);
    let denied = server_error
        .filter(|server_error| server_error.code() == "42501" && server_error.routine() == Some("aclcheck_error"));
    match denied.and_then(|server_error| table_of(server_error.message())) {
        Some((table, _, instead)) => rls::Error::Application(Arc::new(UngrantedColumn { table, instead })).into(),
        None => error,
    }
}

fn status(text: &str) -> Option<SessionStatus> {
    SessionStatus::iter().find(|status| status.to_value().value == text)
}
