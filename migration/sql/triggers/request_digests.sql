-- Makes the creation of rows idempotent: a client that repeats the request that created a row, with the same id, gets
-- that row. The repetition is recognized by a digest of the request, stored in `private.request_digests`.

-- Returns the digest of a request: two hashes with different seeds, computed from the columns that the Rust crate
-- `service` sets when it creates a row.
CREATE OR REPLACE FUNCTION private.request_digest(relation text, requested_row jsonb)
RETURNS bigint[]
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  request_columns CONSTANT text[] := (CASE relation
    WHEN 'characters' THEN '{user_id,name,class,might,grace,wit,heart,equipment,special_ability}'
    WHEN 'adventures' THEN
      '{creator_id,name,description,thumbnail_url,artwork_url,difficulty,estimated_duration,min_players,max_players,
        content}'
    WHEN 'creatures' THEN '{adventure_id,name,description,stats,abilities,hit_points,armor}'
    WHEN 'sessions' THEN '{seer_id,adventure_id,is_public,max_players,looking_for,scheduled_start}'
    WHEN 'users' THEN '{email,raw_user_meta_data}' -- of auth.users
  END)::text[];
  requested_values jsonb;
BEGIN
  SELECT jsonb_object_agg(key, value)
  INTO requested_values
  FROM jsonb_each(requested_row)
  WHERE key = ANY (request_columns);
  RETURN ARRAY[jsonb_hash_extended(requested_values, 0), jsonb_hash_extended(requested_values, 1)];
END
$$;

-- When a row is created, stores the digest of its request; when the row is deleted, deletes the digest.
CREATE OR REPLACE FUNCTION private.sync_request_digest()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    DELETE FROM private.request_digests
    WHERE id = OLD.id
      AND relation = TG_TABLE_NAME;
  -- A function that the statement calls (in RETURNING, for example) may already have deleted the row. Then no digest is
  -- stored. Accounts are not checked, because users cannot delete them.
  ELSIF (CASE TG_TABLE_NAME
    WHEN 'characters' THEN EXISTS (SELECT FROM public.characters WHERE id = NEW.id)
    WHEN 'adventures' THEN EXISTS (SELECT FROM public.adventures WHERE id = NEW.id)
    WHEN 'creatures' THEN EXISTS (SELECT FROM public.creatures WHERE id = NEW.id)
    WHEN 'sessions' THEN EXISTS (SELECT FROM public.sessions WHERE id = NEW.id)
    ELSE true
  END) THEN
    INSERT INTO private.request_digests (relation, id, requested_by, digest)
    VALUES (TG_TABLE_NAME, NEW.id, auth.uid(), private.request_digest(TG_TABLE_NAME, to_jsonb(NEW)))
    ON CONFLICT (id, relation) DO UPDATE
    SET requested_by = excluded.requested_by,
        digest = excluded.digest;
  END IF;
  RETURN NULL;
END
$$;

-- Whether the caller created the row that has the id of `requested_row`, with a request for the same values. False for
-- rows that others created. The service and operators count as one caller: for both, `requested_by` is NULL.
CREATE OR REPLACE FUNCTION private.is_same_request(relation text, requested_row jsonb)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
  -- The requested row with its values converted to the columns' types, as in the row that was stored.
  converted_row jsonb := CASE relation
    WHEN 'characters' THEN to_jsonb(jsonb_populate_record(NULL::public.characters, requested_row))
    WHEN 'adventures' THEN to_jsonb(jsonb_populate_record(NULL::public.adventures, requested_row))
    WHEN 'creatures' THEN to_jsonb(jsonb_populate_record(NULL::public.creatures, requested_row))
    WHEN 'sessions' THEN to_jsonb(jsonb_populate_record(NULL::public.sessions, requested_row))
    -- Only sign-ups by the service have digests, so only the service may compare them.
    WHEN 'users' THEN CASE WHEN private.is_service() THEN requested_row END
  END;
BEGIN
  RETURN EXISTS (
    SELECT
    FROM private.request_digests AS stored_request
    WHERE stored_request.id = (requested_row ->> 'id')::uuid
      AND stored_request.relation = is_same_request.relation
      AND (stored_request.requested_by = auth.uid() OR (stored_request.requested_by IS NULL AND private.is_service()))
      AND stored_request.digest = private.request_digest(is_same_request.relation, converted_row)
  );
END
$$;

CREATE OR REPLACE TRIGGER sync_request_digest
  AFTER INSERT OR DELETE ON public.characters
  FOR EACH ROW EXECUTE FUNCTION private.sync_request_digest();

CREATE OR REPLACE TRIGGER sync_request_digest
  AFTER INSERT OR DELETE ON public.adventures
  FOR EACH ROW EXECUTE FUNCTION private.sync_request_digest();

CREATE OR REPLACE TRIGGER sync_request_digest
  AFTER INSERT OR DELETE ON public.creatures
  FOR EACH ROW EXECUTE FUNCTION private.sync_request_digest();

CREATE OR REPLACE TRIGGER sync_request_digest
  AFTER INSERT OR DELETE ON public.sessions
  FOR EACH ROW EXECUTE FUNCTION private.sync_request_digest();

-- This trigger fires only for sign-ups by the service. Sign-ups by the platform (Supabase) need no digest, and must not
-- fail because of one. The digest of a sign-up is deleted when the account is closed
-- (`private.close_account_unchecked`).
CREATE OR REPLACE TRIGGER sync_request_digest
  AFTER INSERT ON auth.users
  FOR EACH ROW
  WHEN (current_user = 'service_role')
  EXECUTE FUNCTION private.sync_request_digest();
