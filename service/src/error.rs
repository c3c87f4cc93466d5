//! The errors of all operations.

mod codes;
mod constraints;
mod serialize;
mod translate;

use entity::sea_orm_active_enums::SessionStatus;
use sea_orm::{ActiveEnum, DbErr};

pub(crate) use translate::{explain_bind_mismatch, explain_missing_privilege, no_event_access_error};

use crate::content::ValidationError;

/// An error of an operation.
///
/// Any operation may fail with [`Busy`](Self::Busy), [`DeadlineExceeded`](Self::DeadlineExceeded),
/// [`ConnectionLost`](Self::ConnectionLost), [`CommitUnknown`](Self::CommitUnknown),
/// [`PoolExhausted`](Self::PoolExhausted), [`PoolClosed`](Self::PoolClosed), [`Misconfigured`](Self::Misconfigured),
/// [`ServerExhausted`](Self::ServerExhausted), [`ReadOnly`](Self::ReadOnly) and [`Database`](Self::Database). Any
/// operation of a user may also fail with [`UnknownAccount`](Self::UnknownAccount) and
/// [`AccountClosed`](Self::AccountClosed). Any operation in a caller's transaction may also fail with
/// [`TransactionFailed`](Self::TransactionFailed), [`NestedTransactionOpen`](Self::NestedTransactionOpen) and
/// [`TransactionOver`](Self::TransactionOver). An operation's documentation lists its other errors. Below, *the handle*
/// is [`Sparc`](crate::Sparc).
///
/// Every error serializes to the same shape, which a web handler can return as it is: an object with `code`, `message`,
/// `retryable` and `details`. `details` is an object with the variant's fields by name (for an invalid adventure, the
/// field `errors`); it is empty for a variant without fields. The message can be shown to a person. Message and details
/// reveal nothing about the server's configuration: fields that only an operator may see are omitted.
///
/// Match on the variant, or on [`code`](Error::code) where a string must cross a process boundary, but never on the
/// message.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The account has ten living (not retired) characters; retire one first. Code `character_limit_reached`.
    #[error("character limit reached (maximum 10); retire a character first")]
    CharacterLimitReached,
    /// The account has a hundred retired characters; delete one first. Code `retired_limit_reached`.
    #[error("retired character limit reached (maximum 100); delete one first")]
    RetiredLimitReached,
    /// The account has twenty seats in live sessions (not completed or cancelled); leave such a session first. Code
    /// `seat_limit_reached`.
    #[error("seat limit reached (maximum 20 in live sessions); leave a session first")]
    SeatLimitReached,
    /// The account is the Seer of twenty live sessions; end one first. Code `session_limit_reached`.
    #[error("session limit reached (maximum 20 live sessions); end a session first")]
    SessionLimitReached,
    /// The account has two hundred adventures; delete one first. Code `adventure_limit_reached`.
    #[error("adventure limit reached (maximum 200); delete an adventure first")]
    AdventureLimitReached,
    /// The adventure has two hundred creatures; delete one first. Code `creature_limit_reached`.
    #[error("creature limit reached (maximum 200); delete a creature first")]
    CreatureLimitReached,
    /// A user's statement inserts, changes or deletes more than a hundred rows of one table. Code `too_many_rows`.
    #[error("one statement must insert, change or delete at most 100 rows of a table")]
    TooManyRows,
    /// Another character of the account already has this name. Code `character_name_taken`.
    #[error("another character of yours has that name; choose another name")]
    CharacterNameTaken,
    /// The character is retired. Code `character_retired`.
    #[error("the character is retired; bring it back first")]
    CharacterRetired,
    /// The character has a seat in a live session; leave that session first. Code `character_seated`.
    #[error("the character has a seat in a live session; leave that session first")]
    CharacterSeated,
    /// The character belongs to somebody else. Code `character_not_yours`.
    #[error("the character belongs to somebody else; choose one of your own")]
    CharacterNotYours,
    /// Only the player whose seat it is may take it and choose its character. Code `not_your_choice`.
    #[error("only the player may take the seat and choose the character")]
    NotYourChoice,
    /// All seats are taken. Code `session_full`.
    #[error("the session is full; a player must leave first")]
    SessionFull,
    /// The Seer removed this player; only the Seer can let them back in. Code `player_removed`.
    #[error("the Seer removed this player; only the Seer can let them back in")]
    PlayerRemoved,
    /// The session needs a seated player to become active. Code `session_has_no_player`.
    #[error("a player must take a seat before the session becomes active")]
    SessionHasNoPlayer,
    /// The session is live; it must be cancelled before it is deleted. Code `session_live`.
    #[error("a live session must be cancelled before it is deleted")]
    SessionLive,
    /// The session was completed or cancelled. Code `session_over`.
    #[error("the session has ended; only a live session can be changed")]
    SessionOver,
    /// The session has started; seats are taken and characters chosen only before the start. Code `session_started`.
    #[error("the session has started; seats are taken and characters chosen only before the start")]
    SessionStarted,
    /// The session's status cannot change in this way. Code `illegal_transition`.
    #[error("a session cannot go from {} to {}", from.to_value().value, to.to_value().value)]
    IllegalTransition {
        /// Status of the session.
        from: SessionStatus,
        /// Status that was requested.
        to: SessionStatus,
    },
    /// The game state was changed by another client in the meantime; read it again first. Code `game_state_changed`.
    #[error("the game state has changed in the meantime; read it again first")]
    GameStateChanged,
    /// `max_players` would be below the number of seated players. Code `seats_are_taken`.
    #[error("max_players must not be below the number of seated players")]
    MaxPlayersBelowSeated,
    /// No session has this join code. Code `no_such_code`.
    #[error("no session has that code; ask the Seer for the current one first")]
    UnknownJoinCode,
    /// The adventure does not exist, or is neither published nor the Seer's own. Code `adventure_not_playable`.
    #[error("the adventure must be published, or the Seer's own")]
    AdventureNotPlayable,
    /// The adventure is published; unpublish it before editing its content. Code `adventure_published`.
    #[error("the adventure is published; unpublish it before editing its content")]
    AdventurePublished,
    /// The content has errors; each names the node that it is about, if there is one. Code `adventure_invalid`.
    #[error("the adventure has errors, which must be fixed before it is published")]
    AdventureInvalid(Vec<ValidationError>),
    /// The seat's heroic save of this encounter has been used, or the character has no seat. Code `heroic_save_spent`.
    #[error("the heroic save of this encounter is spent; only a new encounter restores it")]
    HeroicSaveSpent,
    /// The roll succeeded, so there is nothing to save. Code `heroic_save_not_needed`.
    #[error("only a failed roll can be saved")]
    HeroicSaveNotNeeded,
    /// More than thirty seconds have passed since the roll. Code `heroic_save_too_late`.
    #[error("a heroic save must follow its roll within 30 seconds")]
    HeroicSaveTooLate,
    /// A heroic save has already repeated the roll. Code `roll_already_saved`.
    #[error("a roll can be saved only once")]
    RollAlreadySaved,
    /// This heroic save cannot repeat the roll: the roll does not exist, is itself a heroic save, or is a roll of a
    /// creature or of another character or session. Code `roll_not_saveable`.
    #[error("a heroic save must repeat a roll, not a heroic save, of the same character in the same session")]
    RollNotSaveable,
    /// The creature does not belong to the adventure that the session plays. Code `creature_not_in_adventure`.
    #[error("the creature must be one of the adventure that the session plays")]
    CreatureNotInAdventure,
    /// Tutorial steps must be completed in the order of their path. Code `tutorial_out_of_order`.
    #[error("tutorial steps must be completed in order")]
    TutorialOutOfOrder,
    /// Other rows reference this one; retire or archive it instead of deleting it. Code `has_history`.
    #[error("other rows still reference this one; retire or archive it instead")]
    StillReferenced,
    /// The adventure belongs to somebody else. Code `adventure_not_yours`.
    #[error("the adventure belongs to somebody else; only its creator may do that")]
    AdventureNotYours,
    /// The session is not active: it has not started, is paused, or has ended. Code `session_not_active`.
    #[error("the session is not active; its Seer must start or resume it first")]
    SessionNotActive,
    /// The caller or the character has no seat in the session. Code `not_seated`.
    #[error("only a player whose character has a seat in the session may do that; take a seat first")]
    NotSeated,
    /// The user's account does not exist; their token may be valid all the same. Code `unknown_account`.
    #[error("the account does not exist; sign up first")]
    UnknownAccount,
    /// The token's claims cannot be used for an identity. Code `invalid_claims`.
    #[error("the token's claims cannot be used: {rule}")]
    InvalidClaims {
        /// What the claims must be.
        rule: &'static str,
    },
    /// The account is closed. Code `account_closed`.
    #[error("the account is closed; sign in with another account")]
    AccountClosed,
    /// The operation needs a signed-in user. Code `not_signed_in`.
    #[error("sign in first")]
    NotSignedIn,
    /// The caller is not the session's Seer. Code `not_a_seer`.
    #[error("only the session's Seer may do that")]
    NotSessionSeer,
    /// A privilege is missing, row-level security refuses the statement, or only the service may call the operation.
    /// Code `not_allowed`.
    #[error("not allowed: {rule}")]
    NotAllowed {
        /// Who may do it.
        rule: &'static str,
    },
    /// Users lack the privilege that the caller's statement needs on a table or on one of its columns. Code
    /// `column_closed`.
    #[error("users must not use the table {table}, or some of its columns, in this way: {instead}")]
    ColumnNotGranted {
        /// The table.
        table: &'static str,
        /// What to use instead.
        instead: &'static str,
    },
    /// The caller's statement changed the role or the claims. Nothing was committed. Code `identity_changed`.
    #[error("a statement changed the identity (role or claims); nothing was committed")]
    IdentityChanged,
    /// The caller's statement ended its transaction. What the transaction did before may have been committed. Code
    /// `transaction_ended`.
    #[error("a statement ended its transaction; what the transaction did before may have been committed")]
    TransactionEndedByStatement,
    /// A statement failed in this transaction, or a call was dropped before it completed. The transaction can only be
    /// rolled back. Code `transaction_failed`.
    #[error("a statement failed or was cancelled in this transaction; roll it back, nothing of it will be committed")]
    TransactionFailed,
    /// A transaction was used or committed while a transaction nested in it was open. Code `nested_transaction_open`.
    #[error("a nested transaction is open; commit it or roll it back first")]
    NestedTransactionOpen,
    /// The transaction, or the one that it is nested in, was committed or rolled back. Code `transaction_over`.
    #[error("the transaction was already committed or rolled back; begin another one")]
    TransactionOver,
    /// The caller's statement cannot be run. For example, it is not valid SQL, consists of several statements, has too
    /// many or too few bound values, or updates an entity's row without the primary key. Code `invalid_statement`.
    #[error("the statement cannot be run: {reason}")]
    InvalidStatement {
        /// What is wrong with the statement.
        reason: String,
    },
    /// What was requested does not exist, or the caller may not see it. Code `not_found`.
    #[error("the {what} does not exist, or only others may see it")]
    NotFound {
        /// What was requested.
        what: &'static str,
    },
    /// Another row already has this id. Code `id_conflict`.
    #[error("another {what} has this id; choose another id")]
    IdConflict {
        /// What was to be created.
        what: &'static str,
    },
    /// A value is out of range or malformed. Code `invalid_value`.
    #[error("{field} {rule}")]
    InvalidValue {
        /// The field's name in the input.
        field: &'static str,
        /// What the value must be.
        rule: &'static str,
    },
    /// A value violates a check or NOT NULL constraint that no other variant covers. Code `rule_violated`.
    #[error("the value must satisfy the constraint {constraint}")]
    RuleViolated {
        /// The constraint's name.
        constraint: String,
    },
    /// Events after the requested one may be missing, because events are kept for a day, or because the server was
    /// replaced or restored. Subscribe again with `None`, and then reload the session. Code `events_expired`.
    #[error(
        "events after the requested one may have been deleted (they are kept for a day); subscribe again, then reload"
    )]
    EventsExpired,
    /// The cursor does not belong to this list. Code `bad_cursor`.
    #[error("the cursor must come from a page of this list")]
    InvalidCursor,
    /// The deadline was exceeded. Nothing was done. Code `deadline_exceeded`.
    #[error("deadline exceeded; nothing was done, try again")]
    DeadlineExceeded,
    /// A deadlock, a serialization failure, or a lock that was not available in time. A retry may help. Code `busy`.
    #[error("the database is busy; try again")]
    Busy,
    /// The connection was lost before the commit. Nothing was done. Code `connection_lost`.
    #[error("the connection to the database was lost before the commit; nothing was done, try again")]
    ConnectionLost(#[source] DbErr),
    /// The answer to the commit was lost; the outcome is unknown. Repeating a creation with the same id is safe. Code
    /// `commit_unknown`.
    #[error(
        "the answer to the commit was lost, so the change may have been made; check, or try again with the same id"
    )]
    CommitUnknown(#[source] DbErr),
    /// No connection of the pool became free within the timeout, or the server allows no further connection. Nothing
    /// was done. Code `pool_exhausted`.
    #[error("no database connection was free in time; allow more connections, or wait longer")]
    PoolExhausted,
    /// The handle is closed. Nothing was done. Code `pool_closed`.
    #[error("the handle is closed; connect again")]
    PoolClosed,
    /// The handle, its login or a pooler is configured wrongly. Nothing was done. Code `misconfigured`.
    #[error("the connection is misconfigured: {reason}")]
    Misconfigured {
        /// What is wrong, and what is required.
        reason: String,
    },
    /// The URL is invalid, or no connection could be opened when the handle was created. The message names the cause
    /// and the remedy. Code `connect_failed`.
    #[error(transparent)]
    ConnectFailed(rls::ConnectError),
    /// The database has no SPARC schema; migrate it first. Code `schema_missing`.
    #[error("the database has no SPARC schema: run `cargo run -p migration -- up`, or correct the URL")]
    SchemaMissing,
    /// The database's schema is older than this version needs, or its migration is unfinished. Code `schema_outdated`.
    #[error(
        "the database's schema is {found}, but this service needs version {needed}: run `cargo run -p migration -- up`"
    )]
    SchemaOutdated {
        /// The version of the database's schema, for example `version 0.16`, or `unfinished`.
        found: String,
        /// The oldest schema version that is recent enough.
        needed: &'static str,
    },
    /// The server is out of disk space, memory or another resource, or had an I/O error. Nothing was done. Code
    /// `server_exhausted`.
    #[error("the database server is out of disk space or memory; try again later")]
    ServerExhausted(#[source] DbErr),
    /// The server is a standby, or the transaction is `READ ONLY`. Nothing was done. Code `read_only`.
    #[error(
        "the server is a standby, or the transaction is READ ONLY; connect to the primary, or begin a transaction \
         that writes"
    )]
    ReadOnly,
    /// Any other error of the database or of SeaORM, with its source. Code `database`.
    #[error("the database failed; try again later, or tell the operator")]
    Database(#[source] DbErr),
}

impl Error {
    /// Replaces the rule of [`NotAllowed`](Self::NotAllowed), which says who may write the database table, with a rule
    /// that says who may call the operation. Returns other errors unchanged.
    pub(crate) fn with_rule_if_not_allowed(self, rule: &'static str) -> Self {
        match self {
            Self::NotAllowed { .. } => Self::NotAllowed { rule },
            other => other,
        }
    }
}
