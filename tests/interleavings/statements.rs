//! Statements that users, the service, the platform and maintenance send, and how each may be refused if another one
//! came first.

/// The identity that sends a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    User(&'static str),
    Service,
    /// The platform's Auth server or the schema's owner.
    Platform,
}

#[derive(Clone, Copy, Debug)]
pub struct Statement {
    pub name: &'static str,
    pub sender: Sender,
    pub sql: &'static str,
    /// The SQLSTATEs that the documentation lists for it.
    pub refusals: &'static [&'static str],
    /// The account that it closes or deletes.
    pub closes: Option<&'static str>,
}

use Sender::{Platform, Service, User};

const fn by(sender: Sender, name: &'static str, sql: &'static str, refusals: &'static [&'static str]) -> Statement {
    Statement { name, sender, sql, refusals, closes: None }
}

const fn closing(who: &'static str, sender: Sender, name: &'static str, sql: &'static str) -> Statement {
    Statement { name, sender, sql, refusals: &[], closes: Some(who) }
}

const ADA: Sender = User("ada");
const BOB: Sender = User("bob");
const EVE: Sender = User("eve");
const SEER: Sender = User("seer");
const ZOE: Sender = User("zoe");

/// The row is gone, or the caller may no longer write it.
const FORBIDDEN: &str = "42501";
const MISSING: &str = "23503";
/// Another transaction has locked a row: nothing was changed, and a retry helps.
const BUSY: &str = "55P03";
const TAKEN: &str = "23505";
const CHARACTER_LIMIT: &str = "SP001";
const FULL: &str = "SP002";
const TRANSITION: &str = "SP003";
const OVER: &str = "SP004";
const STARTED: &str = "SP005";
const RETIRED: &str = "SP007";
const SEATED: &str = "SP008";
const UNPLAYABLE: &str = "SP009";
const SPENT: &str = "SP011";
const UNSAVEABLE: &str = "SP015";
const NOT_A_CREATURE_HERE: &str = "SP017";
const OWN_CHOICE: &str = "SP018";
const CLOSED: &str = "SP019";
const NO_SUCH_CODE: &str = "SP020";
const REMOVED: &str = "SP028";
const NOBODY_SEATED: &str = "SP029";

const SIT: &[&str] = &[FORBIDDEN, MISSING, TAKEN, FULL, OVER, STARTED, RETIRED, CLOSED, REMOVED];
const JOIN: &[&str] = &[MISSING, FULL, OVER, STARTED, RETIRED, CLOSED, NO_SUCH_CODE, REMOVED];
const ROLL: &[&str] = &[FORBIDDEN, MISSING, CLOSED];
const SAVE: &[&str] = &[FORBIDDEN, MISSING, CLOSED, SPENT, UNSAVEABLE, TAKEN];

