-- Locks most of the rows that closing or deleting an account changes. An account's *gate* is its row in
-- `private.account_gates`. Every statement with which the account's user writes locks the gate first. A *live* session
-- is one that has not ended.

-- Tries to lock, without waiting, the rows listed here, which closing or deleting an account changes. Returns those
-- that it could not lock because another transaction has locked them. (Rows that are not listed, such as events, are
-- not locked in advance.) The rows are:
-- - the account's active seats (those that it holds now) in live sessions, the characters in these seats, and these
--   sessions,
-- - the live sessions that the account runs, with the characters and profiles of all who have or had a seat there,
--   because ending a session changes their counters,
-- - the account's profile (its row in `public.users`), and the draft adventures that it created,
-- - if the account is deleted, also the ended sessions that it ran and in which nobody else ever had a seat, because
--   they are deleted.
--
-- `busy_relation` is the name of the row's table, or `unshared sessions` for the ended sessions in the last item, which
-- need a stronger lock than other sessions because they are deleted. `busy_key` is the id of the row; for a seat, which
-- has no id of its own, it is the id of the session.
CREATE OR REPLACE FUNCTION private.try_lock_rows_of_account(account uuid, for_deletion boolean)
RETURNS TABLE (busy_relation text, busy_key uuid)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  live_statuses CONSTANT public.session_status[] := '{waiting,starting_soon,active,paused}'::public.session_status[];
  -- Live sessions: those in which the account has a seat, those that it runs, and both together.
  seated_session_ids uuid[];
  session_ids_as_seer uuid[];
  live_session_ids uuid[];
  -- Ended sessions that the account ran and in which nobody else ever had a seat.
  unshared_session_ids uuid[] := '{}'::uuid[];
  character_ids uuid[];
  other_player_ids uuid[];
  -- The ids of the rows that this function has locked in one table (for seats, the ids of their sessions). The variable
  -- is used for one table after the other.
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

  IF for_deletion THEN
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

  session_ids_as_seer := ARRAY(
    SELECT session.id
    FROM public.sessions AS session
    WHERE session.seer_id = account
      AND session.id = ANY (live_session_ids)
  );
  character_ids := ARRAY(
    SELECT DISTINCT seat.character_id
    FROM public.session_players AS seat
    WHERE seat.session_id = ANY (session_ids_as_seer)
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
    WHERE seat.session_id = ANY (session_ids_as_seer)
      AND seat.user_id <> account
  );
  locked_ids := ARRAY(
    SELECT profile.id
    FROM public.users AS profile
    WHERE profile.id = ANY (other_player_ids)
    FOR NO KEY UPDATE SKIP LOCKED
  );
  -- Closing changes the e-mail address of the account's own profile. The address is a key, so the profile needs the
  -- stronger lock.
  PERFORM FROM public.users WHERE id = account FOR UPDATE SKIP LOCKED;
  IF FOUND THEN
    locked_ids := locked_ids || account;
  END IF;
  RETURN QUERY
  SELECT 'users', profile.id FROM public.users AS profile WHERE profile.id = ANY (other_player_ids || account)
  EXCEPT
  SELECT 'users', unnest(locked_ids);

  -- Drafts are deleted or, if others have played them, archived. Other transactions lock a draft when they complete a
  -- session of it, because that increments its `times_played`.
  locked_ids := ARRAY(
    SELECT id FROM public.adventures WHERE creator_id = account AND status = 'draft' FOR NO KEY UPDATE SKIP LOCKED
  );
  RETURN QUERY
  SELECT 'adventures', draft.id FROM public.adventures AS draft WHERE creator_id = account AND status = 'draft'
  EXCEPT
  SELECT 'adventures', unnest(locked_ids);
END
$$;

-- Waits for a row that `try_lock_rows_of_account` returned as busy, and locks it in the same mode as that function
-- does.
CREATE OR REPLACE FUNCTION private.lock_busy_row_of_account(account uuid, relation text, key uuid)
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

