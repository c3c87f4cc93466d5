-- Schedules the maintenance jobs if pg_cron is installed in this database. Each VACUUM is a job of its own, because it
-- cannot share a job with another statement. In the remaining jobs, the argument is the maximum number of sessions that
-- one run archives or cancels, or of events that it deletes.
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_cron') THEN
    PERFORM cron.schedule('vacuum-analyze-sessions', '0 3 * * *', 'VACUUM ANALYZE public.sessions');
    PERFORM cron.schedule('vacuum-analyze-dice-rolls', '10 3 * * *', 'VACUUM ANALYZE public.dice_rolls');
    PERFORM cron.schedule('archive-sessions', '0 0 1 * *', 'SELECT private.archive_sessions(100000)');
    PERFORM cron.schedule(
      'cancel-abandoned-sessions', '30 2 * * *', 'SELECT private.cancel_abandoned_sessions(100000)'
    );
    PERFORM cron.schedule('delete-old-events', '0 * * * *', 'SELECT private.delete_old_events(100000)');
  END IF;
END
$$;