pub const STATEMENTS: &[Statement] = &[
    // A player and their characters.
    by(
        ADA,
        "ada_creates_a_character",
        "INSERT INTO public.characters (id, user_id, name, class, might, grace, wit, heart, special_ability)
         VALUES (@first, @ada, 'First', 'wizard', 1, 2, 5, 4, '{}')",
        &[CHARACTER_LIMIT, CLOSED, FORBIDDEN, MISSING, TAKEN],
    ),
    by(
        ADA,
        "ada_creates_another",
        "INSERT INTO public.characters (id, user_id, name, class, might, grace, wit, heart, special_ability)
         VALUES (@second, @ada, 'Second', 'wizard', 1, 2, 5, 4, '{}')",
        &[CHARACTER_LIMIT, CLOSED, FORBIDDEN, MISSING, TAKEN],
    ),
    by(ADA, "ada_retires_a_spare", "UPDATE public.characters SET retired_at = now() WHERE id = @ada2", &[SEATED, CLOSED]),
    by(
        ADA,
        "ada_unretires",
        "UPDATE public.characters SET retired_at = NULL WHERE id = @adaold",
        &[CHARACTER_LIMIT, CLOSED],
    ),
    by(ADA, "ada_deletes_a_spare", "DELETE FROM public.characters WHERE id = @ada2", &[MISSING, CLOSED]),
    by(
        ADA,
        "ada_deletes_and_replaces_one",
        "WITH gone AS (DELETE FROM public.characters WHERE id = @ada3 RETURNING id)
         INSERT INTO public.characters (id, user_id, name, class, might, grace, wit, heart, special_ability)
         SELECT @save, @ada, 'Third', 'wizard'::public.character_class, 1, 2, 5, 4, '{}' FROM gone",
        &[CHARACTER_LIMIT, CLOSED, FORBIDDEN, MISSING, TAKEN],
    ),
    by(ADA, "ada_renames_one", "UPDATE public.characters SET name = 'Renamed' WHERE id = @ada1", &[CLOSED]),
    by(ADA, "ada_wounds_hers", "SELECT * FROM private.change_hit_points(@ada1, -1)", &[CLOSED]),
    by(ADA, "ada_edits_her_profile", "UPDATE public.users SET bio = 'Plays.' WHERE id = @ada", &[CLOSED]),
    by(ADA, "ada_skips_the_tutorial", "UPDATE public.tutorial_progress SET skipped = true WHERE user_id = @ada", &[CLOSED]),
    by(
        BOB,
        "bob_begins_the_tutorial",
        "INSERT INTO public.tutorial_progress (user_id) VALUES (@bob)",
        &[CLOSED, FORBIDDEN, MISSING, TAKEN],
    ),
    // Seats.
    by(
        ADA,
        "ada_takes_the_last_seat",
        "INSERT INTO public.session_players (session_id, user_id, character_id) VALUES (@onewaits, @ada, @ada2)",
        SIT,
    ),
    by(
        EVE,
        "eve_takes_the_last_seat",
        "INSERT INTO public.session_players (session_id, user_id, character_id) VALUES (@onewaits, @eve, @eve1)",
        SIT,
    ),
    by(ADA, "ada_joins_the_same_by_code", "SELECT * FROM private.join_by_code('WAITSX', @ada2)", JOIN),
    by(EVE, "eve_joins_by_code", "SELECT * FROM private.join_by_code('HIDDEN', @eve1)", JOIN),
    by(ADA, "ada_joins_by_code", "SELECT * FROM private.join_by_code('HIDDEN', @ada1)", JOIN),
    by(
        ADA,
        "ada_leaves",
        "UPDATE public.session_players SET is_active = false WHERE session_id = @plays AND user_id = @ada",
        &[OVER, CLOSED],
    ),
    by(
        BOB,
        "bob_leaves_everything",
        "UPDATE public.session_players SET is_active = false WHERE user_id = @bob AND is_active AND session_id <> @over",
        &[OVER, CLOSED],
    ),
    by(
        ADA,
        "ada_rejoins_with_another",
        "UPDATE public.session_players SET is_active = true, character_id = @ada2
         WHERE session_id = @again AND user_id = @ada",
        SIT,
    ),
    by(EVE, "eve_rejoins_by_code", "SELECT * FROM private.join_by_code('AGAINX', @eve1)", JOIN),
    by(
        ADA,
        "ada_changes_her_character",
        "UPDATE public.session_players SET character_id = @ada2 WHERE session_id = @zoewaits AND user_id = @ada",
        &[OVER, STARTED, RETIRED, CLOSED, MISSING, OWN_CHOICE],
    ),
    by(
        SEER,
        "seer_removes_ada",
        "UPDATE public.session_players SET is_active = false WHERE session_id = @plays AND user_id = @ada",
        &[OVER, CLOSED],
    ),
    by(
        SEER,
        "seer_removes_everyone",
        "UPDATE public.session_players SET is_active = false
         WHERE session_id IN (@plays, @onewaits, @hidden, @again) AND is_active",
        &[OVER, CLOSED],
    ),
    by(SEER, "seer_shrinks", "UPDATE public.sessions SET max_players = 2 WHERE id IN (@hidden, @again)", &["23514", OVER, CLOSED]),
    by(
        Service,
        "service_seats_eve",
        "INSERT INTO public.session_players (session_id, user_id, character_id) VALUES (@hidden, @eve, @eve1)",
        &[MISSING, TAKEN, FULL, OVER, STARTED, RETIRED, CLOSED],
    ),
    // Play.
    by(
        ADA,
        "ada_rolls",
        "INSERT INTO public.dice_rolls (session_id, character_id, attribute, difficulty, roll_type)
         VALUES (@plays, @ada1, 'might', 10, 'attack')",
        ROLL,
    ),
    by(
        ADA,
        "ada_saves",
        "INSERT INTO public.dice_rolls (id, session_id, character_id, attribute, difficulty, roll_type, original_roll_id)
         VALUES (@save, @plays, @ada1, 'might', 18, 'heroic_save', @failed)",
        SAVE,
    ),
    by(
        ADA,
        "ada_saves_unless_it_is_there",
        "INSERT INTO public.dice_rolls (id, session_id, character_id, attribute, difficulty, roll_type, original_roll_id)
         VALUES (@save, @plays, @ada1, 'wit', 18, 'heroic_save', @failed2) ON CONFLICT DO NOTHING",
        SAVE,
    ),
    by(
        ADA,
        "ada_sends_an_event",
        "INSERT INTO public.session_events (session_id, event_type) VALUES (@plays, 'client.wave')",
        ROLL,
    ),
    by(
        SEER,
        "seer_rolls_for_the_wolf",
        "INSERT INTO public.dice_rolls (session_id, creature_id, attribute, difficulty, roll_type)
         VALUES (@plays, @wolf, 'might', 10, 'attack')",
        &[FORBIDDEN, MISSING, CLOSED, NOT_A_CREATURE_HERE],
    ),
    by(
        SEER,
        "seer_rolls_for_bob",
        "INSERT INTO public.dice_rolls (session_id, character_id, attribute, difficulty, roll_type)
         VALUES (@plays, @bob1, 'might', 10, 'attack')",
        ROLL,
    ),
    by(SEER, "seer_wounds_ada", "SELECT * FROM private.change_hit_points(@ada1, -2)", &[CLOSED]),
    by(SEER, "seer_begins_an_encounter", "UPDATE public.sessions SET current_encounter_id = 'ford' WHERE id = @plays", &[OVER, CLOSED]),
    by(SEER, "seer_writes_the_state", "UPDATE public.sessions SET game_state = '{\"round\": 1}' WHERE id = @plays", &[OVER, CLOSED]),
    // Sessions.
    by(
        SEER,
        "seer_starts",
        "UPDATE public.sessions SET status = 'active' WHERE id = @onewaits",
        &[TRANSITION, NOBODY_SEATED, CLOSED],
    ),
    by(SEER, "seer_completes", "UPDATE public.sessions SET status = 'completed' WHERE id = @plays", &[TRANSITION, CLOSED]),
    by(SEER, "seer_pauses", "UPDATE public.sessions SET status = 'paused' WHERE id = @plays", &[TRANSITION, CLOSED]),
    by(
        SEER,
        "seer_cancels_everything",
        "UPDATE public.sessions SET status = 'cancelled' WHERE seer_id = @seer AND ended_at IS NULL",
        &[TRANSITION, CLOSED],
    ),
    by(
        SEER,
        "seer_completes_everything",
        "UPDATE public.sessions SET status = 'completed' WHERE seer_id = @seer AND status IN ('active', 'paused')",
        &[TRANSITION, CLOSED],
    ),
    by(
        SEER,
        "seer_hides_everything",
        "UPDATE public.sessions SET is_public = false, looking_for = 'Nobody' WHERE seer_id = @seer",
        &[CLOSED],
    ),
    by(
        SEER,
        "seer_saves_everything",
        "UPDATE public.sessions SET game_state = '{\"round\": 1}' WHERE seer_id = @seer AND ended_at IS NULL",
        &[OVER, CLOSED],
    ),
    by(ZOE, "zoe_completes", "UPDATE public.sessions SET status = 'completed' WHERE id = @zoepaused", &[TRANSITION, CLOSED]),
    by(
        ZOE,
        "zoe_cancels_everything",
        "UPDATE public.sessions SET status = 'cancelled' WHERE seer_id = @zoe AND ended_at IS NULL",
        &[TRANSITION, CLOSED],
    ),
    by(
        EVE,
        "eve_opens_a_session",
        "INSERT INTO public.sessions (id, seer_id, adventure_id) VALUES (@first, @eve, @tower)",
        &[UNPLAYABLE, CLOSED, FORBIDDEN, MISSING, TAKEN],
    ),
    by(
        ZOE,
        "zoe_opens_a_session",
        "INSERT INTO public.sessions (id, seer_id, adventure_id, is_public) VALUES (@second, @zoe, @ford, true)",
        &[UNPLAYABLE, CLOSED, FORBIDDEN, MISSING, TAKEN],
    ),
    by(
        SEER,
        "seer_plays_the_draft",
        "INSERT INTO public.sessions (id, seer_id, adventure_id) VALUES (@save, @seer, @draft)",
        &[UNPLAYABLE, CLOSED, FORBIDDEN, MISSING, TAKEN],
    ),
    // Adventures.
    by(ZOE, "zoe_deletes_the_pinned", "DELETE FROM public.adventures WHERE id = @tower", &[MISSING, CLOSED]),
    by(SEER, "seer_deletes_the_draft", "DELETE FROM public.adventures WHERE id = @draft", &[MISSING, CLOSED]),
    by(SEER, "seer_unpublishes", "UPDATE public.adventures SET status = 'draft' WHERE id = @ford", &[CLOSED]),
    by(
        SEER,
        "seer_adds_a_creature",
        "INSERT INTO public.creatures (adventure_id, name) VALUES (@draft, 'Mud Hag')",
        &[FORBIDDEN, MISSING, CLOSED],
    ),
    by(SEER, "seer_renames_the_wolf", "UPDATE public.creatures SET name = 'Old Wolf' WHERE id = @wolf", &[CLOSED]),
    by(SEER, "seer_deletes_the_wolf", "DELETE FROM public.creatures WHERE id = @wolf", &[CLOSED]),
    by(
        ZOE,
        "zoe_writes_a_draft",
        "INSERT INTO public.adventures (creator_id, name) VALUES (@zoe, 'Another draft')",
        &[CLOSED, FORBIDDEN, MISSING],
    ),
    // Accounts.
    closing("ada", ADA, "ada_closes_her_account", "SELECT private.close_account(@ada)"),
    closing("seer", SEER, "seer_closes_the_account", "SELECT private.close_account(@seer)"),
    closing("zoe", Platform, "the_platform_closes_zoe", "UPDATE auth.users SET deleted_at = now() WHERE id = @zoe"),
    closing("bob", Platform, "the_platform_deletes_bob", "DELETE FROM auth.users WHERE id = @bob"),
    closing("seer", Platform, "the_platform_deletes_the_seer", "DELETE FROM auth.users WHERE id = @seer"),
    closing("eve", Service, "the_service_closes_eve", "SELECT private.close_account(@eve)"),
    by(Platform, "ada_changes_her_address", "UPDATE auth.users SET email = 'new@example.org' WHERE id = @ada", &[]),
    by(
        Platform,
        "somebody_signs_up_with_the_same_address",
        "INSERT INTO auth.users (id, email) VALUES (@new, 'new@example.org')",
        &[TAKEN],
    ),
    // Maintenance.
    by(Service, "maintenance_archives", "SELECT private.archive_sessions(100)", &[]),
    by(Service, "maintenance_cancels_the_abandoned", "SELECT private.cancel_abandoned_sessions(100)", &[]),
    by(Service, "maintenance_cleans_events", "SELECT private.clean_events(100)", &[]),
    by(
        Service,
        "the_service_deletes_sessions",
        "DELETE FROM public.sessions WHERE id IN (@over, @pin)",
        &[MISSING, BUSY],
    ),
];
