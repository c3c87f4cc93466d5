//! The one place where the database's words become an [`Error`]: SQLSTATEs, constraints, and who may.

use std::sync::Arc;

use entity::sea_orm_active_enums::SessionStatus;
use rls::{pg_error, sqlx_error};
use sea_orm::{ActiveEnum, DbErr, Iterable, SqlxPostgresError};

use super::Error;

/// Every kind of failure has its variant. What is neither the connection's nor a refusal that the table below knows is
/// [`Error::Database`], and so is a state of the server's that nobody can act on.
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
            rls::Error::Application(source) => match source.downcast_ref::<ClosedColumns>() {
                Some(ClosedColumns { table, instead }) => Self::ColumnNotGranted { table, instead },
                None => Self::Database(rls::Error::Application(source).into()),
            },
            rls::Error::Database(error) => refused(error),
            // A kind that this crate does not know yet.
            other => Self::Database(other.into()),
        }
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        rls::Error::from(error).into()
    }
}

fn refused(error: DbErr) -> Error {
    match &error {
        // A change by an entity that met no row: it is not there, or the caller may not change it.
        DbErr::RecordNotUpdated => return Error::NotFound { what: "row that you may change" },
        DbErr::RecordNotFound(_) => return Error::NotFound { what: "row" },
        DbErr::RecordNotInserted => return Error::IdConflict { what: "row" },
        _ => {}
    }
    let Some(said) = sqlx_error(&error).and_then(pg_error) else { return Error::Database(error) };
    match said.code() {
        // A name that another client of a pooler has given to its own statement.
        "42P05" | "26000" => Error::Misconfigured {
            reason: format!(
                "prepared statements collide ({}): the address is that of a pooler in transaction mode, so connect with \
                 Options::default().without_prepared_statements()",
                said.message()
            ),
        },
        // No disk, no memory; a disk that does not write.
        code if code.starts_with("53") || code == "58030" => Error::ServerExhausted(error),
        _ => translate(said).unwrap_or(Error::Database(error)),
    }
}

