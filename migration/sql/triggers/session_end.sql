-- What the end of a session changes in other tables: counters of its Seer, its players, their characters and the
-- adventure, and the time at which the characters were last played. A *live* session is one that has not ended. A live
-- session that is deleted is subtracted from the counters, too.

-- Updates the counters for all sessions that one statement ends. An ended session and its seats no longer count as
-- live. A completed session counts once for the Seer, once for everyone who ever had a seat, and once for the
-- adventure; but if nobody except the Seer ever had a seat, it counts for none of them. In each table, all rows to
-- change are locked before the first of them is changed: users and adventures in the order of their keys, characters by
-- `lock_rows`, which tries not to wait for one character while it holds another.
CREATE OR REPLACE FUNCTION private.update_user_stats()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  ended_statuses CONSTANT public.session_status[] := '{completed,cancelled}'::public.session_status[];
  ended_session_ids uuid[];
  -- The completed sessions among `ended_session_ids` in which somebody besides the Seer ever had a seat.
  counted_session_ids uuid[];
  character_ids uuid[];
  user_ids uuid[];
BEGIN
  SELECT
    array_agg(new_session.id),
    array_agg(new_session.id) FILTER (
      WHERE new_session.status = 'completed'
        AND EXISTS (
          SELECT
          FROM public.session_players AS seat
          WHERE seat.session_id = new_session.id
            AND seat.user_id <> new_session.seer_id
        )
    ),
    array_agg(new_session.seer_id) || array_agg(old_session.seer_id)
  INTO ended_session_ids, counted_session_ids, user_ids
  FROM new_sessions AS new_session
  JOIN old_sessions AS old_session ON old_session.id = new_session.id
  WHERE new_session.status = ANY (ended_statuses)
    AND old_session.status <> ALL (ended_statuses);
  IF ended_session_ids IS NULL THEN
    RETURN NULL;
  END IF;
  -- The statement that ended the sessions may itself have called a function (for example in RETURNING) that deleted one
  -- of them. Then that session's seats are gone, and cannot be subtracted from the counters.
  IF EXISTS (
    SELECT
    FROM unnest(ended_session_ids) AS ended_session (id)
    WHERE NOT EXISTS (SELECT FROM public.sessions WHERE sessions.id = ended_session.id)
  ) THEN
    PERFORM private.refuse_change_by_called_function('sessions');
  END IF;

  SELECT array_agg(DISTINCT character_id), user_ids || array_agg(DISTINCT user_id)
  INTO character_ids, user_ids
  FROM public.session_players
  WHERE session_id = ANY (ended_session_ids);

  PERFORM private.lock_rows('characters', character_ids);
  UPDATE public.characters AS character
  SET live_seats = character.live_seats - character_change.ended_seats,
      last_played_at = greatest(character_change.last_ended_at, character.last_played_at)
  FROM (
    SELECT
      seat.character_id,
      count(*) FILTER (WHERE seat.is_active) AS ended_seats,
      max(session.ended_at) FILTER (WHERE session.id = ANY (counted_session_ids)) AS last_ended_at
    FROM public.session_players AS seat
    JOIN new_sessions AS session ON session.id = seat.session_id
    WHERE session.id = ANY (ended_session_ids)
    GROUP BY seat.character_id
  ) AS character_change
  WHERE character.id = character_change.character_id
    AND (character_change.ended_seats > 0 OR character_change.last_ended_at IS NOT NULL);

  PERFORM FROM public.users WHERE id = ANY (user_ids) ORDER BY id FOR NO KEY UPDATE;
  UPDATE public.users AS profile
  SET live_seats = profile.live_seats - user_change.ended_seats,
      live_sessions = profile.live_sessions - user_change.ended_sessions,
      games_played = profile.games_played + user_change.games_played,
      games_run = profile.games_run + user_change.games_run
  FROM (
    SELECT
      participation.user_id,
      sum(participation.ended_seats) AS ended_seats,
      sum(participation.ended_sessions) AS ended_sessions,
      sum(participation.games_played) AS games_played,
      sum(participation.games_run) AS games_run
    FROM (
      SELECT
        seat.user_id,
        seat.is_active::integer AS ended_seats,
        0 AS ended_sessions,
        coalesce(seat.session_id = ANY (counted_session_ids), false)::integer AS games_played,
        0 AS games_run
      FROM public.session_players AS seat
      WHERE seat.session_id = ANY (ended_session_ids)
      UNION ALL
      -- If the statement also assigned a session to another Seer, the former Seer's counter still includes the session,
      -- because `move_session_count` leaves out ended sessions.
      SELECT session.seer_id, 0, 1, 0, 0
      FROM old_sessions AS session
      WHERE session.id = ANY (ended_session_ids)
      UNION ALL
      SELECT session.seer_id, 0, 0, 0, 1
      FROM new_sessions AS session
      WHERE session.id = ANY (counted_session_ids)
    ) AS participation
    GROUP BY participation.user_id
  ) AS user_change
  WHERE profile.id = user_change.user_id
    AND (
      user_change.ended_seats > 0
      OR user_change.ended_sessions > 0
      OR user_change.games_played > 0
      OR user_change.games_run > 0
    );

  IF counted_session_ids IS NOT NULL THEN
    PERFORM
    FROM public.adventures
    WHERE id IN (SELECT adventure_id FROM new_sessions WHERE id = ANY (counted_session_ids))
    ORDER BY id
    FOR NO KEY UPDATE;
    UPDATE public.adventures AS adventure
    SET times_played = adventure.times_played + adventure_change.completed_sessions
    FROM (
      SELECT adventure_id, count(*) AS completed_sessions
      FROM new_sessions
      WHERE id = ANY (counted_session_ids)
      GROUP BY adventure_id
    ) AS adventure_change
    WHERE adventure.id = adventure_change.adventure_id;
  END IF;
  RETURN NULL;
