-- One statement of the API inserts at most a hundred rows into a table: fifty thousand events in one would keep everybody else
-- at that session waiting. `access/limits.sql` refuses the hundred and first row as it comes; a statement may have several parts
-- that insert (`WITH ... INSERT`), and what they insert together is counted here, when all are there. Neither count is
-- anything that a caller could set. Rows that a trigger of ours inserts, as its owner, are not counted: what caused them is.

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
  -- Of the others nobody may have a hundred: their own limits are counted after the statement as well.
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
