-- Published adventures are everyone's to read, drafts their creator's. The verdict on the content and the statistics
-- belong to the server.

CREATE OR REPLACE FUNCTION private.can_see_adventure(wanted uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
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
SET search_path = pg_catalog, pg_temp
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

-- The same for whoever adds to the adventure; who may read it is told whose it is.
CREATE OR REPLACE FUNCTION private.may_add_creature(wanted uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF private.owns_adventure(wanted) THEN
    RETURN true;
  END IF;
  IF private.can_see_adventure(wanted) THEN
    PERFORM private.refuse('The adventure belongs to somebody else', 'creatures', 'own_adventure');
  END IF;
  RETURN false;
END
$$;

-- What the catalogue shows of an adventure, its content left out; as the caller.
CREATE OR REPLACE VIEW private.published_adventures
WITH (security_invoker = true)
AS
SELECT
  id,
  creator_id,
  name,
  description,
  thumbnail_url,
  difficulty,
  estimated_duration,
  min_players,
  max_players,
  status,
  published_at,
  is_valid,
  times_played,
  average_rating,
  created_at
FROM public.adventures
WHERE status = 'published';

-- The catalogue's lists, from the row that a page ended with: those that are equal to it in what the list is ordered by, however
-- many, are a walk of their own that begins behind it. The planner has no statistics for `status` under row security and would
-- sort a list for a long walk: sorting is off.
CREATE OR REPLACE FUNCTION private.newest_adventures(place timestamptz, last_id uuid, wanted integer)
RETURNS SETOF private.published_adventures
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off
AS $$
DECLARE
  found integer;
BEGIN
  IF last_id IS NULL THEN
    RETURN QUERY
    SELECT *
    FROM private.published_adventures
    ORDER BY published_at DESC, id
    LIMIT wanted;
    RETURN;
  END IF;
  RETURN QUERY
  SELECT *
  FROM private.published_adventures
  WHERE published_at = place
    AND id > last_id
  ORDER BY published_at DESC, id
  LIMIT wanted;
  GET DIAGNOSTICS found = ROW_COUNT;
  RETURN QUERY
  SELECT *
  FROM private.published_adventures
  WHERE published_at < place
  ORDER BY published_at DESC, id
  LIMIT wanted - found;
END
$$;

CREATE OR REPLACE FUNCTION private.most_played_adventures(place integer, last_id uuid, wanted integer)
RETURNS SETOF private.published_adventures
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off
AS $$
DECLARE
  found integer;
BEGIN
  IF last_id IS NULL THEN
    RETURN QUERY
    SELECT *
    FROM private.published_adventures
    ORDER BY times_played DESC, id
    LIMIT wanted;
    RETURN;
  END IF;
  RETURN QUERY
  SELECT *
  FROM private.published_adventures
  WHERE times_played = place
    AND id > last_id
  ORDER BY times_played DESC, id
  LIMIT wanted;
  GET DIAGNOSTICS found = ROW_COUNT;
  RETURN QUERY
  SELECT *
  FROM private.published_adventures
  WHERE times_played < place
  ORDER BY times_played DESC, id
  LIMIT wanted - found;
END
$$;

-- Comparing `numeric` is not leakproof: a condition of the caller's waits for row security, and the list would be walked from its
-- top. So what follows a place is found as the owner, published ids alone, which are everybody's to read.
CREATE OR REPLACE FUNCTION private.best_rated_after(rating numeric, last_id uuid, wanted integer)
RETURNS uuid[]
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_sort = off
AS $$
DECLARE
  following uuid[];
BEGIN
  following := ARRAY(
    SELECT id
    FROM public.adventures
    WHERE status = 'published'
      AND average_rating = rating
      AND id > last_id
    ORDER BY average_rating DESC NULLS LAST, id
    LIMIT wanted
  );
  IF cardinality(following) < wanted THEN
    following := following || ARRAY(
      SELECT id
      FROM public.adventures
      WHERE status = 'published'
        AND average_rating < rating
      ORDER BY average_rating DESC NULLS LAST, id
      LIMIT wanted - cardinality(following)
    );
  END IF;
  IF cardinality(following) < wanted THEN
    following := following || ARRAY(
      SELECT id
      FROM public.adventures
      WHERE status = 'published'
        AND average_rating IS NULL
      ORDER BY average_rating DESC NULLS LAST, id
      LIMIT wanted - cardinality(following)
    );
  END IF;
  RETURN following;
END
$$;

-- Those without a rating come last.
CREATE OR REPLACE FUNCTION private.best_rated_adventures(place numeric, last_id uuid, wanted integer)
RETURNS SETOF private.published_adventures
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off
AS $$
DECLARE
  following uuid[];
BEGIN
  IF last_id IS NULL THEN
    RETURN QUERY
    SELECT *
    FROM private.published_adventures
    ORDER BY average_rating DESC NULLS LAST, id
    LIMIT wanted;
  ELSIF place IS NULL THEN
    RETURN QUERY
    SELECT *
    FROM private.published_adventures
    WHERE average_rating IS NULL
      AND id > last_id
    ORDER BY average_rating DESC NULLS LAST, id
    LIMIT wanted;
  ELSE
    -- Not within the query: its planner would call the function for itself, to see how many there are.
    following := private.best_rated_after(place, last_id, wanted);
    RETURN QUERY
    SELECT adventure.*
    FROM unnest(following) WITH ORDINALITY AS best (id, nth)
    JOIN private.published_adventures AS adventure ON adventure.id = best.id
    ORDER BY best.nth;
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
GRANT SELECT ON private.published_adventures TO anon, authenticated, service_role;
GRANT INSERT (
  id, creator_id, name, description, thumbnail_url, artwork_url, difficulty, estimated_duration, min_players,
  max_players, content, status
) ON public.adventures TO authenticated;
GRANT UPDATE (
  name, description, thumbnail_url, artwork_url, difficulty, estimated_duration, min_players, max_players, content,
  status
) ON public.adventures TO authenticated;
GRANT DELETE ON public.adventures TO authenticated;
GRANT SELECT, DELETE ON public.adventures TO service_role;
GRANT INSERT (
  id, creator_id, name, description, thumbnail_url, artwork_url, difficulty, estimated_duration, min_players,
  max_players, content, status, published_at, is_valid, validation_errors, times_played, average_rating, created_at,
  updated_at
) ON public.adventures TO service_role;
GRANT UPDATE (
  creator_id, name, description, thumbnail_url, artwork_url, difficulty, estimated_duration, min_players, max_players,
  content, status, published_at, is_valid, validation_errors, times_played, average_rating, created_at, updated_at
) ON public.adventures TO service_role;
