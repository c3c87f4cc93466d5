-- A published adventure has valid content. After a client has changed the content of an adventure, only the service's
-- validation makes it valid again. Also here: the limit of two hundred adventures per account, and which sessions keep
-- an adventure from being deleted or are deleted with it.

-- Sets what the caller does not write (the creator, the time of publication, whether new content is valid). Refuses new
-- content of an adventure that is published and stays so, and a user's new adventure whose id belongs to an adventure
-- of somebody else.
CREATE OR REPLACE FUNCTION private.prepare_adventure()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    NEW.creator_id := coalesce(NEW.creator_id, auth.uid());
    IF NEW.creator_id = auth.uid() AND NOT private.is_service() THEN
      IF EXISTS (SELECT FROM public.adventures WHERE id = NEW.id AND creator_id <> NEW.creator_id) THEN
        PERFORM private.refuse_used_id('adventures');
      END IF;
      -- The service stores the result of a validation only if `updated_at` has not changed since it read the content.
      -- If this adventure replaces a deleted one with the same id, a result for the deleted one must not be stored, so
      -- the two need different times. `now()` would not do: transactions that are sent in one simple-query message can
      -- have the same time.
      NEW.updated_at := clock_timestamp();
    END IF;
    IF NEW.status = 'published' THEN
      NEW.published_at := coalesce(NEW.published_at, now());
    END IF;
    RETURN NEW;
  END IF;

  -- Content is compared as it is stored: 12 and 12.0 are equal as numbers, but readers see the difference.
  IF record_image_ne(ROW(NEW.content), ROW(OLD.content)) THEN
    IF OLD.status = 'published' AND NEW.status = 'published' THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP010',
        MESSAGE = 'The adventure is published; unpublish it before editing its content',
        TABLE = 'adventures',
        CONSTRAINT = 'published_not_edited';
    END IF;
    -- Only the service can write `is_valid`. If it sets `is_valid` from false to true together with new content, it has
    -- validated that content. In every other case new content is not valid.
    IF OLD.is_valid OR NOT NEW.is_valid THEN
      NEW.is_valid := false;
      NEW.validation_errors := '[]';
    END IF;
  END IF;
  IF NEW.status = 'published' AND OLD.status <> 'published' THEN
    -- An adventure that is published again keeps the time of its first publication, so that nobody can stay at the top
    -- of the newest adventures.
    NEW.published_at := coalesce(OLD.published_at, now());
  END IF;
  -- Closing an account deletes or archives its drafts, so a closed account gets no new ones. A concurrent closing of
  -- this account may have an older snapshot, in which this adventure is not yet a draft. Each closing begins by locking
  -- the account's row in `account_gates`. So that row is updated here: a closing with an older snapshot then fails with
  -- a serialization error, instead of missing this draft. A change by a user who is not the creator needs none of this,
  -- because row security refuses it.
  IF NEW.status = 'draft' AND OLD.status <> 'draft' AND (private.is_service() OR auth.uid() = NEW.creator_id) THEN
    UPDATE private.account_gates
    SET is_open = is_open
    WHERE account_id = NEW.creator_id
      AND is_open;
    IF NOT FOUND THEN
      PERFORM private.refuse_closed_account();
    END IF;
  END IF;
  RETURN NEW;
END
$$;

-- Keeps the account's number of adventures up to date; `add_to_account_counters` enforces the limit of two hundred.
CREATE OR REPLACE FUNCTION private.check_adventure_limit()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- If the id still exists, the statement has deleted this row and inserted another one: see `refuse_used_id`.
  IF TG_OP = 'DELETE' AND EXISTS (SELECT FROM public.adventures WHERE id = OLD.id) THEN
    PERFORM private.refuse_used_id('adventures');
  END IF;
  IF TG_OP = 'UPDATE' AND NEW.creator_id = OLD.creator_id THEN
    RETURN NULL;
  END IF;
  IF TG_OP = 'UPDATE' THEN -- The adventure gets another creator.
    PERFORM FROM public.users WHERE id IN (OLD.creator_id, NEW.creator_id) ORDER BY id FOR NO KEY UPDATE;
  END IF;
  IF TG_OP <> 'INSERT' THEN
    PERFORM private.add_to_account_counters(OLD.creator_id, adventures => -1);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    PERFORM private.add_to_account_counters(NEW.creator_id, adventures => 1);
  END IF;
  RETURN NULL;
