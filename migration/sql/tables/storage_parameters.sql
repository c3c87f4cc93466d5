-- Scans of these tables begin at an end where rows disappear: the oldest events, the soonest sessions, the most played
-- adventures. Every scan must skip the dead rows there until they are vacuumed, which by default happens only when a
-- fifth of the table is dead. With half a million dead events, each insert of an event took 2 to 8 ms longer to find
-- that no event is old. Index entries are removed even if only a few pages contain dead rows.
DO $$
DECLARE
  relation text;
BEGIN
  FOREACH relation IN ARRAY ARRAY['session_events', 'sessions', 'adventures']
  LOOP
    EXECUTE format(
      'ALTER TABLE public.%I SET (
         autovacuum_vacuum_threshold = 5000,
         autovacuum_vacuum_scale_factor = 0.002,
         vacuum_index_cleanup = on
       )',
      relation
    );
  END LOOP;
END
$$;

-- New entries go into the index at once. Pending ones would be inserted by whichever statement finds their list full,
-- and any user may raise that limit for their own statements (`gin_pending_list_limit`) and so leave a list that takes
-- the next writer a minute.
ALTER INDEX public.idx_adventures_content SET (fastupdate = off);
