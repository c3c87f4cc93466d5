-- A character is its owner's. What the game decides (class, attributes, level, experience, maximum) belongs to the
-- server once the character stands.

CREATE POLICY "Users can view own characters"
ON public.characters FOR SELECT
TO authenticated
USING (user_id = (SELECT auth.uid()));

CREATE POLICY "Users can create own characters"
ON public.characters FOR INSERT
TO authenticated
WITH CHECK (user_id = (SELECT auth.uid()));

CREATE POLICY "Users can update own characters"
ON public.characters FOR UPDATE
TO authenticated
USING (user_id = (SELECT auth.uid()))
WITH CHECK (user_id = (SELECT auth.uid()));

CREATE POLICY "Users can delete own characters"
ON public.characters FOR DELETE
TO authenticated
USING (user_id = (SELECT auth.uid()));

GRANT SELECT, DELETE ON public.characters TO authenticated;
GRANT INSERT (id, user_id, name, class, might, grace, wit, heart, equipment, special_ability)
ON public.characters TO authenticated;
-- Retiring is the owner's too; the moment that it stamps is the server's.
GRANT UPDATE (name, equipment, special_ability, hit_points, retired_at) ON public.characters TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.characters TO service_role;
