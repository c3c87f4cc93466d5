-- One statement of the API inserts, changes or deletes at most a hundred rows of a table: fifty thousand events in one
-- statement would make all participants of the session wait, and so would a document written to every session that one
-- Seer has ever run. `policies/limits.sql` refuses row 101 as it is written. The end of the statement is checked here,
-- because a statement may have several writing parts (`WITH ... INSERT`), whose rows are counted together, and may find
-- all rows before it deletes the first. Neither count is kept where a caller could change it. Rows that our triggers
-- write as their owner, and rows that are deleted with the one that they belong to, are not counted; the rows that
-- caused them are.
--
-- These rules apply to the API's roles and the logins that may assume them, if row security applies to them. A
-- statement can change its role (`RETURNING set_config('role', 'none', true)`) and then runs as such a login. Row
-- security does not apply to the owner, as whom our triggers write, nor to the service. An operator's own role is not
-- limited. The condition is repeated in each function, because a function of its own would need EXECUTE for all of
-- these roles.

CREATE OR REPLACE FUNCTION private.refuse_many_rows(relation text)
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

-- The account is checked again as well: expressions of the statement are evaluated after the policies, and one of them
-- may have closed it. Other transactions cannot, because the policies have locked its gate. So the account is checked
-- only in a transaction that has changed a gate, by a count that the server keeps and no caller can reset.
CREATE OR REPLACE FUNCTION private.check_written_rows()
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
    PERFORM private.require_account() FROM written_rows LIMIT 1;
  END IF;
  IF EXISTS (SELECT FROM written_rows OFFSET 100) THEN
    PERFORM private.refuse_many_rows(TG_TABLE_NAME);
  END IF;
  RETURN NULL;
END
$$;

-- The same check for deleted creatures. It does not count those that are deleted with their adventure.
CREATE OR REPLACE FUNCTION private.check_deleted_creatures()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- Not merged with the condition below: the service lacks EXECUTE on `owns_adventure`.
  IF NOT (
    row_security_active(TG_RELID)
    AND (pg_has_role('anon', 'MEMBER') OR pg_has_role('authenticated', 'MEMBER'))
  ) THEN
    RETURN NULL;
  END IF;
  IF pg_stat_get_xact_tuples_updated('private.account_gates'::regclass) > 0 THEN
    PERFORM private.require_account() FROM written_rows LIMIT 1;
  END IF;
  IF EXISTS (SELECT FROM written_rows WHERE private.owns_adventure(adventure_id) OFFSET 100) THEN
    PERFORM private.refuse_many_rows(TG_TABLE_NAME);
  END IF;
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER limit_deleted_rows
  AFTER DELETE ON public.creatures
  REFERENCING OLD TABLE AS written_rows
  FOR EACH STATEMENT EXECUTE FUNCTION private.check_deleted_creatures();

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

-- The events of one statement of the API belong to one session. Each event locks its session as it arrives, in the
-- order of the caller's rows, which would deadlock with the Seer's update of the same sessions. So the second session
-- is refused here, before `number_event` locks it. The session of the first row is kept in a setting until the
-- statement ends; a caller who changes it is refused at the end.
CREATE OR REPLACE FUNCTION private.limit_to_one_session()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  first_session text;
BEGIN
  IF NOT (
    row_security_active(TG_RELID)
    AND (pg_has_role('anon', 'MEMBER') OR pg_has_role('authenticated', 'MEMBER'))
  ) THEN
    RETURN NEW;
  END IF;
  -- Row security would refuse an event of another type, or of none. It is refused here, before it locks a session and
  -- draws a number.
  IF starts_with(NEW.event_type, 'client.') IS NOT TRUE THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = 'new row violates row-level security policy for table "session_events"';
  END IF;
  first_session := nullif(current_setting('sparc.session_of_events', true), '');
  IF first_session IS NULL THEN
    first_session := set_config('sparc.session_of_events', NEW.session_id::text, true);
  END IF;
  IF first_session <> NEW.session_id::text THEN
    PERFORM private.refuse_several_sessions('session_events');
  END IF;
  RETURN NEW;
END
$$;

-- Does the same as `check_written_rows`, and also refuses events of several sessions. Almost every statement writes
-- only one event, which costs one query here.
CREATE OR REPLACE FUNCTION private.check_written_events()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  counts record;
BEGIN
  -- The next statement may write events of another session, so this clears the setting, which returns the empty text.
  IF NOT (
    row_security_active(TG_RELID)
    AND (pg_has_role('anon', 'MEMBER') OR pg_has_role('authenticated', 'MEMBER'))
  )
    OR set_config('sparc.session_of_events', '', true) <> ''
  THEN
    RETURN NULL;
  END IF;
  IF pg_stat_get_xact_tuples_updated('private.account_gates'::regclass) > 0 THEN
    PERFORM private.require_account() FROM written_rows LIMIT 1;
  END IF;
  IF EXISTS (SELECT FROM written_rows OFFSET 1) THEN
    SELECT count(*) AS events, min(session_id::text) <> max(session_id::text) AS has_several_sessions
    INTO counts
    FROM written_rows;
    IF counts.events > 100 THEN
      PERFORM private.refuse_many_rows('session_events');
    END IF;
    IF counts.has_several_sessions THEN
      PERFORM private.refuse_several_sessions('session_events');
    END IF;
  END IF;
  RETURN NULL;
END
$$;

-- Its name puts it before `number_event`.
CREATE OR REPLACE TRIGGER limit_to_one_session
  BEFORE INSERT ON public.session_events
  FOR EACH ROW EXECUTE FUNCTION private.limit_to_one_session();

CREATE OR REPLACE TRIGGER limit_rows
  AFTER INSERT ON public.session_events
  REFERENCING NEW TABLE AS written_rows
  FOR EACH STATEMENT EXECUTE FUNCTION private.check_written_events();

DO $$
DECLARE
  limit_trigger record;
BEGIN
  -- Every table and command of `policies/closed_accounts.sql`. Where an account has at most about a hundred rows, only
  -- the check of the account matters.
  FOR limit_trigger IN
    SELECT *
    FROM (
      VALUES
        ('limit_rows', 'INSERT', 'NEW',
          '{characters,adventures,creatures,sessions,session_players,dice_rolls,tutorial_progress}'),
        ('limit_updated_rows', 'UPDATE', 'NEW',
          '{users,characters,adventures,creatures,sessions,session_players,tutorial_progress}'),
        ('limit_deleted_rows', 'DELETE', 'OLD', '{characters,adventures}')
    ) AS limit_triggers (name, command, rows, relations),
      unnest(relations::text[]) AS relation
  LOOP
    EXECUTE format(
      'CREATE OR REPLACE TRIGGER %I
         AFTER %s ON public.%I
         REFERENCING %s TABLE AS written_rows
         FOR EACH STATEMENT EXECUTE FUNCTION private.check_written_rows()',
      limit_trigger.name, limit_trigger.command, limit_trigger.relation, limit_trigger.rows
    );
  END LOOP;
END
$$;
