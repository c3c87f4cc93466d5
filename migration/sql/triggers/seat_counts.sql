-- Counts the active seats of each session, and those of each character and account in live sessions, and enforces the
-- limits on seats. An *active* seat is one that its player holds now. A *live* session is one that has not ended.

-- Counts the seats that one statement takes and gives up, and emits the events of players who joined or left. Refuses
-- the statement in these cases:
-- - It takes a seat in a session that has ended, or gives one up, or inserts an inactive one, or changes the character
--   of one. (A DELETE of seats is not refused.)
-- - It takes a seat in a session that is full.
-- - It is a user's (not the service's), and a player takes a seat for the first time in a session that has started.
-- - It takes a seat for an account that has too many in live sessions, or with a character that is retired or another
--   player's.
-- - It changes the character of an active seat in a session that has started.
--
-- The statement's sessions are locked first (by `lock_rows`), then the characters, and then the profiles (rows of
-- `public.users`). Characters and profiles are locked in the order of their keys.
CREATE OR REPLACE FUNCTION private.check_session_capacity()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  ended_statuses CONSTANT public.session_status[] := '{completed,cancelled}'::public.session_status[];
  -- Parallel arrays with one element for each seat that was given up (-1) or taken (+1). A seat whose character changes
  -- has two elements: -1 with the old character and +1 with the new one.
  session_ids uuid[];
  user_ids uuid[];
  character_ids uuid[];
  seat_changes integer[];
  -- The sessions in which an inactive seat was inserted (only the service can do that) or got another character (a
  -- player who has left can do that). The end of a session counts its players, so both are refused after it.
  -- `prepare_seat` (`session_players.sql`) checks this for a changed seat, but before the session is locked, so it is
  -- checked again here.
  inactive_seat_session_ids uuid[];
  -- Those of `session_ids` that have not ended. Only seats in these sessions count for characters and accounts.
  live_session_ids uuid[] := '{}'::uuid[];
  session_change record;
  character_change record;
  player_change record;
  -- The session and the character as they are once they are locked.
  current_session record;
  current_character record;
  is_user CONSTANT boolean := auth.uid() IS NOT NULL AND NOT private.is_service();
