-- Functions that the triggers of several tables call, and a source of random numbers. Some of them run as their owner,
-- who sees every row. So each has one narrow purpose, and `policies/function_grants.sql` says who may call it.
--
-- **BEFORE triggers fill in values, and AFTER triggers refuse**, once row security and the unique constraints have been
-- evaluated. So a stranger learns nothing from a refusal, because row security refuses the stranger first. A row that
-- is skipped by `ON CONFLICT DO NOTHING` does not count towards a limit. And no trigger has to guess whether a new row
-- will conflict with one that has the same key. Where a BEFORE trigger must refuse, one of three things is so: it
-- refuses only callers whom row security would permit, or its refusal depends only on the caller's own input, or it
-- raises the same error as row security.
--
-- **A limit is a counter** in the row that owns the counted rows (`sessions.seats_taken`, `users.living_characters`,
-- ...). An AFTER trigger updates the counter, and refuses the change if the counter would exceed the limit. Two
-- transactions that update one counter notice each other at every isolation level. Two that only counted the rows would
-- each miss the row that the other inserts.
--
-- Foreign keys lock rows too, in triggers called `RI_...`. These and the AFTER triggers fire in the order of their
-- names. If a trigger of ours must lock rows before the foreign keys do, its name begins with a capital letter before
-- R.
--
-- **Lock order**, everywhere: the row of the caller's account in `private.account_gates`, then seats, sessions,
-- characters, users and adventures. Within a table, all rows that a statement locks are locked in the order of their
-- keys. Triggers keep to this order. `docs/decisions.md` names the exceptions, and the deadlocks that remain possible
-- because a user's statement may lock the user's own rows in another order.

-- Sets `updated_at`, whoever edits the row. In a table with counters, the trigger `set_updated_at`, which calls this
-- function, leaves the counters out of its list of columns, because counters also change when somebody else acts. For
-- example, completing a private session changes the counters in the profiles of all who played it, and equal times in
-- these profiles would reveal who they are.
--
-- Each edit sets a later time than the one before, so that a reader who finds the same time knows that nobody has
-- edited the row. `now()` alone is not enough, because several transactions can have the same time, for example those
-- that one simple-query message contains.
CREATE OR REPLACE FUNCTION private.touch_updated_at()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  NEW.updated_at := greatest(now(), OLD.updated_at + INTERVAL '1 microsecond');
  RETURN NEW;
END
$$;

-- Returns `number_count` uniformly distributed integers from 0 to `bound` - 1 (`bound` is 1 to 256) from the server's
-- cryptographic random source. Without an extension, only a random UUID gives access to that source. Bytes 6 and 8 of
-- the UUID contain its version and variant, so they are skipped, and so is byte 7, although it is random. Let m be the
-- largest multiple of `bound` that is at most 256: a byte of m or more is discarded, because such bytes would favour
-- small numbers.
CREATE OR REPLACE FUNCTION private.random_numbers(bound integer, number_count integer)
RETURNS integer[]
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  numbers integer[] := '{}'::integer[];
  drawn_count integer := 0;
  uuid_bytes bytea;
  byte_index integer;
  byte integer;
BEGIN
  -- With a NULL argument or a bound out of range, the loop would fail or never end, so it does not begin.
  WHILE drawn_count < number_count AND bound BETWEEN 1 AND 256
  LOOP
    uuid_bytes := uuid_send(gen_random_uuid());
    FOREACH byte_index IN ARRAY ARRAY[0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15]
    LOOP
      EXIT WHEN drawn_count = number_count;
      byte := get_byte(uuid_bytes, byte_index);
      IF byte < 256 - 256 % bound THEN
        numbers := numbers || byte % bound;
        drawn_count := drawn_count + 1;
      END IF;
    END LOOP;
  END LOOP;
  RETURN numbers;
END
$$;

