-- Checks the ids of new creatures, enforces the limit of two hundred creatures per adventure, and refuses documents
-- that clients could not parse.

-- Refuses a new creature whose id belongs to a creature of somebody else's adventure (see `refuse_used_id`). The
-- service is not refused.
CREATE OR REPLACE FUNCTION private.check_creature_id()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF EXISTS (
    SELECT
    FROM public.creatures AS creature
    JOIN public.adventures AS adventure ON adventure.id = creature.adventure_id
    WHERE creature.id = NEW.id
      AND adventure.creator_id IS DISTINCT FROM auth.uid()
  )
    AND NOT private.is_service()
  THEN
    IF private.owns_adventure(NEW.adventure_id) THEN
      PERFORM private.refuse_used_id('creatures');
    END IF;
    -- The caller does not own the adventure of the new row. Row security might accept the row: it uses the statement's
    -- snapshot, in which an adventure that another part of the statement has deleted still belongs to the caller. So
    -- the row is refused here. The policy's function, `may_add_creature`, is called first, because its error states the
    -- reason.
    PERFORM private.may_add_creature(NEW.adventure_id);
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = 'new row violates row-level security policy for table "creatures"';
  END IF;
  RETURN NEW;
END
$$;

-- Counts the creatures of an adventure, and refuses more than two hundred.
CREATE OR REPLACE FUNCTION private.check_creature_limit()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- If the id still exists, the statement has deleted this row and inserted another one: see `refuse_used_id`.
  IF TG_OP = 'DELETE' AND EXISTS (SELECT FROM public.creatures WHERE id = OLD.id) THEN
    PERFORM private.refuse_used_id('creatures');
  END IF;
  IF TG_OP = 'UPDATE' AND NEW.adventure_id = OLD.adventure_id THEN
    RETURN NULL;
  END IF;
  IF TG_OP <> 'INSERT' THEN
    UPDATE public.adventures
    SET creature_count = creature_count - 1
    WHERE id = OLD.adventure_id;
  END IF;
  IF TG_OP <> 'DELETE' THEN
    UPDATE public.adventures
    SET creature_count = creature_count + 1
    WHERE id = NEW.adventure_id
      AND creature_count < 200;
    IF NOT FOUND AND EXISTS (SELECT FROM public.adventures WHERE id = NEW.adventure_id) THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP026',
        MESSAGE = 'Creature limit reached (maximum 200)',
        TABLE = 'creatures',
        CONSTRAINT = 'creature_limit';
    END IF;
  END IF;
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER check_creature_id
  BEFORE INSERT ON public.creatures
  FOR EACH ROW EXECUTE FUNCTION private.check_creature_id();

CREATE OR REPLACE TRIGGER enforce_creature_limit
  AFTER INSERT OR DELETE OR UPDATE OF adventure_id ON public.creatures
  FOR EACH ROW EXECUTE FUNCTION private.check_creature_limit();

CREATE OR REPLACE TRIGGER set_updated_at
  BEFORE UPDATE ON public.creatures
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();

-- The next two triggers refuse documents that a typical client could not parse (see `is_client_parsable`). The numbers
-- are the maximum sizes in bytes.
CREATE OR REPLACE TRIGGER check_parsable_stats
  BEFORE INSERT OR UPDATE OF stats ON public.creatures
  FOR EACH ROW
  WHEN (NOT private.is_client_parsable(NEW.stats, 16384))
  EXECUTE FUNCTION private.refuse_unparsable_column('stats');

CREATE OR REPLACE TRIGGER check_parsable_abilities
  BEFORE INSERT OR UPDATE OF abilities ON public.creatures
  FOR EACH ROW
  WHEN (NOT private.is_client_parsable(NEW.abilities, 65536))
  EXECUTE FUNCTION private.refuse_unparsable_column('abilities');
