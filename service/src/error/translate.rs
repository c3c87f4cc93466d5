//! The one place where the database's words become an [`Error`]: SQLSTATEs, constraints, and who may.

use entity::sea_orm_active_enums::SessionStatus;
use sea_orm::{ActiveEnum, DbErr, Iterable, RuntimeErr, SqlxError, SqlxPostgresError};

use super::Error;
use crate::identity::{CHANGED, FIXED, OVER, TORN};

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        match &error {
            DbErr::ConnectionAcquire(_) => Self::PoolExhausted(error),
            DbErr::Custom(text) if text == CHANGED => Self::IdentityChanged,
            DbErr::Custom(text) if text == TORN || text == OVER => Self::TransactionFailed,
            DbErr::Custom(text) if text == FIXED => Self::IdentityIsFixed,
            DbErr::Custom(text) => closed(text).unwrap_or(Self::Database(error)),
            // The end of a transaction was waited for in vain.
            DbErr::Conn(RuntimeErr::Internal(_)) => Self::ConnectionLost(error),
            _ => match server_said(&error) {
                Some(SqlxError::Io(_) | SqlxError::Tls(_) | SqlxError::Protocol(_) | SqlxError::WorkerCrashed) => {
                    Self::ConnectionLost(error)
                }
                Some(SqlxError::PoolTimedOut | SqlxError::PoolClosed) => Self::PoolExhausted(error),
                Some(inner) => match refusal(inner) {
                    // The server ended the connection (shutdown, termination), and said so first.
                    Some(said) if said.code().starts_with("57P") || said.code().starts_with("08") => {
                        Self::ConnectionLost(error)
                    }
                    // Too many connections.
                    Some(said) if said.code() == "53300" => Self::PoolExhausted(error),
                    // No disk, no memory; a disk that does not write.
                    Some(said) if said.code().starts_with("53") || said.code() == "58030" => {
                        Self::ServerExhausted(error)
                    }
                    Some(said) => translate(said).unwrap_or(Self::Database(error)),
                    None => Self::Database(error),
                },
                None => Self::Database(error),
            },
        }
    }
}

fn server_said(error: &DbErr) -> Option<&SqlxError> {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(inner))
        | DbErr::Query(RuntimeErr::SqlxError(inner))
        | DbErr::Conn(RuntimeErr::SqlxError(inner)) => Some(inner),
        _ => None,
    }
}

fn refusal(error: &SqlxError) -> Option<&SqlxPostgresError> {
    error.as_database_error().and_then(|refusal| refusal.try_downcast_ref())
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
        "SP016" => Error::InvalidValue { field: "roller", rule: "is one character or one creature" },
        "SP017" => Error::CreatureNotInAdventure,
        "SP018" => Error::NotYourChoice,
        "SP019" => Error::AccountClosed,
        "SP020" => Error::NoSuchCode,
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
        "SP030" => Error::InvalidValue { field: "scheduled_start", rule: "must be in the future" },
        "23505" => unique(constraint),
        "23503" if refusal.message().starts_with("update or delete") => Error::HasHistory,
        "23503" => Error::NotFound { what: referred(constraint) },
        "23514" => match check(refusal.table().unwrap_or_default(), constraint) {
            Some(error) => error,
            None => Error::RuleViolated { constraint: constraint.to_owned() },
        },
        "42501" => Error::NotAllowed { rule: who_may(refusal) },
        "40001" | "40P01" | "55P03" => Error::Busy,
        "25P02" => Error::TransactionFailed,
        "25006" => Error::ReadOnly,
        "57014" => Error::DeadlineExceeded,
        // Text and documents cannot hold the character NUL.
        "22021" | "22P05" => Error::InvalidValue { field: "text", rule: "has no NUL in it" },
        "22003" => Error::InvalidValue { field: "number", rule: "is not as large as that" },
        "22P02" => Error::InvalidValue { field: "value", rule: "is written as its type asks" },
        "22004" => Error::InvalidValue { field: "value", rule: "must be given" },
        "22008" => Error::InvalidValue { field: "time", rule: "is within the calendar" },
        "54000" => Error::InvalidValue { field: "text", rule: "is not as long as that" },
        "54001" => Error::InvalidValue { field: "document", rule: "is not nested as deep as that" },
        _ => return None,
    })
}

