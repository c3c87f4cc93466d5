-- Creates these objects if the database lacks them: Supabase's roles; schema `private`, which the API does not expose;
-- and Supabase's schema `extensions` with two optional extensions. (`m20261101_000001_platform.rs` creates the stand-in
-- for schema `auth`, with the functions in `auth.sql`, and sets the privileges on schema `private`.) What exists
-- already is kept as it is, with one exception: the role that migrates becomes a member of Supabase's roles, unless it
-- can assume them already. A schema or extension that is created here gets a comment that begins with `made by sparc`,
-- and `down.sql` removes no others.

-- Roles belong to the cluster, so migrations of two databases may create the same role at the same time. The second one
-- then gets an error because the role exists, and ignores it.
DO $$
DECLARE
  required_role record;
BEGIN
  FOR required_role IN
    SELECT *
    FROM (VALUES ('anon', ''), ('authenticated', ''), ('service_role', 'BYPASSRLS')) AS roles (name, attributes)
  LOOP
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = required_role.name) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT %s', required_role.name, required_role.attributes);
      EXCEPTION
        WHEN duplicate_object OR unique_violation THEN
          NULL;
      END;
    END IF;
    -- If the role that migrates is not a superuser, it can assume these roles only as a member of them. Since
    -- PostgreSQL 16, the member also needs the option SET, which the creator of a role does not get by creating it.
    IF NOT pg_has_role(
      current_user,
      required_role.name,
      CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END
    ) THEN
      EXECUTE format('GRANT %I TO CURRENT_USER', required_role.name);
    END IF;
  END LOOP;
END
$$;

DO $$
BEGIN
  IF to_regnamespace('private') IS NULL THEN
    CREATE SCHEMA private;
    COMMENT ON SCHEMA private IS 'made by sparc: rules and helpers that the API does not serve';
  END IF;
END
$$;

-- The two extensions that the game's specification (see `docs/decisions.md`) names. Nothing depends on them, so it is
-- no error if the server does not offer them or the role that migrates may not create them.
DO $$
DECLARE
  extension_name text;
BEGIN
  IF to_regnamespace('extensions') IS NULL THEN
    CREATE SCHEMA extensions;
    COMMENT ON SCHEMA extensions IS 'made by sparc: stand-in for the platform';
    -- Default privileges may have granted these roles more than USAGE, so everything is revoked first.
    REVOKE ALL ON SCHEMA extensions FROM PUBLIC, anon, authenticated, service_role;
    GRANT USAGE ON SCHEMA extensions TO anon, authenticated, service_role;
  END IF;
  FOREACH extension_name IN ARRAY ARRAY['uuid-ossp', 'pgcrypto']
  LOOP
    IF EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = extension_name)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = extension_name)
    THEN
      BEGIN
        EXECUTE format('CREATE EXTENSION %I WITH SCHEMA extensions', extension_name);
        EXECUTE format('COMMENT ON EXTENSION %I IS %L', extension_name, 'made by sparc');
      EXCEPTION
        WHEN insufficient_privilege THEN
          RAISE NOTICE 'extension % was not created, because this role lacks the privilege', extension_name;
      END;
    END IF;
  END LOOP;
END
$$;
