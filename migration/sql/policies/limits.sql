-- One statement of the API inserts, changes or deletes at most a hundred rows of a table, and is refused at row 101:
-- see `triggers/limits.sql`.
--
-- The server counts the rows that a transaction writes in each table (`pg_stat_xact_user_tables`), and nobody can reset
-- that count. The count before the first row of this statement is a subquery, which is evaluated once.
DO $$
DECLARE
  relation text;
BEGIN
  -- Not for `tutorial_progress`, where each user has one row.
  FOREACH relation IN ARRAY ARRAY['characters', 'adventures', 'creatures', 'sessions', 'session_players', 'dice_rolls']
  LOOP
    EXECUTE format(
      'CREATE POLICY "One statement inserts at most 100 rows"
       ON public.%1$I AS RESTRICTIVE FOR INSERT
       TO authenticated
       WITH CHECK (
         CASE
           WHEN pg_stat_get_xact_tuples_inserted(%2$L::regclass)
             - (SELECT pg_stat_get_xact_tuples_inserted(%2$L::regclass)) < 100 THEN true
           ELSE private.refuse_many_rows(%1$L)
         END
       )',
      relation, 'public.' || relation
    );
  END LOOP;
END
$$;

-- A new version of a row is checked as it is written, a deletion only when its row is found: when a row is found after
-- 101 were deleted, the statement is refused, whether or not this row would be deleted too.
DO $$
DECLARE
  relation text;
BEGIN
  -- Not for `users` and `tutorial_progress`, where each user has one row.
  FOREACH relation IN ARRAY ARRAY['characters', 'adventures', 'creatures', 'sessions', 'session_players']
  LOOP
    EXECUTE format(
      'CREATE POLICY "One statement updates at most 100 rows"
       ON public.%1$I AS RESTRICTIVE FOR UPDATE
       TO authenticated
       USING (true)
       WITH CHECK (
         CASE
           WHEN pg_stat_get_xact_tuples_updated(%2$L::regclass)
             - (SELECT pg_stat_get_xact_tuples_updated(%2$L::regclass)) < 100 THEN true
           ELSE private.refuse_many_rows(%1$L)
         END
       )',
      relation, 'public.' || relation
    );
  END LOOP;
  FOREACH relation IN ARRAY ARRAY['characters', 'adventures', 'creatures']
  LOOP
    EXECUTE format(
      'CREATE POLICY "One statement deletes at most 100 rows"
       ON public.%1$I AS RESTRICTIVE FOR DELETE
       TO authenticated
       USING (
         CASE
           WHEN pg_stat_get_xact_tuples_deleted(%2$L::regclass)
             - (SELECT pg_stat_get_xact_tuples_deleted(%2$L::regclass)) <= 100 THEN true
           ELSE private.refuse_many_rows(%1$L)
         END
       )',
      relation, 'public.' || relation
    );
  END LOOP;
END
$$;

-- Events that `ON CONFLICT DO NOTHING` skips are not inserted, but lock their session all the same. So events are
-- counted by numbers drawn: each event, written or not, draws two (the column's default, and the one in session order),
-- and drawing one reads the sequence. The sequence is looked up by name, so that the column does not depend on the
-- policy.
CREATE POLICY "One statement inserts at most 100 rows"
ON public.session_events AS RESTRICTIVE FOR INSERT
TO authenticated
WITH CHECK (
  CASE
    WHEN pg_stat_get_xact_blocks_fetched((SELECT to_regclass('public.session_events_seq_seq')))
      - (SELECT pg_stat_get_xact_blocks_fetched(to_regclass('public.session_events_seq_seq'))) < 200 THEN true
    ELSE private.refuse_many_rows('session_events')
  END
);
