-- One statement of the API inserts, changes or deletes at most a hundred rows of a table, and is refused at row 101:
-- see `triggers/limits.sql`.
--
-- The server counts the rows that a transaction writes in each table (`pg_stat_xact_user_tables`), and nobody can reset
-- that count. The count before the first row of this statement is a subquery, which is evaluated once.
--
-- A new version of a row is checked as it is written, a deletion when its row is found: the statement is refused when
-- it finds a row after it has deleted 101, whether or not it would delete this row too.
DO $$
DECLARE
  limited record;
BEGIN
  -- Not for `users` and `tutorial_progress`, where each user has one row.
  FOR limited IN
    SELECT *
    FROM (
      VALUES
        ('insert', 'inserted', 'WITH CHECK', '<',
          '{adventures,characters,creatures,dice_rolls,session_players,sessions}'),
        ('update', 'updated', 'USING (true) WITH CHECK', '<',
          '{adventures,characters,creatures,session_players,sessions}'),
        ('delete', 'deleted', 'USING', '<=', '{adventures,characters,creatures}')
    ) AS writes (command, statistic, clause, comparison, relations),
      unnest(relations::text[]) AS relation
  LOOP
    EXECUTE format(
      'CREATE POLICY "One statement %1$ss at most 100 rows"
       ON public.%5$I AS RESTRICTIVE FOR %1$s
       TO authenticated
       %3$s (
         CASE
           WHEN pg_stat_get_xact_tuples_%2$s(%6$L::regclass)
             - (SELECT pg_stat_get_xact_tuples_%2$s(%6$L::regclass)) %4$s 100 THEN true
           ELSE private.refuse_many_rows(%5$L)
         END
       )',
      limited.command, limited.statistic, limited.clause, limited.comparison, limited.relation, 'public.' || limited.relation
    );
  END LOOP;
END
$$;

-- Events that `ON CONFLICT DO NOTHING` skips are not inserted, but lock their session all the same. So events are
-- counted by the numbers that they draw: each event, written or not, draws two (the column's default, and the one in
-- session order), and drawing one reads the sequence. The sequence is looked up by name, so that the column does not
-- depend on the policy.
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
