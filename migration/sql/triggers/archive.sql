-- The two maintenance jobs of sessions: `archive_sessions` archives sessions that were completed or cancelled more than
-- ninety days ago, with their seats and rolls, and `cancel_abandoned_sessions` cancels abandoned sessions. Also here:
-- the check that a new session or roll does not get the id of one that was archived after the transaction's snapshot.

-- Archives the sessions (if `job` is `archive`) or cancels them (if it is `cancel`). Returns the ids of the sessions
-- for which this fails, and warns of each, so that one session does not keep the job from processing the others. The
-- first attempt is with all sessions together. If an attempt with several sessions fails, each half of them is tried
-- separately. If the attempt with a single session ends in a deadlock, it is repeated up to twice, because a user's
-- statement may lock characters or profiles in another order.
--
-- The job keeps all its sessions locked until it ends. So `move_to_archive` and `cancel_sessions` wait at most a fifth
-- of a second for a row that somebody has locked since `try_lock_rows_of_sessions` looked. Some errors stop the job,
-- because they do not depend on the session. They are recognized by the class of their SQLSTATE: a serialization
-- failure (40, except a deadlock), no disk space or memory (53), a shutdown or the cancellation of the statement (57),
-- an I/O error (58), or an internal error (XX).
CREATE OR REPLACE FUNCTION private.run_job_skipping_failures(job text, session_ids uuid[])
RETURNS uuid[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  half_size CONSTANT integer := cardinality(session_ids) / 2;
BEGIN
  FOR attempt IN 1 .. 3
  LOOP
    BEGIN
      IF job = 'archive' THEN
        PERFORM private.move_to_archive(session_ids);
      ELSE
        PERFORM private.cancel_sessions(session_ids);
      END IF;
      RETURN '{}'::uuid[];
    EXCEPTION
      WHEN OTHERS THEN
        -- 40P01 is a deadlock; the classes are listed above. If the list of sessions is empty, the error cannot be due
        -- to a session.
        IF session_ids = '{}'::uuid[]
          OR (left(SQLSTATE, 2) IN ('40', '53', '57', '58', 'XX') AND SQLSTATE <> '40P01')
        THEN
          RAISE;
        END IF;
        IF half_size = 0 AND (SQLSTATE <> '40P01' OR attempt = 3) THEN
          RAISE WARNING 'Job % skips session %: %', job, session_ids[1], SQLERRM;
          RETURN session_ids;
        END IF;
    END;
    EXIT WHEN half_size > 0; -- Only a single session is tried again.
  END LOOP;
  RETURN private.run_job_skipping_failures(job, session_ids[:half_size])
    || private.run_job_skipping_failures(job, session_ids[half_size + 1:]);
END
$$;

-- Returns the ids of the sessions for which the job would have to wait, because somebody has locked a row that the job
-- has to lock too, and warns of each. This function waits for no lock, but locks the rows that nobody else has locked.
-- Archiving a session deletes its seats, and the foreign keys of the archive lock its Seer, the users of its seats, and
-- the characters and creatures of its seats and rolls. Cancelling a session changes the counters of its participants
-- and their characters. The caller has locked the sessions themselves and, for archiving, their adventures.
CREATE OR REPLACE FUNCTION private.try_lock_rows_of_sessions(job text, session_ids uuid[])
RETURNS uuid[]
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  blocked_session_ids uuid[];
  blocked_session_id uuid;
BEGIN
  IF job = 'archive' THEN
    WITH needed_rows AS (
      SELECT id AS session_id, seer_id AS user_id, NULL::uuid AS character_id, NULL::uuid AS creature_id
      FROM public.sessions
      WHERE id = ANY (session_ids)
      UNION
      SELECT seat.session_id, seat.user_id, seat.character_id, NULL
      FROM public.session_players AS seat
      WHERE seat.session_id = ANY (session_ids)
      UNION
      SELECT roll.session_id, NULL, roll.character_id, roll.creature_id
      FROM public.dice_rolls AS roll
      WHERE roll.session_id = ANY (session_ids)
    ),
    lockable_seats AS (
      SELECT seat.session_id, seat.user_id
      FROM public.session_players AS seat
      WHERE seat.session_id = ANY (session_ids)
      FOR UPDATE SKIP LOCKED
    ),
    lockable_rows AS (
      SELECT id FROM (
        SELECT id FROM public.users WHERE id IN (SELECT user_id FROM needed_rows) FOR KEY SHARE SKIP LOCKED
      ) AS lockable_profiles
      UNION ALL
      SELECT id FROM (
        SELECT id FROM public.characters WHERE id IN (SELECT character_id FROM needed_rows) FOR KEY SHARE SKIP LOCKED
      ) AS lockable_characters
      UNION ALL
      SELECT id FROM (
        SELECT id FROM public.creatures WHERE id IN (SELECT creature_id FROM needed_rows) FOR KEY SHARE SKIP LOCKED
      ) AS lockable_creatures
    )
    SELECT array_agg(DISTINCT blocked_row.session_id)
    INTO blocked_session_ids
    FROM (
      SELECT needed_rows.session_id
      FROM needed_rows
      WHERE (needed_rows.user_id IS NOT NULL AND needed_rows.user_id NOT IN (SELECT id FROM lockable_rows))
        OR (needed_rows.character_id IS NOT NULL AND needed_rows.character_id NOT IN (SELECT id FROM lockable_rows))
        OR (needed_rows.creature_id IS NOT NULL AND needed_rows.creature_id NOT IN (SELECT id FROM lockable_rows))
      UNION ALL
      SELECT blocked_seat.session_id
      FROM (
        SELECT seat.session_id, seat.user_id
        FROM public.session_players AS seat
        WHERE seat.session_id = ANY (session_ids)
        EXCEPT
        SELECT lockable_seats.session_id, lockable_seats.user_id
        FROM lockable_seats
      ) AS blocked_seat
    ) AS blocked_row;
  ELSE
    WITH needed_rows AS (
      SELECT id AS session_id, seer_id AS user_id, NULL::uuid AS character_id
      FROM public.sessions
      WHERE id = ANY (session_ids)
      UNION
      SELECT seat.session_id, seat.user_id, seat.character_id
      FROM public.session_players AS seat
      WHERE seat.session_id = ANY (session_ids)
    ),
    lockable_rows AS (
      SELECT id FROM (
        SELECT id FROM public.users WHERE id IN (SELECT user_id FROM needed_rows) FOR NO KEY UPDATE SKIP LOCKED
      ) AS lockable_profiles
      UNION ALL
      SELECT id FROM (
        SELECT id
        FROM public.characters
        WHERE id IN (SELECT character_id FROM needed_rows)
        FOR NO KEY UPDATE SKIP LOCKED
      ) AS lockable_characters
    )
    SELECT array_agg(DISTINCT needed_rows.session_id)
    INTO blocked_session_ids
    FROM needed_rows
    WHERE needed_rows.user_id NOT IN (SELECT id FROM lockable_rows)
      OR (needed_rows.character_id IS NOT NULL AND needed_rows.character_id NOT IN (SELECT id FROM lockable_rows));
  END IF;
  FOREACH blocked_session_id IN ARRAY coalesce(blocked_session_ids, '{}')
  LOOP
    RAISE WARNING 'Job % skips session %: somebody has locked one of its rows', job, blocked_session_id;
  END LOOP;
  RETURN coalesce(blocked_session_ids, '{}');
END
$$;

-- Moves all of the given sessions to the archive, with their seats and rolls, or none of them. The caller has locked
-- the sessions.
CREATE OR REPLACE FUNCTION private.move_to_archive(session_ids uuid[])
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '200ms'
AS $$
BEGIN
  INSERT INTO public.archived_sessions (
    id, seer_id, adventure_id, code, is_public, max_players, looking_for, scheduled_start, status, current_scene_id,
    current_encounter_id, game_state, started_at, ended_at, created_at, updated_at, seats_taken, encounter_number,
    game_state_version, last_event_at
  )
  SELECT
    id, seer_id, adventure_id, code, is_public, max_players, looking_for, scheduled_start, status, current_scene_id,
    current_encounter_id, game_state, started_at, ended_at, created_at, updated_at, seats_taken, encounter_number,
    game_state_version, last_event_at
  FROM public.sessions
  WHERE id = ANY (session_ids);

  INSERT INTO public.archived_session_players (
    session_id, user_id, character_id, is_active, heroic_saves_used, joined_at, left_at, heroic_saves_encounter,
    removed_at
  )
  SELECT
    session_id, user_id, character_id, is_active, heroic_saves_used, joined_at, left_at, heroic_saves_encounter,
    removed_at
  FROM public.session_players
  WHERE session_id = ANY (session_ids);

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
  WHERE session_id = ANY (session_ids);

  DELETE FROM public.sessions
  WHERE id = ANY (session_ids);
END
$$;

-- Archives up to `batch_size` sessions and returns how many. A session that another transaction has locked, or whose
-- adventure another transaction is deleting or has locked FOR UPDATE, is skipped silently. Any other session that
-- cannot be archived is skipped with a warning. Skipped sessions do not count towards the batch.
CREATE OR REPLACE FUNCTION private.archive_sessions(batch_size integer)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  session_ids uuid[];
  newly_skipped_ids uuid[];
  skipped_ids uuid[] := '{}'::uuid[];
  archived_count integer := 0;
BEGIN
  LOOP
    -- Sessions that another run of this job has locked are skipped, so two concurrent runs share the work instead of
    -- waiting.
    session_ids := ARRAY(
      SELECT session.id
      FROM public.sessions AS session
      JOIN public.adventures AS adventure ON adventure.id = session.adventure_id
      WHERE session.status IN ('completed', 'cancelled')
        AND session.ended_at < now() - INTERVAL '90 days'
        AND session.id <> ALL (skipped_ids)
      ORDER BY session.ended_at
      LIMIT batch_size - archived_count
      FOR UPDATE OF session SKIP LOCKED
      -- If the adventure is being deleted, its sessions are skipped. The deletion looks for history in `sessions` and
      -- in `archived_sessions`, and must not miss a session that is moved meanwhile.
      FOR KEY SHARE OF adventure SKIP LOCKED
    );
    newly_skipped_ids := private.try_lock_rows_of_sessions('archive', session_ids);
    newly_skipped_ids := newly_skipped_ids
      || private.run_job_skipping_failures(
        'archive',
        ARRAY(SELECT unnest(session_ids) EXCEPT SELECT unnest(newly_skipped_ids))
      );
    archived_count := archived_count + cardinality(session_ids) - cardinality(newly_skipped_ids);
    EXIT WHEN cardinality(newly_skipped_ids) = 0;
    skipped_ids := skipped_ids || newly_skipped_ids;
  END LOOP;
  RETURN archived_count;
END
$$;

-- Refuses a new session if a session with its id was archived after the snapshot of the transaction; otherwise does
-- nothing. No query of this transaction sees the archived row, but a unique index does. So this function inserts a row
-- with the id into the archive, and rolls the insertion back. The table `sessions` has already accepted the new row, so
-- the inserted values pass all checks, and foreign keys are checked only after the unique index. So the insertion fails
-- with a unique violation if the id is archived, and only then.
CREATE OR REPLACE FUNCTION private.check_id_not_archived_since_snapshot(session public.sessions)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  INSERT INTO public.archived_sessions (id, seer_id, adventure_id, code)
  VALUES (session.id, session.seer_id, session.adventure_id, session.code);
  RAISE triggered_action_exception; -- Rolls the insertion back.
EXCEPTION
  WHEN unique_violation THEN
    PERFORM private.refuse_used_id('sessions');
  WHEN triggered_action_exception OR foreign_key_violation THEN
    RETURN;
END
$$;

-- Does the same for a new roll.
CREATE OR REPLACE FUNCTION private.check_id_not_archived_since_snapshot(roll public.dice_rolls)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  INSERT INTO public.archived_dice_rolls (
    id, session_id, character_id, creature_id, character_name, attribute, dice_count, difficulty, roll_type, modifiers,
    results, total, modified_total, success, outcome, margin, animation_seed, original_roll_id, rolled_by
  )
  VALUES (
    roll.id, roll.session_id, roll.character_id, roll.creature_id, roll.character_name, roll.attribute, roll.dice_count,
    roll.difficulty, roll.roll_type, roll.modifiers, roll.results, roll.total, roll.modified_total, roll.success,
    roll.outcome, roll.margin, roll.animation_seed, roll.original_roll_id, roll.rolled_by
  );
  RAISE triggered_action_exception; -- Rolls the insertion back.
EXCEPTION
  WHEN unique_violation THEN
    PERFORM private.refuse_used_id('dice_rolls');
  WHEN triggered_action_exception OR foreign_key_violation THEN
    RETURN;
END
$$;

-- Whether a session is abandoned. A session that has not started is abandoned a week after its planned start, but no
-- later than a year after its creation, because the start can be set in any year. Without a planned start it is
-- abandoned a month after its creation. A session that has started is abandoned a month after its last event
-- (`last_event_at`, which may be up to a day too early) or its start, whichever is later.
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

-- Cancels all of the given sessions or none of them. The caller has locked the sessions.
CREATE OR REPLACE FUNCTION private.cancel_sessions(session_ids uuid[])
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '200ms'
AS $$
BEGIN
  UPDATE public.sessions
  SET status = 'cancelled'
  WHERE id = ANY (session_ids);
END
$$;

-- Cancels up to `batch_size` abandoned sessions and returns how many. A session that another transaction has locked is
-- skipped silently. Any other session that cannot be cancelled is skipped with a warning. Skipped sessions do not count
-- towards the batch.
CREATE OR REPLACE FUNCTION private.cancel_abandoned_sessions(batch_size integer)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  abandoned_ids uuid[];
  newly_skipped_ids uuid[];
  skipped_ids uuid[] := '{}'::uuid[];
  cancelled_count integer := 0;
BEGIN
  LOOP
    abandoned_ids := ARRAY(
      SELECT session.id
      FROM public.sessions AS session
      WHERE session.status IN ('waiting', 'starting_soon', 'active', 'paused')
        AND session.id <> ALL (skipped_ids)
        AND private.is_abandoned(session)
      ORDER BY session.id
      LIMIT batch_size - cancelled_count
      FOR NO KEY UPDATE SKIP LOCKED
    );
    newly_skipped_ids := private.try_lock_rows_of_sessions('cancel', abandoned_ids);
    newly_skipped_ids := newly_skipped_ids
      || private.run_job_skipping_failures(
        'cancel',
        ARRAY(SELECT unnest(abandoned_ids) EXCEPT SELECT unnest(newly_skipped_ids))
      );
    cancelled_count := cancelled_count + cardinality(abandoned_ids) - cardinality(newly_skipped_ids);
    EXIT WHEN cardinality(newly_skipped_ids) = 0;
    skipped_ids := skipped_ids || newly_skipped_ids;
  END LOOP;
  RETURN cancelled_count;
END
$$;

CREATE OR REPLACE TRIGGER set_updated_at
  BEFORE UPDATE ON public.archived_sessions
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();
