CREATE OR REPLACE TRIGGER set_updated_at
  BEFORE UPDATE ON public.creatures
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();
