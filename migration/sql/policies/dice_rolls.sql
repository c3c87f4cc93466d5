-- Participants see the rolls of their session. A player rolls for their own seated character; the Seer rolls for any
-- seated character, for their own characters, and for the adventure's creatures. Users cannot supply results, and
-- nobody changes or deletes a roll through the API.

-- Whether the caller may roll for the character or creature. (The triggers of `dice_rolls` check that the creature
-- belongs to the session's adventure.) If a participant may not, this raises an error with the reason. For a caller who
-- is not a participant it returns false, as for a session that does not exist. Reasons that reveal something about a
-- character (that it is retired) are given only to its owner.
CREATE OR REPLACE FUNCTION private.may_roll(target_session_id uuid, rolling_character_id uuid, rolling_creature_id uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me uuid := auth.uid();
  caller record;
  own_character record;
BEGIN
  -- Whether the caller is the Seer or a player of the session, whether they hold a seat in it, and whether the session
  -- is active. A player who has left still counts as a player; one whom the Seer removed does not.
  SELECT
    session.seer_id = me AS is_seer,
    session.status = 'active' AS is_session_active,
    seat.user_id IS NOT NULL AND seat.removed_at IS NULL AS is_player,
    coalesce(seat.is_active, false) AS has_active_seat,
    coalesce(seat.character_id = rolling_character_id AND seat.is_active, false) AS has_active_seat_with_character
  INTO caller
  FROM public.sessions AS session
  LEFT JOIN public.session_players AS seat ON seat.session_id = session.id AND seat.user_id = me
  WHERE session.id = target_session_id;
  -- A caller without a user id takes part in no session: `is_seer` is then NULL.
  IF (caller.is_seer OR caller.is_player) IS NOT TRUE THEN
    RETURN false;
  END IF;
  IF NOT caller.is_session_active THEN
    PERFORM private.refuse('Dice can be rolled only while the session is active', 'dice_rolls', 'session_active');
  END IF;
  IF caller.has_active_seat_with_character THEN
    RETURN true;
  END IF;
  IF NOT (caller.is_seer OR caller.has_active_seat) THEN
    PERFORM private.refuse(
      'Only the Seer and players with an active seat may roll in the session',
      'dice_rolls',
      'seated'
    );
  END IF;
  IF rolling_creature_id IS NOT NULL THEN
    IF NOT caller.is_seer THEN
      PERFORM private.refuse('Only the Seer of the session may roll for a creature', 'dice_rolls', 'run_by_seer');
    END IF;
    RETURN true;
  END IF;
  IF caller.is_seer AND EXISTS (
    SELECT
    FROM public.session_players AS seat
    WHERE seat.session_id = target_session_id
      AND seat.character_id = rolling_character_id
      AND seat.is_active
  ) THEN
    RETURN true;
  END IF;

  SELECT character.retired_at IS NOT NULL AS is_retired
  INTO own_character
  FROM public.characters AS character
  WHERE character.id = rolling_character_id
    AND character.user_id = me;
  IF NOT FOUND THEN
    -- Also for an id that does not exist, so that nobody learns which ids do.
    PERFORM private.refuse('The character belongs to somebody else', 'dice_rolls', 'own_character');
  END IF;
  IF own_character.is_retired THEN
    PERFORM private.refuse('A retired character cannot roll', 'dice_rolls', 'living_character');
  END IF;
  IF NOT caller.is_seer THEN
    PERFORM private.refuse('A player may roll only for the character in their seat', 'dice_rolls', 'seated');
  END IF;
  RETURN true;
END
$$;

-- Takes the ids of rolls, and returns those of initiative rolls in order: highest total first, ties by grace, then at
-- random. Rolls that the caller may not read are left out. Other participants cannot see a character's grace; only the
-- order is revealed. If the readable rolls belong to several sessions, the result is empty. Otherwise a
-- Seer could create creatures whose grace they know, compare their rolls with rolls from other Seers' sessions, and so
-- learn the grace of any character whose rolls they see.
CREATE OR REPLACE FUNCTION private.initiative_order(roll_ids uuid[])
RETURNS uuid[]
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  my_session_ids uuid[] := private.my_session_ids();
  is_service boolean := private.is_service();
BEGIN
  IF (
    SELECT count(DISTINCT session_id)
    FROM public.dice_rolls
    WHERE id = ANY (roll_ids)
      AND (is_service OR session_id = ANY (my_session_ids))
  ) > 1 THEN
    RETURN '{}'::uuid[];
  END IF;
  RETURN ARRAY(
    SELECT roll.id
    FROM public.dice_rolls AS roll
    LEFT JOIN public.characters AS character ON character.id = roll.character_id
    LEFT JOIN public.creatures AS creature ON creature.id = roll.creature_id
    WHERE roll.id = ANY (roll_ids)
      AND roll.roll_type = 'initiative'
      AND (is_service OR roll.session_id = ANY (my_session_ids))
    ORDER BY
      roll.total DESC,
      coalesce(character.grace, (creature.stats ->> 'grace')::numeric) DESC NULLS LAST,
      -- The seed puts ties in a random order. The id alone would not, because whoever rolls may choose the id of the
      -- roll; here it decides only between equal seeds.
      roll.animation_seed,
      roll.id
  );
END
$$;

-- Returns a page of a character's rolls, latest first. It starts after the roll with `last_created_at` and `last_id`
-- (the last one of the previous page), or at the latest roll if these are NULL. `kind`, `created_from` and
-- `created_before` restrict the rolls unless they are NULL. The planner assumes that few of the character's rolls are
-- in the caller's sessions, and would read and sort all rolls of the character or of these sessions. With sorting and
-- bitmap scans disabled, the query scans the character's rolls in order until it has enough. The function runs with the
-- caller's role, so row security applies.
CREATE OR REPLACE FUNCTION private.rolls_of_character(
  target_character_id uuid,
  kind public.roll_type,
  created_from timestamptz,
  created_before timestamptz,
  last_created_at timestamptz,
  last_id uuid,
  max_rows integer
)
RETURNS SETOF public.dice_rolls
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
BEGIN
  RETURN QUERY
  SELECT roll.*
  FROM public.dice_rolls AS roll
  WHERE roll.character_id = target_character_id
    AND roll.created_at >= coalesce(created_from, '-infinity')
    AND roll.created_at < coalesce(created_before, 'infinity')
    AND roll.created_at <= coalesce(last_created_at, 'infinity')
    AND (last_created_at IS NULL OR roll.created_at < last_created_at OR roll.id > last_id)
    AND (kind IS NULL OR roll.roll_type = kind)
  ORDER BY roll.created_at DESC, roll.id
  LIMIT max_rows;
END
$$;

CREATE POLICY "Dice rolls visible to session participants"
ON public.dice_rolls FOR SELECT
TO authenticated
USING (session_id = ANY ((SELECT private.my_session_ids())::uuid[]));

-- The name of this policy comes from the game's specification; the policy also covers the Seer's rolls.
CREATE POLICY "Players can create rolls for own characters"
ON public.dice_rolls FOR INSERT
TO authenticated
WITH CHECK (private.may_roll(session_id, character_id, creature_id));

GRANT SELECT ON public.dice_rolls TO authenticated;
GRANT INSERT (
  id, session_id, character_id, creature_id, attribute, difficulty, roll_type, modifiers, description, original_roll_id
) ON public.dice_rolls TO authenticated;
GRANT SELECT, INSERT ON public.dice_rolls TO service_role;