BEGIN
  IF TG_OP = 'INSERT' THEN
    SELECT
      array_agg(session_id) FILTER (WHERE is_active),
      array_agg(user_id) FILTER (WHERE is_active),
      array_agg(character_id) FILTER (WHERE is_active),
      array_agg(1) FILTER (WHERE is_active),
      array_agg(session_id) FILTER (WHERE NOT is_active)
    INTO session_ids, user_ids, character_ids, seat_changes, inactive_seat_session_ids
    FROM new_seats;
  ELSIF TG_OP = 'DELETE' THEN
    SELECT array_agg(session_id), array_agg(user_id), array_agg(character_id), array_agg(-1)
    INTO session_ids, user_ids, character_ids, seat_changes
    FROM old_seats
    WHERE is_active;
  ELSE
    SELECT array_agg(session_id), array_agg(user_id), array_agg(character_id), array_agg(net_change)
    INTO session_ids, user_ids, character_ids, seat_changes
    FROM (
      SELECT session_id, user_id, character_id, sum(seat_change)::integer AS net_change
      FROM (
        SELECT session_id, user_id, character_id, -1 AS seat_change FROM old_seats WHERE is_active
        UNION ALL
        SELECT session_id, user_id, character_id, 1 FROM new_seats WHERE is_active
      ) AS old_and_new_seats
      GROUP BY session_id, user_id, character_id
      HAVING sum(seat_change) <> 0
    ) AS changed_seats;
    SELECT array_agg(old_seat.session_id)
    INTO inactive_seat_session_ids
    FROM old_seats AS old_seat
    JOIN new_seats AS new_seat USING (session_id, user_id)
    WHERE new_seat.character_id <> old_seat.character_id
      AND NOT new_seat.is_active;
  END IF;
  IF session_ids IS NULL AND inactive_seat_session_ids IS NULL THEN
    RETURN NULL;
  END IF;
  -- A function that the statement calls (in RETURNING, or through a trigger of a temporary table that another part of
  -- the statement writes) may have changed `is_active` or `character_id` of one of these seats again. The trigger of
  -- that second change has already run, so its event would precede that of the first change, which is emitted below.
  -- The statement is therefore refused. It is also refused if the function has completed or cancelled the session and
  -- then deleted it, and the seat with it: the end of the session has then subtracted its seats from counters that do
  -- not yet include what this statement has changed, so the counters would stay wrong.
  IF TG_OP <> 'DELETE' THEN
    IF EXISTS (
      SELECT
      FROM new_seats AS new_seat
      LEFT JOIN public.session_players AS seat USING (session_id, user_id)
      WHERE (seat.is_active, seat.character_id) IS DISTINCT FROM (new_seat.is_active, new_seat.character_id)
    ) THEN
      PERFORM private.refuse_change_by_called_function('session_players');
    END IF;
  END IF;

  PERFORM private.lock_rows(
    'sessions',
    ARRAY(SELECT DISTINCT id FROM unnest(session_ids || inactive_seat_session_ids) AS changed_session (id))
  );
  IF EXISTS (
    SELECT FROM public.sessions WHERE id = ANY (inactive_seat_session_ids) AND status = ANY (ended_statuses)
  ) THEN
    PERFORM private.refuse_seat_after_end();
  END IF;
  FOR session_change IN
    SELECT
      session_id,
      sum(seat_change)::integer AS net_change,
      bool_or(is_character_changed) AS has_changed_character
    FROM (
      SELECT session_id, user_id, sum(seat_change) AS seat_change, count(*) > 1 AS is_character_changed
      FROM unnest(session_ids, user_ids, seat_changes) AS changed_seat (session_id, user_id, seat_change)
      GROUP BY session_id, user_id
    ) AS changed_seats
    GROUP BY session_id
    ORDER BY session_id
  LOOP
    SELECT status, seats_taken, max_players
    INTO current_session
    FROM public.sessions
    WHERE id = session_change.session_id;
    CONTINUE WHEN NOT FOUND; -- The session is being deleted, or the foreign key will refuse the seat.
    IF current_session.status = ANY (ended_statuses) AND TG_OP <> 'DELETE' THEN
      PERFORM private.refuse_seat_after_end();
    END IF;
    -- Row security was evaluated on the statement's snapshot, before the session was locked. The session may have
    -- changed since.
    IF is_user AND TG_OP = 'INSERT' AND current_session.status NOT IN ('waiting', 'starting_soon') THEN
      PERFORM private.refuse_seat_after_start();
    END IF;
    IF session_change.has_changed_character
      AND current_session.status NOT IN ('waiting', 'starting_soon')
      AND TG_OP <> 'DELETE'
    THEN
      PERFORM private.refuse_seat_after_start();
    END IF;
    IF current_session.seats_taken + session_change.net_change < 0 THEN
      -- This statement runs in a function that another statement calls, and gives up a seat that the other statement
      -- has taken but not counted yet.
      PERFORM private.refuse_change_by_called_function('session_players');
    END IF;
    IF session_change.net_change > 0
      AND current_session.seats_taken + session_change.net_change > current_session.max_players
    THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP002',
        MESSAGE = 'Session is full',
        TABLE = 'session_players',
        CONSTRAINT = 'session_capacity';
    END IF;
    IF session_change.net_change <> 0 THEN
      UPDATE public.sessions
      SET seats_taken = seats_taken + session_change.net_change
      WHERE id = session_change.session_id;
    END IF;
    IF current_session.status <> ALL (ended_statuses) THEN
      live_session_ids := live_session_ids || session_change.session_id;
    END IF;
  END LOOP;

  FOR character_change IN
    SELECT character_id, user_id, sum(seat_change)::integer AS net_change
    FROM unnest(session_ids, user_ids, character_ids, seat_changes)
      AS changed_seat (session_id, user_id, character_id, seat_change)
    WHERE session_id = ANY (live_session_ids)
    GROUP BY character_id, user_id
    ORDER BY character_id
  LOOP
    SELECT user_id, retired_at
    INTO current_character
    FROM public.characters
    WHERE id = character_change.character_id
    FOR NO KEY UPDATE;
    CONTINUE WHEN NOT FOUND; -- The foreign key refuses the seat.
    IF character_change.net_change > 0 AND current_character.user_id <> character_change.user_id THEN
      PERFORM private.refuse_character_of_other_player();
    END IF;
    IF character_change.net_change > 0 AND current_character.retired_at IS NOT NULL THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP007',
        MESSAGE = 'A retired character cannot take a seat',
        TABLE = 'session_players',
        CONSTRAINT = 'living_character';
    END IF;
    UPDATE public.characters
    SET live_seats = live_seats + character_change.net_change
    WHERE id = character_change.character_id;
  END LOOP;

  FOR player_change IN
    SELECT user_id, sum(seat_change)::integer AS net_change
    FROM unnest(session_ids, user_ids, seat_changes) AS changed_seat (session_id, user_id, seat_change)
    WHERE session_id = ANY (live_session_ids)
    GROUP BY user_id
    HAVING sum(seat_change) <> 0
    ORDER BY user_id
  LOOP
    PERFORM private.add_to_account_counters(player_change.user_id, seats => player_change.net_change);
  END LOOP;

  INSERT INTO public.session_events (session_id, event_type, payload)
  SELECT
    seat.session_id,
    CASE WHEN seat.net_change > 0 THEN 'player_joined' ELSE 'player_left' END,
    jsonb_build_object(
      'user_id', seat.user_id,
      'display_name', profile.display_name,
      'avatar_url', profile.avatar_url,
      'character_id', seat.character_id,
      'character_name', character.name,
      'character_class', character.class,
      'seats_taken', session.seats_taken,
      'max_players', session.max_players
    )
  FROM (
    -- A change of character is neither joining nor leaving: its net change is 0. Every other seat has one character, so
    -- `max` returns it.
    SELECT session_id, user_id, max(character_id::text)::uuid AS character_id, sum(seat_change) AS net_change
    FROM unnest(session_ids, user_ids, character_ids, seat_changes)
      AS changed_seat (session_id, user_id, character_id, seat_change)
    GROUP BY session_id, user_id
    HAVING sum(seat_change) <> 0
  ) AS seat
  JOIN public.sessions AS session ON session.id = seat.session_id
  JOIN public.users AS profile ON profile.id = seat.user_id
  JOIN public.characters AS character ON character.id = seat.character_id
  ORDER BY seat.session_id, seat.user_id;
  RETURN NULL;
