//! The constraints of the schema, and the error for each.

use super::Error;

/// Returns the error for a violated unique constraint or unique index.
pub(super) fn unique_constraint_error(constraint: &str) -> Error {
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
        "session_players_pkey" | "session_players_replica_identity_key" | "archived_session_players_pkey" => "seat",
        "dice_rolls_pkey" | "archived_dice_rolls_pkey" => "roll",
        "session_events_pkey" | "idx_session_events_seq" => "event",
        "tutorial_progress_pkey" => "tutorial",
        _ => "row",
    };
    Error::IdConflict { what }
}

/// Returns the noun that error messages use for what a foreign key references. A foreign key with none of the suffixes
/// below references an account, which messages call a user.
pub(super) fn referenced_kind(constraint: &str) -> &'static str {
    const KINDS_BY_SUFFIX: [(&str, &str); 5] = [
        ("_adventure_id_fkey", "adventure"),
        ("_character_id_fkey", "character"),
        ("_creature_id_fkey", "creature"),
        ("_session_id_fkey", "session"),
        ("_original_roll_id_fkey", "roll"),
    ];
    KINDS_BY_SUFFIX.iter().find(|(suffix, _)| constraint.ends_with(suffix)).map_or("user", |(_, kind)| kind)
}

/// Returns the error for a violated check constraint, or for a refusal by a trigger that reports a check violation with
/// a constraint name of its own. `None` if the constraint is not listed.
pub(super) fn check_constraint_error(table: &str, constraint: &str) -> Option<Error> {
    let (field, rule) = match constraint {
        "seats_within_limit" => return Some(Error::MaxPlayersBelowSeated),
        "character_not_seated" => return Some(Error::CharacterSeated),
        "character_limit" => return Some(Error::CharacterLimitReached),
        "retired_character_limit" => return Some(Error::RetiredLimitReached),
        "live_seat_limit" => return Some(Error::SeatLimitReached),
        "live_session_limit" => return Some(Error::SessionLimitReached),
        "adventure_limit" => return Some(Error::AdventureLimitReached),
        "creature_limit" => return Some(Error::CreatureLimitReached),
        "displayable_name" => (
            if table == "users" { "display_name" } else { "name" },
            "must have a visible character, and no control characters, line breaks, bidirectional formatting or \
             zero-width spaces",
        ),
        // The account's own address in a reserved domain is allowed, but only the schema's functions store it.
        "reserved_email_is_own" => ("email", "must not be in a reserved domain"),
        "web_avatar_url" => ("avatar_url", "must be an http or https URL, or a path"),
        "web_thumbnail_url" => ("thumbnail_url", "must be an http or https URL, or a path"),
        "web_artwork_url" => ("artwork_url", "must be an http or https URL, or a path"),
        "account_is_own" => ("account_id", "must equal the id"),
        "removed_is_inactive" => ("removed_at", "must be null while the player is seated"),
        "left_is_inactive" => ("left_at", "must be null exactly while the player is seated"),
        "times_of_status" => (
            "ended_at",
            "must be null exactly while the session is live; started_at must not be null once the session has started",
        ),
        "adventures_average_rating_check" => ("average_rating", "must be 0 to 5"),
        // The database reports only that the adventure is not valid, so the list of its errors is empty.
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
            "must be at most ten: dice modifiers from -5 to 5 and flat ones from -10 to 10, each with a source of at \
                most 100 characters",
        ),
        "valid_stats" => ("stats", "must have might, grace, wit and heart, integers from 1 to 10"),
        "valid_player_range" => ("min_players", "must not be above max_players"),
        "adventures_min_players_check" => ("min_players", "must be 1 to 6"),
        "adventures_max_players_check" => ("max_players", "must be 1 to 6"),
        "adventures_estimated_duration_check" => ("estimated_duration", "must be one minute or more"),
        "adventures_times_played_check" => ("times_played", "must not be negative"),
        "sessions_max_players_check" => ("max_players", "must be 2 to 6"),
        "valid_code" => ("code", "must have six capital letters or digits"),
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
        "valid_heroic_save" => {
            ("original_roll_id", "must be set if the roll is a heroic save, and must be empty otherwise")
        }
        "valid_event_type" => ("kind", "must have 1 to 57 characters, and no control characters"),
        "valid_step" => ("current_step", "must be a step of the tutorial"),
        "users_games_played_check" => ("games_played", "must not be negative"),
        "users_games_run_check" => ("games_run", "must not be negative"),
        "client_parsable_document" => (
            "document",
            "must be within its size limit, be at most 100 levels deep, and have no number beyond 1e308 or closer to 0 \
                than 1e-308",
        ),
        _ if constraint.starts_with("bounded_") => return bound_error(table, constraint),
        "adventures_creature_count_check" => ("creature_count", "must not be negative"),
        "users_adventure_count_check" => ("adventure_count", "must not be negative"),
        "users_living_characters_check" => ("living_characters", "must not be negative"),
        "users_retired_characters_check" => ("retired_characters", "must not be negative"),
        "users_live_sessions_check" => ("live_sessions", "must not be negative"),
        _ if constraint.ends_with("_live_seats_check") => ("live_seats", "must not be negative"),
        _ if constraint.ends_with("_seats_taken_check") => ("seats_taken", "must not be negative"),
        _ if constraint.ends_with("_encounter_number_check") => ("encounter_number", "must not be negative"),
        _ if constraint.ends_with("_game_state_version_check") => ("game_state_version", "must not be negative"),
        _ if constraint.ends_with("_heroic_saves_used_check") => ("heroic_saves_used", "must not be negative"),
        _ if constraint.ends_with("_heroic_saves_encounter_check") => {
            ("heroic_saves_encounter", "must not be negative")
        }
        _ => return None,
    };
    Some(Error::InvalidValue { field, rule })
}

/// Returns the error for a violated bound on the size of a text or document, or on a time (`docs/decisions.md`,
/// "Bounds"). `None` if the constraint is not listed.
fn bound_error(table: &str, constraint: &str) -> Option<Error> {
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
        (_, "bounded_times") => ("times", "must be between the years 2000 and 2999"),
        (_, "bounded_scene") => ("scene_id", "must have at most 200 characters"),
        (_, "bounded_encounter") => ("encounter_id", "must have at most 200 characters"),
        (_, "bounded_game_state") => ("game_state", "must take at most 256 KiB"),
        (_, "bounded_payload") => ("payload", "must take at most 16 KiB"),
        (_, "bounded_modifiers") => ("modifiers", "must take at most 8 KiB"),
        _ => return None,
    };
    Some(Error::InvalidValue { field, rule })
}
