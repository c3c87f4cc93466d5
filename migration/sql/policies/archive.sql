-- Participants can read their archived sessions, with the seats and rolls. Public archived sessions can be read by
-- everyone and their seats by signed-in users, but their rolls only by participants. A player whom the Seer removed is
-- not a participant: if the session is private, they can read only their own seat in it.
-- `private.my_archived_session_ids` returns the ids of the archived sessions in which the caller was a participant.
-- None of the API's roles (`anon`, `authenticated`, `service_role`) can write to the archive.

CREATE OR REPLACE FUNCTION private.is_public_archived_session(target_session_id uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.archived_sessions AS session
    WHERE session.id = target_session_id
      AND session.is_public
  );
END
$$;

CREATE POLICY "Archived sessions visible to participants or public"
ON public.archived_sessions FOR SELECT
TO anon, authenticated
USING (
  is_public
  OR seer_id = (SELECT auth.uid())
  OR id = ANY ((SELECT private.my_archived_session_ids())::uuid[])
);

CREATE POLICY "Archived seats visible with their session"
ON public.archived_session_players FOR SELECT
TO authenticated
USING (
  user_id = (SELECT auth.uid())
  OR session_id = ANY ((SELECT private.my_archived_session_ids())::uuid[])
  OR private.is_public_archived_session(session_id)
);

CREATE POLICY "Archived dice rolls visible to session participants"
ON public.archived_dice_rolls FOR SELECT
TO authenticated
USING (session_id = ANY ((SELECT private.my_archived_session_ids())::uuid[]));

GRANT SELECT ON public.archived_sessions TO anon, authenticated, service_role;
GRANT SELECT ON public.archived_session_players, public.archived_dice_rolls TO authenticated, service_role;
