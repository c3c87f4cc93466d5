-- A database as Supabase lays it out: roles of the API, schemas of the platform, an account table that belongs to it,
-- default privileges that hand everything new in `public` to the API's roles, and an owner that is no superuser.
DO $$
DECLARE
  wanted text;
BEGIN
  -- Roles are the cluster's: another test may be making them.
  PERFORM pg_advisory_xact_lock(1);
  FOREACH wanted IN ARRAY ARRAY[
    'anon NOLOGIN NOINHERIT', 'authenticated NOLOGIN NOINHERIT', 'service_role NOLOGIN NOINHERIT BYPASSRLS',
    'supabase_auth_admin NOLOGIN NOINHERIT CREATEROLE', 'platform_owner LOGIN PASSWORD ''platform'' CREATEDB CREATEROLE BYPASSRLS'
  ]
  LOOP
    BEGIN
      EXECUTE 'CREATE ROLE ' || wanted;
    EXCEPTION
      WHEN duplicate_object OR unique_violation THEN NULL;
    END;
  END LOOP;
  FOREACH wanted IN ARRAY ARRAY['anon', 'authenticated', 'service_role']
  LOOP
    BEGIN
      IF NOT pg_has_role('platform_owner', wanted, 'MEMBER') THEN
        EXECUTE format('GRANT %I TO platform_owner WITH ADMIN OPTION', wanted);
      END IF;
    EXCEPTION
      WHEN unique_violation OR internal_error THEN NULL;
    END;
  END LOOP;
  EXECUTE format('ALTER DATABASE %I OWNER TO platform_owner', current_database());
END
$$;

CREATE SCHEMA auth AUTHORIZATION supabase_auth_admin;
GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role, platform_owner;
CREATE TABLE auth.users (
  instance_id uuid,
  id uuid NOT NULL PRIMARY KEY,
  aud varchar(255),
  role varchar(255),
  email varchar(255),
  encrypted_password varchar(255),
  email_confirmed_at timestamptz,
  last_sign_in_at timestamptz,
  raw_app_meta_data jsonb,
  raw_user_meta_data jsonb,
  is_super_admin boolean,
  created_at timestamptz,
  updated_at timestamptz,
  phone text UNIQUE,
  banned_until timestamptz,
  is_sso_user boolean NOT NULL DEFAULT false,
  deleted_at timestamptz,
  is_anonymous boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX users_email_partial_key ON auth.users (email) WHERE (is_sso_user = false);
ALTER TABLE auth.users OWNER TO supabase_auth_admin;
ALTER TABLE auth.users ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE, REFERENCES, TRIGGER ON auth.users TO platform_owner WITH GRANT OPTION;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
  SELECT coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
  )::uuid
$$;
CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $$
  SELECT coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')
  )::text
$$;
CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')
  )::jsonb
$$;
ALTER FUNCTION auth.uid() OWNER TO supabase_auth_admin;
ALTER FUNCTION auth.role() OWNER TO supabase_auth_admin;
ALTER FUNCTION auth.jwt() OWNER TO supabase_auth_admin;

CREATE SCHEMA extensions AUTHORIZATION platform_owner;
GRANT USAGE ON SCHEMA extensions TO anon, authenticated, service_role;
CREATE PUBLICATION supabase_realtime;
ALTER PUBLICATION supabase_realtime OWNER TO platform_owner;

ALTER DEFAULT PRIVILEGES FOR ROLE platform_owner IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE platform_owner IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE platform_owner IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated, service_role;
