-- Users read and write their own progress.

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
-- The key `user_id` is included because an upsert by Supabase's client library sets every column. Row security lets a
-- user write only their own id.
GRANT UPDATE (user_id, path, current_step, completed_steps, completed_at, skipped)
ON public.tutorial_progress TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.tutorial_progress TO service_role;
