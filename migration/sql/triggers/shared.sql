-- What several tables need. Functions that run as their owner see every row: each tells or does one thing, and
-- `access/functions.sql` says who may call it.
--
-- **BEFORE triggers fill values in; what a row breaks is refused AFTER**, when row security and the unique constraints
-- have spoken. So a stranger learns nothing from a refusal (row security answers first), a row that
-- `ON CONFLICT DO NOTHING` skips claims nothing, and no rule is skipped because a row seems to be there. Where a BEFORE
-- trigger must refuse, it refuses only a caller whom row security would let through.
--
-- **A limit is a counter** beside the row that owns it (`sessions.seats_taken`, `users.living_characters`, ...), which an
-- AFTER trigger updates and a check bounds. An update is seen at every isolation level; a count of rows is not.
--
-- Foreign keys lock, too, by triggers called `RI_...`, which fire with the AFTER triggers in the order of their names. A trigger
-- of ours that must lock before them has a name with a capital letter.
--
-- **Lock order**, everywhere: the gate of the account that asks, then seats, then sessions, then characters, then users, then adventures; several rows of one
-- table in the order of their key, across the whole statement. Each trigger keeps to it, so no two can wait for each other.

-- `updated_at` tells the last change, whoever made it.
CREATE OR REPLACE FUNCTION private.touch_updated_at()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END
$$;

-- A whole number from 0 below `bound` (at most 256), every one equally likely, from the server's strong random source.
-- A random UUID is the one door to that source that needs no extension. Bytes 6 and 8 hold its version and variant and
-- are left alone; a byte past the last multiple of the bound would favour small numbers and is thrown away.
CREATE OR REPLACE FUNCTION private.random_numbers(bound integer, wanted integer)
RETURNS integer[]
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  numbers integer[] := '{}'::integer[];
  found integer := 0;
  entropy bytea;
  place integer;
  byte integer;
BEGIN
  -- Nothing of what is not known is wanted: no call goes on for ever.
  WHILE found < wanted AND bound <= 256
  LOOP
    entropy := uuid_send(gen_random_uuid());
    FOREACH place IN ARRAY ARRAY[0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15]
    LOOP
      EXIT WHEN found = wanted;
      byte := get_byte(entropy, place);
      IF byte < 256 - 256 % bound THEN
        numbers := numbers || byte % bound;
        found := found + 1;
      END IF;
    END LOOP;
  END LOOP;
  RETURN numbers;
END
$$;

-- Whether a document can be read by a client whose numbers are doubles and whose parser goes no deeper than a hundred
-- levels: one that cannot would stop everybody who reads the row. A document of more bytes than its check allows is not
-- searched: the check refuses it by its size. The check measures what is stored; a value that comes compressed from another
-- table is measured here as the text that it is.
CREATE OR REPLACE FUNCTION private.is_readable(document jsonb, max_bytes integer)
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF pg_column_compression(document) IS NOT NULL AND octet_length(document::text) > max_bytes THEN
    RETURN false;
  END IF;
  RETURN pg_column_size(document) > max_bytes
    OR (
      NOT jsonb_path_exists(document, '$.**{100}')
      AND NOT jsonb_path_exists(document, '$.** ? (@.type() == "number" && (@ > 1e308 || @ < -1e308))')
    );
END
$$;

