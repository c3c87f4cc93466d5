-- Removes what the first migration (`m20261101_000001_platform`) created, except the roles: roles belong to the
-- cluster, and other databases may use them.

DO $$
DECLARE
  former_privileges text;
  former_privilege text;
  created_extension record;
BEGIN
  -- In this table the crate `migration` records what it has done in this database (`record.sql`). An operator may have
  -- changed the table by hand, so its rows are read as JSON: then a missing column is no error.
  IF to_regclass('private.sparc_record') IS NOT NULL THEN
    SELECT to_jsonb(entry) ->> 'value'
    INTO former_privileges
    FROM private.sparc_record AS entry
    WHERE to_jsonb(entry) ->> 'name' = 'former privileges';
    DROP TABLE private.sparc_record;
  END IF;
  IF obj_description(to_regnamespace('auth'), 'pg_namespace') LIKE 'made by sparc%' THEN
    DROP FUNCTION IF EXISTS auth.jwt(), auth.uid(), auth.role();
    DROP TABLE IF EXISTS auth.users;
    DROP SCHEMA auth;
  END IF;
  FOR created_extension IN
    SELECT extname
    FROM pg_catalog.pg_extension
    WHERE obj_description(oid, 'pg_extension') = 'made by sparc'
  LOOP
    EXECUTE format('DROP EXTENSION %I', created_extension.extname);
  END LOOP;
  -- A schema that still contains objects is kept, because these objects are somebody else's.
  IF obj_description(to_regnamespace('extensions'), 'pg_namespace') LIKE 'made by sparc%' THEN
    BEGIN
      DROP SCHEMA extensions;
    EXCEPTION
      WHEN dependent_objects_still_exist THEN NULL;
    END;
  END IF;
  IF obj_description(to_regnamespace('private'), 'pg_namespace') LIKE 'made by sparc%' THEN
    BEGIN
      DROP SCHEMA private;
    EXCEPTION
      WHEN dependent_objects_still_exist THEN NULL;
    END;
  ELSIF to_regnamespace('private') IS NOT NULL THEN
    REVOKE USAGE ON SCHEMA private FROM anon, authenticated, service_role;
    FOREACH former_privilege IN ARRAY coalesce(string_to_array(former_privileges, E'\n'), '{}')
    LOOP
      IF former_privilege ~ '^(USAGE|CREATE) TO (PUBLIC|anon|authenticated|service_role)( WITH GRANT OPTION)?$' THEN
        EXECUTE 'GRANT ' || replace(former_privilege, ' TO ', ' ON SCHEMA private TO ');
      END IF;
    END LOOP;
  END IF;
END
$$;
