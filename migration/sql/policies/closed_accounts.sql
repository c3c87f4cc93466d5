-- A closed account can write nothing, in any table or state. A token outlives its account by an hour.
--
-- A subquery is evaluated once a statement; the helper raises the error and takes the lock that makes a write wait for a
-- closing that is under way. An UPDATE is checked when its rows are found, not again when they are written.
DO $$
DECLARE
  written record;
BEGIN
  FOR written IN
    SELECT *
    FROM (
      VALUES
        ('users', 'UPDATE'),
        ('characters', 'INSERT'), ('characters', 'UPDATE'), ('characters', 'DELETE'),
        ('adventures', 'INSERT'), ('adventures', 'UPDATE'), ('adventures', 'DELETE'),
        ('creatures', 'INSERT'), ('creatures', 'UPDATE'), ('creatures', 'DELETE'),
        ('sessions', 'INSERT'), ('sessions', 'UPDATE'),
        ('session_players', 'INSERT'), ('session_players', 'UPDATE'),
        ('dice_rolls', 'INSERT'),
        ('session_events', 'INSERT'),
        ('tutorial_progress', 'INSERT'), ('tutorial_progress', 'UPDATE')
    ) AS writes (relation, command)
  LOOP
    EXECUTE format(
      'CREATE POLICY %I ON public.%I AS RESTRICTIVE FOR %s TO authenticated %s',
      'Closed accounts cannot ' || lower(written.command),
      written.relation,
      written.command,
      CASE written.command
        WHEN 'INSERT' THEN 'WITH CHECK ((SELECT private.require_open_account()))'
        WHEN 'UPDATE' THEN 'USING ((SELECT private.require_open_account())) WITH CHECK (true)'
        ELSE 'USING ((SELECT private.require_open_account()))'
      END
    );
  END LOOP;
END
$$;
