-- One statement of the API inserts at most a hundred rows into a table: fifty thousand events in one statement would
-- make all participants of the session wait. `policies/limits.sql` refuses row 101 as it arrives. A statement may have
-- several inserting parts (`WITH ... INSERT`), whose rows are counted together here, at its end. A caller can set
-- neither count. Rows that our triggers insert as their owner are not counted; the rows that caused them are.

CREATE OR REPLACE FUNCTION private.refuse_many_rows(relation text)
RETURNS boolean
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'SP027',
    MESSAGE = 'One statement may insert at most 100 rows',
    TABLE = relation,
    CONSTRAINT = 'rows_per_statement';
END
$$;

CREATE OR REPLACE FUNCTION private.check_inserted_rows()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF current_user IN ('anon', 'authenticated') AND EXISTS (SELECT FROM new_rows OFFSET 100) THEN
    PERFORM private.refuse_many_rows(TG_TABLE_NAME);
  END IF;
  RETURN NULL;
END
$$;

DO $$
DECLARE
  relation text;
BEGIN
  -- The other tables have limits of less than a hundred rows per account, which are also checked after the statement.
  FOREACH relation IN ARRAY ARRAY['adventures', 'creatures', 'dice_rolls', 'session_events']
  LOOP
    EXECUTE format(
      'CREATE OR REPLACE TRIGGER limit_rows
         AFTER INSERT ON public.%I
         REFERENCING NEW TABLE AS new_rows
         FOR EACH STATEMENT EXECUTE FUNCTION private.check_inserted_rows()',
      relation
    );
  END LOOP;
END
$$;
