-- Drops the publication of the platform (Supabase) if `up.sql` created it. Otherwise removes only the tables from it
-- that `up.sql` adds.
DO $$
DECLARE
  relation text;
BEGIN
  IF obj_description(
    (SELECT oid FROM pg_catalog.pg_publication WHERE pubname = 'supabase_realtime'),
    'pg_publication'
  ) LIKE 'made by sparc%'
  THEN
    DROP PUBLICATION supabase_realtime;
    RETURN;
  END IF;
  FOR relation IN
    SELECT tablename
    FROM pg_catalog.pg_publication_tables
    JOIN pg_catalog.pg_publication USING (pubname)
    WHERE pubname = 'supabase_realtime'
      AND NOT puballtables
      AND schemaname = 'public'
      AND tablename = ANY ('{sessions,session_players,session_events,dice_rolls}')
  LOOP
    EXECUTE format('ALTER PUBLICATION supabase_realtime DROP TABLE public.%I', relation);
  END LOOP;
END
$$;