/// The table of SQLSTATEs and constraints. Class `SP` is ours; the schema raises each with a constraint name.
fn translate(refusal: &SqlxPostgresError) -> Option<Error> {
    let constraint = refusal.constraint().unwrap_or_default();
    Some(match refusal.code() {
        "SP001" => Error::CharacterLimitReached,
        "SP002" => Error::SessionFull,
        "SP003" => {
            let (from, to) = refusal.detail()?.split_once(" -> ")?;
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
        "SP030" => Error::InvalidValue { field: "scheduled_start", rule: "must be in the future" },
        "23505" => unique(constraint),
        "23503" if refusal.message().starts_with("update or delete") => Error::StillReferenced,
        "23503" => Error::NotFound { what: referred(constraint) },
        "23514" => match check(refusal.table().unwrap_or_default(), constraint) {
            Some(error) => error,
            None => Error::RuleViolated { constraint: constraint.to_owned() },
        },
        "42501" => reason(constraint).unwrap_or_else(|| Error::NotAllowed { rule: permission_rule(refusal) }),
        "40001" | "40P01" | "55P03" => Error::Busy,
        "25P02" => Error::TransactionFailed,
        "25006" => Error::ReadOnly,
        "57014" => Error::DeadlineExceeded,
        // Text and documents cannot hold the character NUL.
        "22021" | "22P05" => Error::InvalidValue { field: "text", rule: "must have no NUL in it" },
        "22003" => Error::InvalidValue { field: "number", rule: "must not be as large as that" },
        "22P02" => Error::InvalidValue { field: "value", rule: "must be written as its type asks" },
        "22004" => Error::InvalidValue { field: "value", rule: "must be given" },
        "22008" => Error::InvalidValue { field: "time", rule: "must be within the calendar" },
        // A statement that is wrong in itself, whoever runs it: syntax, names, types.
        "42601" | "42P01" | "42P02" | "42703" | "42883" | "42804" | "42P18" | "42702" | "42725" | "42846" | "42809"
        | "3F000" | "22P06" | "0A000" => Error::InvalidStatement { reason: refusal.message().to_owned() },
        // A pooler gave the transaction a connection on which another prepared its statements.
        "26000" | "42P05" => Error::Misconfigured { reason: WITHOUT_PREPARED_STATEMENTS.to_owned() },
        "25001" | "25P01" => Error::InvalidStatement { reason: refusal.message().to_owned() },
        "54000" => Error::InvalidValue { field: "text", rule: "must not be as long as that" },
        "54001" => Error::InvalidValue { field: "document", rule: "must not be nested as deep as that" },
        _ => return None,
    })
}

/// Why a policy says no, where whoever asks may know.
fn reason(constraint: &str) -> Option<Error> {
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

const WITHOUT_PREPARED_STATEMENTS: &str = "a pooler in transaction mode does not follow prepared statements; set \
    Options::without_prepared_statements, or use PgBouncer 1.21 or later with max_prepared_statements";

/// What somebody is told who may not listen to a session.
pub(crate) fn not_listener() -> Error {
    Error::NotAllowed { rule: "only the Seer and those who have or had a seat may listen to a session" }
}

fn unique(constraint: &str) -> Error {
    let what = match constraint {
        "unique_user_character_name" => return Error::CharacterNameTaken,
        "idx_dice_rolls_original" => return Error::RollAlreadySaved,
        // Two drew the same code at once: the next draw is another.
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

/// What a foreign key refers to.
fn referred(constraint: &str) -> &'static str {
    const COLUMNS: [(&str, &str); 5] = [
        ("_adventure_id_fkey", "adventure"),
        ("_character_id_fkey", "character"),
        ("_creature_id_fkey", "creature"),
        ("_session_id_fkey", "session"),
        ("_original_roll_id_fkey", "roll"),
    ];
    COLUMNS.iter().find(|(column, _)| constraint.ends_with(column)).map_or("user", |(_, what)| what)
}

fn check(table: &str, constraint: &str) -> Option<Error> {
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
            "must have a visible character, and no control, bidirectional or zero-width ones",
        ),
        "reserved_email_is_own" => ("email", "must not be in a reserved domain"),
        "account_is_own" => ("account_id", "must equal the id"),
        "removed_is_inactive" => ("removed_at", "must be empty while the seat is held"),
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
        "valid_modifiers" => {
            ("modifiers", "must be at most ten, dice from -5 to 5 and flat from -10 to 10, each with its source")
        }
        "valid_stats" => ("stats", "must hold might, grace, wit and heart, whole numbers from 1 to 10"),
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
        "valid_results" => ("results", "must be as many as the dice, each 1 to 6"),
        "valid_total" => ("total", "must be the sum of the results"),
        "valid_modified_total" => ("modified_total", "must be the total and the flat modifiers"),
        "valid_margin" => ("margin", "must be the modified total less the difficulty"),
        "valid_outcome" => ("outcome", "must follow from the results and the difficulty"),
        "valid_success" => ("success", "must follow from the outcome"),
        "valid_roller" => ("roller", "must be one character or one creature"),
        "valid_heroic_save" => ("original_roll_id", "must be named by a heroic save, and by nothing else"),
        "valid_event_type" => ("kind", "must have 1 to 64 characters, `client.` among them"),
        "valid_step" => ("current_step", "must be a step of the tutorial"),
        "users_games_played_check" => ("games_played", "must not be negative"),
        "users_games_run_check" => ("games_run", "must not be negative"),
        "readable_document" => ("document", "must be at most a hundred levels deep, with numbers up to 1e308"),
        _ if constraint.starts_with("bounded_") => return bound(table, constraint),
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

/// What a client may write at most (decision "Bounds").
fn bound(table: &str, constraint: &str) -> Option<Error> {
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
        (_, "bounded_schedule") => ("scheduled_start", "must be from the year 2000 to 2999"),
        (_, "bounded_scene") => ("scene", "must have at most 200 characters"),
        (_, "bounded_encounter") => ("encounter", "must have at most 200 characters"),
        (_, "bounded_game_state") => ("game_state", "must take at most 256 KiB"),
        (_, "bounded_payload") => ("payload", "must take at most 16 KiB"),
        (_, "bounded_modifiers") => ("modifiers", "must take at most 8 KiB"),
        _ => return None,
    };
    Some(Error::InvalidValue { field, rule })
}

/// Each table with who may write it, and what to use where a column is closed.
const TABLES: [(&str, &str, &str); 12] = [
    // Longer names first: one may be part of another.
    ("archived_session_players", "only the archiving writes the archive", "read only"),
    ("archived_dice_rolls", "only the archiving writes the archive", "read only"),
    ("archived_sessions", "only the archiving writes the archive", "read only"),
    (
        "session_players",
        "only a player takes their own seat, in a public session that waits or by its code; only the Seer removes \
         players and lets them back in",
        "set session_id, user_id, character_id, is_active and removed_at alone",
    ),
    (
        "session_events",
        "only those in the session send events, of kinds that begin with `client.`",
        "set id, session_id, event_type and payload alone",
    ),
    (
        "tutorial_progress",
        "only its user may see and change the progress in the tutorial",
        "set path, current_step, completed_steps, completed_at and skipped alone",
    ),
    (
        "dice_rolls",
        "only those in an active session roll: a player for their own seated character, its Seer for any that is seated, \
         their own, and the creatures",
        "set what is rolled, and leave what comes of it to the database",
    ),
    (
        "characters",
        "only its owner may do that with a character",
        "set name, class, attributes, equipment and special_ability when it is made; name, equipment, special_ability, \
         hit_points and retired_at later",
    ),
    (
        "adventures",
        "only its creator may do that with an adventure; rating and validation are the service's",
        "leave is_valid, validation_errors, times_played, average_rating and the times to the server",
    ),
    (
        "creatures",
        "only the creator of the adventure may do that with its creatures",
        "leave id, adventure and times as they are",
    ),
    ("sessions", "only its Seer may do that with a session", "leave seer_id, code, counts and times to the server"),
    (
        "users",
        "only its owner may edit a profile; badge, counts and accounts are the service's",
        "read with `into_partial_model::<service::users::Profile>()`, which leaves out the address; write display_name, \
         avatar_url and bio alone",
    ),
];

/// The table that a refusal speaks of: PostgreSQL names it in the text alone, in whatever language.
fn table_of(text: &str) -> Option<&'static (&'static str, &'static str, &'static str)> {
    TABLES.iter().find(|(name, _, _)| text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *name))
}

fn permission_rule(refusal: &SqlxPostgresError) -> &'static str {
    match table_of(refusal.message()) {
        Some((_, rule, _)) => rule,
        None => "only the service may do that",
    }
}

/// A statement of a caller's named a column that is closed to users.
#[derive(Debug, thiserror::Error)]
#[error("a statement must not name a column of {table} that is closed to users: {instead}")]
struct ClosedColumns {
    table: &'static str,
    instead: &'static str,
}

/// Says which columns are closed, where a caller's own statement met one: PostgreSQL says `permission denied` alone.
pub(crate) fn name_closed_columns(identity: &rls::Identity, error: DbErr) -> DbErr {
    // A visitor may read none of them, and the service all.
    if identity.user_id().is_none() {
        return error;
    }
    let said = sqlx_error(&error).and_then(pg_error);
    let denied = said.filter(|said| said.code() == "42501" && said.routine() == Some("aclcheck_error"));
    match denied.and_then(|said| table_of(said.message())) {
        Some((table, _, instead)) => rls::Error::Application(Arc::new(ClosedColumns { table, instead })).into(),
        None => error,
    }
}

fn status(text: &str) -> Option<SessionStatus> {
    SessionStatus::iter().find(|status| status.to_value().value == text)
}