END
$$;

-- Runs before a live session is deleted. Refuses the service, which must cancel the session first. If the tables' owner
-- deletes a live session, this trigger subtracts the session and its seats from the counters. The seats are deleted
-- with the session, but their own trigger (`subtract_deleted_seats`) cannot subtract them, because it no longer sees
-- the session. The session is already locked, although it comes after its seats in the lock order, so waiting for
-- another transaction could end in a deadlock. The deletion therefore fails at once if another transaction has locked
-- one of the seats, or the row of a character or user whose counter would change.
CREATE OR REPLACE FUNCTION private.subtract_deleted_session()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  active_seats public.session_players[];
  active_seat public.session_players;
BEGIN
  -- The condition is not `private.is_service()`, because that may be true for the tables' owner, too.
  IF 'service_role' IN (current_setting('role'), CASE WHEN current_setting('role') = 'none' THEN session_user END) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP031',
      MESSAGE = 'The session is live; cancel it before deleting it',
      TABLE = 'sessions',
      CONSTRAINT = 'session_ended';
  END IF;
  PERFORM FROM public.session_players WHERE session_id = OLD.id FOR UPDATE NOWAIT;
  active_seats := ARRAY(
    SELECT seat
    FROM public.session_players AS seat
    WHERE seat.session_id = OLD.id
      AND seat.is_active
  );
  PERFORM FROM public.characters WHERE id IN (SELECT character_id FROM unnest(active_seats)) FOR NO KEY UPDATE NOWAIT;
  PERFORM
  FROM public.users
  WHERE id = OLD.seer_id
    OR id IN (SELECT user_id FROM unnest(active_seats))
  FOR NO KEY UPDATE NOWAIT;
  FOREACH active_seat IN ARRAY active_seats
  LOOP
    UPDATE public.characters
    SET live_seats = live_seats - 1
    WHERE id = active_seat.character_id;
    PERFORM private.add_to_account_counters(active_seat.user_id, seats => -1);
  END LOOP;
  PERFORM private.add_to_account_counters(OLD.seer_id, sessions => -1);
  RETURN OLD;
END
$$;

CREATE OR REPLACE TRIGGER subtract_deleted_session
  BEFORE DELETE ON public.sessions
  FOR EACH ROW
  WHEN (OLD.status NOT IN ('completed', 'cancelled'))
  EXECUTE FUNCTION private.subtract_deleted_session();

CREATE OR REPLACE TRIGGER on_session_complete
  AFTER UPDATE ON public.sessions
  REFERENCING OLD TABLE AS old_sessions NEW TABLE AS new_sessions
  FOR EACH STATEMENT EXECUTE FUNCTION private.update_user_stats();
