-- Public sessions are everyone's to see, private ones their participants'; the Seer alone changes one.

-- Whether the caller sees the session, as the policy below says it, for tables that hang on it.
CREATE OR REPLACE FUNCTION private.can_see_session(wanted uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.sessions AS session
    WHERE session.id = wanted
      AND (
        session.is_public
        OR session.seer_id = auth.uid()
        OR EXISTS (
          SELECT
          FROM public.session_players AS seat
          WHERE seat.session_id = session.id
            AND seat.user_id = auth.uid()
        )
      )
  );
END
$$;

CREATE OR REPLACE FUNCTION private.is_seer(wanted uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.sessions AS session
    WHERE session.id = wanted
      AND session.seer_id = auth.uid()
  );
END
$$;

-- Whether the caller sits at the table now, as its Seer or in a seat.
CREATE OR REPLACE FUNCTION private.is_at_table(wanted uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  RETURN private.is_seer(wanted)
    OR EXISTS (
      SELECT
      FROM public.session_players AS seat
      WHERE seat.session_id = wanted
        AND seat.user_id = auth.uid()
        AND seat.is_active
    );
END
$$;

-- Who sits there, with the name and class of each character: characters are their owners', a table sees its mates'.
-- As in every look at seats, a visitor sees none.
CREATE OR REPLACE FUNCTION private.session_roster(wanted uuid)
RETURNS jsonb
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  IF NOT private.is_server() AND (auth.uid() IS NULL OR NOT private.can_see_session(wanted)) THEN
    RETURN '[]'::jsonb;
  END IF;
  RETURN (
    SELECT coalesce(
      jsonb_agg(
        jsonb_build_object(
          'userId', seat.user_id,
          'characterId', seat.character_id,
          'characterName', hero.name,
          'characterClass', hero.class,
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
    JOIN public.characters AS hero ON hero.id = seat.character_id
    JOIN public.users AS profile ON profile.id = seat.user_id
    WHERE seat.session_id = wanted
  );
END
$$;

-- The adventure that the session plays. Its content is for those who may read the adventure or sit at the table: a
-- public session with a draft does not publish the draft.
CREATE OR REPLACE FUNCTION private.session_adventure(wanted uuid)
RETURNS jsonb
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  adventure public.adventures;
BEGIN
  IF NOT private.is_server() AND NOT private.can_see_session(wanted) THEN
    RETURN NULL;
  END IF;
  SELECT played.*
  INTO adventure
  FROM public.sessions AS session
  JOIN public.adventures AS played ON played.id = session.adventure_id
  WHERE session.id = wanted;
  IF private.is_server()
    OR adventure.status = 'published'
    OR adventure.creator_id = auth.uid()
    OR private.is_at_table(wanted)
  THEN
    RETURN to_jsonb(adventure);
  END IF;
  RETURN to_jsonb(adventure) - 'content' - 'validation_errors';
END
$$;

-- A session with all that a client shows of it, in one round trip. It runs as its caller: what the caller may not see
-- is not there.
CREATE OR REPLACE FUNCTION public.get_session_details(p_session_id uuid)
RETURNS TABLE (session_data jsonb, players jsonb, adventure_data jsonb)
LANGUAGE plpgsql
STABLE
SECURITY INVOKER
SET search_path = ''
AS $$
BEGIN
  RETURN QUERY
  SELECT
    to_jsonb(session.*),
    private.session_roster(session.id),
    private.session_adventure(session.id)
  FROM public.sessions AS session
  WHERE session.id = p_session_id;
END
$$;

-- What somebody who was told a code sees before sitting down: the code is the invitation.
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
SET search_path = ''
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
  WHERE session.code = session_code::bpchar;
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

-- Even the server leaves the counts to the triggers that keep them.
GRANT SELECT, DELETE ON public.sessions TO service_role;
GRANT INSERT (
  id, seer_id, adventure_id, code, is_public, max_players, looking_for, scheduled_start, status, current_scene_id,
  current_encounter_id, game_state, started_at, ended_at, created_at, updated_at
) ON public.sessions TO service_role;
GRANT UPDATE (
  seer_id, adventure_id, code, is_public, max_players, looking_for, scheduled_start, status, current_scene_id,
  current_encounter_id, game_state, started_at, ended_at, created_at, updated_at
) ON public.sessions TO service_role;
