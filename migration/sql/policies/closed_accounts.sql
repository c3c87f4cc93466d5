-- A closed account can write to no table, although its token stays valid for up to an hour.
--
-- `require_and_lock_open_account` (`triggers/callers.sql`) raises an error if the account is closed. It also takes the
-- lock (on the account's row in `private.account_gates`) that makes a write wait while the account is being closed. It
-- is called in a subquery, which is evaluated once per statement. For UPDATE, `USING` already checks the account, so
-- `WITH CHECK` is `true`. For UPDATE and DELETE, the account is checked only for rows that the caller could write if
-- the account were open (`writable_row_condition`): for the rows of others, a closed account gets the same answer as
-- for rows that do not exist.
DO $$
DECLARE
  policy record;
BEGIN
  FOR policy IN
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
    ) AS policies (relation, commands, writable_row_condition),
      unnest(commands::text[]) AS command
  LOOP
    EXECUTE format(
      'CREATE POLICY %I ON public.%I AS RESTRICTIVE FOR %s TO authenticated %s',
      'Closed accounts cannot ' || lower(policy.command),
      policy.relation,
      policy.command,
      CASE policy.command
        WHEN 'INSERT' THEN 'WITH CHECK ((SELECT private.require_and_lock_open_account()))'
        ELSE
          format(
            'USING (CASE WHEN %s THEN (SELECT private.require_and_lock_open_account()) ELSE false END)',
            policy.writable_row_condition
          )
          || CASE policy.command WHEN 'UPDATE' THEN ' WITH CHECK (true)' ELSE '' END
      END
    );
  END LOOP;
END
$$;
