-- Published adventures are everyone's to read, drafts their creator's. The verdict on the content and the statistics
-- belong to the server.

CREATE OR REPLACE FUNCTION private.can_see_adventure(wanted uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.adventures AS adventure
    WHERE adventure.id = wanted
      AND (adventure.status = 'published' OR adventure.creator_id = auth.uid())
  );
END
$$;

CREATE OR REPLACE FUNCTION private.owns_adventure(wanted uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.adventures AS adventure
    WHERE adventure.id = wanted
      AND adventure.creator_id = auth.uid()
  );
END
$$;

-- The published adventures that follow a place in the list of the best rated. Comparing `numeric` is not leakproof: a condition of
-- the caller's waits for row security, and the list would be walked from its top. Published ones are everybody's to read.
CREATE OR REPLACE FUNCTION private.best_rated_after(rating numeric, last_id uuid, wanted integer)
RETURNS uuid[]
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  RETURN ARRAY(
    SELECT id
    FROM (
      (
        SELECT id, average_rating
        FROM public.adventures
        WHERE status = 'published'
          AND average_rating <= rating
          AND (average_rating < rating OR id > last_id)
        ORDER BY average_rating DESC NULLS LAST, id
        LIMIT wanted
      )
      UNION ALL
      (
        SELECT id, average_rating
        FROM public.adventures
        WHERE status = 'published'
          AND average_rating IS NULL
        ORDER BY average_rating DESC NULLS LAST, id
        LIMIT wanted
      )
    ) AS following
    ORDER BY average_rating DESC NULLS LAST, id
    LIMIT wanted
  );
END
$$;

CREATE POLICY "Published adventures visible to all"
ON public.adventures FOR SELECT
TO anon, authenticated
USING (status = 'published' OR creator_id = (SELECT auth.uid()));

CREATE POLICY "Creators can insert adventures"
ON public.adventures FOR INSERT
TO authenticated
WITH CHECK (creator_id = (SELECT auth.uid()));

CREATE POLICY "Creators can update own adventures"
ON public.adventures FOR UPDATE
TO authenticated
USING (creator_id = (SELECT auth.uid()))
WITH CHECK (creator_id = (SELECT auth.uid()));

CREATE POLICY "Creators can delete own adventures"
ON public.adventures FOR DELETE
TO authenticated
USING (creator_id = (SELECT auth.uid()));

GRANT SELECT ON public.adventures TO anon, authenticated;
GRANT INSERT (
  id, creator_id, name, description, thumbnail_url, artwork_url, difficulty, estimated_duration, min_players,
  max_players, content, status
) ON public.adventures TO authenticated;
GRANT UPDATE (
  name, description, thumbnail_url, artwork_url, difficulty, estimated_duration, min_players, max_players, content,
  status
) ON public.adventures TO authenticated;
GRANT DELETE ON public.adventures TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.adventures TO service_role;
