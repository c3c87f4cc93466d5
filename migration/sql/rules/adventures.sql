-- Published means valid: what a client writes is valid again only after the service has looked at it.

CREATE OR REPLACE FUNCTION private.check_adventure()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    NEW.creator_id := coalesce(NEW.creator_id, auth.uid());
    PERFORM private.refuse_erased(NEW.creator_id);
    IF NEW.status = 'published' THEN
      NEW.published_at := coalesce(NEW.published_at, now());
    END IF;
    RETURN NEW;
  END IF;

  -- A token outlives its account by an hour. What is put away stays so, and nothing new is told in it; the counts of what
  -- others play go on.
  IF auth.uid() = NEW.creator_id
    AND (
      (NEW.status <> OLD.status AND NEW.status <> 'archived')
      OR (NEW.name, NEW.description, NEW.thumbnail_url, NEW.artwork_url, NEW.content)
        IS DISTINCT FROM (OLD.name, OLD.description, OLD.thumbnail_url, OLD.artwork_url, OLD.content)
    )
  THEN
    PERFORM private.refuse_erased(NEW.creator_id);
  END IF;
  IF NEW.content IS DISTINCT FROM OLD.content THEN
    IF OLD.status = 'published' AND NEW.status = 'published' THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP010',
        MESSAGE = 'A published adventure is taken back before it is edited',
        TABLE = 'adventures',
        CONSTRAINT = 'published_not_edited';
    END IF;
    -- Content and verdict written together, on a row without a verdict, are the service's own.
    IF OLD.is_valid OR NOT NEW.is_valid THEN
      NEW.is_valid := false;
      NEW.validation_errors := '[]';
    END IF;
  END IF;
  IF NEW.status = 'published' AND OLD.status <> 'published' THEN
    NEW.published_at := now();
  END IF;
  RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER check_adventure
  BEFORE INSERT OR UPDATE ON public.adventures
  FOR EACH ROW EXECUTE FUNCTION private.check_adventure();

CREATE OR REPLACE TRIGGER set_updated_at
  BEFORE UPDATE ON public.adventures
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();

CREATE OR REPLACE TRIGGER check_readable_content
  BEFORE INSERT OR UPDATE OF content ON public.adventures
  FOR EACH ROW
  WHEN (NOT private.is_readable(NEW.content))
  EXECUTE FUNCTION private.check_readable('content');
