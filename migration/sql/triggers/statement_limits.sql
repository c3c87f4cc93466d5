-- One statement of a user inserts, changes or deletes at most a hundred rows of a table. Otherwise one INSERT of fifty
-- thousand events would make all participants of the session wait, and so would one UPDATE that writes a large document
-- to every session that a Seer has ever run. In addition, all events of one statement must belong to one session; all
-- rolls must, too, which `finish_roll` in `triggers/dice_rolls.sql` checks.
--
-- The policies of `policies/statement_limits.sql` refuse row 101 as it is written. They refuse a deletion only when it
-- finds another row after it has deleted 101, so not a deletion of exactly 101 rows. They also miss two kinds of
-- statements: one with several writing parts (`WITH ... INSERT`), each of which they count separately, and a deletion
-- that finds all its rows before it deletes the first. The triggers here count all rows at the end of the statement.
-- Neither the count of the policies nor that of the triggers is kept where a caller could change it. Rows that our
-- triggers write as the owner of the tables, and rows that are deleted with their parent row, are not counted.
--
-- These rules apply to the roles `anon` and `authenticated`, and to each login that may assume one of them and is
-- itself subject to row security. The logins are included because a statement can change its role (`RETURNING
-- set_config('role', 'none', true)`) and then runs as its login. Row security does not apply to the service (role
-- `service_role`), nor to the owner, as whom our triggers write. An operator's role that may assume neither `anon` nor
-- `authenticated` is not limited. Each trigger function below repeats the condition that decides to whom the rules
-- apply. It begins with `row_security_active`. If the condition were a function of its own, all of these roles would
-- need EXECUTE on it.

-- Always raises an error. It is declared to return a boolean because the policies of `policies/statement_limits.sql`
-- call it in their conditions.
CREATE OR REPLACE FUNCTION private.refuse_too_many_rows(relation text)
RETURNS boolean
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'SP027',
    MESSAGE = 'One statement may insert, change or delete at most 100 rows of a table',
    TABLE = relation,
    CONSTRAINT = 'rows_per_statement';
END
$$;

-- Checks the number of rows, and checks the account again: an expression of the statement, evaluated after the
-- policies, may have closed the account. Another transaction cannot have closed it, because the policies have locked
-- the account's row in `private.account_gates`, and closing the account updates that row. So the account is checked
-- only if this transaction has updated a row of that table, which the server's own count of updated rows shows. No
-- caller can reset that count.
CREATE OR REPLACE FUNCTION private.check_affected_rows()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT (
    row_security_active(TG_RELID)
    AND (pg_has_role('anon', 'MEMBER') OR pg_has_role('authenticated', 'MEMBER'))
  ) THEN
    RETURN NULL;
  END IF;
  IF pg_stat_get_xact_tuples_updated('private.account_gates'::regclass) > 0 THEN
    -- If no row was affected, `require_open_account` is not called.
    PERFORM private.require_open_account() FROM affected_rows LIMIT 1;
  END IF;
  IF EXISTS (SELECT FROM affected_rows OFFSET 100) THEN
    PERFORM private.refuse_too_many_rows(TG_TABLE_NAME);
  END IF;
  RETURN NULL;
END
$$;

-- Does the same as `check_affected_rows` for deleted creatures. Creatures that are deleted with their adventure are not
-- counted: the caller no longer owns an adventure that is gone.
--
-- If the statement also deletes adventures, the database deletes their creatures in the name of the tables' owner, and
-- this trigger runs only once, after both. From PostgreSQL 18 on, it then runs as the owner, so `current_user` does not
-- show who the caller is. So the condition also looks at the role that was set with SET ROLE, and if none is set, at
-- the login.
CREATE OR REPLACE FUNCTION private.check_deleted_creatures()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- This is a separate IF, and not part of the last condition below: the service has no EXECUTE on `owns_adventure`,
  -- and PostgreSQL checks that privilege for every call in an expression, even for one that is not evaluated.
  IF NOT (
    (
      row_security_active(TG_RELID)
      AND (pg_has_role('anon', 'MEMBER') OR pg_has_role('authenticated', 'MEMBER'))
    )
    OR current_setting('role') IN ('anon', 'authenticated')
    OR (
      current_setting('role') = 'none'
      AND current_user <> session_user
      AND (pg_has_role(session_user, 'anon', 'MEMBER') OR pg_has_role(session_user, 'authenticated', 'MEMBER'))
      AND NOT pg_has_role(session_user, 'service_role', 'MEMBER')
    )
  ) THEN
    RETURN NULL;
  END IF;
  IF pg_stat_get_xact_tuples_updated('private.account_gates'::regclass) > 0 THEN
    PERFORM private.require_open_account() FROM deleted_rows LIMIT 1;
  END IF;
  IF EXISTS (SELECT FROM deleted_rows WHERE private.owns_adventure(adventure_id) OFFSET 100) THEN
    PERFORM private.refuse_too_many_rows(TG_TABLE_NAME);
  END IF;
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER limit_deleted_rows
  AFTER DELETE ON public.creatures
  REFERENCING OLD TABLE AS deleted_rows
  FOR EACH STATEMENT EXECUTE FUNCTION private.check_deleted_creatures();

