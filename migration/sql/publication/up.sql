-- Adds four tables, whose changes the participants of a session see live, to the publication of the platform
-- (Supabase). Creates the publication if it does not exist.
DO $$
DECLARE
  message_level text;
  relation text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'supabase_realtime') THEN
    -- As long as `wal_level` is not `logical`, a publication has no effect, and creating one causes a warning. The
    -- operator decides about `wal_level`, so the warning is suppressed.
    message_level := current_setting('client_min_messages');
    SET LOCAL client_min_messages = error;
    CREATE PUBLICATION supabase_realtime;
    PERFORM set_config('client_min_messages', message_level, true);
    COMMENT ON PUBLICATION supabase_realtime IS 'made by sparc: stand-in for the platform';
  END IF;
  FOREACH relation IN ARRAY ARRAY['sessions', 'session_players', 'session_events', 'dice_rolls']
  LOOP
    IF NOT EXISTS (
      SELECT
      FROM pg_catalog.pg_publication_tables
      WHERE pubname = 'supabase_realtime'
        AND schemaname = 'public'
        AND tablename = relation
    )
    THEN
      EXECUTE format('ALTER PUBLICATION supabase_realtime ADD TABLE public.%I', relation);
    END IF;
  END LOOP;
END
$$;
