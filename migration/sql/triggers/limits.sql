-- One statement of the API inserts at most a hundred rows into a table. Rows that a trigger of ours inserts, as its owner, are not
-- counted: what caused them is.
DO $$
DECLARE
  relation text;
BEGIN
  FOREACH relation IN ARRAY ARRAY[
    'characters', 'adventures', 'creatures', 'sessions', 'session_players', 'dice_rolls', 'session_events',
    'tutorial_progress'
  ]
  LOOP
    EXECUTE format(
      'CREATE OR REPLACE TRIGGER limit_rows_start
         BEFORE INSERT ON public.%1$I
         FOR EACH STATEMENT
         WHEN (current_user IN (''anon'', ''authenticated''))
         EXECUTE FUNCTION private.limit_inserted_rows();
       CREATE OR REPLACE TRIGGER limit_rows
         BEFORE INSERT ON public.%1$I
         FOR EACH ROW
         WHEN (current_user IN (''anon'', ''authenticated''))
         EXECUTE FUNCTION private.limit_inserted_rows();',
      relation
    );
  END LOOP;
END
$$;
