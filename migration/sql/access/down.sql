-- Every policy of the tables in `public` that this schema made is named in the files beside this one.
DO $$
DECLARE
  made record;
BEGIN
  FOR made IN
    SELECT policyname, tablename
    FROM pg_catalog.pg_policies
    WHERE schemaname = 'public'
      AND tablename = ANY (
        '{users,characters,adventures,creatures,sessions,session_players,dice_rolls,session_events,
          tutorial_progress,archived_sessions,archived_session_players,archived_dice_rolls}'
      )
  LOOP
    EXECUTE format('DROP POLICY %I ON public.%I', made.policyname, made.tablename);
  END LOOP;
END
$$;