-- Locks the rows of `try_lock_rows_of_account`, in rounds. The caller has locked the account's gate, so the account's
-- user has no write in progress, but others may hold locks on some of these rows. No fixed order avoids deadlocks with
-- those others, because a user can lock several rows in any order: a statement locks them in scan order, and a
-- transaction in the order of its statements. So each round but the first begins with waiting for one row, while it
-- holds none of the others. Then it tries to lock all the others without waiting. If one of them is busy (locked by
-- another transaction), the round releases all its locks.
--
-- The row to wait for is chosen at random among the busy ones, so that sooner or later it is the row that the competing
-- statements lock first. Once this function has locked that row, it finds the others free, because the competing
-- statements wait for that row too.
--
-- Writers who keep many rows busy could make every such round fail. So after eight rounds that have waited for one row,
-- each further round begins with waiting for all rows that were busy, one after the other. This waiting can end in a
-- deadlock. If `waits_in_random_order` is true, the order of these waits is random.
CREATE OR REPLACE FUNCTION private.lock_rows_of_account(
  account uuid,
  for_deletion boolean,
  waits_in_random_order boolean
)
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
  finished_rounds integer := 0;
BEGIN
  LOOP
    BEGIN
      FOR i IN 1 .. cardinality(awaited_keys)
      LOOP
        PERFORM private.lock_busy_row_of_account(account, awaited_relations[i], awaited_keys[i]);
      END LOOP;
      SELECT array_agg(busy_relation), array_agg(busy_key)
      INTO busy_relations, busy_keys
      FROM (
        SELECT busy_relation, busy_key
        FROM private.try_lock_rows_of_account(account, for_deletion)
        ORDER BY random()
      ) AS busy_rows;
      IF busy_keys IS NULL THEN
        RETURN;
      END IF;
      RAISE triggered_action_exception; -- The rollback to the block's savepoint releases this round's locks.
    EXCEPTION
      WHEN triggered_action_exception THEN
        NULL;
    END;
    finished_rounds := finished_rounds + 1;
    IF finished_rounds <= 8 THEN
      awaited_relations := busy_relations[1:1];
      awaited_keys := busy_keys[1:1];
    ELSE
      -- The order is the lock order of `shared.sql`, or random if an attempt of `lock_gate_and_rows` has already ended
      -- in a deadlock: a statement that always locks in another order could make every attempt in a fixed order fail.
      SELECT
        array_agg(relation ORDER BY lock_rank, key),
        array_agg(key ORDER BY lock_rank, key)
      INTO awaited_relations, awaited_keys
      FROM (
        SELECT
          relation,
          key,
          CASE
            WHEN waits_in_random_order THEN random()
            ELSE array_position('{session_players,sessions,unshared sessions,characters,users,adventures}', relation)
          END AS lock_rank
        FROM (
          SELECT * FROM unnest(awaited_relations, awaited_keys) AS awaited (relation, key)
          UNION
          SELECT * FROM unnest(busy_relations, busy_keys) AS busy (relation, key)
        ) AS rows_to_lock
      ) AS ranked_rows;
    END IF;
  END LOOP;
END
$$;

-- Locks the gate of an account and the account's rows. The gate is locked FOR UPDATE, because only that mode also waits
-- for the shared lock that `lock_gate` takes for the service. An attempt that ends in a deadlock is repeated, up to ten
-- attempts in all, because the platform (Supabase) does not repeat its statements that close and delete accounts. A
-- failed attempt releases its locks, so the statement with which it collided proceeds.
--
-- An attempt that ends in a deadlock over the gate does not count towards the limit of ten. A deletion has already
-- locked the account's row in `auth.users`, and transactions of the account that hold the gate and wait for that row
-- could make any number of attempts fail.
--
-- The gate is locked in the block of the attempt itself, not in a block inside it. If another transaction waits for a
-- lock that an inner block has taken, and that block ends without an error, the other transaction then waits for the
-- end of our whole transaction. So it would go on waiting for the gate even after this attempt was rolled back.
CREATE OR REPLACE FUNCTION private.lock_gate_and_rows(account uuid, for_deletion boolean DEFAULT false)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  is_gate_locked boolean;
  failed_attempts integer := 0;
BEGIN
  -- Closing writes events, and then waits for more rows. Meanwhile it must not hold locks on old events of other
  -- sessions, because a deletion of such a session would wait for them. So in this transaction the trigger function
  -- `cleanup_old_events`, which runs after each insert of events, deletes no old ones.
  PERFORM set_config('sparc.keeps_old_events', 'on', true);
  LOOP
    BEGIN
      is_gate_locked := false;
      PERFORM FROM private.account_gates WHERE account_id = account FOR UPDATE;
      is_gate_locked := true;
      PERFORM private.lock_rows_of_account(account, for_deletion, waits_in_random_order => failed_attempts > 0);
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
