-- The database rolls the dice: a user supplies what is rolled, never the result. A *heroic save* rolls the dice of a
-- failed roll, its *original roll*, a second time.

-- Returns the results of `dice_count` fair dice, at most ten. A single expression computes them, which takes a fifth of
-- the time of a loop over the dice. Like `random_numbers` (`shared.sql`), this function uses bytes of a random UUID,
-- but not bytes 6 and 8, which contain its version and variant. 252 is the greatest multiple of six that a byte can
-- hold. If a byte is 252 or more, all bytes are drawn again, because such a byte would favour low results.
CREATE OR REPLACE FUNCTION private.random_dice_results(dice_count integer)
RETURNS integer[]
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  uuid_bytes bytea;
  bytes integer[];
BEGIN
  LOOP
    uuid_bytes := uuid_send(gen_random_uuid());
    bytes := (ARRAY[
      get_byte(uuid_bytes, 0), get_byte(uuid_bytes, 1), get_byte(uuid_bytes, 2), get_byte(uuid_bytes, 3),
      get_byte(uuid_bytes, 4), get_byte(uuid_bytes, 5), get_byte(uuid_bytes, 9), get_byte(uuid_bytes, 10),
      get_byte(uuid_bytes, 11), get_byte(uuid_bytes, 12)
    ])[1:dice_count];
    EXIT WHEN (252 > ALL (bytes)) IS NOT FALSE; -- A NULL `dice_count` ends the loop too.
  END LOOP;
  RETURN (ARRAY[
    1 + bytes[1] % 6, 1 + bytes[2] % 6, 1 + bytes[3] % 6, 1 + bytes[4] % 6, 1 + bytes[5] % 6,
    1 + bytes[6] % 6, 1 + bytes[7] % 6, 1 + bytes[8] % 6, 1 + bytes[9] % 6, 1 + bytes[10] % 6
  ])[1:dice_count];
END
$$;

-- Raises the error for a heroic save whose original roll does not exist, is of another character or session, or is
-- itself a heroic save.
CREATE OR REPLACE FUNCTION private.refuse_invalid_original_roll()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'SP015',
    MESSAGE = 'A heroic save must repeat a roll of the same character in the same session',
    TABLE = 'dice_rolls',
    CONSTRAINT = 'heroic_save_of_saveable_roll';
END
$$;

-- Raises the error for a roll of a creature that does not belong to the session's adventure.
CREATE OR REPLACE FUNCTION private.refuse_creature_of_other_adventure()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'SP017',
    MESSAGE = 'The creature must belong to the adventure of the session',
    TABLE = 'dice_rolls',
    CONSTRAINT = 'creature_of_adventure';
END
$$;

-- Fills in a new roll: the user who rolls, the name of the character or creature, and for a heroic save the values of
-- the original roll. Computes the number of dice from the attribute and the modifiers, rolls them, and computes the
-- outcome. If the row already has results, no dice are rolled, and the check constraints refuse invalid results. Only
-- the service can supply results: those of an earlier roll that it records, or any that it chooses. Refuses invalid
-- modifiers, a roll that does not name exactly one character or creature, and a creature of another adventure.
CREATE OR REPLACE FUNCTION private.roll_dice()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  original_roll record;
  is_initiative boolean := NEW.roll_type = 'initiative';
  attribute_value integer;
  dice_bonus integer := 0;
  flat_bonus integer := 0;
