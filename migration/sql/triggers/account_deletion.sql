-- Closing an account removes its personal data and keeps the history of others. Deleting an account closes it and
-- deletes its profile, unless the history of others references the profile. An account's *gate* is its row in
-- `private.account_gates`, which every write of the account locks first.

-- Locks the rows that closing an account changes, without waiting, and returns those that it could not lock because
-- another transaction has locked them. The rows are:
-- - the account's seats in live sessions, the characters in these seats, and these sessions,
-- - the live sessions that the account runs, with the characters and profiles of all who have or had a seat there,
--   because ending a session changes their counters,
-- - the account's profile and its drafts,
-- - if the account is deleted, also the ended sessions in which nobody else ever had a seat, because they are deleted.
--
-- For a seat, `key` is the id of the session. `relation` names the table, except that `unshared sessions` stands for
-- the sessions that are deleted: these need a stronger lock than other sessions.
CREATE OR REPLACE FUNCTION private.lock_free_rows_of_account(account uuid, is_deletion boolean)
RETURNS TABLE (relation text, key uuid)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  live_statuses CONSTANT public.session_status[] := '{waiting,starting_soon,active,paused}'::public.session_status[];
  seated_session_ids uuid[];
  live_session_ids uuid[];
  run_session_ids uuid[];
  unshared_session_ids uuid[] := '{}'::uuid[];
  character_ids uuid[];
  other_player_ids uuid[];
  locked_ids uuid[];
BEGIN
  seated_session_ids := ARRAY(
    SELECT seat.session_id
    FROM public.session_players AS seat
    JOIN public.sessions AS session ON session.id = seat.session_id
    WHERE seat.user_id = account
      AND seat.is_active
      AND session.status = ANY (live_statuses)
  );
  locked_ids := ARRAY(
    SELECT seat.session_id
    FROM public.session_players AS seat
    WHERE seat.session_id = ANY (seated_session_ids)
      AND seat.user_id = account
    FOR NO KEY UPDATE SKIP LOCKED
  );
  RETURN QUERY SELECT 'session_players', unnest(seated_session_ids) EXCEPT SELECT 'session_players', unnest(locked_ids);

  live_session_ids := ARRAY(
    SELECT session.id
    FROM public.sessions AS session
    WHERE session.status = ANY (live_statuses)
      AND (session.seer_id = account OR session.id = ANY (seated_session_ids))
  );
  locked_ids := ARRAY(
    SELECT session.id
    FROM public.sessions AS session
    WHERE session.id = ANY (live_session_ids)
    FOR NO KEY UPDATE SKIP LOCKED
  );
  RETURN QUERY SELECT 'sessions', unnest(live_session_ids) EXCEPT SELECT 'sessions', unnest(locked_ids);

  IF is_deletion THEN
    unshared_session_ids := ARRAY(
      SELECT session.id
      FROM public.sessions AS session
      WHERE session.seer_id = account
        AND session.status <> ALL (live_statuses)
        AND NOT EXISTS (
          SELECT
          FROM public.session_players AS seat
          WHERE seat.session_id = session.id
            AND seat.user_id <> account
        )
    );
    locked_ids := ARRAY(
      SELECT session.id
      FROM public.sessions AS session
      WHERE session.id = ANY (unshared_session_ids)
      FOR UPDATE SKIP LOCKED
    );
    RETURN QUERY
    SELECT 'unshared sessions', unnest(unshared_session_ids)
    EXCEPT
    SELECT 'unshared sessions', unnest(locked_ids);
  END IF;

  run_session_ids := ARRAY(
    SELECT session.id
    FROM public.sessions AS session
    WHERE session.seer_id = account
      AND session.id = ANY (live_session_ids)
  );
  character_ids := ARRAY(
    SELECT DISTINCT seat.character_id
    FROM public.session_players AS seat
    WHERE seat.session_id = ANY (run_session_ids)
      OR (seat.session_id = ANY (seated_session_ids) AND seat.user_id = account)
  );
  locked_ids := ARRAY(
    SELECT character.id
    FROM public.characters AS character
    WHERE character.id = ANY (character_ids)
    FOR NO KEY UPDATE SKIP LOCKED
  );
  RETURN QUERY SELECT 'characters', unnest(character_ids) EXCEPT SELECT 'characters', unnest(locked_ids);

  other_player_ids := ARRAY(
    SELECT DISTINCT seat.user_id
    FROM public.session_players AS seat
    WHERE seat.session_id = ANY (run_session_ids)
      AND seat.user_id <> account
  );
  locked_ids := ARRAY(
    SELECT profile.id
    FROM public.users AS profile
    WHERE profile.id = ANY (other_player_ids)
    FOR NO KEY UPDATE SKIP LOCKED
  );
  -- The closing changes the e-mail address of the account's own profile. The address is a key, so the profile needs the
  -- stronger lock.
  PERFORM FROM public.users WHERE id = account FOR UPDATE SKIP LOCKED;
  IF FOUND THEN
    locked_ids := locked_ids || account;
  END IF;
  RETURN QUERY
  SELECT 'users', profile.id FROM public.users AS profile WHERE profile.id = ANY (other_player_ids || account)
  EXCEPT
  SELECT 'users', unnest(locked_ids);

  -- Drafts are deleted or, if others have played them, archived. The completion of a session of a draft changes the
  -- draft too: its `times_played`.
  locked_ids := ARRAY(
    SELECT id FROM public.adventures WHERE creator_id = account AND status = 'draft' FOR NO KEY UPDATE SKIP LOCKED
  );
  RETURN QUERY
  SELECT 'adventures', draft.id FROM public.adventures AS draft WHERE creator_id = account AND status = 'draft'
  EXCEPT
  SELECT 'adventures', unnest(locked_ids);
