-- One statement of a user of the API may insert, change or delete at most a hundred rows of a table;
-- `triggers/statement_limits.sql` says why. The policies here refuse a statement while it writes; the triggers there
-- check it again at its end.
--
-- The server counts the rows that a transaction writes in each table (`pg_stat_xact_user_tables`), and nobody can reset
-- that count. From the present count each policy subtracts the count before the first row of the statement. It reads
-- that earlier count in a subquery, because a subquery is evaluated only once per statement.
--
-- An INSERT or UPDATE is checked as each row is written, and refused at row 101. A DELETE is checked as each row is
-- found, when it is not yet known whether the statement deletes this row too. So a DELETE is refused only when it has
-- deleted 101 rows and finds one more; if it finds no more, the trigger refuses it.
DO $$
DECLARE
  limited_write record;
BEGIN
  -- `users` and `tutorial_progress` need no policy, because each user has one row there. `session_events` has its own
  -- policy below.
  FOR limited_write IN
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
           ELSE private.refuse_too_many_rows(%5$L)
         END
       )',
      limited_write.command, limited_write.statistic, limited_write.clause, limited_write.comparison,
      limited_write.relation, 'public.' || limited_write.relation
    );
  END LOOP;
END
$$;

-- An event that `ON CONFLICT DO NOTHING` skips is not inserted, but locks its session all the same. So events are
-- counted by the numbers that they draw from the sequence of the column `seq`. Each event, written or not, draws two
-- numbers: the column's default draws the first, and the trigger `prepare_event` draws the second, which replaces the
-- first. Each draw reads one block of the sequence, so a hundred events read 200 blocks. The sequence is looked up by
-- name, so that the policy does not depend on the sequence and the column can be dropped.
CREATE POLICY "One statement inserts at most 100 rows"
ON public.session_events AS RESTRICTIVE FOR INSERT
TO authenticated
WITH CHECK (
  CASE
    WHEN pg_stat_get_xact_blocks_fetched((SELECT to_regclass('public.session_events_seq_seq')))
      - (SELECT pg_stat_get_xact_blocks_fetched(to_regclass('public.session_events_seq_seq'))) < 200 THEN true
    ELSE private.refuse_too_many_rows('session_events')
  END
);
