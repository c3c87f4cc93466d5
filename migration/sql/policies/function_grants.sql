-- These grants decide who may call which function. Policies, and the WHEN conditions of triggers, are evaluated as the
-- caller's role, which needs EXECUTE on each function in them. Visitors, users and the service call the other functions
-- listed here, directly or through another function that runs with the caller's role.
-- `tables/row_security_and_revokes.sql` grants EXECUTE on the functions of check constraints.

GRANT EXECUTE ON FUNCTION
  private.my_session_ids(),
  private.my_archived_session_ids(),
  private.can_see_adventure(uuid),
  private.best_rated_ids_after(numeric, uuid, integer),
  private.newest_adventures(timestamptz, uuid, integer),
  private.most_played_adventures(integer, uuid, integer),
  private.best_rated_adventures(numeric, uuid, integer),
  private.is_service(),
  private.session_details(uuid),
  public.get_session_details(uuid)
TO anon, authenticated, service_role;

GRANT EXECUTE ON FUNCTION
  private.my_email(),
  private.owns_adventure(uuid),
  private.may_add_creature(uuid),
  private.is_seer(uuid),
  private.is_public_session(uuid),
  private.is_public_archived_session(uuid),
  private.may_take_seat(uuid, uuid),
  private.may_roll(uuid, uuid, uuid),
  private.may_send_event(uuid),
  private.join_by_code(text, uuid),
  private.session_by_code(text),
  private.replace_session_code(uuid),
  private.initiative_order(uuid[]),
  private.rolls_of_character(uuid, public.roll_type, timestamptz, timestamptz, timestamptz, uuid, integer),
  private.change_hit_points(uuid, integer),
  private.close_account(uuid),
  private.is_same_request(text, jsonb),
  private.require_open_account(),
  private.require_and_lock_open_account(),
  private.can_follow_topic(text),
  private.my_event_access(uuid),
  private.require_event_access(uuid),
  private.event_history_id(),
  private.is_client_parsable(jsonb, integer),
  private.refuse_too_many_rows(text),
  private.refuse_several_sessions(text)
TO authenticated;

GRANT EXECUTE ON FUNCTION
  private.event_number_progress(),
  private.event_history_id(),
  private.event_access(uuid, uuid),
  private.my_event_access(uuid),
  private.require_event_access(uuid),
  private.delete_old_events(integer),
  private.archive_sessions(integer),
  private.session_by_code(text),
  private.replace_session_code(uuid),
  private.initiative_order(uuid[]),
  private.rolls_of_character(uuid, public.roll_type, timestamptz, timestamptz, timestamptz, uuid, integer),
  private.change_hit_points(uuid, integer),
  private.close_account(uuid),
  private.is_same_request(text, jsonb),
  private.cancel_abandoned_sessions(integer),
  private.is_abandoned(public.sessions),
  private.is_client_parsable(jsonb, integer)
TO service_role;