BEGIN
  IF num_nonnulls(NEW.character_id, NEW.creature_id) <> 1 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP016',
      MESSAGE = 'A roll must name exactly one character or creature',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'one_roller';
  END IF;
  NEW.rolled_by := coalesce(auth.uid(), NEW.rolled_by);
  -- A heroic save copies the values of the roll that it repeats, if the caller may roll in the session. After the row
  -- is written, `claim_heroic_save` checks whether the original roll can be saved. Only one of its conditions, that the
  -- original roll is of this character in this session, is also checked here, before row security and the unique index.
  -- Otherwise the index would reveal whether a roll of another session has been saved, and that roll's own player would
  -- have to wait for this transaction before saving it.
  IF NEW.original_roll_id IS NOT NULL
    AND NEW.roll_type = 'heroic_save'
    AND (
      private.is_service()
      OR private.may_roll(NEW.session_id, NEW.character_id, NEW.creature_id)
    )
  THEN
    SELECT attribute, difficulty, modifiers, roll_type
    INTO original_roll
    FROM public.dice_rolls
    WHERE id = NEW.original_roll_id
      AND session_id = NEW.session_id
      AND character_id = NEW.character_id;
    IF NOT FOUND THEN
      PERFORM private.refuse_invalid_original_roll();
    END IF;
    NEW.attribute := original_roll.attribute;
    NEW.difficulty := original_roll.difficulty;
    NEW.modifiers := original_roll.modifiers;
    is_initiative := original_roll.roll_type = 'initiative';
  END IF;
  IF NEW.modifiers <> '[]' THEN
    -- Modifiers above their size limit (8192 bytes) are neither validated nor added up: the check constraint on their
    -- size refuses them.
    IF pg_column_size(NEW.modifiers) <= 8192 THEN
      -- The check constraint would refuse invalid modifiers too, but it is evaluated only after this trigger. So
      -- invalid modifiers that clients cannot parse either would get the error below (`refuse_unparsable_document`),
      -- which says less.
      IF NOT private.are_valid_modifiers(NEW.modifiers) THEN
        RAISE EXCEPTION USING
          ERRCODE = 'check_violation',
          MESSAGE = 'new row for relation "dice_rolls" violates check constraint "valid_modifiers"',
          TABLE = 'dice_rolls',
          CONSTRAINT = 'valid_modifiers';
      END IF;
      dice_bonus := private.sum_of_modifiers(NEW.modifiers, 'dice');
      flat_bonus := private.sum_of_modifiers(NEW.modifiers, 'flat');
    END IF;
    IF NOT private.is_client_parsable(NEW.modifiers, 8192) THEN
      PERFORM private.refuse_unparsable_document('dice_rolls', 'modifiers');
    END IF;
  END IF;

  IF NEW.character_id IS NOT NULL THEN
    SELECT
      character.name,
      CASE NEW.attribute
        WHEN 'might' THEN character.might
        WHEN 'grace' THEN character.grace
        WHEN 'wit' THEN character.wit
        WHEN 'heart' THEN character.heart
      END
    INTO NEW.character_name, attribute_value
    FROM public.characters AS character
    WHERE character.id = NEW.character_id;
  ELSE
    SELECT creature.name, (creature.stats ->> NEW.attribute::text)::integer
    INTO NEW.character_name, attribute_value
    FROM public.creatures AS creature
    JOIN public.sessions AS session ON session.adventure_id = creature.adventure_id
    WHERE creature.id = NEW.creature_id
      AND session.id = NEW.session_id;
    IF NOT FOUND AND (private.is_service() OR private.may_roll(NEW.session_id, NULL, NEW.creature_id)) THEN
      PERFORM private.refuse_creature_of_other_adventure();
    END IF;
  END IF;

  IF NEW.results IS NULL THEN
    -- Initiative is one die, also if a heroic save repeats it. Any other roll has as many dice as the attribute plus
    -- the bonus dice, between 1 and 10.
    NEW.dice_count := CASE
      WHEN is_initiative THEN 1
      ELSE least(10, greatest(1, attribute_value + dice_bonus))
    END;
    NEW.results := private.random_dice_results(NEW.dice_count);
  END IF;

  NEW.dice_count := coalesce(NEW.dice_count, cardinality(NEW.results));
  NEW.total := coalesce(NEW.total, private.sum_of_dice(NEW.results));
  NEW.modified_total := coalesce(NEW.modified_total, NEW.total + flat_bonus);
  -- A difficulty out of range is refused by its check constraint, after row security. It is not subtracted here,
  -- because the difference could overflow. Whether it overflows depends on the total, so the error would reveal
  -- something about the number of dice to a caller who may not see the character.
  NEW.margin := coalesce(
    NEW.margin,
    CASE WHEN NEW.difficulty BETWEEN 3 AND 18 THEN NEW.modified_total - NEW.difficulty ELSE 0 END
  );
  NEW.outcome := coalesce(
    NEW.outcome,
    CASE
      WHEN 6 = ALL (NEW.results) THEN 'critical_success'
      WHEN 1 = ALL (NEW.results) THEN 'critical_failure'
      WHEN NEW.modified_total >= NEW.difficulty THEN 'success'
      ELSE 'failure'
    END::public.roll_outcome
  );
  NEW.success := coalesce(NEW.success, NEW.outcome IN ('critical_success', 'success'));
  -- The first 48 bits of the UUID are random. They are enough for an animation, and exact in clients whose numbers are
  -- doubles.
  NEW.animation_seed := coalesce(
    NEW.animation_seed,
    ('x' || left(replace(gen_random_uuid()::text, '-', ''), 12))::bit(48)::bigint
  );
  RETURN NEW;
