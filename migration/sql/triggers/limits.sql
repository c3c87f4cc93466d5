-- One statement of the API inserts, changes or deletes at most a hundred rows of a table: fifty thousand events in one
-- statement would make all participants of the session wait, and so would a document written to every session that one
-- Seer has ever run. `policies/limits.sql` refuses row 101 as it is written. What that misses is refused here, at the
-- statement's end: a statement may have several writing parts (`WITH ... INSERT`), whose rows are counted together, and
-- may find all rows before it deletes the first. A caller can set neither count. Rows that our triggers write as their
-- owner, and rows that are deleted with the one that they belong to, are not counted; the rows that caused them are.

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

CREATE OR REPLACE FUNCTION private.check_written_rows()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF current_user IN ('anon', 'authenticated') AND EXISTS (SELECT FROM written_rows OFFSET 100) THEN
    PERFORM private.refuse_many_rows(TG_TABLE_NAME);
  END IF;
  RETURN NULL;
END
$$;

-- The same for deleted creatures, without those that are deleted with their adventure.
CREATE OR REPLACE FUNCTION private.check_deleted_creatures()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- Other roles lack EXECUTE on the helper.
  IF current_user <> 'authenticated' THEN
    RETURN NULL;
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

DO $$
DECLARE
  written record;
BEGIN
  -- The other tables have limits of about a hundred rows per account, which no statement can exceed.
  FOR written IN
    SELECT *
    FROM (
      VALUES
        ('limit_rows', 'INSERT', 'NEW', '{adventures,creatures,dice_rolls,session_events}'),
        ('limit_updated_rows', 'UPDATE', 'NEW', '{adventures,creatures,sessions,session_players}'),
        ('limit_deleted_rows', 'DELETE', 'OLD', '{characters,adventures}')
    ) AS writes (name, command, rows, relations),
      unnest(relations::text[]) AS relation
  LOOP
    EXECUTE format(
      'CREATE OR REPLACE TRIGGER %I
         AFTER %s ON public.%I
         REFERENCING %s TABLE AS written_rows
         FOR EACH STATEMENT EXECUTE FUNCTION private.check_written_rows()',
      written.name, written.command, written.relation, written.rows
    );
  END LOOP;
END
$$;
