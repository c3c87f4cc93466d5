-- Where the platform (Supabase) has `realtime.send`, each event is also sent as a private broadcast on the topic
-- `session:<id>`. An operator turns this off with `ALTER DATABASE ... SET sparc.broadcast = 'off'`. The trigger reads
-- that setting from the catalog, not with `current_setting`, because a caller could set the parameter.

-- Whether a broadcast is to be sent now: the operator has not turned broadcasts off, and a broadcast would arrive. It
-- would not arrive if a privilege is missing, or if the table of messages has no partition for the current day (in UTC,
-- which `broadcast_event` sets): the platform creates the partition only once a client has connected. Without that
-- partition, `realtime.send` would write a warning to the server's log for each event.
--
-- If a partition was found, the positive answer is cached in a setting of the connection, until the end of that
-- partition and for a day at most. A caller who changes this setting cannot suppress a broadcast: a time in the
-- future means yes, and with any other value the function looks again.
CREATE OR REPLACE FUNCTION private.can_broadcast()
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  send_function CONSTANT regprocedure := to_regprocedure('realtime.send(jsonb,text,text,boolean)');
  messages_table CONSTANT regclass := to_regclass('realtime.messages');
  -- The time until which the cached answer holds, in seconds since 1970.
  cached_until CONSTANT text := coalesce(current_setting('sparc.can_broadcast_until', true), '');
  partition_end timestamp;
BEGIN
  IF send_function IS NULL
    OR EXISTS (
      SELECT
      FROM pg_db_role_setting
      WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND setrole = 0
        AND 'sparc.broadcast=off' = ANY (setconfig)
    )
  THEN
    RETURN false;
  END IF;
  IF cached_until ~ '^[0-9]{1,12}$' AND extract(epoch FROM localtimestamp) < cached_until::bigint THEN
    RETURN true;
  END IF;
  IF messages_table IS NULL
    OR NOT has_function_privilege(send_function, 'EXECUTE')
    OR NOT has_table_privilege(messages_table, 'INSERT')
  THEN
    RETURN false;
  END IF;
  -- A table that is not partitioned needs no partition for this day.
  IF NOT EXISTS (SELECT FROM pg_class WHERE oid = messages_table AND relkind = 'p') THEN
    RETURN true;
  END IF;
  SELECT max(bounds[2]::timestamp)
  INTO partition_end
  FROM pg_inherits
  JOIN pg_class AS partition ON partition.oid = inhrelid
  CROSS JOIN LATERAL (
    SELECT CASE pg_get_expr(partition.relpartbound, partition.oid)
      WHEN 'DEFAULT' THEN ARRAY['-infinity', 'infinity']
      ELSE regexp_match(pg_get_expr(partition.relpartbound, partition.oid), $re$FROM \('([^']+)'\) TO \('([^']+)'\)$re$)
    END AS bounds
  ) AS range
  WHERE inhparent = messages_table
    AND localtimestamp >= bounds[1]::timestamp
    AND localtimestamp < bounds[2]::timestamp;
  IF partition_end IS NULL THEN
    RETURN false;
  END IF;
  PERFORM set_config(
    'sparc.can_broadcast_until',
    extract(epoch FROM least(partition_end, localtimestamp + INTERVAL '1 day'))::bigint::text,
    false
  );
  RETURN true;
END
$$;

-- Sends the broadcast of an event. If that fails, the event is stored all the same. `realtime.send` writes into the
-- partition of `realtime.messages` for the date in the time zone of the database session. A caller could set a time
-- zone whose date has no partition yet, so this function sets UTC. Somebody else may hold a lock on that table. Even a
-- long read may block this function: the platform's removal of a partition waits for the read, and this function waits
-- behind the removal. So this function waits at most a tenth of a second for a lock.
CREATE OR REPLACE FUNCTION private.broadcast_event()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '100ms'
AS $$
BEGIN
  BEGIN
    IF private.can_broadcast() THEN
      PERFORM realtime.send(
        jsonb_build_object(
          'id', NEW.id,
          'session_id', NEW.session_id,
          'seq', NEW.seq,
          'event_type', NEW.event_type,
          'payload', NEW.payload,
          'sender_id', NEW.sender_id,
          'created_at', NEW.created_at
        ),
        NEW.event_type,
        'session:' || NEW.session_id,
        true
      );
    END IF;
  EXCEPTION
    WHEN OTHERS THEN
      NULL;
  END;
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER broadcast_event
  AFTER INSERT ON public.session_events
  FOR EACH ROW
  WHEN (to_regnamespace('realtime') IS NOT NULL)
  EXECUTE FUNCTION private.broadcast_event();
