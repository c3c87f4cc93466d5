-- Everyone's own.

CREATE POLICY "Users can view own tutorial"
ON public.tutorial_progress FOR SELECT
TO authenticated
USING (user_id = (SELECT auth.uid()));

CREATE POLICY "Users can start own tutorial"
ON public.tutorial_progress FOR INSERT
TO authenticated
WITH CHECK (user_id = (SELECT auth.uid()));

CREATE POLICY "Users can update own tutorial"
ON public.tutorial_progress FOR UPDATE
TO authenticated
USING (user_id = (SELECT auth.uid()))
WITH CHECK (user_id = (SELECT auth.uid()));

GRANT SELECT ON public.tutorial_progress TO authenticated;
GRANT INSERT (user_id, path, current_step, completed_steps, completed_at, skipped)
ON public.tutorial_progress TO authenticated;
-- The key too: an upsert of the platform's client names every column. Row security keeps it to oneself.
GRANT UPDATE (user_id, path, current_step, completed_steps, completed_at, skipped)
ON public.tutorial_progress TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.tutorial_progress TO service_role;
