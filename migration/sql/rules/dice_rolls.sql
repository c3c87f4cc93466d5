-- The database rolls: a client names what is rolled, never what comes of it.

-- A heroic save is claimed by the roll that makes it, so that two at once cannot both have it: one an encounter for
-- each seat, once a roll, within thirty seconds of a roll that failed. Takes the seat, then the session, as leaving does.
CREATE OR REPLACE FUNCTION private.claim_heroic_save(save public.dice_rolls)
RETURNS public.dice_rolls
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  first public.dice_rolls;
  encounter integer;
  moment timestamptz := CASE WHEN save.results IS NULL THEN clock_timestamp() ELSE save.created_at END;
BEGIN
  SELECT *
  INTO first
  FROM public.dice_rolls
  WHERE id = save.original_roll_id;
  IF first.id IS NULL
    OR first.session_id <> save.session_id
    OR first.character_id IS NULL
    OR first.character_id IS DISTINCT FROM save.character_id
    OR first.roll_type = 'heroic_save'
  THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP015',
      MESSAGE = 'A heroic save repeats a roll of the same character at the same table',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'heroic_save_of_own_roll';
  END IF;
  IF first.success THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP012',
      MESSAGE = 'The roll did not fail',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'heroic_save_after_failure';
  END IF;

  PERFORM
  FROM public.session_players
  WHERE session_id = save.session_id
    AND character_id = save.character_id
    AND is_active
  FOR NO KEY UPDATE;
  SELECT encounters_begun
  INTO encounter
  FROM public.sessions
  WHERE id = save.session_id
  FOR NO KEY UPDATE;
  IF EXISTS (SELECT FROM public.dice_rolls WHERE original_roll_id = first.id) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP014',
      MESSAGE = 'The roll was saved already',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'heroic_save_once_a_roll';
  END IF;
  IF moment > first.created_at + INTERVAL '30 seconds' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP013',
      MESSAGE = 'A heroic save follows its roll within 30 seconds',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'heroic_save_in_time';
  END IF;

  UPDATE public.session_players
  SET heroic_saves_used = 1,
      heroic_saves_encounter = encounter
  WHERE session_id = save.session_id
    AND character_id = save.character_id
    AND is_active
    AND (heroic_saves_used = 0 OR heroic_saves_encounter <> encounter);
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP011',
      MESSAGE = 'The heroic save of this encounter is spent',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'heroic_save_once_an_encounter';
  END IF;

  save.attribute := first.attribute;
  save.difficulty := first.difficulty;
  save.modifiers := first.modifiers;
  RETURN save;
END
$$;

-- Counts the dice from the sheet and the modifiers, rolls them, and says what came of it. A row that brings its results
-- (a recorded or scripted roll; the API's users cannot) keeps them, and the checks hold it to the same rules.
CREATE OR REPLACE FUNCTION private.roll_dice()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  strength integer;
BEGIN
  IF num_nonnulls(NEW.character_id, NEW.creature_id) <> 1 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP016',
      MESSAGE = 'A roll names one character or one creature',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'one_roller';
  END IF;
  IF NOT private.are_valid_modifiers(NEW.modifiers) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'check_violation',
      MESSAGE = 'new row for relation "dice_rolls" violates check constraint "valid_modifiers"',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'valid_modifiers';
  END IF;
  IF NEW.original_roll_id IS NOT NULL AND NEW.roll_type = 'heroic_save' THEN
    NEW := private.claim_heroic_save(NEW);
  END IF;

  IF NEW.character_id IS NOT NULL THEN
    SELECT
      hero.name,
      CASE NEW.attribute
        WHEN 'might' THEN hero.might
        WHEN 'grace' THEN hero.grace
        WHEN 'wit' THEN hero.wit
        WHEN 'heart' THEN hero.heart
      END
    INTO NEW.character_name, strength
    FROM public.characters AS hero
    WHERE hero.id = NEW.character_id;
  ELSE
    SELECT creature.name, (creature.stats ->> NEW.attribute::text)::numeric::integer
    INTO NEW.character_name, strength
    FROM public.creatures AS creature
    JOIN public.sessions AS session ON session.adventure_id = creature.adventure_id
    WHERE creature.id = NEW.creature_id
      AND session.id = NEW.session_id;
    IF NOT FOUND THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP017',
        MESSAGE = 'The creature is not in the adventure that the session plays',
        TABLE = 'dice_rolls',
        CONSTRAINT = 'creature_of_adventure';
    END IF;
  END IF;

  IF NEW.results IS NULL THEN
    -- Initiative is one die; everything else the sheet plus bonus dice, at least one and at most ten.
    NEW.dice_count := CASE
      WHEN NEW.roll_type = 'initiative' THEN 1
      ELSE least(10, greatest(1, strength + private.sum_of_modifiers(NEW.modifiers, 'dice')))
    END;
    -- Faces begin at one. A loop, because a query over the array would cost more than the dice.
    NEW.results := private.random_numbers(6, NEW.dice_count);
    FOR die IN 1 .. NEW.dice_count
    LOOP
      NEW.results[die] := NEW.results[die] + 1;
    END LOOP;
  END IF;

  NEW.dice_count := coalesce(NEW.dice_count, cardinality(NEW.results));
  NEW.total := coalesce(NEW.total, private.sum_of_dice(NEW.results));
  NEW.modified_total := coalesce(
    NEW.modified_total,
    NEW.total + private.sum_of_modifiers(NEW.modifiers, 'flat')
  );
  NEW.margin := coalesce(NEW.margin, NEW.modified_total - NEW.difficulty);
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
  -- 48 bits: random enough for an animation, and exact in a client whose numbers are doubles.
  NEW.animation_seed := coalesce(
    NEW.animation_seed,
    ('x' || left(replace(gen_random_uuid()::text, '-', ''), 12))::bit(48)::bigint
  );
  RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION private.tell_roll()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  INSERT INTO public.session_events (session_id, event_type, payload)
  VALUES (
    NEW.session_id,
    'dice_rolled',
    jsonb_build_object(
      'rollId', NEW.id,
      'characterId', NEW.character_id,
      'creatureId', NEW.creature_id,
      'characterName', NEW.character_name,
      'rollType', NEW.roll_type,
      'attribute', NEW.attribute,
      'difficulty', NEW.difficulty,
      'modifiers', NEW.modifiers,
      'diceCount', NEW.dice_count,
      'results', NEW.results,
      'total', NEW.total,
      'modifiedTotal', NEW.modified_total,
      'margin', NEW.margin,
      'outcome', NEW.outcome,
      'success', NEW.success,
      'description', NEW.description,
      'animationSeed', NEW.animation_seed,
      'originalRollId', NEW.original_roll_id
    )
  );
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER roll_dice
  BEFORE INSERT ON public.dice_rolls
  FOR EACH ROW EXECUTE FUNCTION private.roll_dice();

CREATE OR REPLACE TRIGGER tell_roll
  AFTER INSERT ON public.dice_rolls
  FOR EACH ROW EXECUTE FUNCTION private.tell_roll();

-- Named to come after the roll, which says what is wrong with a modifier itself.
CREATE OR REPLACE TRIGGER unreadable_modifiers
  BEFORE INSERT OR UPDATE OF modifiers ON public.dice_rolls
  FOR EACH ROW
  WHEN (NEW.modifiers <> '[]' AND NOT private.is_readable(NEW.modifiers))
  EXECUTE FUNCTION private.check_readable('modifiers');