END
$$;

-- Uses up the heroic save of a seat, after the row of the save was written, or refuses the save. A seat has one save
-- per encounter. A roll can be saved once (a unique index ensures that), and only within thirty seconds after it
-- failed. Locks the seat before the session, as leaving a session does.
CREATE OR REPLACE FUNCTION private.claim_heroic_save(save public.dice_rolls)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  original_roll public.dice_rolls;
  current_encounter_number integer;
  -- The time of the save: the clock's for a roll that is made now, and the given `created_at` for an earlier roll that
  -- the service records.
  saved_at timestamptz := CASE WHEN save.created_at = now() THEN clock_timestamp() ELSE save.created_at END;
BEGIN
  SELECT *
  INTO original_roll
  FROM public.dice_rolls
  WHERE id = save.original_roll_id;
  IF original_roll.id IS NULL
    OR original_roll.session_id <> save.session_id
    OR original_roll.character_id IS NULL
    OR original_roll.character_id IS DISTINCT FROM save.character_id
    OR original_roll.roll_type = 'heroic_save'
  THEN
    PERFORM private.refuse_invalid_original_roll();
  END IF;
  IF original_roll.success THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP012',
      MESSAGE = 'Only a failed roll can be saved',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'heroic_save_after_failure';
  END IF;
  IF saved_at > original_roll.created_at + INTERVAL '30 seconds'
    OR (save.created_at <> now() AND save.created_at < original_roll.created_at)
  THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP013',
      MESSAGE = 'A heroic save must follow its roll within 30 seconds',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'heroic_save_in_time';
  END IF;

  PERFORM
  FROM public.session_players
  WHERE session_id = save.session_id
    AND character_id = save.character_id
    AND is_active
  FOR NO KEY UPDATE;
  SELECT encounter_number
  INTO current_encounter_number
  FROM public.sessions
  WHERE id = save.session_id
  FOR NO KEY UPDATE;
  UPDATE public.session_players
  SET heroic_saves_used = 1,
      heroic_saves_encounter = current_encounter_number
  WHERE session_id = save.session_id
    AND character_id = save.character_id
    AND is_active
    AND (heroic_saves_used = 0 OR heroic_saves_encounter <> current_encounter_number);
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP011',
      MESSAGE = 'The character has no heroic save left in this encounter',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'heroic_save_once_an_encounter';
  END IF;
END
$$;

