-- A closed account can write nothing, in any table or state. A token outlives its account by an hour.
--
-- A subquery is evaluated once a statement; the helper raises the error and takes the lock that makes a write wait for a
-- closing that is under way. An UPDATE is checked when its rows are found, not again when they are written. It is checked for the rows
-- that the caller might write, were the account open: for those of others a closed account gets what it gets for rows that do
-- not exist.
DO $$
DECLARE
  written record;
BEGIN
  FOR written IN
    SELECT *
    FROM (
      VALUES
        ('users', '{UPDATE}', 'id = (SELECT auth.uid())'),
        ('characters', '{INSERT,UPDATE,DELETE}', 'user_id = (SELECT auth.uid())'),
        ('adventures', '{INSERT,UPDATE,DELETE}', 'creator_id = (SELECT auth.uid())'),
        ('creatures', '{INSERT,UPDATE,DELETE}', 'private.owns_adventure(adventure_id)'),
        ('sessions', '{INSERT,UPDATE}', 'seer_id = (SELECT auth.uid())'),
        ('session_players', '{INSERT,UPDATE}', 'user_id = (SELECT auth.uid()) OR private.is_seer(session_id)'),
        ('dice_rolls', '{INSERT}', NULL),
        ('session_events', '{INSERT}', NULL),
        ('tutorial_progress', '{INSERT,UPDATE}', 'user_id = (SELECT auth.uid())')
    ) AS writes (relation, commands, is_mine),
      unnest(commands::text[]) AS command
  LOOP
    EXECUTE format(
      'CREATE POLICY %I ON public.%I AS RESTRICTIVE FOR %s TO authenticated %s',
      'Closed accounts cannot ' || lower(written.command),
      written.relation,
      written.command,
      CASE written.command
        WHEN 'INSERT' THEN 'WITH CHECK ((SELECT private.require_open_account()))'
        ELSE format('USING (CASE WHEN %s THEN (SELECT private.require_open_account()) ELSE false END)', written.is_mine)
          || CASE written.command WHEN 'UPDATE' THEN ' WITH CHECK (true)' ELSE '' END
      END
    );
  END LOOP;
END
$$;
