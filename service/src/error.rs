//! Every refusal that a caller can act on, and the one place where the database's words become one.

use entity::sea_orm_active_enums::SessionStatus;
use sea_orm::{ActiveEnum, DbErr, Iterable, RuntimeErr, SqlxError, SqlxPostgresError};

use crate::adventures::Fault;

/// What an operation refuses, or could not do.
///
/// Match on the variant, or on [`code`](Error::code) where a string must cross a border; never on the text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Ten characters live in the account; retire one first. Code `character_limit_reached`.
    #[error("character limit reached (maximum 10)")]
    CharacterLimitReached,
    /// Another character of the account has that name. Code `character_name_taken`.
    #[error("another character of yours has that name")]
    CharacterNameTaken,
    /// The character is retired. Code `character_retired`.
    #[error("the character is retired")]
    CharacterRetired,
    /// The character has a seat at a live table; leave it first. Code `character_seated`.
    #[error("the character has a seat at a live table")]
    CharacterSeated,
    /// The character belongs to somebody else. Code `character_not_yours`.
    #[error("the character belongs to somebody else")]
    CharacterNotYours,
    /// A Seer may not change which character a player brings. Code `not_your_choice`.
    #[error("a player alone chooses the own character")]
    NotYourChoice,
    /// All seats are taken. Code `session_full`.
    #[error("session is full")]
    SessionFull,
    /// The session was completed or cancelled. Code `session_over`.
    #[error("the session is over")]
    SessionOver,
    /// The session has started: new players are seated by the Seer, and characters stay. Code `session_started`.
    #[error("the session has started")]
    SessionStarted,
    /// The status machine has no such step. Code `illegal_transition`.
    #[error("a session cannot go from {} to {}", from.to_value().value, to.to_value().value)]
    IllegalTransition {
        /// Status of the session.
        from: SessionStatus,
        /// Status that was asked for.
        to: SessionStatus,
    },
    /// The session would have fewer seats than players who sit. Code `seats_are_taken`.
    #[error("more seats are taken than that")]
    SeatsAreTaken,
    /// No session has that code. Code `no_such_code`.
    #[error("no session has that code")]
    NoSuchCode,
    /// The adventure is neither published nor the Seer's own. Code `adventure_not_playable`.
    #[error("a session plays a published adventure or one of the Seer's own")]
    AdventureNotPlayable,
    /// A published adventure is taken back before it is edited. Code `adventure_published`.
    #[error("a published adventure is taken back before it is edited")]
    AdventurePublished,
    /// The content has faults, each with its node. Code `adventure_invalid`.
    #[error("the adventure has {} fault(s)", .0.len())]
    AdventureInvalid(Vec<Fault>),
    /// The content was changed while it was judged; try again. Code `adventure_changed`.
    #[error("the adventure was changed meanwhile")]
    AdventureChanged,
    /// The heroic save of this encounter is spent. Code `heroic_save_spent`.
    #[error("the heroic save of this encounter is spent")]
    HeroicSaveSpent,
    /// The roll succeeded: there is nothing to save. Code `heroic_save_not_needed`.
    #[error("the roll did not fail")]
    HeroicSaveNotNeeded,
    /// More than thirty seconds passed since the roll. Code `heroic_save_too_late`.
    #[error("a heroic save follows its roll within 30 seconds")]
    HeroicSaveTooLate,
    /// The roll was saved once. Code `roll_already_saved`.
    #[error("the roll was saved already")]
    RollAlreadySaved,
    /// Not a first roll of a character who sits at this table. Code `roll_not_saveable`.
    #[error("a heroic save repeats a first roll of the same character at the same table")]
    RollNotSaveable,
    /// The creature is not in the adventure that is played. Code `creature_not_in_adventure`.
    #[error("the creature is not in the adventure that the session plays")]
    CreatureNotInAdventure,
    /// Other rows hold this one: it has a history, and can be retired or archived. Code `has_history`.
    #[error("its history is kept: it can be retired or archived, not deleted")]
    HasHistory,
    /// The account was erased. Code `account_closed`.
    #[error("the account is closed")]
    AccountClosed,
    /// The caller has no user, and the operation needs one. Code `not_signed_in`.
    #[error("sign in first")]
    NotSignedIn,
    /// The session is run by somebody else. Code `not_a_seer`.
    #[error("only the session's Seer may do that")]
    NotASeer,
    /// Row security or a privilege says no. Code `not_allowed`.
    #[error("not allowed")]
    NotAllowed,
    /// There is no such thing, or the caller may not see it. Code `not_found`.
    #[error("no such {what}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
    },
    /// Something of this id is there, with other content. Code `id_conflict`.
    #[error("another {what} has this id")]
    IdConflict {
        /// What was to be created.
        what: &'static str,
    },
    /// A value is outside its bounds. Code `invalid_value`.
    #[error("{field} {rule}")]
    InvalidValue {
        /// The field, as it is named in the input.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// A check of the database that no input newtype covers. Code `rule_violated`.
    #[error("the value breaks the rule {constraint}")]
    RuleViolated {
        /// Name of the constraint.
        constraint: String,
    },
    /// The cursor is not one of this list's. Code `bad_cursor`.
    #[error("the cursor is not one that this list gave")]
    BadCursor,
    /// Deadlock or serialization failure, again and again. A retry may help. Code `busy`.
    #[error("the database is busy; try again")]
    Busy,
    /// The connection was lost; whether the operation was done is not known. Creating with the same id again is safe.
    /// Code `connection_lost`.
    #[error("the connection to the database was lost")]
    ConnectionLost(#[source] DbErr),
    /// No connection was free in time. Nothing was done. Code `pool_exhausted`.
    #[error("no database connection was free in time")]
    PoolExhausted(#[source] DbErr),
    /// Anything else, with its source. Code `database`.
    #[error("the database failed")]
    Database(#[source] DbErr),
}

impl Error {
    /// A name that stays the same from version to version, for clients, logs and tests.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::CharacterLimitReached => "character_limit_reached",
            Self::CharacterNameTaken => "character_name_taken",
            Self::CharacterRetired => "character_retired",
            Self::CharacterSeated => "character_seated",
            Self::CharacterNotYours => "character_not_yours",
            Self::NotYourChoice => "not_your_choice",
            Self::SessionFull => "session_full",
            Self::SessionOver => "session_over",
            Self::SessionStarted => "session_started",
            Self::IllegalTransition { .. } => "illegal_transition",
            Self::SeatsAreTaken => "seats_are_taken",
            Self::NoSuchCode => "no_such_code",
            Self::AdventureNotPlayable => "adventure_not_playable",
            Self::AdventurePublished => "adventure_published",
            Self::AdventureInvalid(_) => "adventure_invalid",
            Self::AdventureChanged => "adventure_changed",
            Self::HeroicSaveSpent => "heroic_save_spent",
            Self::HeroicSaveNotNeeded => "heroic_save_not_needed",
            Self::HeroicSaveTooLate => "heroic_save_too_late",
            Self::RollAlreadySaved => "roll_already_saved",
            Self::RollNotSaveable => "roll_not_saveable",
            Self::CreatureNotInAdventure => "creature_not_in_adventure",
            Self::HasHistory => "has_history",
            Self::AccountClosed => "account_closed",
            Self::NotSignedIn => "not_signed_in",
            Self::NotASeer => "not_a_seer",
            Self::NotAllowed => "not_allowed",
            Self::NotFound { .. } => "not_found",
            Self::IdConflict { .. } => "id_conflict",
            Self::InvalidValue { .. } => "invalid_value",
            Self::RuleViolated { .. } => "rule_violated",
            Self::BadCursor => "bad_cursor",
            Self::Busy => "busy",
            Self::ConnectionLost(_) => "connection_lost",
            Self::PoolExhausted(_) => "pool_exhausted",
            Self::Database(_) => "database",
        }
    }

    /// Whether the server rolled the transaction back for a reason that a second try may not meet.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Busy)
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        match &error {
            DbErr::ConnectionAcquire(_) => Self::PoolExhausted(error),
            DbErr::Exec(RuntimeErr::SqlxError(inner))
            | DbErr::Query(RuntimeErr::SqlxError(inner))
            | DbErr::Conn(RuntimeErr::SqlxError(inner)) => match &**inner {
                SqlxError::Io(_) | SqlxError::Tls(_) | SqlxError::Protocol(_) | SqlxError::WorkerCrashed => {
                    Self::ConnectionLost(error)
                }
                SqlxError::PoolTimedOut | SqlxError::PoolClosed => Self::PoolExhausted(error),
                inner => {
                    let said =
                        inner.as_database_error().and_then(|refusal| refusal.try_downcast_ref::<SqlxPostgresError>());
                    match said {
                        // The server ended the connection (shutdown, termination), and said so first.
                        Some(said) if said.code().starts_with("57P") || said.code().starts_with("08") => {
                            Self::ConnectionLost(error)
                        }
                        said => said.and_then(translate).unwrap_or(Self::Database(error)),
                    }
                }
            },
            _ => Self::Database(error),
        }
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
        "SP014" => Error::RollAlreadySaved,
        "SP015" => Error::RollNotSaveable,
        "SP016" => Error::RuleViolated { constraint: constraint.to_owned() },
        "SP017" => Error::CreatureNotInAdventure,
        "SP018" => Error::NotYourChoice,
        "SP019" => Error::AccountClosed,
        "SP020" => Error::NoSuchCode,
        "23505" => match constraint {
            "unique_user_character_name" => Error::CharacterNameTaken,
            "idx_dice_rolls_original" => Error::RollAlreadySaved,
            // Two drew the same code at once: the next draw is another.
            "sessions_code_key" => Error::Busy,
            _ => Error::IdConflict { what: "row" },
        },
        "23503" if refusal.message().starts_with("update or delete") => Error::HasHistory,
        "23503" => Error::NotFound {
            what: match constraint {
                "sessions_adventure_id_fkey" | "creatures_adventure_id_fkey" => "adventure",
                "session_players_character_id_fkey" | "dice_rolls_character_id_fkey" => "character",
                "dice_rolls_creature_id_fkey" => "creature",
                "session_players_session_id_fkey" | "session_events_session_id_fkey" | "dice_rolls_session_id_fkey" => {
                    "session"
                }
                "dice_rolls_original_roll_id_fkey" => "roll",
                _ => "user",
            },
        },
        "23514" => match constraint {
            "seats_within_limit" => Error::SeatsAreTaken,
            "valid_modifiers" => Error::InvalidValue {
                field: "modifiers",
                rule: "are at most ten, dice from -5 to 5 and flat from -10 to 10, each with its source",
            },
            "valid_name" => Error::InvalidValue {
                field: "name",
                rule: match refusal.table() {
                    Some("characters") => "has 2 to 50 characters",
                    Some("adventures") => "has 3 to 100 characters",
                    _ => "has 1 to 100 characters",
                },
            },
            "valid_stats" => Error::InvalidValue {
                field: "stats",
                rule: "holds might, grace, wit and heart, whole numbers from 1 to 10",
            },
            "valid_player_range" => Error::InvalidValue { field: "min_players", rule: "is not above max_players" },
            "sessions_max_players_check" => Error::InvalidValue { field: "max_players", rule: "is 2 to 6" },
            "characters_hit_points_check" => Error::InvalidValue { field: "hit_points", rule: "is 0 to the maximum" },
            _ => Error::RuleViolated { constraint: constraint.to_owned() },
        },
        "42501" => Error::NotAllowed,
        "40001" | "40P01" => Error::Busy,
        _ => return None,
    })
}

fn status(text: &str) -> Option<SessionStatus> {
    SessionStatus::iter().find(|status| status.to_value().value == text)
}
