-- Enforces the limits of ten living and a hundred retired characters per account. Also keeps a character from retiring
-- or getting another owner while it has a seat in a live session (one that has not ended). A *living* character is one
-- that is not retired.

-- Fills in the owner of a new character and, when an existing one is retired, the time. Refuses a user's new character
-- whose id belongs to a character of somebody else (see `refuse_used_id`), and refuses to retire or give away a
-- character that has a seat in a live session.
CREATE OR REPLACE FUNCTION private.prepare_character()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    NEW.user_id := coalesce(NEW.user_id, auth.uid());
    IF NEW.user_id = auth.uid()
      AND NOT private.is_service()
      AND EXISTS (SELECT FROM public.characters WHERE id = NEW.id AND user_id <> NEW.user_id)
    THEN
      PERFORM private.refuse_used_id('characters');
    END IF;
    RETURN NEW;
  END IF;
  -- The owner decides whether the character is retired; the database sets the time.
  IF NEW.retired_at IS NOT NULL THEN
    NEW.retired_at := coalesce(OLD.retired_at, now());
  END IF;
  IF OLD.live_seats > 0 AND (NEW.user_id <> OLD.user_id OR NEW.retired_at IS NOT NULL) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP008',
      MESSAGE = 'The character has a seat in a live session; leave the session first',
      TABLE = 'characters',
      CONSTRAINT = 'character_not_seated';
  END IF;
  RETURN NEW;
END
$$;

-- Keeps the account's numbers of characters up to date; `add_to_account_counters` enforces the limits.
CREATE OR REPLACE FUNCTION private.check_character_limit()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  -- How much this row counts, 0 or 1, before and after the statement.
  living_before integer := 0;
  retired_before integer := 0;
  living_after integer := 0;
  retired_after integer := 0;
BEGIN
  -- If the id still exists, the statement has deleted this row and inserted another one: see `refuse_used_id`.
  IF TG_OP = 'DELETE' AND EXISTS (SELECT FROM public.characters WHERE id = OLD.id) THEN
    PERFORM private.refuse_used_id('characters');
  END IF;
  IF TG_OP <> 'INSERT' THEN
    living_before := (OLD.retired_at IS NULL)::integer;
    retired_before := 1 - living_before;
  END IF;
  IF TG_OP <> 'DELETE' THEN
    living_after := (NEW.retired_at IS NULL)::integer;
    retired_after := 1 - living_after;
  END IF;
  IF TG_OP = 'UPDATE' AND NEW.user_id = OLD.user_id THEN
    IF living_after <> living_before THEN
      PERFORM private.add_to_account_counters(
        NEW.user_id,
        living => living_after - living_before,
        retired => retired_after - retired_before
      );
    END IF;
    RETURN NULL;
  END IF;
  IF TG_OP = 'UPDATE' THEN -- The character gets another owner.
    PERFORM FROM public.users WHERE id IN (OLD.user_id, NEW.user_id) ORDER BY id FOR NO KEY UPDATE;
  END IF;
  IF TG_OP <> 'INSERT' THEN
    PERFORM private.add_to_account_counters(OLD.user_id, living => -living_before, retired => -retired_before);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    PERFORM private.add_to_account_counters(NEW.user_id, living => living_after, retired => retired_after);
  END IF;
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER prepare_character
  BEFORE INSERT OR UPDATE OF user_id, retired_at ON public.characters
  FOR EACH ROW EXECUTE FUNCTION private.prepare_character();

CREATE OR REPLACE TRIGGER enforce_character_limit
  AFTER INSERT OR DELETE OR UPDATE OF user_id, retired_at ON public.characters
  FOR EACH ROW EXECUTE FUNCTION private.check_character_limit();

CREATE OR REPLACE TRIGGER set_updated_at
  BEFORE UPDATE OF
    user_id, name, class, might, grace, wit, heart, hit_points, max_hit_points, experience, level, equipment,
    special_ability, retired_at, created_at, updated_at
  ON public.characters
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();

-- The next two triggers refuse documents that a typical client could not parse (see `is_client_parsable`). The numbers
-- are the maximum sizes in bytes.
CREATE OR REPLACE TRIGGER check_parsable_equipment
  BEFORE INSERT OR UPDATE OF equipment ON public.characters
  FOR EACH ROW
  WHEN (NOT private.is_client_parsable(NEW.equipment, 65536))
  EXECUTE FUNCTION private.refuse_unparsable_column('equipment');

CREATE OR REPLACE TRIGGER check_parsable_special_ability
  BEFORE INSERT OR UPDATE OF special_ability ON public.characters
  FOR EACH ROW
  WHEN (NOT private.is_client_parsable(NEW.special_ability, 16384))
  EXECUTE FUNCTION private.refuse_unparsable_column('special_ability');