-- After a roll is written, refuses rolls of several sessions in one statement and the id of an archived roll, uses up a
-- heroic save, emits the event, and checks again whether the caller may roll and whether the creature belongs to the
-- adventure. One trigger without a condition does all of this, because several with conditions would slow every roll:
-- the server parses each trigger's condition again for each statement.
CREATE OR REPLACE FUNCTION private.finish_roll()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me CONSTANT uuid := auth.uid();
BEGIN
  -- This check comes before any session is locked. Otherwise rolls of several sessions would lock the sessions in the
  -- order of the caller's rows, and two such statements could deadlock.
  IF me IS NOT NULL
    AND EXISTS (SELECT FROM new_rolls WHERE session_id <> NEW.session_id)
    AND NOT private.is_service()
  THEN
    PERFORM private.refuse_several_sessions('dice_rolls');
  END IF;
  IF EXISTS (SELECT FROM public.archived_dice_rolls WHERE id = NEW.id) THEN
    PERFORM private.refuse_used_id('dice_rolls');
  END IF;
  -- At READ COMMITTED the query above sees every archived roll.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    PERFORM private.check_id_not_archived_since_snapshot(NEW);
  END IF;
  IF NEW.original_roll_id IS NOT NULL AND NEW.roll_type = 'heroic_save' THEN
    PERFORM private.claim_heroic_save(NEW);
  END IF;
  INSERT INTO public.session_events (session_id, event_type, payload)
  VALUES (
    NEW.session_id,
    'dice_rolled',
    jsonb_build_object(
      'roll_id', NEW.id,
      'character_id', NEW.character_id,
      'creature_id', NEW.creature_id,
      'character_name', NEW.character_name,
      'roll_type', NEW.roll_type,
      'attribute', NEW.attribute,
      'difficulty', NEW.difficulty,
      'modifiers', NEW.modifiers,
      'dice_count', NEW.dice_count,
      'results', NEW.results,
      'total', NEW.total,
      'modified_total', NEW.modified_total,
      'margin', NEW.margin,
      'outcome', NEW.outcome,
      'success', NEW.success,
      'description', NEW.description,
      'animation_seed', NEW.animation_seed,
      'original_roll_id', NEW.original_roll_id
    )
  );
  -- Row security was evaluated on the statement's snapshot, before the event locked the session. The session and the
  -- seat may have changed since, so this checks again whether the caller may roll. The most common case, a player's own
  -- seat, comes first.
  IF me IS NOT NULL
    AND NOT EXISTS (
      SELECT
      FROM public.session_players AS seat
      JOIN public.sessions AS session ON session.id = seat.session_id
      WHERE seat.session_id = NEW.session_id
        AND seat.user_id = me
        AND seat.character_id = NEW.character_id
        AND seat.is_active
        AND session.status = 'active'
    )
    AND NOT private.is_service()
    AND NOT private.may_roll(NEW.session_id, NEW.character_id, NEW.creature_id)
  THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = 'new row violates row-level security policy for table "dice_rolls"';
  END IF;
  -- Since the dice were rolled, the creature may have been deleted, and its id may have been used for a creature of
  -- another adventure.
  IF NEW.creature_id IS NOT NULL
    AND NOT EXISTS (
      SELECT
      FROM public.creatures AS creature
      JOIN public.sessions AS session ON session.adventure_id = creature.adventure_id
      WHERE creature.id = NEW.creature_id
        AND session.id = NEW.session_id
    )
  THEN
    PERFORM private.refuse_creature_of_other_adventure();
  END IF;
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER roll_dice
  BEFORE INSERT ON public.dice_rolls
  FOR EACH ROW EXECUTE FUNCTION private.roll_dice();

-- The capital letter makes this trigger fire before those of the foreign keys, because seat and session must be locked
-- before the character.
CREATE OR REPLACE TRIGGER "Finish_roll"
  AFTER INSERT ON public.dice_rolls
  REFERENCING NEW TABLE AS new_rolls
  FOR EACH ROW EXECUTE FUNCTION private.finish_roll();

-- The modifiers of a new roll are checked in `roll_dice`.
CREATE OR REPLACE TRIGGER check_parsable_modifiers
  BEFORE UPDATE OF modifiers ON public.dice_rolls
  FOR EACH ROW
  WHEN (NOT private.is_client_parsable(NEW.modifiers, 8192))
  EXECUTE FUNCTION private.refuse_unparsable_column('modifiers');