END
$$;

-- Waits for a row that `lock_free_rows_of_account` returned, and locks it in the same mode.
CREATE OR REPLACE FUNCTION private.wait_for_row_of_account(account uuid, relation text, key uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  CASE relation
    WHEN 'session_players' THEN
      PERFORM FROM public.session_players WHERE session_id = key AND user_id = account FOR NO KEY UPDATE;
    WHEN 'sessions' THEN
      PERFORM FROM public.sessions WHERE id = key FOR NO KEY UPDATE;
    WHEN 'unshared sessions' THEN
      PERFORM FROM public.sessions WHERE id = key FOR UPDATE;
    WHEN 'characters' THEN
      PERFORM FROM public.characters WHERE id = key FOR NO KEY UPDATE;
    WHEN 'adventures' THEN
      PERFORM FROM public.adventures WHERE id = key FOR NO KEY UPDATE;
    ELSE -- users
      IF key = account THEN
        PERFORM FROM public.users WHERE id = key FOR UPDATE;
      ELSE
        PERFORM FROM public.users WHERE id = key FOR NO KEY UPDATE;
      END IF;
  END CASE;
END
$$;

-- Locks all rows that closing an account changes, in rounds. The caller has locked the account's gate, so no write of
-- the account is in progress. No fixed order of these rows avoids deadlocks, because users can lock several of their
-- rows in any order: a statement locks them in scan order, and a transaction in the order of its statements. So each
-- round first waits for at most one row, while it holds only the gate. Then it tries to lock all the others without
-- waiting. If one of them is busy, the round releases all its locks.
--
-- The row to wait for is chosen at random among the busy ones, so that sooner or later it is the row that the competing
-- statements lock first. Whoever gets that row finds the others free, because those statements wait for it too.
--
-- Writers who keep many rows busy could make every such round fail. So after eight rounds, each further round waits for
-- all rows that were busy, one after the other, which can end in a deadlock.
CREATE OR REPLACE FUNCTION private.lock_rows_of_account(account uuid, is_deletion boolean, in_random_order boolean)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  -- The rows that the next round waits for.
  awaited_relations text[] := '{}'::text[];
  awaited_keys uuid[] := '{}'::uuid[];
  -- The rows that the last round found locked.
  busy_relations text[];
  busy_keys uuid[];
  is_waiting boolean;
  rounds integer := 0;
BEGIN
  LOOP
    BEGIN
      is_waiting := true;
      FOR i IN 1 .. cardinality(awaited_keys)
      LOOP
        PERFORM private.wait_for_row_of_account(account, awaited_relations[i], awaited_keys[i]);
      END LOOP;
      is_waiting := false;
      SELECT array_agg(relation), array_agg(key)
      INTO busy_relations, busy_keys
      FROM (
        SELECT relation, key
        FROM private.lock_free_rows_of_account(account, is_deletion)
        ORDER BY random()
      ) AS busy;
      IF busy_keys IS NULL THEN
        RETURN;
      END IF;
      RAISE lock_not_available; -- Releases the locks of this round.
    EXCEPTION
      WHEN lock_not_available THEN
        IF is_waiting THEN
          RAISE; -- The caller's own lock_timeout expired.
        END IF;
    END;
    rounds := rounds + 1;
    IF rounds <= 8 THEN
      awaited_relations := busy_relations[1:1];
      awaited_keys := busy_keys[1:1];
    ELSE
      -- In the lock order, or in random order if an attempt in the lock order ended in a deadlock. A statement that
      -- always locks in another order could make every attempt in a fixed order fail.
      SELECT
        array_agg(relation ORDER BY lock_rank, key),
        array_agg(key ORDER BY lock_rank, key)
      INTO awaited_relations, awaited_keys
      FROM (
        SELECT
          relation,
          key,
          CASE
            WHEN in_random_order THEN random()
            ELSE array_position('{session_players,sessions,unshared sessions,characters,users,adventures}', relation)
          END AS lock_rank
        FROM (
          SELECT * FROM unnest(awaited_relations, awaited_keys) AS awaited (relation, key)
          UNION
          SELECT * FROM unnest(busy_relations, busy_keys) AS busy (relation, key)
        ) AS to_lock
      ) AS ranked;
    END IF;
  END LOOP;
END
$$;

-- Locks the gate and the rows of an account, and tries again after a deadlock, because the platform, which closes and
-- deletes accounts, does not retry. A failed attempt releases its locks, so the other statement proceeds.
--
-- A deadlock over the gate does not count towards the limit of ten attempts. A deletion has locked the account's row in
-- `auth.users`. Transactions of the account that hold the gate and wait for that row could make any number of attempts
-- fail.
--
-- The gate is locked in the attempt's own subtransaction, not in one nested in it. Once a nested subtransaction has
-- ended, whoever waits for a lock that it took must wait until the whole transaction ends, even if the attempt is
-- rolled back.
CREATE OR REPLACE FUNCTION private.lock_account(account uuid, is_deletion boolean DEFAULT false)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  is_gate_locked boolean;
  failed_attempts integer := 0;
BEGIN
  LOOP
    BEGIN
      is_gate_locked := false;
      PERFORM FROM private.account_gates WHERE account_id = account FOR UPDATE;
      is_gate_locked := true;
      PERFORM private.lock_rows_of_account(account, is_deletion, failed_attempts > 0);
      RETURN;
    EXCEPTION
      WHEN deadlock_detected THEN
        IF is_gate_locked THEN
          failed_attempts := failed_attempts + 1;
        END IF;
        IF failed_attempts = 10 THEN
          RAISE;
        END IF;
    END;
  END LOOP;
END
$$;

-- Closes an account: removes its personal data, gives up its seats in live sessions, cancels the live sessions that it
-- runs, and deletes its drafts. History is kept. Idempotent.
CREATE OR REPLACE FUNCTION private.erase_account(account uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.lock_account(account);

  -- This row contains a digest of the sign-up. With it, somebody could verify guesses of the e-mail address and name.
  DELETE FROM private.requests
  WHERE id = account
    AND relation = 'users';
  -- The profile is changed first, so that the events of leaving and cancelling, which are written below, contain no
  -- personal data.
  UPDATE public.users
  SET email = account || '@deleted.invalid',
      display_name = 'Former player',
      avatar_url = NULL,
      bio = NULL
  WHERE id = account
    AND closed_at IS NULL;
  -- Events of joining and leaving contain the name and the picture, which are replaced here. Closing must not wait for
  -- a transaction that is deleting a session or old events, so it skips locked events and the events of locked
  -- sessions. Locked sessions matter when this function runs twice in a transaction, as in `close_account`: the second
  -- update of an event makes PostgreSQL check the foreign key again, which locks the session.
  UPDATE public.session_events
  SET payload = payload || '{"display_name": "Former player", "avatar_url": null}'
  WHERE id = ANY (
    ARRAY(
      SELECT event.id
      FROM public.session_events AS event
      WHERE event.session_id = ANY (
        ARRAY(
          SELECT id
          FROM public.sessions
          WHERE id IN (SELECT seat.session_id FROM public.session_players AS seat WHERE seat.user_id = account)
          FOR KEY SHARE SKIP LOCKED
        )
      )
        AND event.event_type IN ('player_joined', 'player_left')
        AND event.payload ->> 'user_id' = account::text
      FOR NO KEY UPDATE SKIP LOCKED
    )
  );

  UPDATE public.session_players AS seat
  SET is_active = false
  FROM public.sessions AS session
  WHERE session.id = seat.session_id
    AND seat.user_id = account
    AND seat.is_active
    AND session.status NOT IN ('completed', 'cancelled');

  UPDATE public.sessions
  SET status = 'cancelled'
  WHERE seer_id = account
    AND status NOT IN ('completed', 'cancelled');

  PERFORM private.delete_unplayed_adventures(account, ARRAY['draft']::public.adventure_status[]);
  -- The drafts that remain are part of the history of others, or another transaction has locked them.
  UPDATE public.adventures
  SET status = 'archived'
  WHERE creator_id = account
    AND status = 'draft';

  UPDATE public.users
  SET closed_at = now()
  WHERE id = account
    AND closed_at IS NULL;
  UPDATE private.account_gates
  SET is_open = false
  WHERE account_id = account;
END
$$;

-- Applies the deletion of an account, which always succeeds: the profile is closed, and deleted unless the history of
-- others references it. `backfill.sql` calls this for accounts that were deleted while the trigger below was missing.
CREATE OR REPLACE FUNCTION private.delete_account(account uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.lock_account(account, is_deletion => true);
  -- This must be the first change of the profile in this transaction. PostgreSQL checks the foreign key at every
  -- further change of the row, even if `account_id` does not change. If `account_id` were not NULL by then, the check
  -- would fail, because the account no longer exists.
  UPDATE public.users
  SET account_id = NULL
  WHERE id = account;
  PERFORM private.erase_account(account);
  -- If the history of others references the profile, only what involves nobody else is deleted. Rows that are deleted
  -- with a session or an adventure, such as events, have not been locked in advance, so a deadlock is possible. It has
  -- the same effect.
  BEGIN
    DELETE FROM public.users WHERE id = account;
  EXCEPTION
    WHEN foreign_key_violation OR deadlock_detected THEN
      BEGIN
        PERFORM private.delete_unshared(account);
      EXCEPTION
        WHEN foreign_key_violation OR deadlock_detected THEN
          NULL; -- Another transaction has referenced or locked some of these rows, so all of them stay.
      END;
  END;
END
$$;

CREATE OR REPLACE FUNCTION private.handle_deleted_user()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.delete_account(OLD.id);
  RETURN NULL;
END
$$;

-- Deletes an account's adventures of the given statuses that have no history (`adventure_has_history`). An adventure
-- stays if another transaction has locked it, one of its sessions or one of their seats. Waiting could take for ever,
-- because whoever creates a session of an adventure locks the adventure, and several users with overlapping
-- transactions could keep it locked.
CREATE OR REPLACE FUNCTION private.delete_unplayed_adventures(account uuid, statuses public.adventure_status[])
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  unplayed_id uuid;
BEGIN
  FOR unplayed_id IN
    SELECT id
    FROM public.adventures
    WHERE creator_id = account
      AND status = ANY (statuses)
      AND NOT private.adventure_has_history(id)
    ORDER BY id
  LOOP
    BEGIN
      PERFORM FROM public.adventures WHERE id = unplayed_id FOR UPDATE NOWAIT;
      PERFORM FROM public.sessions WHERE adventure_id = unplayed_id FOR UPDATE NOWAIT;
      PERFORM
      FROM public.session_players AS seat
      JOIN public.sessions AS session ON session.id = seat.session_id
      WHERE session.adventure_id = unplayed_id
      FOR UPDATE OF seat NOWAIT;
      DELETE FROM public.adventures WHERE id = unplayed_id;
    EXCEPTION
      WHEN foreign_key_violation OR lock_not_available OR deadlock_detected THEN
        NULL;
    END;
  END LOOP;
END
$$;

-- Deletes the rows that involve only the account: sessions in which nobody else ever had a seat, the progress in the
-- tutorial, adventures without history, and characters that are then no longer referenced.
CREATE OR REPLACE FUNCTION private.delete_unshared(account uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM public.sessions AS session
  WHERE session.seer_id = account
    AND NOT EXISTS (
      SELECT
      FROM public.session_players AS seat
      WHERE seat.session_id = session.id
        AND seat.user_id <> account
    );
  DELETE FROM public.archived_sessions AS session
  WHERE session.seer_id = account
    AND NOT EXISTS (
      SELECT
      FROM public.archived_session_players AS seat
      WHERE seat.session_id = session.id
        AND seat.user_id <> account
    );
  DELETE FROM public.tutorial_progress
  WHERE user_id = account;
  PERFORM private.delete_unplayed_adventures(
    account,
    ARRAY['draft', 'published', 'archived']::public.adventure_status[]
  );
  DELETE FROM public.characters AS character
  WHERE character.user_id = account
    AND NOT EXISTS (SELECT FROM public.session_players WHERE character_id = character.id)
    AND NOT EXISTS (SELECT FROM public.archived_session_players WHERE character_id = character.id)
    AND NOT EXISTS (SELECT FROM public.dice_rolls WHERE character_id = character.id)
    AND NOT EXISTS (SELECT FROM public.archived_dice_rolls WHERE character_id = character.id);
END
$$;

-- Deletes an account's own history with its profile. If the history of others references any of it, the foreign keys
-- refuse the whole deletion. If an adventure of the account could not be deleted, this trigger itself refuses the
-- deletion of the profile. Otherwise the foreign key would delete the adventure with the profile, and would wait for
-- the transaction that has locked the adventure.
--
-- This is an AFTER trigger, because deleting these rows updates counters of the profile, and a BEFORE DELETE trigger
-- must not update the row that is being deleted. Its name begins with a capital letter, so that it fires before the
-- triggers of the foreign keys, which are called `RI_...`.
CREATE OR REPLACE FUNCTION private.delete_own_history()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.delete_unshared(OLD.id);
  IF EXISTS (SELECT FROM public.adventures WHERE creator_id = OLD.id) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'foreign_key_violation',
      MESSAGE = 'The account has adventures that others have played or are using',
      TABLE = 'adventures',
      CONSTRAINT = 'adventures_creator_id_fkey';
  END IF;
  RETURN NULL;
END
$$;

-- The capital letter makes this trigger fire before the foreign key's, which would lock the profile before the
-- account's sessions.
CREATE OR REPLACE TRIGGER "On_auth_user_deleted"
  AFTER DELETE ON auth.users
  FOR EACH ROW EXECUTE FUNCTION private.handle_deleted_user();

CREATE OR REPLACE TRIGGER "Delete_own_history"
  AFTER DELETE ON public.users
  FOR EACH ROW EXECUTE FUNCTION private.delete_own_history();
