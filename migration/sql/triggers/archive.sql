-- Sessions that ended ninety days ago, completed or cancelled, move to the archive with their seats and rolls.

CREATE OR REPLACE FUNCTION private.archive_sessions(batch integer)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  moving uuid[];
BEGIN
  -- Skipping what another run holds: two at once share the work instead of waiting.
  moving := ARRAY(
    SELECT session.id
    FROM public.sessions AS session
    JOIN public.adventures AS adventure ON adventure.id = session.adventure_id
    WHERE session.status IN ('completed', 'cancelled')
      AND session.ended_at < now() - INTERVAL '90 days'
    ORDER BY session.ended_at
    LIMIT batch
    FOR UPDATE OF session SKIP LOCKED
    -- A session whose adventure is being deleted is left: the deletion looks for it.
    FOR KEY SHARE OF adventure SKIP LOCKED
  );
  INSERT INTO public.archived_sessions (
    id, seer_id, adventure_id, code, is_public, max_players, looking_for, scheduled_start, status, current_scene_id,
    current_encounter_id, game_state, started_at, ended_at, created_at, updated_at, seats_taken, encounters_begun,
    game_state_version, last_event_at
  )
  SELECT
    id, seer_id, adventure_id, code, is_public, max_players, looking_for, scheduled_start, status, current_scene_id,
    current_encounter_id, game_state, started_at, ended_at, created_at, updated_at, seats_taken, encounters_begun,
    game_state_version, last_event_at
  FROM public.sessions
  WHERE id = ANY (moving);

  INSERT INTO public.archived_session_players (
    session_id, user_id, character_id, is_active, heroic_saves_used, joined_at, left_at, heroic_saves_encounter,
    removed_at
  )
  SELECT
    session_id, user_id, character_id, is_active, heroic_saves_used, joined_at, left_at, heroic_saves_encounter,
    removed_at
  FROM public.session_players
  WHERE session_id = ANY (moving);

  INSERT INTO public.archived_dice_rolls (
    id, session_id, character_id, creature_id, character_name, attribute, dice_count, difficulty, roll_type, modifiers,
    results, total, modified_total, success, outcome, margin, description, animation_seed, original_roll_id, rolled_by,
    created_at
  )
  SELECT
    id, session_id, character_id, creature_id, character_name, attribute, dice_count, difficulty, roll_type, modifiers,
    results, total, modified_total, success, outcome, margin, description, animation_seed, original_roll_id, rolled_by,
    created_at
  FROM public.dice_rolls
  WHERE session_id = ANY (moving);

  DELETE FROM public.sessions
  WHERE id = ANY (moving);
  RETURN cardinality(moving);
END
$$;

-- Whether nobody comes back to a session: a waiting one a week after its start (at the latest a year after it was opened, because a
-- start may be set in any year), or a month after it was opened without one; a started one after a month without events.
CREATE OR REPLACE FUNCTION private.is_abandoned(session public.sessions)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN CASE
    WHEN session.status IN ('waiting', 'starting_soon') THEN
      CASE
        WHEN session.scheduled_start IS NULL THEN session.created_at + INTERVAL '1 month'
        ELSE least(session.scheduled_start + INTERVAL '7 days', session.created_at + INTERVAL '1 year')
      END < now()
    WHEN session.status IN ('active', 'paused') THEN
      greatest(session.last_event_at, session.started_at) + INTERVAL '1 month' < now()
    ELSE false
  END;
END
$$;

-- Ends what was abandoned.
CREATE OR REPLACE FUNCTION private.cancel_abandoned_sessions(batch integer)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  abandoned uuid[];
BEGIN
  abandoned := ARRAY(
    SELECT session.id
    FROM public.sessions AS session
    WHERE session.status IN ('waiting', 'starting_soon', 'active', 'paused')
      AND private.is_abandoned(session)
    ORDER BY session.id
    LIMIT batch
    FOR NO KEY UPDATE SKIP LOCKED
  );
  UPDATE public.sessions
  SET status = 'cancelled'
  WHERE id = ANY (abandoned);
  RETURN cardinality(abandoned);
END
$$;

CREATE OR REPLACE TRIGGER set_updated_at
  BEFORE UPDATE ON public.archived_sessions
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();
