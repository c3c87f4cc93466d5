-- Events come in one order a session and are kept for a day.

-- Whoever writes an event holds the session until the end of the transaction, so that numbers become visible in their
-- order: a reader that has seen one has missed none before it. The sender comes from the token, whatever a client says.
CREATE OR REPLACE FUNCTION private.number_event()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me CONSTANT uuid := auth.uid();
  is_clients CONSTANT boolean := starts_with(NEW.event_type, 'client.');
  is_users boolean := false;
  last_event timestamptz;
BEGIN
  IF is_clients THEN
    is_users := me IS NOT NULL AND NOT private.is_server();
  END IF;
  IF is_users THEN
    -- It comes here before row security: who is no participant locks no session, and is refused by it. The gate of the account is
    -- locked first.
    PERFORM private.enter_gate(me);
    SELECT session.last_event_at
    INTO last_event
    FROM public.sessions AS session
    WHERE session.id = NEW.session_id
      AND (
        session.seer_id = me
        OR EXISTS (
          SELECT
          FROM public.session_players AS seat
          WHERE seat.session_id = NEW.session_id
            AND seat.user_id = me
            AND seat.is_active
        )
      )
    FOR NO KEY UPDATE OF session;
    IF NOT FOUND THEN
      RETURN NEW;
    END IF;
    -- Row security will speak by the statement's snapshot; the session is locked now, and may have changed.
    IF NOT private.is_at_table(NEW.session_id) THEN
      RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege',
        MESSAGE = 'new row violates row-level security policy for table "session_events"';
    END IF;
  ELSE
    SELECT last_event_at
    INTO last_event
    FROM public.sessions
    WHERE id = NEW.session_id
    FOR NO KEY UPDATE;
  END IF;
  IF is_clients AND NOT private.is_readable(NEW.payload, 16384) THEN
    PERFORM private.refuse_unreadable('session_events', 'payload');
  END IF;
  NEW.seq := nextval('public.session_events_seq_seq');
  NEW.sender_id := me;
  -- Once a day is enough to tell an abandoned session, and spares each event a new version of the session.
  IF last_event < now() - INTERVAL '1 day' THEN
    UPDATE public.sessions
    SET last_event_at = now()
    WHERE id = NEW.session_id;
  END IF;
  RETURN NEW;
END
$$;

-- Whether an account may listen to a session, by the rule of the policy: `listens`, or why not. No account is the service, for
-- which the session must exist.
CREATE OR REPLACE FUNCTION private.listener_status(wanted uuid, account uuid)
RETURNS text
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  seer uuid;
BEGIN
  IF EXISTS (SELECT FROM public.users WHERE id = account AND closed_at IS NOT NULL) THEN
    RETURN 'account_closed';
  END IF;
  SELECT seer_id
  INTO seer
  FROM public.sessions
  WHERE id = wanted;
  IF NOT FOUND THEN
    RETURN 'no_session';
  END IF;
  IF account IS NULL OR account = seer
    OR EXISTS (SELECT FROM public.session_players WHERE session_id = wanted AND user_id = account)
  THEN
    RETURN 'listens';
  END IF;
  RETURN 'not_participant';
END
$$;

-- The same for the caller. To a user a session that does not exist is one of others.
CREATE OR REPLACE FUNCTION private.my_listener_status(wanted uuid)
RETURNS text
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me uuid := auth.uid();
  status text := private.listener_status(wanted, me);
BEGIN
  RETURN CASE
    WHEN me IS NULL OR status <> 'no_session' THEN status
    ELSE 'not_participant'
  END;
END
$$;

