CREATE OR REPLACE TRIGGER set_updated_at
  BEFORE UPDATE ON public.creatures
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();

CREATE OR REPLACE TRIGGER check_readable_stats
  BEFORE INSERT OR UPDATE OF stats ON public.creatures
  FOR EACH ROW
  WHEN (NOT private.is_readable(NEW.stats))
  EXECUTE FUNCTION private.check_readable('stats');

CREATE OR REPLACE TRIGGER check_readable_abilities
  BEFORE INSERT OR UPDATE OF abilities ON public.creatures
  FOR EACH ROW
  WHEN (NOT private.is_readable(NEW.abilities))
  EXECUTE FUNCTION private.check_readable('abilities');
