-- Tutorial steps must be completed in the order of their path.

-- Returns the steps of a path. The first step is common to both paths. As long as no path is chosen (`path` is NULL),
-- only the first step is returned.
CREATE OR REPLACE FUNCTION private.tutorial_steps(path public.tutorial_path)
RETURNS text[]
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN CASE path
    WHEN 'player' THEN
      ARRAY['welcome', 'character-basics', 'dice-rolling', 'combat-practice', 'player-complete']
    WHEN 'seer' THEN ARRAY['welcome', 'running-sessions', 'seer-complete']
    ELSE ARRAY['welcome']
  END;
END
$$;

-- Derives the path from the current step, and starts the tutorial again when the current step goes back to the first.
-- Unless the service writes the row, this trigger also derives the completed steps; and if the statement sets a time of
-- completion, its value is ignored: the stored time is kept or, if there is none, the current time is stored. This
-- trigger does not check the order of the steps, because an upsert fires it twice: for the row proposed for insertion,
-- and again for the existing row that is updated instead. `check_tutorial_step` checks the order in the row that was
-- written in the end.
CREATE OR REPLACE FUNCTION private.prepare_tutorial_step()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  all_steps CONSTANT text[] := private.tutorial_steps('player') || private.tutorial_steps('seer');
  steps text[];
  step_number integer;
  derived_completed_steps text[];
BEGIN
  IF NOT ((NEW.current_step || NEW.completed_steps) <@ all_steps) THEN
    RETURN NEW; -- The table's own check refuses the step.
  END IF;
  -- A step that belongs to only one path chooses that path.
  IF NEW.path IS NULL AND NEW.current_step <> 'welcome' THEN
    NEW.path := CASE
      WHEN NEW.current_step = ANY (private.tutorial_steps('seer')) THEN 'seer'
      ELSE 'player'
    END::public.tutorial_path;
  END IF;
  steps := private.tutorial_steps(NEW.path);
  step_number := array_position(steps, NEW.current_step);

  -- The user went back to the start: the tutorial begins again.
  IF TG_OP = 'UPDATE' AND step_number = 1 AND OLD.current_step <> 'welcome' THEN
    NEW.completed_steps := '{}';
    NEW.completed_at := NULL;
    -- `skipped` is reset too, unless this statement changes it from false to true.
    NEW.skipped := NEW.skipped AND NOT OLD.skipped;
    RETURN NEW;
  END IF;
  IF private.is_service() THEN
    RETURN NEW;
  END IF;

  IF NEW.completed_at IS NOT NULL THEN
    NEW.completed_at := coalesce(CASE WHEN TG_OP = 'UPDATE' THEN OLD.completed_at END, now());
  END IF;
  -- If the statement does not change the list of completed steps, the list becomes the steps before the current one, or
  -- all steps once the tutorial is completed. A list that also includes the current step is valid, and stays.
  derived_completed_steps := CASE WHEN NEW.completed_at IS NULL THEN steps[:step_number - 1] ELSE steps END;
  IF NEW.completed_steps = (CASE WHEN TG_OP = 'UPDATE' THEN OLD.completed_steps ELSE '{}' END)
    AND NEW.completed_steps <> steps[:step_number]
  THEN
    NEW.completed_steps := derived_completed_steps;
  END IF;
  RETURN NEW;
END
$$;

-- Refuses three things: any change of the step other than to the next one or back to the start (an INSERT counts as a
-- change from the first step), a list of completed steps that does not fit the step, and completion before the last
-- step. The service may write any of these.
CREATE OR REPLACE FUNCTION private.check_tutorial_step()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  steps CONSTANT text[] := private.tutorial_steps(NEW.path);
  step_number CONSTANT integer := array_position(steps, NEW.current_step);
  previous_step_number integer := 1;
BEGIN
  IF private.is_service() THEN
    RETURN NULL;
  END IF;
  IF TG_OP = 'UPDATE' THEN
    previous_step_number := array_position(steps, OLD.current_step);
    IF step_number = 1 AND NEW.completed_at IS NULL AND NEW.completed_steps = '{}' THEN
      RETURN NULL;
    END IF;
  END IF;
  IF step_number BETWEEN previous_step_number AND previous_step_number + 1
    AND (NEW.completed_at IS NULL OR (NEW.path IS NOT NULL AND step_number = cardinality(steps)))
    -- All earlier steps must be completed. The current one may be; no later one may.
    AND (
      NEW.completed_steps = steps[:step_number]
      OR NEW.completed_steps = (CASE WHEN NEW.completed_at IS NULL THEN steps[:step_number - 1] ELSE steps END)
    )
  THEN
    RETURN NULL;
  END IF;
  RAISE EXCEPTION USING
    ERRCODE = 'SP021',
    MESSAGE = 'Tutorial steps must be completed in order',
    TABLE = 'tutorial_progress',
    CONSTRAINT = 'tutorial_in_order';
END
$$;

CREATE OR REPLACE TRIGGER prepare_tutorial_step
  BEFORE INSERT OR UPDATE ON public.tutorial_progress
  FOR EACH ROW EXECUTE FUNCTION private.prepare_tutorial_step();

CREATE OR REPLACE TRIGGER check_tutorial_step
  AFTER INSERT OR UPDATE ON public.tutorial_progress
  FOR EACH ROW EXECUTE FUNCTION private.check_tutorial_step();

CREATE OR REPLACE TRIGGER set_updated_at
  BEFORE UPDATE ON public.tutorial_progress
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();
