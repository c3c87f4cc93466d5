-- Everyone can read published adventures; adventures with status `draft` or `archived` are visible only to their
-- creators. Users cannot set the validation result and the statistics; only triggers and the service do.

CREATE OR REPLACE FUNCTION private.can_see_adventure(target_adventure_id uuid)
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
    WHERE adventure.id = target_adventure_id
      AND (adventure.status = 'published' OR adventure.creator_id = auth.uid())
  );
END
$$;

CREATE OR REPLACE FUNCTION private.owns_adventure(target_adventure_id uuid)
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
    WHERE adventure.id = target_adventure_id
      AND adventure.creator_id = auth.uid()
  );
END
$$;

-- Whether the caller may add a creature to the adventure. If the caller can see the adventure but does not own it, this
-- raises an error that says so instead of returning false.
CREATE OR REPLACE FUNCTION private.may_add_creature(target_adventure_id uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF private.owns_adventure(target_adventure_id) THEN
    RETURN true;
  END IF;
  IF private.can_see_adventure(target_adventure_id) THEN
    PERFORM private.refuse('Only the creator of an adventure may add creatures to it', 'creatures', 'own_adventure');
  END IF;
  RETURN false;
END
$$;

-- The columns of published adventures that the catalogue (the list from which Seers choose) shows: all but `content`,
-- `artwork_url`, `validation_errors`, `updated_at` and `creature_count`. The caller's privileges and policies apply.
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

-- `newest_adventures`, `most_played_adventures` and `best_rated_adventures` return pages of the catalogue. The
-- arguments `last_...` are the sort key and the id of the last row of the previous page; if `last_id` is NULL, the page
-- starts at the top. One query reads the remaining rows with the same sort key as that last row, and another query the
-- rows with lower sort keys. A single query for all of them would read every row with the same key again for each page,
-- and most adventures of a young catalogue have been played equally often. Under row security the planner may not use
-- its statistics for `status`, so it misjudges how many adventures are published. For large pages it would then sort
-- the whole list instead of reading an index in order, so sorting is disabled.
CREATE OR REPLACE FUNCTION private.newest_adventures(last_published_at timestamptz, last_id uuid, max_rows integer)
RETURNS SETOF private.published_adventures
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off
AS $$
DECLARE
  rows_returned integer;
BEGIN
  IF last_id IS NULL THEN
    RETURN QUERY
    SELECT *
    FROM private.published_adventures
    ORDER BY published_at DESC, id
    LIMIT max_rows;
    RETURN;
  END IF;
  RETURN QUERY
  SELECT *
  FROM private.published_adventures
  WHERE published_at = last_published_at
    AND id > last_id
  ORDER BY published_at DESC, id
  LIMIT max_rows;
  GET DIAGNOSTICS rows_returned = ROW_COUNT;
  RETURN QUERY
  SELECT *
  FROM private.published_adventures
  WHERE published_at < last_published_at
  ORDER BY published_at DESC, id
  LIMIT max_rows - rows_returned;
END
$$;

CREATE OR REPLACE FUNCTION private.most_played_adventures(last_times_played integer, last_id uuid, max_rows integer)
RETURNS SETOF private.published_adventures
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off
AS $$
DECLARE
  rows_returned integer;
BEGIN
  IF last_id IS NULL THEN
    RETURN QUERY
    SELECT *
    FROM private.published_adventures
    ORDER BY times_played DESC, id
    LIMIT max_rows;
    RETURN;
  END IF;
  RETURN QUERY
  SELECT *
  FROM private.published_adventures
  WHERE times_played = last_times_played
    AND id > last_id
  ORDER BY times_played DESC, id
  LIMIT max_rows;
  GET DIAGNOSTICS rows_returned = ROW_COUNT;
  RETURN QUERY
  SELECT *
  FROM private.published_adventures
  WHERE times_played < last_times_played
  ORDER BY times_played DESC, id
  LIMIT max_rows - rows_returned;
END
$$;

-- Returns ids of published adventures, best rated first, after the given rating and id. This function runs as its
-- owner, because the comparison of `numeric` values is not leakproof: under row security it would come after the
-- policies and could not use the index, and each page would be searched from the top of the list. The function returns
-- only ids of published adventures, which everybody may read.
CREATE OR REPLACE FUNCTION private.best_rated_ids_after(last_rating numeric, last_id uuid, max_rows integer)
RETURNS uuid[]
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_sort = off
AS $$
DECLARE
  page_ids uuid[];
BEGIN
  page_ids := ARRAY(
    SELECT id
    FROM public.adventures
    WHERE status = 'published'
      AND average_rating = last_rating
      AND id > last_id
    ORDER BY average_rating DESC NULLS LAST, id
    LIMIT max_rows
  );
  IF cardinality(page_ids) < max_rows THEN
    page_ids := page_ids || ARRAY(
      SELECT id
      FROM public.adventures
      WHERE status = 'published'
        AND average_rating < last_rating
      ORDER BY average_rating DESC NULLS LAST, id
      LIMIT max_rows - cardinality(page_ids)
    );
  END IF;
  IF cardinality(page_ids) < max_rows THEN
    page_ids := page_ids || ARRAY(
      SELECT id
      FROM public.adventures
      WHERE status = 'published'
        AND average_rating IS NULL
      ORDER BY average_rating DESC NULLS LAST, id
      LIMIT max_rows - cardinality(page_ids)
    );
  END IF;
  RETURN page_ids;
END
$$;

-- Returns a page of the catalogue, best rated first. Adventures without a rating come last.
CREATE OR REPLACE FUNCTION private.best_rated_adventures(last_rating numeric, last_id uuid, max_rows integer)
RETURNS SETOF private.published_adventures
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off
AS $$
DECLARE
  page_ids uuid[];
BEGIN
  IF last_id IS NULL THEN
    RETURN QUERY
    SELECT *
    FROM private.published_adventures
    ORDER BY average_rating DESC NULLS LAST, id
    LIMIT max_rows;
  ELSIF last_rating IS NULL THEN
    RETURN QUERY
    SELECT *
    FROM private.published_adventures
    WHERE average_rating IS NULL
      AND id > last_id
    ORDER BY average_rating DESC NULLS LAST, id
    LIMIT max_rows;
  ELSE
    -- `best_rated_ids_after` is called here and not in the query below, where the planner would execute it once more,
    -- to estimate the number of rows.
    page_ids := private.best_rated_ids_after(last_rating, last_id, max_rows);
    RETURN QUERY
    SELECT adventure.*
    FROM unnest(page_ids) WITH ORDINALITY AS best_rated (id, nth)
    JOIN private.published_adventures AS adventure ON adventure.id = best_rated.id
    ORDER BY best_rated.nth;
  END IF;
END
$$;

-- The name of this policy comes from the game's specification. Creators also see their own adventures, whatever their
-- status.
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
