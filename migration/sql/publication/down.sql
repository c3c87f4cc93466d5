-- Drops `supabase_realtime`, the publication of the platform (Supabase), if `up.sql` created it and nobody has added
-- anything else to it. Otherwise keeps the publication, and removes from it only the tables that `up.sql` adds.
DO $$
DECLARE
  publication_oid oid := (SELECT oid FROM pg_catalog.pg_publication WHERE pubname = 'supabase_realtime');
  our_tables regclass[] := ARRAY(
    SELECT oid
    FROM pg_catalog.pg_class
    WHERE relnamespace = 'public'::regnamespace
      AND relname = ANY ('{sessions,session_players,session_events,dice_rolls}')
  );
  relation regclass;
BEGIN
  IF obj_description(publication_oid, 'pg_publication') LIKE 'made by sparc%'
    AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_publication_rel WHERE prpubid = publication_oid AND prrelid <> ALL (our_tables)
    )
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_namespace WHERE pnpubid = publication_oid)
  THEN
    DROP PUBLICATION supabase_realtime;
    RETURN;
  END IF;
  FOR relation IN
    SELECT prrelid
    FROM pg_catalog.pg_publication_rel
    WHERE prpubid = publication_oid
      AND prrelid = ANY (our_tables)
  LOOP
    EXECUTE format('ALTER PUBLICATION supabase_realtime DROP TABLE %s', relation);
  END LOOP;
END
$$;
