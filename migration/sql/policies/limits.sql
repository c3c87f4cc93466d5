-- One statement of the API inserts at most a hundred rows into a table, refused at the hundred and first: see `rules/limits.sql`.
--
-- The server counts what a transaction inserts into each table (`pg_stat_xact_user_tables`), and nobody can set that back. How many
-- there were before the first row of this statement is a subquery, evaluated once.
DO $$
DECLARE
  relation text;
BEGIN
  -- Not of `tutorial_progress`, where everybody has one row.
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

-- Events that `ON CONFLICT DO NOTHING` skips are not inserted, and hold their session all the same. Each, written or not, draws two
-- numbers (as the column's default, and in its turn), and drawing one reads the sequence. It is found by its name, so that the column
-- does not depend on the policy.
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