fn unique(constraint: &str) -> Error {
    let what = match constraint {
        "unique_user_character_name" => return Error::CharacterNameTaken,
        "idx_dice_rolls_original" => return Error::RollAlreadySaved,
        // Two drew the same code at once: the next draw is another.
        "sessions_code_key" => return Error::Busy,
        "users_email_key" => return Error::InvalidValue { field: "email", rule: "is not another account's" },
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
        "seats_within_limit" => return Some(Error::SeatsAreTaken),
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
                "characters" => "has 2 to 50 characters",
                "adventures" => "has 3 to 100 characters",
                _ => "has 1 to 100 characters",
            },
        ),
        "valid_modifiers" => {
            ("modifiers", "are at most ten, dice from -5 to 5 and flat from -10 to 10, each with its source")
        }
        "valid_stats" => ("stats", "holds might, grace, wit and heart, whole numbers from 1 to 10"),
        "valid_player_range" => ("min_players", "is not above max_players"),
        "adventures_min_players_check" => ("min_players", "is 1 to 6"),
        "adventures_max_players_check" => ("max_players", "is 1 to 6"),
        "adventures_estimated_duration_check" => ("estimated_duration", "is one minute or more"),
        "adventures_times_played_check" => ("times_played", "is not negative"),
        "sessions_max_players_check" => ("max_players", "is 2 to 6"),
        "valid_code" => ("code", "has six letters or digits"),
        "characters_hit_points_check" => ("hit_points", "is 0 to the maximum"),
        "characters_max_hit_points_check" => ("max_hit_points", "is 1 to 10"),
        "characters_level_check" => ("level", "is 1 to 10"),
        "characters_experience_check" => ("experience", "is not negative"),
        "characters_might_check" => ("might", "is 1 to 6"),
        "characters_grace_check" => ("grace", "is 1 to 6"),
        "characters_wit_check" => ("wit", "is 1 to 6"),
        "characters_heart_check" => ("heart", "is 1 to 6"),
        "creatures_hit_points_check" => ("hit_points", "is 0 to 1000"),
        "creatures_armor_check" => ("armor", "is 0 to 100"),
        "dice_rolls_difficulty_check" => ("difficulty", "is 3 to 18"),
        "dice_rolls_dice_count_check" => ("dice_count", "is 1 to 10"),
        "valid_results" => ("results", "are as many as the dice, each 1 to 6"),
        "valid_total" => ("total", "is the sum of the results"),
        "valid_modified_total" => ("modified_total", "is the total and the flat modifiers"),
        "valid_margin" => ("margin", "is the modified total less the difficulty"),
        "valid_outcome" => ("outcome", "follows from the results and the difficulty"),
        "valid_success" => ("success", "follows from the outcome"),
        "valid_roller" => ("roller", "is one character or one creature"),
        "valid_heroic_save" => ("original_roll_id", "is named by a heroic save, and by nothing else"),
        "valid_event_type" => ("kind", "has 1 to 64 characters, `client.` among them"),
        "valid_step" => ("current_step", "is a step of the tutorial"),
        "users_games_played_check" => ("games_played", "is not negative"),
        "users_games_run_check" => ("games_run", "is not negative"),
        "readable_document" => ("document", "is at most a hundred levels deep, with numbers up to 1e308"),
        _ if constraint.starts_with("bounded_") => return bound(table, constraint),
        "adventures_creature_count_check" => ("creature_count", "must not be negative"),
        "users_adventure_count_check" => ("adventure_count", "must not be negative"),
        "users_living_characters_check" => ("living_characters", "must not be negative"),
        "users_retired_characters_check" => ("retired_characters", "must not be negative"),
        "users_live_sessions_check" => ("live_sessions", "must not be negative"),
        _ if constraint.ends_with("_live_seats_check") => ("live_seats", "must not be negative"),
        _ if constraint.ends_with("_seats_taken_check") => ("seats_taken", "is not negative"),
        _ if constraint.ends_with("_encounters_begun_check") => ("encounters_begun", "is not negative"),
        _ if constraint.ends_with("_game_state_version_check") => ("game_state_version", "is not negative"),
        _ if constraint.ends_with("_heroic_saves_used_check") => ("heroic_saves_used", "is not negative"),
        _ if constraint.ends_with("_heroic_saves_encounter_check") => ("heroic_saves_encounter", "is not negative"),
        _ => return None,
    };
    Some(Error::InvalidValue { field, rule })
}

