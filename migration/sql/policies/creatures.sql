-- Whoever can see an adventure can see its creatures. Of the users, only the creator of the adventure can write them.

CREATE POLICY "Creatures visible with their adventure"
ON public.creatures FOR SELECT
TO anon, authenticated
USING (private.can_see_adventure(adventure_id));

CREATE POLICY "Creators can insert creatures"
ON public.creatures FOR INSERT
TO authenticated
WITH CHECK (private.may_add_creature(adventure_id));

CREATE POLICY "Creators can update creatures"
ON public.creatures FOR UPDATE
TO authenticated
USING (private.owns_adventure(adventure_id))
WITH CHECK (private.owns_adventure(adventure_id));

CREATE POLICY "Creators can delete creatures"
ON public.creatures FOR DELETE
TO authenticated
USING (private.owns_adventure(adventure_id));

GRANT SELECT ON public.creatures TO anon, authenticated;
GRANT INSERT (id, adventure_id, name, description, stats, abilities, hit_points, armor)
ON public.creatures TO authenticated;
GRANT UPDATE (name, description, stats, abilities, hit_points, armor) ON public.creatures TO authenticated;
GRANT DELETE ON public.creatures TO authenticated;
-- Even the service cannot move a creature to another adventure, because the creature may have rolled in sessions of its
-- adventure.
GRANT SELECT, INSERT, DELETE ON public.creatures TO service_role;
GRANT UPDATE (name, description, stats, abilities, hit_points, armor, created_at, updated_at)
ON public.creatures TO service_role;
