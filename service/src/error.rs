//! Every refusal that a caller can act on.

mod serialize;
mod translate;

use entity::sea_orm_active_enums::SessionStatus;
use sea_orm::{ActiveEnum, DbErr};

pub(crate) use translate::{name_closed_columns, not_listener};

use crate::content::ValidationError;

/// What an operation refuses, or could not do.
///
/// Any operation may fail with [`Busy`](Self::Busy), [`DeadlineExceeded`](Self::DeadlineExceeded),
/// [`ConnectionLost`](Self::ConnectionLost), [`CommitUnknown`](Self::CommitUnknown),
/// [`PoolExhausted`](Self::PoolExhausted), [`PoolClosed`](Self::PoolClosed), [`Misconfigured`](Self::Misconfigured),
/// [`ServerExhausted`](Self::ServerExhausted), [`ReadOnly`](Self::ReadOnly) and [`Database`](Self::Database); any of a
/// user's with [`UnknownAccount`](Self::UnknownAccount) and [`AccountClosed`](Self::AccountClosed). Its documentation names
/// the others.
///
/// It serializes to one shape, which a handler returns as it is: `code`, `message`, `retryable`, and `details`, an object
/// with the variant's fields under their names (`faults` of an invalid adventure), empty where it has none. The message can
/// be shown to a person; it says nothing of the server's set-up.
///
/// Match on the variant, or on [`code`](Error::code) where a string must cross a border; never on the text.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Ten characters live in the account; retire one first. Code `character_limit_reached`.
    #[error("character limit reached (maximum 10); retire a character first")]
    CharacterLimitReached,
    /// A hundred retired characters are kept in the account; delete one first. Code `retired_limit_reached`.
    #[error("retired character limit reached (maximum 100); delete one first")]
    RetiredLimitReached,
    /// The account holds twenty seats in live sessions; leave one first. Code `seat_limit_reached`.
    #[error("seat limit reached (maximum 20 in live sessions); leave a session first")]
    SeatLimitReached,
    /// The account runs twenty live sessions; end one first. Code `session_limit_reached`.
    #[error("session limit reached (maximum 20 live sessions); end a session first")]
    SessionLimitReached,
    /// The account has two hundred adventures; delete one first. Code `adventure_limit_reached`.
    #[error("adventure limit reached (maximum 200); delete an adventure first")]
    AdventureLimitReached,
    /// The adventure has two hundred creatures; delete one first. Code `creature_limit_reached`.
    #[error("creature limit reached (maximum 200); delete a creature first")]
    CreatureLimitReached,
    /// One statement of a user inserts at most a hundred rows into a table. Code `too_many_rows`.
    #[error("one statement must insert at most 100 rows")]
    TooManyRows,
    /// Another character of the account has that name. Code `character_name_taken`.
    #[error("another character of yours has that name; choose another name")]
    CharacterNameTaken,
    /// The character is retired. Code `character_retired`.
    #[error("the character is retired; bring it back first")]
    CharacterRetired,
    /// The character has a seat in a live session; leave it first. Code `character_seated`.
    #[error("the character has a seat in a live session; leave it first")]
    CharacterSeated,
    /// The character belongs to somebody else. Code `character_not_yours`.
    #[error("the character belongs to somebody else; choose one of your own")]
    CharacterNotYours,
    /// Only the player takes the seat and chooses the character. Code `not_your_choice`.
    #[error("only the player may take the seat and choose the character")]
    NotYourChoice,
    /// All seats are taken. Code `session_full`.
    #[error("the session is full; a player must leave first")]
    SessionFull,
    /// The Seer removed this player, and only the Seer can let them back in. Code `player_removed`.
    #[error("the Seer removed this player; only the Seer can let them back in")]
    PlayerRemoved,
    /// A session needs a seated player to become active. Code `session_has_no_player`.
    #[error("a player must take a seat before the session becomes active")]
    SessionHasNoPlayer,
    /// The session is live, and must be cancelled before it is deleted. Code `session_live`.
    #[error("a live session must be cancelled before it is deleted")]
    SessionLive,
    /// The session was completed or cancelled. Code `session_over`.
    #[error("the session is over; only a live session can be changed")]
    SessionOver,
    /// The session has started: seats are taken and characters chosen before. Code `session_started`.
    #[error("the session has started; seats are taken and characters chosen only before the start")]
    SessionStarted,
    /// The status machine has no such step. Code `illegal_transition`.
    #[error("a session cannot go from {} to {}", from.to_value().value, to.to_value().value)]
    IllegalTransition {
        /// Status of the session.
        from: SessionStatus,
        /// Status that was asked for.
        to: SessionStatus,
    },
    /// Another screen changed the game state meanwhile: read it, and decide again. Code `game_state_changed`.
    #[error("the game state was changed meanwhile; read it again first")]
    GameStateChanged,
    /// The session would have fewer seats than players who sit. Code `seats_are_taken`.
    #[error("max_players must not be below the number of seated players")]
    MaxPlayersBelowSeated,
    /// No session has that code. Code `no_such_code`.
    #[error("no session has that code; ask the Seer for the present one first")]
    UnknownJoinCode,
    /// The adventure is neither published nor the Seer's own. Code `adventure_not_playable`.
    #[error("the adventure must be published, or the Seer's own")]
    AdventureNotPlayable,
    /// A published adventure must be unpublished before it is edited. Code `adventure_published`.
    #[error("the adventure is published; unpublish it before editing")]
    AdventurePublished,
    /// The content has faults, each with its node. Code `adventure_invalid`.
    #[error("the adventure has {} fault(s), which must be mended before it is published", .0.len())]
    AdventureInvalid(Vec<ValidationError>),
    /// The heroic save of this encounter is spent. Code `heroic_save_spent`.
    #[error("the heroic save of this encounter is spent; only a new encounter restores it")]
    HeroicSaveSpent,
    /// The roll succeeded: there is nothing to save. Code `heroic_save_not_needed`.
    #[error("only a failed roll can be saved")]
    HeroicSaveNotNeeded,
    /// More than thirty seconds passed since the roll. Code `heroic_save_too_late`.
    #[error("a heroic save must follow its roll within 30 seconds")]
    HeroicSaveTooLate,
    /// The roll was saved once. Code `roll_already_saved`.
    #[error("a roll can be saved only once")]
    RollAlreadySaved,
    /// Not a first roll of the same character in the same session. Code `roll_not_saveable`.
    #[error("a heroic save must repeat a first roll of the same character in the same session")]
    RollNotSaveable,
    /// The creature is not in the adventure that is played. Code `creature_not_in_adventure`.
    #[error("the creature must be one of the adventure that the session plays")]
    CreatureNotInAdventure,
    /// Tutorial steps must be completed in the order of their path. Code `tutorial_out_of_order`.
    #[error("tutorial steps must be completed in order")]
    TutorialOutOfOrder,
    /// Other rows hold this one: it has a history, and can be retired or archived. Code `has_history`.
    #[error("it is still referenced; retire or archive it instead")]
    StillReferenced,
    /// The adventure belongs to somebody else. Code `adventure_not_yours`.
    #[error("the adventure belongs to somebody else; only its creator may do that")]
    AdventureNotYours,
    /// The session is not active: it has not started, is paused, or is over. Code `session_not_active`.
    #[error("the session is not active; its Seer must start or resume it first")]
    SessionNotActive,
    /// The caller has no seat in the session. Code `not_seated`.
    #[error("only those with a seat in the session may do that; take a seat first")]
    NotSeated,
    /// The token is valid, and its account does not exist. Code `unknown_account`.
    #[error("the account does not exist; sign up first")]
    UnknownAccount,
    /// The claims of a token that no identity can have. Code `invalid_claims`.
    #[error("the token's claims cannot be used: {rule}")]
    InvalidClaims {
        /// What they must be.
        rule: &'static str,
    },
    /// The account is closed. Code `account_closed`.
    #[error("the account is closed; sign in with another account")]
    AccountClosed,
    /// The caller has no user, and the operation needs one. Code `not_signed_in`.
    #[error("sign in first")]
    NotSignedIn,
    /// The session is run by somebody else. Code `not_a_seer`.
    #[error("only the session's Seer may do that")]
    NotSessionSeer,
    /// Row security or a privilege says no. Code `not_allowed`.
    #[error("not allowed: {rule}")]
    NotAllowed {
        /// Who may.
        rule: &'static str,
    },
    /// A statement of the caller's names a column that is closed to users. Code `column_closed`.
    #[error("a statement must not name a column of {table} that is closed to users: {instead}")]
    ColumnNotGranted {
        /// The table.
        table: &'static str,
        /// What to use.
        instead: &'static str,
    },
    /// A statement of the caller's changed the role or the claims of its identity; nothing was committed. Code
    /// `identity_changed`.
    #[error("a statement changed the identity (role or claims); nothing was committed")]
    IdentityChanged,
    /// A statement of the caller's ended its transaction: what was done before it may be in the database. Code
    /// `transaction_ended`.
    #[error("a statement ended its transaction; what was done before it may have been committed")]
    TransactionEnded,
    /// A statement failed in this transaction before, or a call was dropped half way: it can only be rolled back. Code
    /// `transaction_failed`.
    #[error("a statement failed or was cancelled in this transaction; roll it back, nothing of it will be committed")]
    TransactionFailed,
    /// A transaction was used, or committed, while one nested in it is open. Code `nested_transaction_open`.
    #[error("a nested transaction is open; commit it or roll it back first")]
    NestedTransactionOpen,
    /// The transaction was committed or rolled back, or the one around it was. Code `transaction_over`.
    #[error("the transaction is over; begin another one")]
    TransactionOver,
    /// A statement of the caller's that cannot be run as it is: not SQL, several at once, too many values or too few, a
    /// row without its key. Code `invalid_statement`.
    #[error("the statement cannot be run: {reason}")]
    InvalidStatement {
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such thing, or the caller may not see it. Code `not_found`.
    #[error("there is no such {what}, or only others may see it")]
    NotFound {
        /// What was looked for.
        what: &'static str,
    },
    /// Something of this id is there, with other content. Code `id_conflict`.
    #[error("another {what} has this id; choose another id")]
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
    #[error("the value must keep the rule {constraint}")]
    RuleViolated {
        /// Name of the constraint.
        constraint: String,
    },
    /// Events after that one may be gone: they are kept for a day. Reload the session, and subscribe from now. Code
    /// `events_expired`.
    #[error("events after that one may be gone (they are kept for a day); reload the session first")]
    EventsExpired,
    /// The cursor is not one of this list's. Code `bad_cursor`.
    #[error("the cursor must be one that this list gave")]
    InvalidCursor,
    /// The deadline passed. Nothing was done. Code `deadline_exceeded`.
    #[error("deadline exceeded; nothing was done, try again")]
    DeadlineExceeded,
    /// Deadlock or serialization failure, again and again. A retry may help. Code `busy`.
    #[error("the database is busy; try again")]
    Busy,
    /// The connection was lost before the commit. Nothing was done. Code `connection_lost`.
    #[error("the connection to the database was lost before the commit; nothing was done, try again")]
    ConnectionLost(#[source] DbErr),
    /// The answer to the commit was lost: it may have been done, or not. Creating with the same id again is safe. Code
    /// `commit_unknown`.
    #[error("the answer to the commit was lost, and it may have been done; look, or try again with the same id")]
    CommitUnknown(#[source] DbErr),
    /// No connection was free in time. Nothing was done. Code `pool_exhausted`.
    #[error("no database connection was free in time; allow more connections, or wait longer")]
    PoolExhausted,
    /// The handle was closed. Nothing was done. Code `pool_closed`.
    #[error("the handle is closed; connect again")]
    PoolClosed,
    /// The handle or its login is not set up for this. Nothing was done. Code `misconfigured`.
    #[error("the connection is not set up: {reason}")]
    Misconfigured {
        /// What is wrong, and what must be.
        reason: String,
    },
    /// No connection at start: the text names the cause and what to do. Code `connect_failed`.
    #[error(transparent)]
    ConnectFailed(rls::ConnectError),
    /// The database has no SPARC schema: migrate it first. Code `schema_missing`.
    #[error("the database has no SPARC schema: run `cargo run -p migration -- up`, or correct the address")]
    SchemaMissing,
    /// The schema of the database is older than this version needs, or its migration is unfinished. Code `schema_outdated`.
    #[error("the database's schema is {found}, this service needs {needed}: run `cargo run -p migration -- up`")]
    SchemaOutdated {
        /// What the database has.
        found: String,
        /// The first version that is recent enough.
        needed: &'static str,
    },
    /// The server has no disk or memory left. Nothing was done. Code `server_exhausted`.
    #[error("the database server has no room left; try again later")]
    ServerExhausted(#[source] DbErr),
    /// The server is a standby, which answers readers alone. Nothing was done. Code `read_only`.
    #[error("this database server only answers readers; connect to the primary")]
    ReadOnly,
    /// Anything else, with its source. Code `database`.
    #[error("the database failed; try again later, or tell the operator")]
    Database(#[source] DbErr),
}

/// One line of the table of errors.
struct Entry {
    code: &'static str,
    status: u16,
    retry: bool,
}

const fn entry(code: &'static str, status: u16) -> Entry {
    Entry { code, status, retry: false }
}

const fn retryable(code: &'static str, status: u16) -> Entry {
    Entry { code, status, retry: true }
}

impl Error {
    /// A name that stays the same from version to version, for clients, logs and tests.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.entry().code
    }

    /// The HTTP status that fits.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        self.entry().status
    }

    /// The same refusal, told with the rule of one operation instead of its table's.
    pub(crate) fn with_rule(self, rule: &'static str) -> Self {
        match self {
            Self::NotAllowed { .. } => Self::NotAllowed { rule },
            other => other,
        }
    }

    /// Whether the same call may succeed a moment later; nothing of it was done. After
    /// [`CommitUnknown`](Self::CommitUnknown) that is not known: only what was given an id is safe to be called again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.entry().retry
    }

    fn entry(&self) -> Entry {
        match self {
            Self::CharacterLimitReached => entry("character_limit_reached", 409),
            Self::RetiredLimitReached => entry("retired_limit_reached", 409),
            Self::SeatLimitReached => entry("seat_limit_reached", 409),
            Self::SessionLimitReached => entry("session_limit_reached", 409),
            Self::AdventureLimitReached => entry("adventure_limit_reached", 409),
            Self::CreatureLimitReached => entry("creature_limit_reached", 409),
            Self::TooManyRows => entry("too_many_rows", 422),
            Self::CharacterNameTaken => entry("character_name_taken", 409),
            Self::CharacterRetired => entry("character_retired", 409),
            Self::CharacterSeated => entry("character_seated", 409),
            Self::CharacterNotYours => entry("character_not_yours", 403),
            Self::NotYourChoice => entry("not_your_choice", 403),
            Self::SessionFull => entry("session_full", 409),
            Self::PlayerRemoved => entry("player_removed", 403),
            Self::SessionHasNoPlayer => entry("session_has_no_player", 409),
            Self::SessionLive => entry("session_live", 409),
            Self::SessionOver => entry("session_over", 409),
            Self::SessionStarted => entry("session_started", 409),
            Self::IllegalTransition { .. } => entry("illegal_transition", 409),
            Self::GameStateChanged => entry("game_state_changed", 412),
            Self::MaxPlayersBelowSeated => entry("seats_are_taken", 409),
            Self::UnknownJoinCode => entry("no_such_code", 404),
            Self::AdventureNotPlayable => entry("adventure_not_playable", 409),
            Self::AdventurePublished => entry("adventure_published", 409),
            Self::AdventureInvalid(_) => entry("adventure_invalid", 422),
            Self::HeroicSaveSpent => entry("heroic_save_spent", 409),
            Self::HeroicSaveNotNeeded => entry("heroic_save_not_needed", 409),
            Self::HeroicSaveTooLate => entry("heroic_save_too_late", 409),
            Self::RollAlreadySaved => entry("roll_already_saved", 409),
            Self::RollNotSaveable => entry("roll_not_saveable", 409),
            Self::CreatureNotInAdventure => entry("creature_not_in_adventure", 409),
            Self::TutorialOutOfOrder => entry("tutorial_out_of_order", 409),
            Self::StillReferenced => entry("has_history", 409),
            Self::AdventureNotYours => entry("adventure_not_yours", 403),
            Self::SessionNotActive => entry("session_not_active", 409),
            Self::NotSeated => entry("not_seated", 403),
            Self::UnknownAccount => entry("unknown_account", 401),
            Self::InvalidClaims { .. } => entry("invalid_claims", 401),
            Self::AccountClosed => entry("account_closed", 403),
            Self::NotSignedIn => entry("not_signed_in", 401),
            Self::NotSessionSeer => entry("not_a_seer", 403),
            Self::NotAllowed { .. } => entry("not_allowed", 403),
            Self::ColumnNotGranted { .. } => entry("column_closed", 403),
            Self::IdentityChanged => entry("identity_changed", 500),
            Self::TransactionEnded => entry("transaction_ended", 500),
            Self::TransactionFailed => entry("transaction_failed", 500),
            Self::NestedTransactionOpen => entry("nested_transaction_open", 500),
            Self::TransactionOver => entry("transaction_over", 500),
            Self::InvalidStatement { .. } => entry("invalid_statement", 500),
            Self::NotFound { .. } => entry("not_found", 404),
            Self::IdConflict { .. } => entry("id_conflict", 409),
            Self::InvalidValue { .. } => entry("invalid_value", 422),
            Self::RuleViolated { .. } => entry("rule_violated", 422),
            Self::EventsExpired => entry("events_expired", 410),
            Self::InvalidCursor => entry("bad_cursor", 400),
            Self::DeadlineExceeded => retryable("deadline_exceeded", 504),
            Self::Busy => retryable("busy", 503),
            Self::ConnectionLost(_) => retryable("connection_lost", 503),
            Self::CommitUnknown(_) => entry("commit_unknown", 503),
            Self::PoolExhausted => retryable("pool_exhausted", 503),
            Self::PoolClosed => entry("pool_closed", 503),
            Self::Misconfigured { .. } => entry("misconfigured", 500),
            Self::ConnectFailed(_) => entry("connect_failed", 503),
            Self::SchemaMissing => entry("schema_missing", 503),
            Self::SchemaOutdated { .. } => entry("schema_outdated", 503),
            Self::ReadOnly => entry("read_only", 503),
            Self::ServerExhausted(_) => retryable("server_exhausted", 503),
            Self::Database(_) => entry("database", 500),
        }
    }
}