END
$$;

-- Checks the INSERT policy for new seats again. Row security was evaluated on the statement's snapshot, before
-- `enforce_session_capacity` locked the sessions. One of them may have become private in between. A seat that is taken
-- with a join code is not checked here: `private.join_by_code` runs as the owner of the schema, to whom row security
-- does not apply, and that function itself checks the code again.
CREATE OR REPLACE FUNCTION private.recheck_new_seats()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- As in `triggers/statement_limits.sql`, the check also applies to a login that may assume `anon` or `authenticated`,
  -- because a function in its statement can change the role. This is a separate IF, and not part of the condition
  -- below: the service has no EXECUTE on `may_take_seat`, and PostgreSQL checks that privilege for every call in an
  -- expression, even for one that is not evaluated.
  IF NOT (
    row_security_active(TG_RELID)
    AND (pg_has_role('anon', 'MEMBER') OR pg_has_role('authenticated', 'MEMBER'))
  ) THEN
    RETURN NULL;
  END IF;
  IF EXISTS (SELECT FROM new_seats WHERE NOT private.may_take_seat(session_id, user_id)) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = 'new row violates row-level security policy for table "session_players"';
  END IF;
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER enforce_session_capacity
  AFTER INSERT ON public.session_players
  REFERENCING NEW TABLE AS new_seats
  FOR EACH STATEMENT EXECUTE FUNCTION private.check_session_capacity();

-- Its name puts this trigger after `enforce_session_capacity`, which takes the locks.
CREATE OR REPLACE TRIGGER recheck_new_seats
  AFTER INSERT ON public.session_players
  REFERENCING NEW TABLE AS new_seats
  FOR EACH STATEMENT EXECUTE FUNCTION private.recheck_new_seats();

CREATE OR REPLACE TRIGGER count_changed_seats
  AFTER UPDATE ON public.session_players
  REFERENCING OLD TABLE AS old_seats NEW TABLE AS new_seats
  FOR EACH STATEMENT EXECUTE FUNCTION private.check_session_capacity();

CREATE OR REPLACE TRIGGER subtract_deleted_seats
  AFTER DELETE ON public.session_players
  REFERENCING OLD TABLE AS old_seats
  FOR EACH STATEMENT EXECUTE FUNCTION private.check_session_capacity();
