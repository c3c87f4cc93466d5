-- The functions and privileges of the stand-in for Supabase's schema `auth`. The stand-in is created only where a
-- schema `auth` does not exist. The functions return claims (fields) of the caller's token (JWT), as Supabase's
-- functions do. PostgREST, the server of Supabase's HTTP API, passes all claims as one JSON document in the setting
-- `request.jwt.claims`; old versions of it passed each claim in a setting of its own (such as `request.jwt.claim.sub`).
-- Supabase's `auth.jwt()` first reads a third setting, whose name is just `request.jwt.claim`, as one JSON document. So
-- does the `auth.jwt()` here.

CREATE OR REPLACE FUNCTION auth.jwt()
RETURNS jsonb
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')
  )::jsonb;
END
$$;

CREATE OR REPLACE FUNCTION auth.uid()
RETURNS uuid
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
  )::uuid;
END
$$;

CREATE OR REPLACE FUNCTION auth.role()
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
  );
END
$$;

REVOKE ALL ON auth.users FROM PUBLIC, anon, authenticated, service_role;
GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role;
GRANT EXECUTE ON FUNCTION auth.jwt(), auth.uid(), auth.role() TO anon, authenticated, service_role;

-- Where this stand-in exists, the crate `service` creates the accounts, as `service_role`. So this role may write
-- accounts. On Supabase, the platform creates them.
GRANT SELECT, INSERT, UPDATE, DELETE ON auth.users TO service_role;
