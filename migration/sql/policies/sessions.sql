-- Everyone can see public sessions. A private session is visible only to its Seer, its players, and players who left,
-- but not to those whom the Seer removed. The Seer is the only user who can change a session.

CREATE OR REPLACE FUNCTION private.is_seer(target_session_id uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.sessions AS session
    WHERE session.id = target_session_id
      AND session.seer_id = auth.uid()
  );
END
$$;

-- Whether the caller is the session's Seer or has an active seat in it.
CREATE OR REPLACE FUNCTION private.is_seer_or_seated(target_session_id uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me uuid := auth.uid();
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.sessions AS session
    LEFT JOIN public.session_players AS seat ON seat.session_id = session.id AND seat.user_id = me
    WHERE session.id = target_session_id
      AND (session.seer_id = me OR seat.is_active)
  );
END
$$;

-- Whether the caller may send an event to the session. For a player who has left, this raises an error with the reason,
-- because such a player can still see the session. For all others who may not send, it returns false.
CREATE OR REPLACE FUNCTION private.may_send_event(target_session_id uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF private.is_seer_or_seated(target_session_id) THEN
    RETURN true;
  END IF;
  IF EXISTS (
    SELECT
    FROM public.session_players
    WHERE session_id = target_session_id
      AND user_id = auth.uid()
      AND removed_at IS NULL
  ) THEN
    PERFORM private.refuse('Only the Seer and players with an active seat may send events', 'session_events', 'seated');
  END IF;
  RETURN false;
END
$$;

-- Returns a session, its seats with the name and class of each character, and its adventure. Returns no row if the
-- caller cannot see the session. Character sheets are private, but whoever sees a seat sees the character's name and
-- class. As in table `session_players`, seats are visible only to signed-in users.
--
-- The whole adventure is included for callers who may read it and, until the session ends, also for the Seer and seated
-- players. Until the session ends, other callers get only a summary of the adventure, so that a public session does not
-- publish a draft. Once the session has ended, callers who may not read the adventure get nothing of it, so that it
-- does not stay readable after it has become a draft again.
--
-- This function runs as its owner, because callers cannot read the characters of others. So the policy of table
-- `sessions` is not evaluated. Instead the WHERE clause decides who may see the session, by the rule of that policy
-- (the service sees every session).
CREATE OR REPLACE FUNCTION private.session_details(target_session_id uuid)
RETURNS TABLE (session_data jsonb, players jsonb, adventure_data jsonb)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  me uuid := auth.uid();
  is_service boolean := private.is_service();
BEGIN
  RETURN QUERY
  SELECT
    to_jsonb(session.*),
    CASE
      WHEN is_service OR me IS NOT NULL THEN (
        SELECT coalesce(
          jsonb_agg(
            jsonb_build_object(
              'userId', seat.user_id,
              'characterId', seat.character_id,
              'characterName', character.name,
              'characterClass', character.class,
              'displayName', profile.display_name,
              'avatarUrl', profile.avatar_url,
              'joinedAt', seat.joined_at,
              'isActive', seat.is_active
            )
            ORDER BY seat.joined_at, seat.user_id
          ),
          '[]'
        )
        FROM public.session_players AS seat
        JOIN public.characters AS character ON character.id = seat.character_id
        JOIN public.users AS profile ON profile.id = seat.user_id
        WHERE seat.session_id = target_session_id
      )
      ELSE '[]'::jsonb
    END,
    CASE
      WHEN is_service
        OR adventure.status = 'published'
        OR adventure.creator_id = me
        OR (session.status NOT IN ('completed', 'cancelled') AND (session.seer_id = me OR own_seat.is_active))
        THEN to_jsonb(adventure.*)
      WHEN session.status NOT IN ('completed', 'cancelled') THEN
        jsonb_build_object(
          'id', adventure.id,
          'creator_id', adventure.creator_id,
          'name', adventure.name,
          'thumbnail_url', adventure.thumbnail_url,
          'difficulty', adventure.difficulty,
          'estimated_duration', adventure.estimated_duration,
          'status', adventure.status
        )
    END
  FROM public.sessions AS session
  JOIN public.adventures AS adventure ON adventure.id = session.adventure_id
  LEFT JOIN public.session_players AS own_seat
    ON own_seat.session_id = session.id AND own_seat.user_id = me AND own_seat.removed_at IS NULL
  WHERE session.id = target_session_id
    AND (is_service OR session.is_public OR session.seer_id = me OR own_seat.user_id IS NOT NULL);
END
$$;

-- Returns a session with everything that a client shows of it, in one round trip. See `private.session_details`.
CREATE OR REPLACE FUNCTION public.get_session_details(p_session_id uuid)
RETURNS TABLE (session_data jsonb, players jsonb, adventure_data jsonb)
LANGUAGE plpgsql
STABLE
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN QUERY
  SELECT *
  FROM private.session_details(p_session_id);
END
$$;

-- Replaces the join code of a session that has not ended, for a Seer whose code is known to too many people, and
-- returns the session. The old code stops working. Only the Seer and the service may do this; for others the function
-- changes nothing and returns no row. It runs as its owner, because users cannot write the column `code`.
CREATE OR REPLACE FUNCTION private.replace_session_code(target_session_id uuid)
RETURNS SETOF public.sessions
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.require_and_lock_open_account();
  RETURN QUERY
  UPDATE public.sessions AS session
  SET code = private.draw_session_code()
  WHERE session.id = target_session_id
    AND session.status NOT IN ('completed', 'cancelled')
    AND (private.is_service() OR session.seer_id = auth.uid())
  RETURNING session.*;
END
$$;

-- Returns what callers who know a session's code may see before they join: whoever has the code counts as invited. Once
-- the session has started or was cancelled, nobody new can join. Then only its Seer, its players (including those who
-- left, but not those whom the Seer removed) and the service get a row, even if the session is public.
CREATE OR REPLACE FUNCTION private.session_by_code(session_code text)
RETURNS TABLE (
  id uuid,
  status public.session_status,
  scheduled_start timestamptz,
  looking_for text,
  seats_taken integer,
  max_players integer,
  created_at timestamptz,
  seer_id uuid,
  seer_name text,
  adventure_id uuid,
  adventure_name text,
  thumbnail_url text,
  difficulty public.difficulty_level,
  estimated_duration integer
)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN QUERY
  SELECT
    session.id, session.status, session.scheduled_start, session.looking_for, session.seats_taken,
    session.max_players, session.created_at, session.seer_id, seer.display_name, adventure.id, adventure.name,
    adventure.thumbnail_url, adventure.difficulty, adventure.estimated_duration
  FROM public.sessions AS session
  JOIN public.users AS seer ON seer.id = session.seer_id
  JOIN public.adventures AS adventure ON adventure.id = session.adventure_id
  WHERE session.code = session_code::bpchar
    AND (
      session.status IN ('waiting', 'starting_soon')
      OR session.seer_id = auth.uid()
      OR EXISTS (
        SELECT
        FROM public.session_players AS seat
        WHERE seat.session_id = session.id
          AND seat.user_id = auth.uid()
          AND seat.removed_at IS NULL
      )
      OR private.is_service()
    );
END
$$;

CREATE POLICY "Sessions visible to participants or public"
ON public.sessions FOR SELECT
TO anon, authenticated
USING (
  is_public
  OR seer_id = (SELECT auth.uid())
  OR id = ANY ((SELECT private.my_session_ids())::uuid[])
);

CREATE POLICY "Users can create sessions"
ON public.sessions FOR INSERT
TO authenticated
WITH CHECK (seer_id = (SELECT auth.uid()));

CREATE POLICY "Seer can update session"
ON public.sessions FOR UPDATE
TO authenticated
USING (seer_id = (SELECT auth.uid()))
WITH CHECK (seer_id = (SELECT auth.uid()));

GRANT SELECT ON public.sessions TO anon, authenticated;
GRANT INSERT (id, seer_id, adventure_id, is_public, max_players, looking_for, scheduled_start)
ON public.sessions TO authenticated;
GRANT UPDATE (
  is_public, max_players, looking_for, scheduled_start, status, current_scene_id, current_encounter_id, game_state
) ON public.sessions TO authenticated;

-- Even the service cannot write `seats_taken`, `encounter_number`, `game_state_version` or `last_event_at`; only
-- triggers write these columns.
GRANT SELECT, DELETE ON public.sessions TO service_role;
GRANT INSERT (
  id, seer_id, adventure_id, code, is_public, max_players, looking_for, scheduled_start, status, current_scene_id,
  current_encounter_id, game_state, started_at, ended_at, created_at, updated_at
) ON public.sessions TO service_role;
GRANT UPDATE (
  seer_id, adventure_id, code, is_public, max_players, looking_for, scheduled_start, status, current_scene_id,
  current_encounter_id, game_state, started_at, ended_at, created_at, updated_at
) ON public.sessions TO service_role;
