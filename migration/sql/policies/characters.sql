-- Of the users, only the owner can read or write the row of a character; a Seer can change the hit points with
-- `change_hit_points`. After a character is created, only the service (role `service_role`) changes its class,
-- attributes, level, experience and maximum hit points.

-- Damages or heals a character: adds `change` to its hit points, which stay between 0 and the character's maximum. The
-- owner and the service may call this, and so may the Seer of an active or paused session in which the character has an
-- active seat (one that its player holds now). For other users the function changes nothing and returns no row.
-- Besides the character's id, it returns only hit points, because the rest of the character is hidden from the Seer.
CREATE OR REPLACE FUNCTION private.change_hit_points(target_character_id uuid, change integer)
RETURNS TABLE (character_id uuid, hit_points integer, max_hit_points integer)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me uuid := auth.uid();
BEGIN
  IF change IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'null_value_not_allowed',
      MESSAGE = 'The change of hit points must be a number';
  END IF;
  PERFORM private.require_and_lock_open_account();
  RETURN QUERY
  UPDATE public.characters AS character
  SET hit_points = greatest(0, least(character.max_hit_points, character.hit_points::bigint + change))
  WHERE character.id = target_character_id
    AND (
      private.is_service()
      OR character.user_id = me
      OR EXISTS (
        SELECT
        FROM public.session_players AS seat
        JOIN public.sessions AS session ON session.id = seat.session_id
        WHERE seat.character_id = target_character_id
          AND seat.is_active
          AND session.seer_id = me
          AND session.status IN ('active', 'paused')
      )
    )
  RETURNING character.id, character.hit_points, character.max_hit_points;
END
$$;

CREATE POLICY "Users can view own characters"
ON public.characters FOR SELECT
TO authenticated
USING (user_id = (SELECT auth.uid()));

CREATE POLICY "Users can create own characters"
ON public.characters FOR INSERT
TO authenticated
WITH CHECK (user_id = (SELECT auth.uid()));

CREATE POLICY "Users can update own characters"
ON public.characters FOR UPDATE
TO authenticated
USING (user_id = (SELECT auth.uid()))
WITH CHECK (user_id = (SELECT auth.uid()));

CREATE POLICY "Users can delete own characters"
ON public.characters FOR DELETE
TO authenticated
USING (user_id = (SELECT auth.uid()));

GRANT SELECT, DELETE ON public.characters TO authenticated;
GRANT INSERT (id, user_id, name, class, might, grace, wit, heart, equipment, special_ability)
ON public.characters TO authenticated;
-- The owner may set `retired_at`. A trigger replaces any value but NULL with the time at which the character retired.
GRANT UPDATE (name, equipment, special_ability, hit_points, retired_at) ON public.characters TO authenticated;
GRANT SELECT, DELETE ON public.characters TO service_role;
GRANT INSERT (
  id, user_id, name, class, might, grace, wit, heart, hit_points, max_hit_points, experience, level, equipment,
  special_ability, last_played_at, retired_at, created_at, updated_at
) ON public.characters TO service_role;
GRANT UPDATE (
  user_id, name, class, might, grace, wit, heart, hit_points, max_hit_points, experience, level, equipment,
  special_ability, last_played_at, retired_at, created_at, updated_at
) ON public.characters TO service_role;