CREATE OR REPLACE FUNCTION private.refuse_unreadable(relation text, document text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'check_violation',
    MESSAGE = format('%s is too large, nested deeper than 100 levels, or holds a number beyond 1e308', document),
    TABLE = relation,
    COLUMN = document,
    CONSTRAINT = 'readable_document';
END
$$;

-- Refuses the document that the trigger names. The trigger's own condition looks at it, so that one that can be read costs
-- no call of a function that finds its column by name.
CREATE OR REPLACE FUNCTION private.check_readable()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.refuse_unreadable(TG_TABLE_NAME, TG_ARGV[0]);
  RETURN NEW;
END
$$;

-- Whether the caller is the server itself rather than one of the API's users: `current_user` cannot tell inside a
-- function that runs as its owner, the role that was put on can.
CREATE OR REPLACE FUNCTION private.is_server()
RETURNS boolean
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN current_setting('role') NOT IN ('anon', 'authenticated')
    AND pg_has_role(session_user, 'service_role', 'MEMBER');
END
$$;

-- True, or the error that the caller's account is closed. The lock keeps the answer true until the end of the
-- transaction: closing locks the gate alone, and a write that comes while it does waits here. The first lock of both, so that
-- neither waits for the other with anything in its hands.
CREATE OR REPLACE FUNCTION private.require_open_account()
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me uuid := auth.uid();
  can_write boolean;
BEGIN
  IF me IS NOT NULL THEN
    SELECT is_open
    INTO can_write
    FROM private.account_gates
    WHERE account_id = me
    FOR KEY SHARE;
    IF NOT can_write THEN
      PERFORM private.refuse_closed_account();
    END IF;
  END IF;
  RETURN true;
END
$$;

-- Refuses the transaction of an account that is closed or not there: a token outlives its account by an hour. The service
-- begins each transaction of a user with it. Whether a write comes before a closing is `require_open_account`'s to say,
-- which locks.
CREATE OR REPLACE FUNCTION private.require_account()
RETURNS void
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  may_enter boolean;
BEGIN
  SELECT is_open
  INTO may_enter
  FROM private.account_gates
  WHERE account_id = auth.uid();
  IF may_enter IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP032',
      MESSAGE = 'There is no such account',
      TABLE = 'users',
      CONSTRAINT = 'known_account';
  END IF;
  IF NOT may_enter THEN
    PERFORM private.refuse_closed_account();
  END IF;
END
$$;

-- Whoever else adds to an account (the server, for its owner) is inside its gate as well.
CREATE OR REPLACE FUNCTION private.enter_gate(account uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM FROM private.account_gates WHERE account_id = account FOR KEY SHARE;
END
$$;

CREATE OR REPLACE FUNCTION private.refuse_closed_account()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'SP019',
    MESSAGE = 'The account is closed',
    TABLE = 'users',
    CONSTRAINT = 'account_open';
END
$$;

-- Refuses what a policy refuses, as PostgreSQL does, with a reason: the name of the rule. Of a closed account, that is the
-- reason.
CREATE OR REPLACE FUNCTION private.refuse(reason text, relation text, rule text)
RETURNS void
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.require_account();
  RAISE EXCEPTION USING
    ERRCODE = 'insufficient_privilege',
    MESSAGE = reason,
    TABLE = relation,
    CONSTRAINT = rule;
END
$$;

-- Changes the counters of an account, each up to its limit. A closed account gets no more of anything.
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
  adds boolean := greatest(living, retired, seats, sessions, adventures) > 0;
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
        NOT adds
        OR (
          closed_at IS NULL
          AND (living <= 0 OR living_characters + living <= 10)
          AND (retired <= 0 OR retired_characters + retired <= 100)
          AND (seats <= 0 OR live_seats + seats <= 20)
          AND (sessions <= 0 OR live_sessions + sessions <= 20)
          AND (adventures <= 0 OR adventure_count + adventures <= 200)
        )
      );
    IF FOUND OR NOT adds THEN
      RETURN;
    END IF;

    SELECT closed_at, living_characters, retired_characters, live_seats, live_sessions, adventure_count
    INTO profile
    FROM public.users
    WHERE id = account;
    IF NOT FOUND THEN
      RETURN; -- The foreign key answers.
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
    -- Something was given back between the two statements: there is room now.
  END LOOP;
END
$$;

-- Locks sessions without holding one while waiting for another: a statement of their Seer's locks them in whatever order it
-- finds them. What is busy is waited for first, with nothing in the hands, and then all are tried again.
CREATE OR REPLACE FUNCTION private.lock_sessions(sessions uuid[])
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  busy uuid := sessions[1];
  session uuid;
BEGIN
  IF cardinality(sessions) = 1 THEN
    PERFORM FROM public.sessions WHERE id = busy FOR NO KEY UPDATE;
    RETURN;
  END IF;
  LOOP
    BEGIN
      session := NULL;
      PERFORM FROM public.sessions WHERE id = busy FOR NO KEY UPDATE;
      FOREACH session IN ARRAY sessions
      LOOP
        PERFORM FROM public.sessions WHERE id = session FOR NO KEY UPDATE NOWAIT;
      END LOOP;
      RETURN;
    EXCEPTION
      WHEN lock_not_available THEN
        IF session IS NULL THEN
          RAISE; -- The caller's own lock_timeout.
        END IF;
        busy := session;
    END;
  END LOOP;
END
$$;

-- The sessions that the caller runs or has (or had) a seat in. As one array it is computed once a query and serves as
-- an index condition, where a subquery in a policy becomes a hash of the whole other table.
CREATE OR REPLACE FUNCTION private.my_session_ids()
RETURNS uuid[]
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me uuid := auth.uid();
BEGIN
  IF me IS NULL THEN
    RETURN '{}'::uuid[];
  END IF;
  RETURN ARRAY(
    SELECT session.id
    FROM public.sessions AS session
    WHERE session.seer_id = me
    UNION ALL
    SELECT seat.session_id
    FROM public.session_players AS seat
    WHERE seat.user_id = me
  );
END
$$;

-- The same for the archive.
CREATE OR REPLACE FUNCTION private.my_archived_session_ids()
RETURNS uuid[]
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me uuid := auth.uid();
BEGIN
  IF me IS NULL THEN
    RETURN '{}'::uuid[];
  END IF;
  RETURN ARRAY(
    SELECT session.id
    FROM public.archived_sessions AS session
    WHERE session.seer_id = me
    UNION ALL
    SELECT seat.session_id
    FROM public.archived_session_players AS seat
    WHERE seat.user_id = me
  );
END
$$;