-- Always raises an error. `relation` is `session_events` or `dice_rolls`.
CREATE OR REPLACE FUNCTION private.refuse_several_sessions(relation text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'SP039',
    MESSAGE = format(
      'All %s of one statement must belong to one session',
      CASE relation WHEN 'dice_rolls' THEN 'rolls' ELSE 'events' END
    ),
    TABLE = relation,
    CONSTRAINT = 'session_of_statement';
END
$$;

-- All events of one statement of a user must belong to one session. Each event locks its session before it is inserted.
-- A statement with several sessions would lock them in the order of the caller's rows, and could deadlock with the
-- Seer's update of the same sessions. So an event of a second session is refused here, before `prepare_event` locks
-- that session. The session of the first row is kept in a setting until the statement ends. If a caller changes the
-- setting, `check_written_events` still refuses the second session at the end of the statement.
CREATE OR REPLACE FUNCTION private.limit_events_to_one_session()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  first_session_id text;
BEGIN
  IF NOT (
    row_security_active(TG_RELID)
    AND (pg_has_role('anon', 'MEMBER') OR pg_has_role('authenticated', 'MEMBER'))
  ) THEN
    RETURN NEW;
  END IF;
  -- Row security would refuse an event whose type does not begin with `client.`. Such an event is refused here already,
  -- before `prepare_event` locks its session.
  IF starts_with(NEW.event_type, 'client.') IS NOT TRUE THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = 'new row violates row-level security policy for table "session_events"';
  END IF;
  first_session_id := nullif(current_setting('sparc.session_of_events', true), '');
  IF first_session_id IS NULL THEN
    first_session_id := set_config('sparc.session_of_events', NEW.session_id::text, true);
  END IF;
  IF first_session_id <> NEW.session_id::text THEN
    PERFORM private.refuse_several_sessions('session_events');
  END IF;
  RETURN NEW;
END
$$;

-- Does the same as `check_affected_rows`, and also refuses events of several sessions. Almost every statement writes
-- only one event, for which this function runs only one query.
CREATE OR REPLACE FUNCTION private.check_written_events()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  event_summary record;
BEGIN
  -- `set_config` is called only for its effect: it clears the setting, because the next statement may write events of
  -- another session. The comparison of its result is always false, because `set_config` returns the new value, the
  -- empty text.
  IF NOT (
    row_security_active(TG_RELID)
    AND (pg_has_role('anon', 'MEMBER') OR pg_has_role('authenticated', 'MEMBER'))
  )
    OR set_config('sparc.session_of_events', '', true) <> ''
  THEN
    RETURN NULL;
  END IF;
  IF pg_stat_get_xact_tuples_updated('private.account_gates'::regclass) > 0 THEN
    PERFORM private.require_open_account() FROM affected_rows LIMIT 1;
  END IF;
  IF EXISTS (SELECT FROM affected_rows OFFSET 1) THEN
    SELECT count(*) AS event_count, min(session_id::text) <> max(session_id::text) AS has_several_sessions
    INTO event_summary
    FROM affected_rows;
    IF event_summary.event_count > 100 THEN
      PERFORM private.refuse_too_many_rows('session_events');
    END IF;
    IF event_summary.has_several_sessions THEN
      PERFORM private.refuse_several_sessions('session_events');
    END IF;
  END IF;
  RETURN NULL;
END
$$;

-- Its name puts this trigger before `prepare_event`.
CREATE OR REPLACE TRIGGER limit_events_to_one_session
  BEFORE INSERT ON public.session_events
  FOR EACH ROW EXECUTE FUNCTION private.limit_events_to_one_session();

CREATE OR REPLACE TRIGGER limit_inserted_rows
  AFTER INSERT ON public.session_events
  REFERENCING NEW TABLE AS affected_rows
  FOR EACH STATEMENT EXECUTE FUNCTION private.check_written_events();

DO $$
DECLARE
  limit_trigger record;
BEGIN
  -- The list contains every table and command of `policies/closed_accounts.sql`, except those that have a trigger
  -- above. Some tables can have no more than a hundred rows per account. For them the trigger is needed because it also
  -- checks the account.
  FOR limit_trigger IN
    SELECT *
    FROM (
      VALUES
        ('limit_inserted_rows', 'INSERT', 'NEW',
          '{characters,adventures,creatures,sessions,session_players,dice_rolls,tutorial_progress}'),
        ('limit_updated_rows', 'UPDATE', 'NEW',
          '{users,characters,adventures,creatures,sessions,session_players,tutorial_progress}'),
        ('limit_deleted_rows', 'DELETE', 'OLD', '{characters,adventures}')
    ) AS limit_triggers (name, command, transition_table, relations),
      unnest(relations::text[]) AS relation
  LOOP
    EXECUTE format(
      'CREATE OR REPLACE TRIGGER %I
         AFTER %s ON public.%I
         REFERENCING %s TABLE AS affected_rows
         FOR EACH STATEMENT EXECUTE FUNCTION private.check_affected_rows()',
      limit_trigger.name, limit_trigger.command, limit_trigger.relation, limit_trigger.transition_table
    );
  END LOOP;
END
$$;