END
$$;

-- Whether an adventure has history, which keeps it from being deleted: a session that is live (has not ended), or in
-- which somebody besides its Seer had a seat. An ended session without such a player is not history. Otherwise any user
-- could keep a published adventure from ever being deleted, by creating a session of it and ending that session.
CREATE OR REPLACE FUNCTION private.adventure_has_history(target_adventure_id uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.sessions AS session
    WHERE session.adventure_id = target_adventure_id
      AND (
        session.status NOT IN ('completed', 'cancelled')
        OR EXISTS (
          SELECT
          FROM public.session_players AS seat
          WHERE seat.session_id = session.id
            AND seat.user_id <> session.seer_id
        )
      )
  )
  OR EXISTS (
    SELECT
    FROM public.archived_sessions AS session
    JOIN public.archived_session_players AS seat ON seat.session_id = session.id AND seat.user_id <> session.seer_id
    WHERE session.adventure_id = target_adventure_id
  );
END
$$;

-- Before an adventure is deleted, deletes its unshared sessions: those that have ended and in which nobody besides the
-- Seer had a seat, so that they are not history (see `adventure_has_history`). The adventure is already locked,
-- although sessions come before adventures in the lock order. Waiting for these sessions is safe all the same: they
-- have ended, and no statement locks an ended session and then waits for an adventure. (A transaction of two statements
-- can, and may then end in a deadlock error.)
CREATE OR REPLACE FUNCTION private.delete_unshared_sessions()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  unshared_session_ids uuid[];
BEGIN
  unshared_session_ids := ARRAY(
    SELECT session.id
    FROM public.sessions AS session
    WHERE session.adventure_id = OLD.id
      AND session.status IN ('completed', 'cancelled')
      AND NOT EXISTS (
        SELECT
        FROM public.session_players AS seat
        WHERE seat.session_id = session.id
          AND seat.user_id <> session.seer_id
      )
  );
  IF unshared_session_ids <> '{}' THEN
    PERFORM private.lock_rows('sessions', unshared_session_ids);
    DELETE FROM public.sessions WHERE id = ANY (unshared_session_ids);
  END IF;
  DELETE FROM public.archived_sessions AS session
  WHERE session.adventure_id = OLD.id
    AND NOT EXISTS (
      SELECT
      FROM public.archived_session_players AS seat
      WHERE seat.session_id = session.id
        AND seat.user_id <> session.seer_id
    );
  RETURN OLD;
END
$$;

CREATE OR REPLACE TRIGGER prepare_adventure
  BEFORE INSERT OR UPDATE ON public.adventures
  FOR EACH ROW EXECUTE FUNCTION private.prepare_adventure();

CREATE OR REPLACE TRIGGER enforce_adventure_limit
  AFTER INSERT OR DELETE OR UPDATE OF creator_id ON public.adventures
  FOR EACH ROW EXECUTE FUNCTION private.check_adventure_limit();

CREATE OR REPLACE TRIGGER delete_unshared_sessions
  BEFORE DELETE ON public.adventures
  FOR EACH ROW EXECUTE FUNCTION private.delete_unshared_sessions();

CREATE OR REPLACE TRIGGER set_updated_at
  BEFORE UPDATE OF
    creator_id, name, description, thumbnail_url, artwork_url, difficulty, estimated_duration, min_players, max_players,
    content, status, published_at, is_valid, validation_errors, created_at, updated_at
  ON public.adventures
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();

-- Refuses content that a typical client could not parse (see `is_client_parsable`); 1048576 is the maximum size in
-- bytes.
CREATE OR REPLACE TRIGGER check_parsable_content
  BEFORE INSERT OR UPDATE OF content ON public.adventures
  FOR EACH ROW
  WHEN (NOT private.is_client_parsable(NEW.content, 1048576))
  EXECUTE FUNCTION private.refuse_unparsable_column('content');
