-- Ten living characters an account, and no character leaves a live table.

CREATE OR REPLACE FUNCTION private.check_character_limit()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    NEW.user_id := coalesce(NEW.user_id, auth.uid());
    -- A row of this id is there already: the primary key answers, not the limit.
    IF EXISTS (SELECT FROM public.characters WHERE id = NEW.id) THEN
      RETURN NEW;
    END IF;
  ELSIF NEW.retired_at IS NOT NULL AND OLD.retired_at IS NULL THEN
    NEW.retired_at := now();
  ELSIF NEW.retired_at IS NOT NULL THEN
    NEW.retired_at := OLD.retired_at;
  END IF;

  IF TG_OP = 'UPDATE'
    AND (NEW.user_id <> OLD.user_id OR (NEW.retired_at IS NOT NULL AND OLD.retired_at IS NULL))
    AND EXISTS (
      SELECT
      FROM public.session_players AS seat
      JOIN public.sessions AS session ON session.id = seat.session_id
      WHERE seat.character_id = NEW.id
        AND seat.is_active
        AND session.status NOT IN ('completed', 'cancelled')
    )
  THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP008',
      MESSAGE = 'The character has a seat at a live table',
      TABLE = 'characters',
      CONSTRAINT = 'character_not_seated';
  END IF;

  IF NEW.retired_at IS NULL
    AND (TG_OP = 'INSERT' OR NEW.user_id <> OLD.user_id OR OLD.retired_at IS NOT NULL)
  THEN
    -- The account owns the limit: whoever adds a character to it waits here for the one before.
    PERFORM FROM public.users WHERE id = NEW.user_id FOR NO KEY UPDATE;
    IF TG_OP = 'INSERT' AND EXISTS (SELECT FROM public.characters WHERE id = NEW.id) THEN
      RETURN NEW;
    END IF;
    PERFORM private.refuse_erased(NEW.user_id);
    IF (
      SELECT count(*)
      FROM public.characters AS living
      WHERE living.user_id = NEW.user_id
        AND living.retired_at IS NULL
        AND living.id <> NEW.id
    ) >= 10
    THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP001',
        MESSAGE = 'Character limit reached (maximum 10)',
        TABLE = 'characters',
        CONSTRAINT = 'character_limit';
    END IF;
  END IF;
  RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER enforce_character_limit
  BEFORE INSERT OR UPDATE OF user_id, retired_at ON public.characters
  FOR EACH ROW EXECUTE FUNCTION private.check_character_limit();

CREATE OR REPLACE TRIGGER set_updated_at
  BEFORE UPDATE ON public.characters
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();

CREATE OR REPLACE TRIGGER check_readable_equipment
  BEFORE INSERT OR UPDATE OF equipment ON public.characters
  FOR EACH ROW
  WHEN (NOT private.is_readable(NEW.equipment))
  EXECUTE FUNCTION private.check_readable('equipment');

CREATE OR REPLACE TRIGGER check_readable_special_ability
  BEFORE INSERT OR UPDATE OF special_ability ON public.characters
  FOR EACH ROW
  WHEN (NOT private.is_readable(NEW.special_ability))
  EXECUTE FUNCTION private.check_readable('special_ability');
