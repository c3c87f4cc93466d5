-- Queries scan indexes of the tables below from an end at which rows are often deleted or updated: the oldest events,
-- the sessions that start next, the most played adventures. Each such scan reads past the dead rows at that end until
-- they are vacuumed. By default, a table is vacuumed only when a fifth of it is dead. With half a million dead events,
-- each insert of an event took 2 to 8 ms longer, because it looks for old events to delete. So these tables are
-- vacuumed after far fewer dead rows. With `vacuum_index_cleanup = on`, VACUUM removes the index entries even when so
-- few pages have dead rows that it would otherwise skip the indexes.
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

-- This setting makes new entries go into the GIN index at once. With `fastupdate`, they would first go into a pending
-- list, and the statement that finds the list full would have to move the whole list into the index. Any user can raise
-- the limit of the list for their own statements (`gin_pending_list_limit`), and so leave a list so long that the next
-- writer needs a minute to move it.
ALTER INDEX public.idx_adventures_content SET (fastupdate = off);

-- Keeps ANALYZE from collecting statistics of these columns. The planner reads statistics before policies and column
-- privileges apply, so its row estimates would tell any user in which range the e-mail addresses of others and the join
-- codes of private sessions lie. Both columns are unique, so a search for one value needs no statistics.
ALTER TABLE public.users ALTER COLUMN email SET STATISTICS 0;
ALTER TABLE public.sessions ALTER COLUMN code SET STATISTICS 0;
