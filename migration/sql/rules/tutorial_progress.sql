CREATE TRIGGER set_updated_at
  BEFORE UPDATE ON public.tutorial_progress
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();