-- The same as a condition: true, or an error. A page of events that is empty would else not tell whether there are none.
CREATE OR REPLACE FUNCTION private.require_listener(wanted uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  CASE private.my_listener_status(wanted)
    WHEN 'listens' THEN
      RETURN true;
    WHEN 'account_closed' THEN
      PERFORM private.refuse_closed_account();
    WHEN 'no_session' THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP038',
        MESSAGE = 'There is no such session',
        TABLE = 'sessions',
        CONSTRAINT = 'known_session';
    ELSE
      RAISE EXCEPTION USING
        ERRCODE = 'SP037',
        MESSAGE = 'Only participants may listen to a session',
        TABLE = 'session_events',
        CONSTRAINT = 'listener_participates';
  END CASE;
  RETURN false;
END
$$;

-- Which history of events the server has. A server that was started again, promoted or restored may lack what was seen on the one
-- before it, and give the same numbers to other events. A standby shows events late, and answers nobody.
CREATE OR REPLACE FUNCTION private.event_history()
RETURNS text
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION USING
      ERRCODE = 'read_only_sql_transaction',
      MESSAGE = 'Events are read from the server that is written to';
  END IF;
  RETURN concat_ws(
    '.',
    extract(EPOCH FROM pg_postmaster_start_time()),
    (SELECT oid FROM pg_database WHERE datname = current_database())
  );
END
$$;

-- Whether anybody wrote an event lately, for whoever polls: a look that costs the same however many sessions there are. A number
-- is drawn before its event is visible, by a transaction that has an id already, because it holds the session. So what was drawn
-- by now is visible, or was rolled back, as soon as no transaction before `next_transaction` is left.
CREATE OR REPLACE FUNCTION private.event_clock()
RETURNS TABLE (drawn bigint, oldest_transaction bigint, next_transaction bigint, history text)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  oldest xid8 := pg_snapshot_xmin(pg_current_snapshot());
BEGIN
  -- There the sequence is that of its last record in the log, many numbers ahead. What was replayed is a clock as well, and all of
  -- it is visible.
  IF pg_is_in_recovery() THEN
    RETURN QUERY
    SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint, 0::bigint, 0::bigint, NULL::text;
    RETURN;
  END IF;
  -- The snapshot's own end is that of the last transaction that ended, not of the last that began.
  RETURN QUERY
  SELECT last_value, oldest::text::bigint, oldest::text::bigint + age(oldest::xid), private.event_history()
  FROM public.session_events_seq_seq;
END
$$;

-- The oldest go, a bounded number at a time, found by their index; rows that another clean-up holds are left to it. A plan
-- that a connection made while the table was empty would read all of it, and be kept, so the index is insisted on.
-- Rows that are locked stay where they are, so they are found again by their place.
CREATE OR REPLACE FUNCTION private.clean_events(batch integer)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
  gone integer;
BEGIN
  DELETE FROM public.session_events
  WHERE ctid = ANY (
    ARRAY(
      SELECT old.ctid
      FROM public.session_events AS old
      WHERE old.created_at < now() - INTERVAL '24 hours'
      ORDER BY old.created_at
      LIMIT batch
      FOR UPDATE SKIP LOCKED
    )
  );
  GET DIAGNOSTICS gone = ROW_COUNT;
  RETURN gone;
END
$$;

-- With most events there is nothing to clean: a look costs less than a deletion of nothing.
CREATE OR REPLACE FUNCTION private.cleanup_old_events()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
  IF EXISTS (SELECT FROM public.session_events WHERE created_at < now() - INTERVAL '24 hours') THEN
    PERFORM private.clean_events(100);
  END IF;
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER number_event
  BEFORE INSERT ON public.session_events
  FOR EACH ROW EXECUTE FUNCTION private.number_event();

CREATE OR REPLACE TRIGGER cleanup_events_trigger
  AFTER INSERT ON public.session_events
  FOR EACH STATEMENT EXECUTE FUNCTION private.cleanup_old_events();

-- A new event is looked at where it is numbered.
CREATE OR REPLACE TRIGGER check_readable_payload
  BEFORE UPDATE OF payload ON public.session_events
  FOR EACH ROW
  WHEN (starts_with(NEW.event_type, 'client.') AND NOT private.is_readable(NEW.payload, 16384))
  EXECUTE FUNCTION private.check_readable('payload');
