-- Within a session, events become visible in the order of their numbers. They are deleted after a day. Users may send
-- only *client events*, whose type begins with `client.`.

-- Draws the number of an event (`seq`), and sets its sender from the token, whatever a client sends. Refuses a client
-- event from a user who neither is the Seer nor holds a seat, and a client event whose payload clients cannot parse
-- (see `is_client_parsable`). At most once a day, updates the session's `last_event_at`. The writer of an event locks
-- the session until the end of the transaction, so within a session numbers become visible in order: a reader that has
-- seen a number has missed no lower one.
CREATE OR REPLACE FUNCTION private.prepare_event()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me CONSTANT uuid := auth.uid();
  is_client_event CONSTANT boolean := starts_with(NEW.event_type, 'client.');
  is_sent_by_user boolean := false;
  previous_last_event_at timestamptz;
BEGIN
  IF is_client_event THEN
    is_sent_by_user := NOT private.is_service();
  END IF;
  IF is_sent_by_user THEN
    -- This trigger runs before row security is evaluated. A caller who neither is the Seer nor holds a seat must not
    -- lock the session, so such a caller's event is refused here. The account's row in `private.account_gates` is
    -- locked first, as the lock order (`shared.sql`) demands.
    PERFORM private.lock_gate(me);
    SELECT session.last_event_at
    INTO previous_last_event_at
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
    -- Row security cannot replace this check, because row security uses the statement's snapshot: it would miss that
    -- the caller has left since the statement began, or leaves in the same statement (in a WITH clause). The caller may
    -- also have left while the query above waited for the lock, so `is_seer_or_seated` looks again. Before the general
    -- error is raised, the policy's function, `may_send_event`, is called: its own error states the reason, if the
    -- caller may know it.
    IF NOT FOUND OR NOT private.is_seer_or_seated(NEW.session_id) THEN
      PERFORM private.may_send_event(NEW.session_id);
      RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege',
        MESSAGE = 'new row violates row-level security policy for table "session_events"';
    END IF;
  ELSE
    SELECT last_event_at
    INTO previous_last_event_at
    FROM public.sessions
    WHERE id = NEW.session_id
    FOR NO KEY UPDATE;
  END IF;
  IF is_client_event AND NOT private.is_client_parsable(NEW.payload, 16384) THEN
    PERFORM private.refuse_unparsable_document('session_events', 'payload');
  END IF;
  NEW.seq := nextval('public.session_events_seq_seq');
  NEW.sender_id := me;
  -- One update a day is enough to recognize an abandoned session. Each update of `last_event_at` writes a new version
  -- of the session's row.
  IF previous_last_event_at < now() - INTERVAL '1 day' THEN
    UPDATE public.sessions
    SET last_event_at = now()
    WHERE id = NEW.session_id;
  END IF;
  RETURN NEW;
END
$$;

-- Returns `may_read` if the account may read the session's events, and otherwise the reason why not. The rule is that
-- of the policy on events, but a closed account may read none. A NULL account stands for the service, for which the
-- session only has to exist.
CREATE OR REPLACE FUNCTION private.event_access(target_session_id uuid, account uuid)
RETURNS text
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  session_seer_id uuid;
BEGIN
  IF EXISTS (SELECT FROM public.users WHERE id = account AND closed_at IS NOT NULL) THEN
    RETURN 'account_closed';
  END IF;
  SELECT seer_id
  INTO session_seer_id
  FROM public.sessions
  WHERE id = target_session_id;
  IF NOT FOUND THEN
    RETURN 'no_session';
  END IF;
  IF account IS NULL OR account = session_seer_id
    OR EXISTS (
      SELECT
      FROM public.session_players
      WHERE session_id = target_session_id
        AND user_id = account
        AND removed_at IS NULL
    )
  THEN
    RETURN 'may_read';
  END IF;
  RETURN 'not_participant';
END
$$;

-- Returns the `event_access` of the caller. A user gets the same answer for a session that does not exist as for a
-- session of others.
CREATE OR REPLACE FUNCTION private.my_event_access(target_session_id uuid)
RETURNS text
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me uuid := auth.uid();
  access text := private.event_access(target_session_id, me);
BEGIN
  RETURN CASE
    WHEN private.is_service() THEN access
    WHEN me IS NULL OR access = 'no_session' THEN 'not_participant'
    ELSE access
  END;
END
$$;

