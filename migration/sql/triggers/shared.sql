-- Functions that several tables use. A function that runs as its owner sees every row, so each of these has one narrow
-- purpose, and `policies/functions.sql` says who may call it.
--
-- **BEFORE triggers fill in values, and AFTER triggers refuse**, once row security and the unique constraints have been
-- evaluated. So a stranger learns nothing from a refusal, because row security refuses them first; a row that `ON
-- CONFLICT DO NOTHING` skips uses up nothing; and no rule is skipped because a row with the same key seems to exist.
-- Where a BEFORE trigger must refuse, it refuses only callers whom row security would permit.
--
-- **A limit is a counter** in the row that owns the counted rows (`sessions.seats_taken`, `users.living_characters`,
-- ...). An AFTER trigger updates it, and a check bounds it. Two transactions that update one counter notice each other
-- at every isolation level; two that count rows would each miss the row that the other inserts.
--
-- Foreign keys lock rows too, in triggers called `RI_...`. These fire together with the AFTER triggers, in the order of
-- their names. A trigger of ours that must lock before them has a name that begins with a capital letter before R.
--
-- **Lock order**, everywhere: the gate of the caller's account (its row in `private.account_gates`), seats, sessions,
-- characters, users, adventures; within a table by key, across the whole statement. Triggers keep to this order.
-- `docs/decisions.md` names the exceptions, and the deadlocks that remain possible because a user's statement may lock
-- the user's own rows in another order.

-- Sets `updated_at`, whoever edits the row. The triggers that call this name the edited columns but not the counters,
-- because counters also change when somebody else acts. For example, completing a private session changes the counters
-- in the profiles of all who played it, and equal times in these profiles would reveal who they are.
--
-- Each edit sets a later time than the one before, so that a reader who finds the same time knows that the row is
-- unchanged. `now()` alone is not enough, because several transactions can have the same time, for example those that
-- one simple-query message contains.
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

-- Returns `amount` uniformly distributed integers from 0 to `bound` - 1 (`bound` at most 256) from the server's
-- cryptographic random source. Without an extension, only a random UUID gives access to that source. Bytes 6 and 8 of
-- the UUID contain its version and variant and are skipped. Bytes from the last multiple of `bound` on are discarded,
-- because they would favour small numbers.
CREATE OR REPLACE FUNCTION private.random_numbers(bound integer, amount integer)
RETURNS integer[]
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  numbers integer[] := '{}'::integer[];
  drawn_count integer := 0;
  entropy bytea;
  byte_index integer;
  byte integer;
BEGIN
  -- A NULL argument or a bound above 256 ends the loop at once, so no call loops forever.
  WHILE drawn_count < amount AND bound <= 256
  LOOP
    entropy := uuid_send(gen_random_uuid());
    FOREACH byte_index IN ARRAY ARRAY[0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15]
    LOOP
      EXIT WHEN drawn_count = amount;
      byte := get_byte(entropy, byte_index);
      IF byte < 256 - 256 % bound THEN
        numbers := numbers || byte % bound;
        drawn_count := drawn_count + 1;
      END IF;
    END LOOP;
  END LOOP;
  RETURN numbers;
END
$$;

-- Refuses a new row whose id is in use, with the same error as the primary key. It is called where the primary key
-- itself cannot refuse the row, or not early enough:
-- - The id is archived. An archived session or roll keeps its id, so the new row could never be archived.
-- - The row with this id is somebody else's. The key would refuse the INSERT. But PostgreSQL evaluates the condition of
--   `ON CONFLICT DO UPDATE ... WHERE` before row security, and has then already read and locked that row.
-- - The same statement has deleted the row with this id. The key and the foreign keys would accept the new row in its
--   place, and it would have the history of the old one.
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

-- Refuses a statement that has written a row and then changed it again by one of its own expressions (such as a
-- function in RETURNING). The SQLSTATE is the one with which PostgreSQL itself refuses such a change by a BEFORE
-- trigger.
CREATE OR REPLACE FUNCTION private.refuse_repeated_change(relation text)
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

-- Adds to the counters of an account, or raises an error if that would exceed a limit. A counter of a closed account
-- cannot be increased.
CREATE OR REPLACE FUNCTION private.count_for_account(
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
  is_increase boolean := greatest(living, retired, seats, sessions, adventures) > 0;
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
        NOT is_increase
        OR (
          closed_at IS NULL
          AND (living <= 0 OR living_characters + living <= 10)
          AND (retired <= 0 OR retired_characters + retired <= 100)
          AND (seats <= 0 OR live_seats + seats <= 20)
          AND (sessions <= 0 OR live_sessions + sessions <= 20)
          AND (adventures <= 0 OR adventure_count + adventures <= 200)
        )
      );
    IF FOUND OR NOT is_increase THEN
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
    -- Another transaction lowered the counter between the two statements, so there may be room now: try again.
  END LOOP;
END
$$;

-- Locks rows of `sessions` or `characters`. It tries not to wait for one row while it holds another, because a Seer's
-- UPDATE of sessions and an owner's UPDATE of characters lock several rows in scan order. So each attempt waits for one
-- row that the attempt before found busy, while it holds none of the others. Then it locks all of them if they are
-- free. Writers who keep many rows busy could make every attempt fail. So after four attempts it locks the rows in key
-- order, and waits for each while it holds those before it. That may deadlock with such an UPDATE; the server then ends
-- one of the two transactions.
CREATE OR REPLACE FUNCTION private.lock_rows(relation text, keys uuid[])
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  lock_sql CONSTANT text := format('SELECT FROM public.%I WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE', relation);
  first_busy_sql CONSTANT text := format(
    'WITH free AS (SELECT id FROM public.%1$I WHERE id = ANY ($1) FOR NO KEY UPDATE SKIP LOCKED)
     SELECT id FROM public.%1$I WHERE id = ANY ($1) EXCEPT SELECT id FROM free ORDER BY id LIMIT 1',
    relation
  );
  busy_id uuid;
  is_waiting boolean;
BEGIN
  FOR attempt IN 1 .. 4
  LOOP
    EXIT WHEN cardinality(keys) = 1; -- A single row is locked below.
    BEGIN
      is_waiting := true;
      -- At the first attempt `busy_id` is NULL, so this locks nothing.
      EXECUTE lock_sql USING ARRAY[busy_id];
      is_waiting := false;
      EXECUTE first_busy_sql INTO busy_id USING keys;
      IF busy_id IS NULL THEN
        RETURN;
      END IF;
      RAISE lock_not_available; -- Releases the locks of this attempt.
    EXCEPTION
      WHEN lock_not_available THEN
        IF is_waiting THEN
          RAISE; -- The caller's own lock_timeout expired.
        END IF;
    END;
  END LOOP;
  EXECUTE lock_sql USING keys;
END
$$;
