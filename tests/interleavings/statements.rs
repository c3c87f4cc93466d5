//! The statements that users, the service, the platform (Supabase) and maintenance send, each with the errors that it
//! can get if a concurrent statement comes first.

use crate::sqlstates::{
    ACCOUNT_CLOSED, ADVENTURE_NOT_PLAYABLE, CHARACTER_LIMIT_REACHED, CHARACTER_RETIRED, CHARACTER_SEATED,
    CHECK_VIOLATION, CREATURE_NOT_IN_ADVENTURE, FOREIGN_KEY_VIOLATION, HEROIC_SAVE_SPENT, ILLEGAL_TRANSITION,
    INSUFFICIENT_PRIVILEGE, LOCK_NOT_AVAILABLE, PLAYER_REMOVED, ROLL_NOT_SAVEABLE, SESSION_FULL, SESSION_HAS_NO_PLAYER,
    SESSION_OVER, SESSION_STARTED, UNIQUE_VIOLATION, UNKNOWN_JOIN_CODE,
};

/// The identity with which a statement runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    User(&'static str),
    Service,
    /// The platform's Auth server, in whose place the schema's owner runs the statement.
    Platform,
}

/// A statement that a test case (`Case`) sends. It is the only one in its transaction. In `sql`, `@name` is the id of a
/// row of `game_database.sql`, or an unused id for a new row (`@new_...`); see `NAMES` in `game_database.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    pub name: &'static str,
    pub caller: Caller,
    pub sql: &'static str,
    /// The SQLSTATEs with which the statement may be refused if a concurrent statement comes first.
    pub refusals: &'static [&'static str],
    /// The user whose account the statement closes or deletes.
    pub closed_account: Option<&'static str>,
}

use Caller::{Platform, Service, User};

const fn statement(
    caller: Caller,
    name: &'static str,
    sql: &'static str,
    refusals: &'static [&'static str],
) -> Statement {
    Statement { name, caller, sql, refusals, closed_account: None }
}

/// A statement that closes or deletes the account of `user`.
const fn account_closing_statement(
    user: &'static str,
    caller: Caller,
    name: &'static str,
    sql: &'static str,
) -> Statement {
    Statement { name, caller, sql, refusals: &[], closed_account: Some(user) }
}

const ADA: Caller = User("ada");
const BOB: Caller = User("bob");
const EVE: Caller = User("eve");
const SEER: Caller = User("seer");
const ZOE: Caller = User("zoe");

// In the lists of refusals, INSUFFICIENT_PRIVILEGE means that a row that decides what the caller may do (such as their
// profile, the session, a seat or the adventure) is gone or has changed. LOCK_NOT_AVAILABLE means that another
// transaction has locked a row: nothing was changed, and a retry helps.

const TAKE_SEAT_REFUSALS: &[&str] = &[
    INSUFFICIENT_PRIVILEGE,
    FOREIGN_KEY_VIOLATION,
    UNIQUE_VIOLATION,
    SESSION_FULL,
    SESSION_OVER,
    SESSION_STARTED,
    CHARACTER_RETIRED,
    ACCOUNT_CLOSED,
    PLAYER_REMOVED,
];
const JOIN_BY_CODE_REFUSALS: &[&str] = &[
    FOREIGN_KEY_VIOLATION,
    SESSION_FULL,
    SESSION_OVER,
    SESSION_STARTED,
    CHARACTER_RETIRED,
    ACCOUNT_CLOSED,
    UNKNOWN_JOIN_CODE,
    PLAYER_REMOVED,
];
const ROLL_OR_EVENT_REFUSALS: &[&str] = &[INSUFFICIENT_PRIVILEGE, FOREIGN_KEY_VIOLATION, ACCOUNT_CLOSED];
const HEROIC_SAVE_REFUSALS: &[&str] = &[
    INSUFFICIENT_PRIVILEGE,
    FOREIGN_KEY_VIOLATION,
    ACCOUNT_CLOSED,
    HEROIC_SAVE_SPENT,
    ROLL_NOT_SAVEABLE,
    UNIQUE_VIOLATION,
];