/// What a client may write at most (decision "Bounds").
fn bound(table: &str, constraint: &str) -> Option<Error> {
    let (field, rule) = match (table, constraint) {
        (_, "bounded_display_name") => ("display_name", "has 1 to 100 characters"),
        (_, "bounded_avatar_url") => ("avatar_url", "has at most 2,000 characters"),
        (_, "bounded_bio") => ("bio", "has at most 2,000 characters"),
        (_, "bounded_equipment") => ("equipment", "takes at most 64 KiB"),
        (_, "bounded_special_ability") => ("special_ability", "takes at most 16 KiB"),
        ("adventures", "bounded_description") => ("description", "has at most 10,000 characters"),
        ("creatures", "bounded_description") => ("description", "has at most 5,000 characters"),
        (_, "bounded_description") => ("description", "has at most 500 characters"),
        (_, "bounded_thumbnail_url") => ("thumbnail_url", "has at most 2,000 characters"),
        (_, "bounded_artwork_url") => ("artwork_url", "has at most 2,000 characters"),
        (_, "bounded_content") => ("content", "takes at most 1 MiB"),
        (_, "bounded_stats") => ("stats", "takes at most 16 KiB"),
        (_, "bounded_abilities") => ("abilities", "takes at most 64 KiB"),
        (_, "bounded_looking_for") => ("looking_for", "has at most 500 characters"),
        (_, "bounded_schedule") => ("scheduled_start", "is from the year 2000 to 2999"),
        (_, "bounded_scene") => ("scene", "has at most 200 characters"),
        (_, "bounded_encounter") => ("encounter", "has at most 200 characters"),
        (_, "bounded_game_state") => ("game_state", "takes at most 256 KiB"),
        (_, "bounded_payload") => ("payload", "takes at most 16 KiB"),
        (_, "bounded_modifiers") => ("modifiers", "take at most 8 KiB"),
        _ => return None,
    };
    Some(Error::InvalidValue { field, rule })
}

/// Each table with who may write it, and what to use where a column is closed.
const TABLES: [(&str, &str, &str); 12] = [
    // Longer names first: one may be part of another.
    ("archived_session_players", "the archive is written by the archiving alone", "read only"),
    ("archived_dice_rolls", "the archive is written by the archiving alone", "read only"),
    ("archived_sessions", "the archive is written by the archiving alone", "read only"),
    (
        "session_players",
        "a player takes their own seat, in a public session that waits or by its code; the Seer removes players and lets \
         them back in",
        "set session_id, user_id, character_id, is_active and removed_at alone",
    ),
    (
        "session_events",
        "events come from those who sit at the table, and their kind begins with `client.`",
        "set id, session_id, event_type and payload alone",
    ),
    (
        "tutorial_progress",
        "everybody's tutorial is their own",
        "set path, current_step, completed_steps, completed_at and skipped alone",
    ),
    (
        "dice_rolls",
        "in an active session a player rolls for the own seated character; its Seer for any that is seated, the own, \
         and the creatures",
        "set what is rolled, and leave what comes of it to the database",
    ),
    (
        "characters",
        "a user makes and keeps the own characters",
        "set name, class, attributes, equipment and special_ability when it is made; name, equipment, special_ability, \
         hit_points and retired_at later",
    ),
    (
        "adventures",
        "an adventure is kept by who made it",
        "leave is_valid, validation_errors, times_played, average_rating and the times to the server",
    ),
    ("creatures", "creatures are kept by who made their adventure", "leave id, adventure and times as they are"),
    (
        "sessions",
        "a session is opened for oneself and run by its Seer",
        "leave seer_id, code, counts and times to the server",
    ),
    (
        "users",
        "a profile is edited by its owner; badge, counts and accounts are the server's",
        "read with `into_partial_model::<service::users::Profile>()`, which leaves out the address; write display_name, \
         avatar_url and bio alone",
    ),
];

/// The table that a refusal speaks of: PostgreSQL names it in the text alone, in whatever language.
fn table_of(text: &str) -> Option<&'static (&'static str, &'static str, &'static str)> {
    TABLES.iter().find(|(name, _, _)| text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *name))
}

fn who_may(refusal: &SqlxPostgresError) -> &'static str {
    match table_of(refusal.message()) {
        Some((_, rule, _)) => rule,
        None => "that is the server's",
    }
}

/// Begins what a statement is told that names a closed column; the table follows.
const CLOSED: &str = "column_closed: ";

/// Says which columns are closed, where a caller's own statement met one: PostgreSQL says `permission denied` alone.
pub(crate) fn name_closed_columns(error: DbErr) -> DbErr {
    let said = server_said(&error).and_then(refusal);
    let denied = said.filter(|said| said.code() == "42501" && said.routine() == Some("aclcheck_error"));
    match denied.and_then(|said| table_of(said.message())) {
        Some((table, _, instead)) => DbErr::Custom(format!("{CLOSED}{table} has columns closed to users: {instead}")),
        None => error,
    }
}

fn closed(text: &str) -> Option<Error> {
    let (table, _) = text.strip_prefix(CLOSED)?.split_once(' ')?;
    TABLES.iter().find(|(name, _, _)| *name == table).map(|(table, _, instead)| Error::ColumnClosed { table, instead })
}

fn status(text: &str) -> Option<SessionStatus> {
    SessionStatus::iter().find(|status| status.to_value().value == text)
}
