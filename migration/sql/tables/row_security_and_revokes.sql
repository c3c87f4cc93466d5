-- Enables row security and revokes all privileges on the new tables, because the platform (Supabase) grants privileges
-- on every new table to the API's roles (`anon`, `authenticated`, `service_role`). The migration that creates the
-- tables runs this script, so that the tables are never exposed, even if `up` stops before it installs the policies.
-- The files in `policies/` grant what is meant to be accessible. This script grants only EXECUTE on the functions that
-- check constraints call.
DO $$
DECLARE
  relation regclass;
BEGIN
  FOREACH relation IN ARRAY ARRAY[
    'public.users', 'public.characters', 'public.adventures', 'public.creatures', 'public.sessions',
    'public.session_players', 'public.dice_rolls', 'public.session_events', 'public.tutorial_progress',
    'public.archived_sessions', 'public.archived_session_players', 'public.archived_dice_rolls'
  ]::regclass[]
  LOOP
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
    EXECUTE format('REVOKE ALL ON TABLE %s FROM PUBLIC, anon, authenticated, service_role', relation);
  END LOOP;
END
$$;

REVOKE ALL ON SEQUENCE public.session_events_seq_seq FROM PUBLIC, anon, authenticated, service_role;

-- Check constraints call these functions as the role that writes the row, so that role needs EXECUTE. The functions use
-- only their arguments, and so reveal nothing.
GRANT EXECUTE ON FUNCTION
  private.sum_of_dice(integer[]),
  private.is_blank(text),
  private.are_valid_modifiers(jsonb),
  private.sum_of_modifiers(jsonb, text),
  private.are_valid_stats(jsonb),
  private.is_displayable_name(text)
TO authenticated, service_role;