-- Refuses a new row whose id is in use, with the error that the primary key would raise. The trigger that calls this
-- function has found that the id is in use. It is called where the primary key itself cannot refuse the row, or not
-- early enough:
-- - A row of the archive has the id. An archived session or roll keeps its id, so the new row could never be archived.
-- - The row with this id is somebody else's. The key would refuse a plain INSERT. But for `ON CONFLICT DO UPDATE ...
--   WHERE`, PostgreSQL locks the existing row and evaluates the condition on it before it checks row security, so the
--   caller could lock the row and test its values.
-- - The same statement has deleted the row with this id. The primary key and the foreign keys would accept the new row
--   in its place, and the new row would have the history of the deleted one.
CREATE OR REPLACE FUNCTION private.refuse_used_id(relation text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'unique_violation',
    MESSAGE = format('duplicate key value violates unique constraint "%s_pkey"', relation),
    SCHEMA = 'public',
    TABLE = relation,
    CONSTRAINT = relation || '_pkey';
END
$$;

-- Refuses a statement that has written a row, and has then changed or deleted it in one of its own expressions (such as
-- a function in RETURNING). PostgreSQL itself raises the same SQLSTATE if a BEFORE trigger has already changed the row
-- that the statement is about to change.
CREATE OR REPLACE FUNCTION private.refuse_change_by_called_function(relation text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'triggered_data_change_violation',
    MESSAGE = format('a row of %s was changed again by an expression of the statement that changed it', relation),
    TABLE = relation;
END
$$;

-- Adds the given numbers to the counters of an account; a negative number lowers a counter. If a number is positive,
-- this raises an error if that counter would exceed its limit, or if the account is closed. `living` is a number of
-- characters that are not retired, and `retired` a number of retired characters. `seats` must count only seats in
-- sessions that have not ended, and `sessions` only sessions that have not ended and that the account runs as Seer.
CREATE OR REPLACE FUNCTION private.add_to_account_counters(
  account uuid,
  living integer DEFAULT 0,
  retired integer DEFAULT 0,
  seats integer DEFAULT 0,
  sessions integer DEFAULT 0,
  adventures integer DEFAULT 0
)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  increases_a_counter boolean := greatest(living, retired, seats, sessions, adventures) > 0;
  profile record;
BEGIN
  LOOP
    UPDATE public.users
    SET living_characters = living_characters + living,
        retired_characters = retired_characters + retired,
        live_seats = live_seats + seats,
        live_sessions = live_sessions + sessions,
        adventure_count = adventure_count + adventures
    WHERE id = account
      AND (
        NOT increases_a_counter
        OR (
          closed_at IS NULL
          AND (living <= 0 OR living_characters + living <= 10)
          AND (retired <= 0 OR retired_characters + retired <= 100)
          AND (seats <= 0 OR live_seats + seats <= 20)
          AND (sessions <= 0 OR live_sessions + sessions <= 20)
          AND (adventures <= 0 OR adventure_count + adventures <= 200)
        )
      );
    IF FOUND OR NOT increases_a_counter THEN
      RETURN;
    END IF;

    SELECT closed_at, living_characters, retired_characters, live_seats, live_sessions, adventure_count
    INTO profile
    FROM public.users
    WHERE id = account;
    IF NOT FOUND THEN
      RETURN; -- The foreign key refuses the row.
    ELSIF profile.closed_at IS NOT NULL THEN
      PERFORM private.refuse_closed_account();
    ELSIF living > 0 AND profile.living_characters + living > 10 THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP001',
        MESSAGE = 'Character limit reached (maximum 10)',
        TABLE = 'characters',
        CONSTRAINT = 'character_limit';
    ELSIF retired > 0 AND profile.retired_characters + retired > 100 THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP022',
        MESSAGE = 'Retired character limit reached (maximum 100)',
        TABLE = 'characters',
        CONSTRAINT = 'retired_character_limit';
    ELSIF seats > 0 AND profile.live_seats + seats > 20 THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP023',
        MESSAGE = 'Seat limit reached (maximum 20 in live sessions)',
        TABLE = 'session_players',
        CONSTRAINT = 'live_seat_limit';
    ELSIF sessions > 0 AND profile.live_sessions + sessions > 20 THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP024',
        MESSAGE = 'Session limit reached (maximum 20 live sessions)',
        TABLE = 'sessions',
        CONSTRAINT = 'live_session_limit';
    ELSIF adventures > 0 AND profile.adventure_count + adventures > 200 THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP025',
        MESSAGE = 'Adventure limit reached (maximum 200)',
        TABLE = 'adventures',
        CONSTRAINT = 'adventure_limit';
    END IF;
    -- Another transaction has lowered the counter, or reopened the account, since the UPDATE above: try again.
  END LOOP;
END
$$;

-- Locks rows of `sessions` or `characters`. This function tries not to wait for one row while it holds another, because
-- a Seer's UPDATE of sessions and an owner's UPDATE of characters lock several rows in scan order. So each attempt
-- first waits for one row that the previous attempt found locked, while it holds none of the others. Then it tries to
-- lock all the others without waiting. Writers who keep many rows locked could make every attempt fail. So after four
-- attempts the function locks the rows in key order, and waits for each while it holds those before it. That may
-- deadlock with such an UPDATE, and then the server aborts one of the two statements with a deadlock error.
CREATE OR REPLACE FUNCTION private.lock_rows(relation text, keys uuid[])
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  lock_sql CONSTANT text := format('SELECT FROM public.%I WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE', relation);
  try_lock_rows_sql CONSTANT text := format(
    'WITH newly_locked_rows AS (SELECT id FROM public.%1$I WHERE id = ANY ($1) FOR NO KEY UPDATE SKIP LOCKED)
     SELECT id FROM public.%1$I WHERE id = ANY ($1) EXCEPT SELECT id FROM newly_locked_rows ORDER BY id LIMIT 1',
    relation
  );
  busy_id uuid;
BEGIN
  FOR attempt IN 1 .. 4
  LOOP
    EXIT WHEN cardinality(keys) = 1; -- A single row is locked below.
    BEGIN
      -- At the first attempt `busy_id` is NULL, so no row is locked here.
      EXECUTE lock_sql USING ARRAY[busy_id];
      -- Locks the rows that are free, and returns one that somebody else has locked, or NULL if there is none.
      EXECUTE try_lock_rows_sql INTO busy_id USING keys;
      IF busy_id IS NULL THEN
        RETURN; -- This function has locked all rows.
      END IF;
      RAISE triggered_action_exception; -- The rollback to the block's savepoint releases this attempt's locks.
    EXCEPTION
      WHEN triggered_action_exception THEN
        NULL;
    END;
  END LOOP;
  EXECUTE lock_sql USING keys;
END
$$;
