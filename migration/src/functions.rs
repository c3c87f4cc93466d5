//! Every function of ours, so that each is closed to the API's roles when it is made and gone when it is undone.

/// Pure functions that check constraints call; made with the tables.
pub(crate) const CHECKS: &[&str] = &[
    "private.sum_of_dice(integer[])",
    "private.are_valid_modifiers(jsonb)",
    "private.sum_of_modifiers(jsonb, text)",
    "private.are_valid_stats(jsonb)",
    "private.is_clean_name(text)",
];

/// Trigger functions and what they call.
pub(crate) const RULES: &[&str] = &[
    "private.touch_updated_at()",
    "private.random_numbers(integer, integer)",
    "private.is_readable(jsonb, integer)",
    "private.check_readable()",
    "private.is_server()",
    "private.require_open_account()",
    "private.refuse_closed_account()",
    "private.enter_gate(uuid)",
    "private.count_for_account(uuid, integer, integer, integer, integer, integer)",
    "private.lock_sessions(uuid[])",
    "private.limit_inserted_rows()",
    "private.my_session_ids()",
    "private.my_archived_session_ids()",
    "private.create_profile(uuid, text, jsonb)",
    "private.handle_new_user()",
    "private.erase_account(uuid)",
    "private.clean_name(jsonb)",
    "private.web_address(jsonb)",
    "private.kept_email(uuid, text)",
    "private.change_email(uuid, text)",
    "private.make_gate()",
    "private.lock_seats(uuid, uuid[])",
    "private.lock_account(uuid)",
    "private.handle_deleted_user()",
    "private.delete_unshared(uuid)",
    "private.handle_changed_user()",
    "private.check_profile_change()",
    "private.delete_own_history()",
    "private.prepare_character()",
    "private.check_character_limit()",
    "private.check_adventure()",
    "private.check_adventure_limit()",
    "private.adventure_has_history(uuid)",
    "private.delete_playerless_sessions()",
    "private.check_creature_limit()",
    "private.draw_session_code()",
    "private.generate_session_code()",
    "private.check_session_adventure()",
    "private.check_schedule()",
    "private.check_session_limit()",
    "private.move_session()",
    "private.release_deleted_session()",
    "private.check_session_status()",
    "private.number_game_state()",
    "private.give_heroic_saves_back()",
    "private.update_user_stats()",
    "private.emit_session_change()",
    "private.prepare_seat()",
    "private.stamp_removal()",
    "private.check_session_capacity()",
    "private.claim_heroic_save()",
    "private.roll_dice()",
    "private.emit_roll()",
    "private.can_broadcast()",
    "private.broadcast_event()",
    "private.number_event()",
    "private.clean_events(integer)",
    "private.cleanup_old_events()",
    "private.archive_sessions(integer)",
    "private.is_abandoned(public.sessions)",
    "private.cancel_abandoned_sessions(integer)",
    "private.tutorial_steps(public.tutorial_path)",
    "private.prepare_tutorial_step()",
    "private.check_tutorial_step()",
];

/// Helpers of the policies, and what the service and the API call.
pub(crate) const ACCESS: &[&str] = &[
    "private.my_email()",
    "private.close_account(uuid)",
    "private.change_hit_points(uuid, integer)",
    "private.renew_session_code(uuid)",
    "private.session_by_code(text)",
    "private.initiative_order(uuid[])",
    "private.rolls_of_character(uuid, public.roll_type, timestamptz, timestamptz, timestamptz, uuid, integer)",
    "private.best_rated_after(numeric, uuid, integer)",
    "private.newest_adventures(timestamptz, uuid, integer)",
    "private.most_played_adventures(integer, uuid, integer)",
    "private.best_rated_adventures(numeric, uuid, integer)",
    "private.can_see_adventure(uuid)",
    "private.owns_adventure(uuid)",
    "private.is_seer(uuid)",
    "private.is_at_table(uuid)",
    "private.session_details(uuid)",
    "public.get_session_details(uuid)",
    "private.is_public_session(uuid)",
    "private.may_take_seat(uuid, uuid)",
    "private.join_by_code(text, uuid)",
    "private.may_roll(uuid, uuid, uuid)",
    "private.is_public_archived_session(uuid)",
    "private.can_follow(text)",
];

/// Takes from the API's roles what default privileges gave them on the functions.
pub(crate) fn close(functions: &[&str]) -> String {
    format!("REVOKE ALL ON FUNCTION {} FROM PUBLIC, anon, authenticated, service_role", functions.join(", "))
}

/// Drops the functions, and the triggers that call them.
pub(crate) fn drop(functions: &[&str]) -> String {
    format!("DROP FUNCTION IF EXISTS {} CASCADE", functions.join(", "))
}