pub const STATEMENTS: &[Statement] = &[
    // A player and their characters.
    statement(
        ADA,
        "ada_creates_a_character",
        "INSERT INTO public.characters (id, user_id, name, class, might, grace, wit, heart, special_ability)
         VALUES (@new_row_1, @ada, 'First', 'wizard', 1, 2, 5, 4, '{}')",
        &[CHARACTER_LIMIT_REACHED, ACCOUNT_CLOSED, INSUFFICIENT_PRIVILEGE, FOREIGN_KEY_VIOLATION, UNIQUE_VIOLATION],
    ),
    statement(
        ADA,
        "ada_creates_another_character",
        "INSERT INTO public.characters (id, user_id, name, class, might, grace, wit, heart, special_ability)
         VALUES (@new_row_2, @ada, 'Second', 'wizard', 1, 2, 5, 4, '{}')",
        &[CHARACTER_LIMIT_REACHED, ACCOUNT_CLOSED, INSUFFICIENT_PRIVILEGE, FOREIGN_KEY_VIOLATION, UNIQUE_VIOLATION],
    ),
    statement(ADA, "ada_retires_a_character", "UPDATE public.characters SET retired_at = now() WHERE id = @ada2", &[CHARACTER_SEATED, ACCOUNT_CLOSED]),
    statement(
        ADA,
        "ada_unretires_a_character",
        "UPDATE public.characters SET retired_at = NULL WHERE id = @ada_retired",
        &[CHARACTER_LIMIT_REACHED, ACCOUNT_CLOSED],
    ),
    statement(ADA, "ada_deletes_a_character", "DELETE FROM public.characters WHERE id = @ada2", &[FOREIGN_KEY_VIOLATION, ACCOUNT_CLOSED]),
    statement(
        ADA,
        "ada_deletes_and_replaces_a_character",
        "WITH deleted AS (DELETE FROM public.characters WHERE id = @ada3 RETURNING id)
         INSERT INTO public.characters (id, user_id, name, class, might, grace, wit, heart, special_ability)
         SELECT @new_row_3, @ada, 'Third', 'wizard'::public.character_class, 1, 2, 5, 4, '{}' FROM deleted",
        &[CHARACTER_LIMIT_REACHED, ACCOUNT_CLOSED, INSUFFICIENT_PRIVILEGE, FOREIGN_KEY_VIOLATION, UNIQUE_VIOLATION],
    ),
    statement(ADA, "ada_renames_a_character", "UPDATE public.characters SET name = 'Renamed' WHERE id = @ada1", &[ACCOUNT_CLOSED]),
    statement(ADA, "ada_damages_her_character", "SELECT * FROM private.change_hit_points(@ada1, -1)", &[ACCOUNT_CLOSED]),
    statement(ADA, "ada_edits_her_profile", "UPDATE public.users SET bio = 'Plays.' WHERE id = @ada", &[ACCOUNT_CLOSED]),
    statement(ADA, "ada_skips_the_tutorial", "UPDATE public.tutorial_progress SET skipped = true WHERE user_id = @ada", &[ACCOUNT_CLOSED]),
    statement(
        BOB,
        "bob_begins_the_tutorial",
        "INSERT INTO public.tutorial_progress (user_id) VALUES (@bob)",
        &[ACCOUNT_CLOSED, INSUFFICIENT_PRIVILEGE, FOREIGN_KEY_VIOLATION, UNIQUE_VIOLATION],
    ),
    // Seats. The join codes are those of `game_database.sql`: WAITSX of @one_seat_free, HIDDEN of @private, AGAINX of
    // @left_by_ada_and_eve.
    statement(
        ADA,
        "ada_takes_the_last_seat",
        "INSERT INTO public.session_players (session_id, user_id, character_id) VALUES (@one_seat_free, @ada, @ada2)",
        TAKE_SEAT_REFUSALS,
    ),
    statement(
        EVE,
        "eve_takes_the_last_seat",
        "INSERT INTO public.session_players (session_id, user_id, character_id) VALUES (@one_seat_free, @eve, @eve1)",
        TAKE_SEAT_REFUSALS,
    ),
    statement(ADA, "ada_takes_the_last_seat_by_code", "SELECT * FROM private.join_by_code('WAITSX', @ada2)", JOIN_BY_CODE_REFUSALS),
    statement(EVE, "eve_joins_by_code", "SELECT * FROM private.join_by_code('HIDDEN', @eve1)", JOIN_BY_CODE_REFUSALS),
    statement(ADA, "ada_joins_by_code", "SELECT * FROM private.join_by_code('HIDDEN', @ada1)", JOIN_BY_CODE_REFUSALS),
    statement(
        ADA,
        "ada_leaves_a_session",
        "UPDATE public.session_players SET is_active = false WHERE session_id = @active AND user_id = @ada",
        &[SESSION_OVER, ACCOUNT_CLOSED],
    ),
    statement(
        BOB,
        "bob_leaves_every_session",
        "UPDATE public.session_players SET is_active = false WHERE user_id = @bob AND is_active AND session_id <> @completed",
        &[SESSION_OVER, ACCOUNT_CLOSED],
    ),
    statement(
        ADA,
        "ada_rejoins_with_another_character",
        "UPDATE public.session_players SET is_active = true, character_id = @ada2
         WHERE session_id = @left_by_ada_and_eve AND user_id = @ada",
        TAKE_SEAT_REFUSALS,
    ),
    statement(EVE, "eve_rejoins_by_code", "SELECT * FROM private.join_by_code('AGAINX', @eve1)", JOIN_BY_CODE_REFUSALS),
    statement(
        ADA,
        "ada_switches_to_another_character",
        "UPDATE public.session_players SET character_id = @ada2 WHERE session_id = @zoe_waiting AND user_id = @ada",
        &[SESSION_OVER, CHARACTER_RETIRED, ACCOUNT_CLOSED, FOREIGN_KEY_VIOLATION],
    ),
    statement(
        SEER,
        "seer_removes_ada",
        "UPDATE public.session_players SET is_active = false WHERE session_id = @active AND user_id = @ada",
        &[SESSION_OVER, ACCOUNT_CLOSED],
    ),
    statement(
        SEER,
        "seer_removes_everyone",
        "UPDATE public.session_players SET is_active = false
         WHERE session_id IN (@active, @one_seat_free, @private, @left_by_ada_and_eve) AND is_active",
        &[SESSION_OVER, ACCOUNT_CLOSED],
    ),
    statement(SEER, "seer_shrinks_two_sessions", "UPDATE public.sessions SET max_players = 2 WHERE id IN (@private, @left_by_ada_and_eve)", &[CHECK_VIOLATION, SESSION_OVER, ACCOUNT_CLOSED]),
    statement(
        Service,
        "service_seats_eve",
        "INSERT INTO public.session_players (session_id, user_id, character_id) VALUES (@private, @eve, @eve1)",
        &[FOREIGN_KEY_VIOLATION, UNIQUE_VIOLATION, SESSION_FULL, SESSION_OVER, SESSION_STARTED, CHARACTER_RETIRED, ACCOUNT_CLOSED],
    ),
    // Rolls, events, hit points, and the state of a session.
    statement(
        ADA,
        "ada_rolls",
        "INSERT INTO public.dice_rolls (session_id, character_id, attribute, difficulty, roll_type)
         VALUES (@active, @ada1, 'might', 10, 'attack')",
        ROLL_OR_EVENT_REFUSALS,
    ),
    statement(
        ADA,
        "ada_makes_a_heroic_save",
        "INSERT INTO public.dice_rolls (id, session_id, character_id, attribute, difficulty, roll_type, original_roll_id)
         VALUES (@new_row_3, @active, @ada1, 'might', 18, 'heroic_save', @failed_roll_1)",
        HEROIC_SAVE_REFUSALS,
    ),
    statement(
        ADA,
        "ada_makes_a_heroic_save_on_conflict_do_nothing",
        "INSERT INTO public.dice_rolls (id, session_id, character_id, attribute, difficulty, roll_type, original_roll_id)
         VALUES (@new_row_3, @active, @ada1, 'wit', 18, 'heroic_save', @failed_roll_2) ON CONFLICT DO NOTHING",
        HEROIC_SAVE_REFUSALS,
    ),
    statement(
        ADA,
        "ada_sends_an_event",
        "INSERT INTO public.session_events (session_id, event_type) VALUES (@active, 'client.wave')",
        ROLL_OR_EVENT_REFUSALS,
    ),
    statement(
        SEER,
        "seer_rolls_for_the_wolf",
        "INSERT INTO public.dice_rolls (session_id, creature_id, attribute, difficulty, roll_type)
         VALUES (@active, @wolf, 'might', 10, 'attack')",
        &[INSUFFICIENT_PRIVILEGE, FOREIGN_KEY_VIOLATION, ACCOUNT_CLOSED, CREATURE_NOT_IN_ADVENTURE],
    ),
    statement(
        SEER,
        "seer_rolls_for_bob",
        "INSERT INTO public.dice_rolls (session_id, character_id, attribute, difficulty, roll_type)
         VALUES (@active, @bob1, 'might', 10, 'attack')",
        ROLL_OR_EVENT_REFUSALS,
    ),
    statement(SEER, "seer_damages_adas_character", "SELECT * FROM private.change_hit_points(@ada1, -2)", &[ACCOUNT_CLOSED]),
    statement(SEER, "seer_begins_an_encounter", "UPDATE public.sessions SET current_encounter_id = 'ford' WHERE id = @active", &[SESSION_OVER, ACCOUNT_CLOSED]),
    statement(SEER, "seer_writes_a_game_state", "UPDATE public.sessions SET game_state = '{\"round\": 1}' WHERE id = @active", &[SESSION_OVER, ACCOUNT_CLOSED]),
    // Sessions.
    statement(
        SEER,
        "seer_starts_a_session",
        "UPDATE public.sessions SET status = 'active' WHERE id = @one_seat_free",
        &[ILLEGAL_TRANSITION, SESSION_HAS_NO_PLAYER, ACCOUNT_CLOSED],
    ),
    statement(SEER, "seer_completes_a_session", "UPDATE public.sessions SET status = 'completed' WHERE id = @active", &[ILLEGAL_TRANSITION, ACCOUNT_CLOSED]),
    statement(SEER, "seer_pauses_a_session", "UPDATE public.sessions SET status = 'paused' WHERE id = @active", &[ILLEGAL_TRANSITION, ACCOUNT_CLOSED]),
    statement(
        SEER,
        "seer_cancels_every_session",
        "UPDATE public.sessions SET status = 'cancelled' WHERE seer_id = @seer AND ended_at IS NULL",
        &[ILLEGAL_TRANSITION, ACCOUNT_CLOSED],
    ),
    statement(
        SEER,
        "seer_completes_every_session",
        "UPDATE public.sessions SET status = 'completed' WHERE seer_id = @seer AND status IN ('active', 'paused')",
        &[ILLEGAL_TRANSITION, ACCOUNT_CLOSED],
    ),
    statement(
        SEER,
        "seer_hides_every_session",
        "UPDATE public.sessions SET is_public = false, looking_for = 'Nobody' WHERE seer_id = @seer",
        &[ACCOUNT_CLOSED],
    ),
    statement(
        SEER,
        "seer_writes_every_game_state",
        "UPDATE public.sessions SET game_state = '{\"round\": 1}' WHERE seer_id = @seer AND ended_at IS NULL",
        &[SESSION_OVER, ACCOUNT_CLOSED],
    ),
    statement(ZOE, "zoe_completes_a_session", "UPDATE public.sessions SET status = 'completed' WHERE id = @zoe_paused", &[ILLEGAL_TRANSITION, ACCOUNT_CLOSED]),
    statement(
        ZOE,
        "zoe_cancels_every_session",
        "UPDATE public.sessions SET status = 'cancelled' WHERE seer_id = @zoe AND ended_at IS NULL",
        &[ILLEGAL_TRANSITION, ACCOUNT_CLOSED],
    ),
    statement(
        EVE,
        "eve_creates_a_session",
        "INSERT INTO public.sessions (id, seer_id, adventure_id) VALUES (@new_row_1, @eve, @tower)",
        &[ADVENTURE_NOT_PLAYABLE, ACCOUNT_CLOSED, INSUFFICIENT_PRIVILEGE, FOREIGN_KEY_VIOLATION, UNIQUE_VIOLATION],
    ),
    statement(
        ZOE,
        "zoe_creates_a_session",
        "INSERT INTO public.sessions (id, seer_id, adventure_id, is_public) VALUES (@new_row_2, @zoe, @ford, true)",
        &[ADVENTURE_NOT_PLAYABLE, ACCOUNT_CLOSED, INSUFFICIENT_PRIVILEGE, FOREIGN_KEY_VIOLATION, UNIQUE_VIOLATION],
    ),
    statement(
        SEER,
        "seer_creates_a_session_on_the_draft",
        "INSERT INTO public.sessions (id, seer_id, adventure_id) VALUES (@new_row_3, @seer, @draft)",
        &[ADVENTURE_NOT_PLAYABLE, ACCOUNT_CLOSED, INSUFFICIENT_PRIVILEGE, FOREIGN_KEY_VIOLATION, UNIQUE_VIOLATION],
    ),
    // Adventures.
    statement(ZOE, "zoe_deletes_an_adventure", "DELETE FROM public.adventures WHERE id = @tower", &[FOREIGN_KEY_VIOLATION, ACCOUNT_CLOSED]),
    statement(SEER, "seer_deletes_the_draft", "DELETE FROM public.adventures WHERE id = @draft", &[FOREIGN_KEY_VIOLATION, ACCOUNT_CLOSED]),
    statement(SEER, "seer_unpublishes_an_adventure", "UPDATE public.adventures SET status = 'draft' WHERE id = @ford", &[ACCOUNT_CLOSED]),
    statement(
        SEER,
        "seer_adds_a_creature",
        "INSERT INTO public.creatures (adventure_id, name) VALUES (@draft, 'Mud Hag')",
        &[INSUFFICIENT_PRIVILEGE, FOREIGN_KEY_VIOLATION, ACCOUNT_CLOSED],
    ),
    statement(SEER, "seer_renames_the_wolf", "UPDATE public.creatures SET name = 'Old Wolf' WHERE id = @wolf", &[ACCOUNT_CLOSED]),
    statement(SEER, "seer_deletes_the_wolf", "DELETE FROM public.creatures WHERE id = @wolf", &[ACCOUNT_CLOSED]),
    statement(
        ZOE,
        "zoe_creates_a_draft",
        "INSERT INTO public.adventures (creator_id, name) VALUES (@zoe, 'Another draft')",
        &[ACCOUNT_CLOSED, INSUFFICIENT_PRIVILEGE, FOREIGN_KEY_VIOLATION],
    ),
    // Accounts.
    account_closing_statement("ada", ADA, "ada_closes_her_account", "SELECT private.close_account(@ada)"),
    account_closing_statement("seer", SEER, "the_seer_closes_their_account", "SELECT private.close_account(@seer)"),
    account_closing_statement(
        "zoe",
        Platform,
        "the_platform_closes_zoes_account",
        "UPDATE auth.users SET deleted_at = now() WHERE id = @zoe",
    ),
    account_closing_statement(
        "bob",
        Platform,
        "the_platform_deletes_bobs_account",
        "DELETE FROM auth.users WHERE id = @bob",
    ),
    account_closing_statement(
        "seer",
        Platform,
        "the_platform_deletes_the_seers_account",
        "DELETE FROM auth.users WHERE id = @seer",
    ),
    account_closing_statement("eve", Service, "the_service_closes_eves_account", "SELECT private.close_account(@eve)"),
    statement(Platform, "the_platform_changes_adas_email_address", "UPDATE auth.users SET email = 'new@example.org' WHERE id = @ada", &[]),
    statement(
        Platform,
        "somebody_signs_up_with_adas_new_email_address",
        "INSERT INTO auth.users (id, email) VALUES (@new_account, 'new@example.org')",
        &[UNIQUE_VIOLATION],
    ),
    // Maintenance. The statement of a job returns no row if the job finds nothing to do.
    statement(
        Service,
        "maintenance_archives_sessions",
        "SELECT FROM private.archive_sessions(100) AS count WHERE count > 0",
        &[],
    ),
    statement(
        Service,
        "maintenance_cancels_abandoned_sessions",
        "SELECT FROM private.cancel_abandoned_sessions(100) AS count WHERE count > 0",
        &[],
    ),
    statement(
        Service,
        "maintenance_deletes_old_events",
        "SELECT FROM private.delete_old_events(100) AS count WHERE count > 0",
        &[],
    ),
    statement(
        Service,
        "the_service_deletes_sessions",
        "DELETE FROM public.sessions WHERE id IN (@completed, @empty_cancelled)",
        &[FOREIGN_KEY_VIOLATION, LOCK_NOT_AVAILABLE],
    ),
];
