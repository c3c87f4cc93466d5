//! The code and the HTTP status of each error, and whether a retry may help.

use super::Error;

/// The code and the HTTP status of a variant, and whether a retry may help. They do not depend on the variant's fields.
struct CodeEntry {
    code: &'static str,
    http_status: u16,
    is_retryable: bool,
}

const fn not_retryable(code: &'static str, http_status: u16) -> CodeEntry {
    CodeEntry { code, http_status, is_retryable: false }
}

const fn retryable(code: &'static str, http_status: u16) -> CodeEntry {
    CodeEntry { code, http_status, is_retryable: true }
}

impl Error {
    /// Returns a name that is stable across versions, for clients, logs and tests.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code_entry().code
    }

    /// Returns the HTTP status that fits the error.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        self.code_entry().http_status
    }

    /// Returns whether the same call may succeed a moment later. If so, the call changed nothing (but a maintenance job
    /// keeps the batches that it has completed). `false` for [`CommitUnknown`](Self::CommitUnknown), because the
    /// outcome is unknown: repeat such a call only if a second success does no harm. A creation with an id that the
    /// caller chose is safe to repeat.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.code_entry().is_retryable
    }

    fn code_entry(&self) -> CodeEntry {
        match self {
            Self::CharacterLimitReached => not_retryable("character_limit_reached", 409),
            Self::RetiredLimitReached => not_retryable("retired_limit_reached", 409),
            Self::SeatLimitReached => not_retryable("seat_limit_reached", 409),
            Self::SessionLimitReached => not_retryable("session_limit_reached", 409),
            Self::AdventureLimitReached => not_retryable("adventure_limit_reached", 409),
            Self::CreatureLimitReached => not_retryable("creature_limit_reached", 409),
            Self::TooManyRows => not_retryable("too_many_rows", 422),
            Self::CharacterNameTaken => not_retryable("character_name_taken", 409),
            Self::CharacterRetired => not_retryable("character_retired", 409),
            Self::CharacterSeated => not_retryable("character_seated", 409),
            Self::CharacterNotYours => not_retryable("character_not_yours", 403),
            Self::NotYourChoice => not_retryable("not_your_choice", 403),
            Self::SessionFull => not_retryable("session_full", 409),
            Self::PlayerRemoved => not_retryable("player_removed", 403),
            Self::SessionHasNoPlayer => not_retryable("session_has_no_player", 409),
            Self::SessionLive => not_retryable("session_live", 409),
            Self::SessionOver => not_retryable("session_over", 409),
            Self::SessionStarted => not_retryable("session_started", 409),
            Self::IllegalTransition { .. } => not_retryable("illegal_transition", 409),
            Self::GameStateChanged => not_retryable("game_state_changed", 412),
            Self::MaxPlayersBelowSeated => not_retryable("seats_are_taken", 409),
            Self::UnknownJoinCode => not_retryable("no_such_code", 404),
            Self::AdventureNotPlayable => not_retryable("adventure_not_playable", 409),
            Self::AdventurePublished => not_retryable("adventure_published", 409),
            Self::AdventureInvalid(_) => not_retryable("adventure_invalid", 422),
            Self::HeroicSaveSpent => not_retryable("heroic_save_spent", 409),
            Self::HeroicSaveNotNeeded => not_retryable("heroic_save_not_needed", 409),
            Self::HeroicSaveTooLate => not_retryable("heroic_save_too_late", 409),
            Self::RollAlreadySaved => not_retryable("roll_already_saved", 409),
            Self::RollNotSaveable => not_retryable("roll_not_saveable", 409),
            Self::CreatureNotInAdventure => not_retryable("creature_not_in_adventure", 409),
            Self::TutorialOutOfOrder => not_retryable("tutorial_out_of_order", 409),
            Self::StillReferenced => not_retryable("has_history", 409),
            Self::AdventureNotYours => not_retryable("adventure_not_yours", 403),
            Self::SessionNotActive => not_retryable("session_not_active", 409),
            Self::NotSeated => not_retryable("not_seated", 403),
            Self::UnknownAccount => not_retryable("unknown_account", 401),
            Self::InvalidClaims { .. } => not_retryable("invalid_claims", 401),
            Self::AccountClosed => not_retryable("account_closed", 403),
            Self::NotSignedIn => not_retryable("not_signed_in", 401),
            Self::NotSessionSeer => not_retryable("not_a_seer", 403),
            Self::NotAllowed { .. } => not_retryable("not_allowed", 403),
            Self::ColumnNotGranted { .. } => not_retryable("column_closed", 403),
            Self::IdentityChanged => not_retryable("identity_changed", 500),
            Self::TransactionEndedByStatement => not_retryable("transaction_ended", 500),
            Self::TransactionFailed => not_retryable("transaction_failed", 500),
            Self::NestedTransactionOpen => not_retryable("nested_transaction_open", 500),
            Self::TransactionOver => not_retryable("transaction_over", 500),
            Self::InvalidStatement { .. } => not_retryable("invalid_statement", 500),
            Self::NotFound { .. } => not_retryable("not_found", 404),
            Self::IdConflict { .. } => not_retryable("id_conflict", 409),
            Self::InvalidValue { .. } => not_retryable("invalid_value", 422),
            Self::RuleViolated { .. } => not_retryable("rule_violated", 422),
            Self::EventsExpired => not_retryable("events_expired", 410),
            Self::InvalidCursor => not_retryable("bad_cursor", 400),
            Self::DeadlineExceeded => retryable("deadline_exceeded", 504),
            Self::Busy => retryable("busy", 503),
            Self::ConnectionLost(_) => retryable("connection_lost", 503),
            Self::CommitUnknown(_) => not_retryable("commit_unknown", 503),
            Self::PoolExhausted => retryable("pool_exhausted", 503),
            Self::PoolClosed => not_retryable("pool_closed", 503),
            Self::Misconfigured { .. } => not_retryable("misconfigured", 500),
            Self::ConnectFailed(_) => not_retryable("connect_failed", 503),
            Self::SchemaMissing => not_retryable("schema_missing", 503),
            Self::SchemaOutdated { .. } => not_retryable("schema_outdated", 503),
            Self::ReadOnly => not_retryable("read_only", 503),
            Self::ServerExhausted(_) => retryable("server_exhausted", 503),
            Self::Database(_) => not_retryable("database", 500),
        }
    }
}
