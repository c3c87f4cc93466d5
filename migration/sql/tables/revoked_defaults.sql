-- Closed from the first moment: a platform's default privileges hand every new table to the API's roles, and a
-- migration may stop between two steps. What is meant to be open is opened by the step that adds the policies.
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

-- Check constraints call these as whoever writes the row; they tell nothing but arithmetic.
GRANT EXECUTE ON FUNCTION
  private.sum_of_dice(integer[]),
  private.are_valid_modifiers(jsonb),
  private.sum_of_modifiers(jsonb, text),
  private.are_valid_stats(jsonb),
  private.is_clean_name(text)
TO authenticated, service_role;
