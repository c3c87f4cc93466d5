DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_cron') THEN
    PERFORM cron.unschedule(jobname)
    FROM cron.job
    WHERE jobname IN ('vacuum-analyze-sessions', 'vacuum-analyze-dice-rolls', 'archive-sessions', 'cancel-abandoned-sessions',
      'clean-events')
      AND database = current_database();
  END IF;
END
$$;