-- Returns true if the caller may read the session's events, and otherwise raises an error. Queries of events have this
-- as a condition; without it, a caller who may not read the events would get an empty page instead of an error.
CREATE OR REPLACE FUNCTION private.require_event_access(target_session_id uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  CASE private.my_event_access(target_session_id)
    WHEN 'may_read' THEN
      RETURN true;
    WHEN 'account_closed' THEN
      PERFORM private.refuse_closed_account();
    WHEN 'no_session' THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP038',
        MESSAGE = 'The session does not exist',
        TABLE = 'sessions',
        CONSTRAINT = 'known_session';
    ELSE
      RAISE EXCEPTION USING
        ERRCODE = 'SP037',
        MESSAGE = 'Only participants may read a session''s events',
        TABLE = 'session_events',
        CONSTRAINT = 'event_reader_participates';
  END CASE;
  RETURN false;
END
$$;

-- Returns a text that identifies the history of events on this server. The text changes when the server is restarted, a
-- standby is promoted in its place, or the database is created again from a backup. Then events that clients have seen
-- may be missing, and their numbers may be given to other events. On a standby this function raises an error, because a
-- standby shows events late.
CREATE OR REPLACE FUNCTION private.event_history_id()
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
      MESSAGE = 'Events must be read from the primary server, not from a standby';
  END IF;
  RETURN concat_ws(
    '.',
    extract(EPOCH FROM pg_postmaster_start_time()),
    (SELECT oid FROM pg_database WHERE datname = current_database())
  );
END
$$;

-- Lets the Rust crate `service`, which calls this regularly, see whether new events were written, at a cost that does
-- not depend on the number of sessions. On the primary server, `last_drawn_or_replayed` is the highest number drawn so
-- far. A number is drawn before its event becomes visible, by a transaction that has already locked the session's row
-- and therefore has a transaction id. So once no transaction with an id below `next_transaction` is running, each event
-- whose number is at most `last_drawn_or_replayed` is either visible or was rolled back. That is so once a later call
-- returns an `oldest_transaction`, the lowest id of a running transaction, that has reached the `next_transaction` of
-- this call. `history_id` is the result of `event_history_id`. On a standby, `last_drawn_or_replayed` is a log position
-- (see below), the two transaction ids are 0, and `history_id` is NULL.
CREATE OR REPLACE FUNCTION private.event_number_progress()
RETURNS TABLE (last_drawn_or_replayed bigint, oldest_transaction bigint, next_transaction bigint, history_id text)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  snapshot_xmin xid8 := pg_snapshot_xmin(pg_current_snapshot());
BEGIN
  -- On a standby the sequence shows the last value in the write-ahead log, which may be up to 32 numbers ahead of those
  -- drawn. There `last_drawn_or_replayed` is the log position that was replayed: it grows with every write, and all
  -- events that were committed before this position are visible. So the ids of transactions are not needed there, and
  -- are 0.
  IF pg_is_in_recovery() THEN
    RETURN QUERY
    SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint, 0::bigint, 0::bigint, NULL::text;
    RETURN;
  END IF;
  -- The snapshot's xmax is too low for `next_transaction`: it follows the newest transaction that has ended, and newer
  -- ones may be running. In a transaction that has no id of its own, such as a read-only one, the first call of `age()`
  -- counts from the next id that the server will assign.
  RETURN QUERY
  SELECT
    last_value,
    snapshot_xmin::text::bigint,
    snapshot_xmin::text::bigint + age(snapshot_xmin::xid),
    private.event_history_id()
  FROM public.session_events_seq_seq;
END
$$;

-- Deletes up to `batch_size` events older than a day, and skips rows that another transaction has locked. It reads only
-- the oldest events, at most twice as many as it may delete. Reading more than it deletes lets several clean-ups share
-- the work. Without a bound, each clean-up would read past thousands of old events if a transaction kept them locked.
-- Sequential scans are disabled, because a connection may have cached a plan while the table was empty, and that plan
-- would read all of it. The deletion finds the rows by ctid, which is safe because a locked row does not move.
CREATE OR REPLACE FUNCTION private.delete_old_events(batch_size integer)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
  deleted_count integer;
BEGIN
  DELETE FROM public.session_events
  WHERE ctid = ANY (
    ARRAY(
      SELECT old_event.ctid
      FROM public.session_events AS old_event
      WHERE old_event.ctid = ANY (
        ARRAY(
          SELECT oldest_event.ctid
          FROM public.session_events AS oldest_event
          WHERE oldest_event.created_at < now() - INTERVAL '24 hours'
          ORDER BY oldest_event.created_at
          LIMIT 2 * batch_size
        )
      )
      LIMIT batch_size
      FOR UPDATE SKIP LOCKED
    )
  );
  GET DIAGNOSTICS deleted_count = ROW_COUNT;
  RETURN deleted_count;
END
$$;

-- Runs after each statement that inserts events. Mostly there is nothing to clean up, so this function first looks for
-- an old event: a query costs less than a DELETE that finds no row. A transaction that closes an account deletes no old
-- events, because `lock_gate_and_rows` sets `sparc.keeps_old_events` in it. A client may set it too, which does no
-- harm: events of other clients, and maintenance, still delete old events.
CREATE OR REPLACE FUNCTION private.cleanup_old_events()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
  IF current_setting('sparc.keeps_old_events', true) IS DISTINCT FROM 'on'
    AND EXISTS (SELECT FROM public.session_events WHERE created_at < now() - INTERVAL '24 hours')
  THEN
    PERFORM private.delete_old_events(100);
  END IF;
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER prepare_event
  BEFORE INSERT ON public.session_events
  FOR EACH ROW EXECUTE FUNCTION private.prepare_event();

CREATE OR REPLACE TRIGGER cleanup_events_trigger
  AFTER INSERT ON public.session_events
  FOR EACH STATEMENT EXECUTE FUNCTION private.cleanup_old_events();

-- The payload of a new event is checked in `prepare_event`.
CREATE OR REPLACE TRIGGER check_parsable_payload
  BEFORE UPDATE OF payload ON public.session_events
  FOR EACH ROW
  WHEN (starts_with(NEW.event_type, 'client.') AND NOT private.is_client_parsable(NEW.payload, 16384))
  EXECUTE FUNCTION private.refuse_unparsable_column('payload');
