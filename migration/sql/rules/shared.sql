-- What several tables need. Functions that run as their owner see every row: each tells or does one thing, and the
-- step that opens access says who may call it.
--
-- Lock order, everywhere: seats, then sessions, then characters, then users, then adventures; several rows of one
-- table in the order of their key. Each trigger that takes rows keeps to it, so two of them cannot wait for each other.

-- `updated_at` tells the last change, whoever made it.
CREATE OR REPLACE FUNCTION private.touch_updated_at()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = ''
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
SET search_path = ''
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
-- levels: one that cannot would stop everybody who reads the row.
CREATE OR REPLACE FUNCTION private.is_readable(document jsonb)
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = ''
AS $$
BEGIN
  RETURN NOT jsonb_path_exists(document, '$.**{100}')
    AND NOT jsonb_path_exists(document, '$.** ? (@.type() == "number" && (@ > 1e308 || @ < -1e308))');
END
$$;

-- Refuses the document that the trigger names. The trigger's own condition looks at it, so that one that can be read costs
-- no call of a function that finds its column by name.
CREATE OR REPLACE FUNCTION private.check_readable()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'check_violation',
    MESSAGE = format('%s is nested deeper than 100 levels, or holds a number beyond 1e308', TG_ARGV[0]),
    TABLE = TG_TABLE_NAME,
    COLUMN = TG_ARGV[0],
    CONSTRAINT = 'readable_document';
END
$$;

-- Whether the caller is the server itself rather than one of the API's users: `current_user` cannot tell inside a
-- function that runs as its owner, the role that was put on can.
CREATE OR REPLACE FUNCTION private.is_server()
RETURNS boolean
LANGUAGE plpgsql
STABLE
SET search_path = ''
AS $$
BEGIN
  RETURN current_setting('role') NOT IN ('anon', 'authenticated')
    AND pg_has_role(session_user, 'service_role', 'MEMBER');
END
$$;

-- The sessions that the caller runs or has (or had) a seat in. As one array it is computed once a query and serves as
-- an index condition, where a subquery in a policy becomes a hash of the whole other table.
CREATE OR REPLACE FUNCTION private.my_session_ids()
RETURNS uuid[]
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = ''
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
SET search_path = ''
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
