-- What the end of a session changes in other tables: counters of its Seer, its players, their characters and the
-- adventure. If a live session is deleted, it no longer counts either.

-- Updates the counters for all sessions that one statement ends. An ended session and its seats no longer count as
-- live. A completed session counts once for the Seer, once for everyone who had a seat, and once for the adventure; but
-- if nobody except the Seer had a seat, it counts for nobody. All rows of a table are locked before any of them is
-- changed: users and adventures in the order of their keys, characters as `lock_rows` does.
CREATE OR REPLACE FUNCTION private.update_user_stats()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  final CONSTANT public.session_status[] := '{completed,cancelled}'::public.session_status[];
  ended uuid[];
  counted uuid[];
  character_ids uuid[];
  user_ids uuid[];
BEGIN
  SELECT
    array_agg(after.id),
    array_agg(after.id) FILTER (
      WHERE after.status = 'completed'
        AND EXISTS (
          SELECT
          FROM public.session_players AS seat
          WHERE seat.session_id = after.id
            AND seat.user_id <> after.seer_id
        )
    ),
    array_agg(after.seer_id)
  INTO ended, counted, user_ids
  FROM new_sessions AS after
  JOIN old_sessions AS before ON before.id = after.id
  WHERE after.status = ANY (final)
    AND before.status <> ALL (final);
  IF ended IS NULL THEN
    RETURN NULL;
  END IF;

  SELECT array_agg(DISTINCT character_id), user_ids || array_agg(DISTINCT user_id)
  INTO character_ids, user_ids
  FROM public.session_players
  WHERE session_id = ANY (ended);

  PERFORM private.lock_rows('characters', character_ids);
  UPDATE public.characters AS character
  SET live_seats = character.live_seats - played.seats,
      last_played_at = coalesce(played.last_at, character.last_played_at)
  FROM (
    SELECT
      seat.character_id,
      count(*) FILTER (WHERE seat.is_active) AS seats,
      max(session.ended_at) FILTER (WHERE session.id = ANY (counted)) AS last_at
    FROM public.session_players AS seat
    JOIN new_sessions AS session ON session.id = seat.session_id
    WHERE session.id = ANY (ended)
    GROUP BY seat.character_id
  ) AS played
  WHERE character.id = played.character_id
    AND (played.seats > 0 OR played.last_at IS NOT NULL);

  PERFORM FROM public.users WHERE id = ANY (user_ids) ORDER BY id FOR NO KEY UPDATE;
  UPDATE public.users AS profile
  SET live_seats = profile.live_seats - change.seats,
      live_sessions = profile.live_sessions - change.sessions,
      games_played = profile.games_played + change.played,
      games_run = profile.games_run + change.run
  FROM (
    SELECT
      changes.user_id,
      sum(changes.seats) AS seats,
      sum(changes.sessions) AS sessions,
      sum(changes.played) AS played,
      sum(changes.run) AS run
    FROM (
      SELECT
        seat.user_id,
        seat.is_active::integer AS seats,
        0 AS sessions,
        coalesce(seat.session_id = ANY (counted), false)::integer AS played,
        0 AS run
      FROM public.session_players AS seat
      WHERE seat.session_id = ANY (ended)
      UNION ALL
      SELECT session.seer_id, 0, 1, 0, coalesce(session.id = ANY (counted), false)::integer
      FROM new_sessions AS session
      WHERE session.id = ANY (ended)
    ) AS changes
    GROUP BY changes.user_id
  ) AS change
  WHERE profile.id = change.user_id
    AND (change.seats > 0 OR change.sessions > 0 OR change.played > 0);

  IF counted IS NOT NULL THEN
    PERFORM
    FROM public.adventures
    WHERE id IN (SELECT adventure_id FROM new_sessions WHERE id = ANY (counted))
    ORDER BY id
    FOR NO KEY UPDATE;
    UPDATE public.adventures AS adventure
    SET times_played = adventure.times_played + played.times
    FROM (
      SELECT adventure_id, count(*) AS times
      FROM new_sessions
      WHERE id = ANY (counted)
      GROUP BY adventure_id
    ) AS played
    WHERE adventure.id = played.adventure_id;
  END IF;
  RETURN NULL;
END
$$;

-- Refuses the service, which must cancel a live session before deleting it. If the tables' owner deletes one directly,
-- this subtracts the session and its seats from the counters, because the trigger of the seats, which are deleted with
-- the session, can no longer see the session. The session is already locked, although it comes after its seats in the
-- lock order. So instead of waiting for another transaction's locks, the deletion fails at once.
CREATE OR REPLACE FUNCTION private.release_deleted_session()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  seats public.session_players[];
  active_seat public.session_players;
BEGIN
  IF current_setting('role') = 'service_role' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP031',
      MESSAGE = 'The session is live; cancel it before deleting it',
      TABLE = 'sessions',
      CONSTRAINT = 'session_ended';
  END IF;
  PERFORM FROM public.session_players WHERE session_id = OLD.id FOR UPDATE NOWAIT;
  seats := ARRAY(
    SELECT seat
    FROM public.session_players AS seat
    WHERE seat.session_id = OLD.id
      AND seat.is_active
  );
  PERFORM FROM public.characters WHERE id IN (SELECT character_id FROM unnest(seats)) FOR NO KEY UPDATE NOWAIT;
  PERFORM
  FROM public.users
  WHERE id = OLD.seer_id
    OR id IN (SELECT user_id FROM unnest(seats))
  FOR NO KEY UPDATE NOWAIT;
  FOREACH active_seat IN ARRAY seats
  LOOP
    UPDATE public.characters
    SET live_seats = live_seats - 1
    WHERE id = active_seat.character_id;
    PERFORM private.count_for_account(active_seat.user_id, seats => -1);
  END LOOP;
  PERFORM private.count_for_account(OLD.seer_id, sessions => -1);
  RETURN OLD;
END
$$;

CREATE OR REPLACE TRIGGER release_deleted_session
  BEFORE DELETE ON public.sessions
  FOR EACH ROW
  WHEN (OLD.status NOT IN ('completed', 'cancelled'))
  EXECUTE FUNCTION private.release_deleted_session();

CREATE OR REPLACE TRIGGER on_session_complete
  AFTER UPDATE ON public.sessions
  REFERENCING OLD TABLE AS old_sessions NEW TABLE AS new_sessions
  FOR EACH STATEMENT EXECUTE FUNCTION private.update_user_stats();
