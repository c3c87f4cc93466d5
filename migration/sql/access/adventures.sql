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

-- Published adventures from a place in one of the catalogue's lists, or from its top; row security decides as for the table. The
-- planner has no statistics for `status` under row security and would sort the whole list for a long walk; here it is walked.
CREATE OR REPLACE FUNCTION private.newest_adventures(place timestamptz, last_id uuid, wanted integer)
RETURNS SETOF public.adventures
LANGUAGE plpgsql
STABLE
SET search_path = ''
SET enable_sort = off
AS $$
BEGIN
  RETURN QUERY
  SELECT adventure.*
  FROM public.adventures AS adventure
  WHERE adventure.status = 'published'
    AND adventure.published_at <= coalesce(place, 'infinity')
    AND (place IS NULL OR adventure.published_at < place OR adventure.id > last_id)
  ORDER BY adventure.published_at DESC, adventure.id
  LIMIT wanted;
END
$$;

CREATE OR REPLACE FUNCTION private.most_played_adventures(place integer, last_id uuid, wanted integer)
RETURNS SETOF public.adventures
LANGUAGE plpgsql
STABLE
SET search_path = ''
SET enable_sort = off
AS $$
BEGIN
  RETURN QUERY
  SELECT adventure.*
  FROM public.adventures AS adventure
  WHERE adventure.status = 'published'
    AND adventure.times_played <= coalesce(place, 2147483647)
    AND (place IS NULL OR adventure.times_played < place OR adventure.id > last_id)
  ORDER BY adventure.times_played DESC, adventure.id
  LIMIT wanted;
END
$$;

-- Those without a rating come last, and are a list of their own.
CREATE OR REPLACE FUNCTION private.best_rated_adventures(place numeric, last_id uuid, wanted integer)
RETURNS SETOF public.adventures
LANGUAGE plpgsql
STABLE
SET search_path = ''
SET enable_sort = off
AS $$
BEGIN
  IF last_id IS NULL THEN
    RETURN QUERY
    SELECT adventure.*
    FROM public.adventures AS adventure
    WHERE adventure.status = 'published'
    ORDER BY adventure.average_rating DESC NULLS LAST, adventure.id
    LIMIT wanted;
  ELSIF place IS NULL THEN
    RETURN QUERY
    SELECT adventure.*
    FROM public.adventures AS adventure
    WHERE adventure.status = 'published'
      AND adventure.average_rating IS NULL
      AND adventure.id > last_id
    ORDER BY adventure.average_rating DESC NULLS LAST, adventure.id
    LIMIT wanted;
  ELSE
    RETURN QUERY
    SELECT adventure.*
    FROM public.adventures AS adventure
    WHERE adventure.status = 'published'
      AND adventure.id = ANY (private.best_rated_after(place, last_id, wanted))
    ORDER BY adventure.average_rating DESC NULLS LAST, adventure.id;
  END IF;
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
