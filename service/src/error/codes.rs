//! The code and the HTTP status of each error, and whether a retry may help.

use super::Error;

/// What does not change about a variant between versions.
struct Entry {
    code: &'static str,
    http_status: u16,
    is_retryable: bool,
}

const fn entry(code: &'static str, http_status: u16) -> Entry {
    Entry { code, http_status, is_retryable: false }
}

const fn retryable(code: &'static str, http_status: u16) -> Entry {
    Entry { code, http_status, is_retryable: true }
}

impl Error {
    /// Returns a name that is stable across versions, for clients, logs and tests.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.entry().code
    }

    /// Returns the HTTP status that fits the error.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        self.entry().http_status
    }

    /// Returns whether the same call may succeed a moment later. If so, the call changed nothing. `false` for
    /// [`CommitUnknown`](Self::CommitUnknown), whose outcome is unknown: repeat such a call only if it creates
    /// something with an id that the caller chose.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.entry().is_retryable
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
            Self::EndedByStatement => entry("transaction_ended", 500),
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
