-- Lists that are walked from an end where rows leave: the oldest events, the soonest sessions, the most played adventures. What is
-- dead there is stepped over by every walk until a vacuum, which by default waits for a fifth of the table. With half a million
-- dead events each new one took 2 to 8 ms longer, to find that none is old. Index entries go even if the pages with dead rows are few.
DO $$
DECLARE
  walked text;
BEGIN
  FOREACH walked IN ARRAY ARRAY['session_events', 'sessions', 'adventures']
  LOOP
    EXECUTE format(
      'ALTER TABLE public.%I SET (
         autovacuum_vacuum_threshold = 5000,
         autovacuum_vacuum_scale_factor = 0.002,
         vacuum_index_cleanup = on
       )',
      walked
    );
  END LOOP;
END
$$;
