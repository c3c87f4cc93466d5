-- Any signed-in user who can see a session can see its seats. A player takes a seat in a session that has not started
-- (a private session requires its join code), and may leave the seat and take it again; the Seer removes players and
-- lets them back in. No user can seat another user.

CREATE OR REPLACE FUNCTION private.is_public_session(target_session_id uuid)
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
      AND session.is_public
  );
END
$$;

-- Whether the caller may take a seat in the session. `player_id` is the `user_id` of the new seat, which must be the
-- caller's. If the caller may not take the seat, this usually raises an error with the reason. It returns false only if
-- the caller cannot see the session, which must then seem not to exist, or if the session is private and the caller
-- needs its code.
CREATE OR REPLACE FUNCTION private.may_take_seat(target_session_id uuid, player_id uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me uuid := auth.uid();
  target_session record;
BEGIN
  SELECT
    session.status,
    session.is_public OR session.seer_id = me AS admits_without_code,
    session.is_public OR session.seer_id = me OR EXISTS (
      SELECT
      FROM public.session_players AS seat
      WHERE seat.session_id = target_session_id
        AND seat.user_id = me
        AND seat.removed_at IS NULL
    ) AS is_visible
  INTO target_session
  FROM public.sessions AS session
  WHERE session.id = target_session_id;
  IF target_session.is_visible IS NOT TRUE THEN
    RETURN false;
  END IF;
  IF player_id IS DISTINCT FROM me THEN
    PERFORM private.refuse(
      'Only the player may take the seat and choose the character',
      'session_players',
      'own_choice'
    );
  END IF;
  IF target_session.status IN ('completed', 'cancelled') THEN
    PERFORM private.refuse(
      'The session has ended; its seats can no longer change',
      'session_players',
      'session_not_ended'
    );
  END IF;
  IF target_session.status NOT IN ('waiting', 'starting_soon') THEN
    PERFORM private.refuse(
      'The session has started; seats and characters are chosen before the start',
      'session_players',
      'session_not_started'
    );
  END IF;
  RETURN target_session.admits_without_code;
END
$$;

-- Seats the caller in the session with this join code, whether the session is public or private, and returns the seat.
-- The function runs as its owner, because the code also admits players who cannot see the session. The API does not
-- expose the schema `private`; the Rust crate `service` calls the function with the player's role. A player who has
-- left takes the seat again, with the chosen character; if the Seer removed the player, this is refused. If the player
-- already holds the seat with another character, the seat gets the chosen character; once the session has started, this
-- is refused.
CREATE OR REPLACE FUNCTION private.join_by_code(session_code text, chosen_character_id uuid)
RETURNS SETOF public.session_players
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me uuid := auth.uid();
  target_session record;
  own_seat record;
BEGIN
  -- The error of the table's NOT NULL constraint would print the row, with the id of a private session.
  IF chosen_character_id IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'null_value_not_allowed',
      MESSAGE = 'The character must be given';
  END IF;
  PERFORM private.require_and_lock_open_account();
  SELECT id, status
  INTO target_session
  FROM public.sessions
  WHERE code = session_code::bpchar;
  IF NOT FOUND OR me IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP020',
      MESSAGE = 'No session has this code',
      TABLE = 'sessions',
      CONSTRAINT = 'known_code';
  END IF;

  SELECT is_active, character_id
  INTO own_seat
  FROM public.session_players
  WHERE session_id = target_session.id
    AND user_id = me
  FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    IF target_session.status IN ('active', 'paused') THEN
      PERFORM private.refuse_seat_after_start();
    END IF;
    IF target_session.status IN ('completed', 'cancelled') THEN
      PERFORM private.refuse_seat_after_end();
    END IF;
    INSERT INTO public.session_players (session_id, user_id, character_id)
    VALUES (target_session.id, me, chosen_character_id)
    ON CONFLICT DO NOTHING;
    -- Taking the seat has locked the session, so its code cannot change until this transaction ends. If the code was
    -- replaced after the query above, the old code is refused.
    IF NOT EXISTS (SELECT FROM public.sessions WHERE id = target_session.id AND code = session_code::bpchar) THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP020',
        MESSAGE = 'No session has this code',
        TABLE = 'sessions',
        CONSTRAINT = 'known_code';
    END IF;
  ELSIF NOT own_seat.is_active OR own_seat.character_id <> chosen_character_id THEN
    UPDATE public.session_players
    SET is_active = true,
        character_id = chosen_character_id
    WHERE session_id = target_session.id
      AND user_id = me;
  END IF;
  RETURN QUERY
  SELECT *
  FROM public.session_players
  WHERE session_id = target_session.id
    AND user_id = me;
END
$$;

CREATE POLICY "Seats visible with their session"
ON public.session_players FOR SELECT
TO authenticated
USING (
  user_id = (SELECT auth.uid())
  OR session_id = ANY ((SELECT private.my_session_ids())::uuid[])
  OR private.is_public_session(session_id)
);

-- A new seat must be active: with an inactive one, somebody who never joined would count as a player who left.
CREATE POLICY "Players take seats"
ON public.session_players FOR INSERT
TO authenticated
WITH CHECK (is_active AND private.may_take_seat(session_id, user_id));

CREATE POLICY "Players and the Seer change seats"
ON public.session_players FOR UPDATE
TO authenticated
USING (user_id = (SELECT auth.uid()) OR private.is_seer(session_id))
WITH CHECK (user_id = (SELECT auth.uid()) OR private.is_seer(session_id));

GRANT SELECT ON public.session_players TO authenticated;
GRANT INSERT (session_id, user_id, character_id, is_active) ON public.session_players TO authenticated;
GRANT UPDATE (character_id, is_active, removed_at) ON public.session_players TO authenticated;
GRANT SELECT, INSERT, DELETE ON public.session_players TO service_role;
GRANT UPDATE (character_id, is_active, heroic_saves_used, heroic_saves_encounter, joined_at, left_at, removed_at)
ON public.session_players TO service_role;
