-- Removes what the first migration (`m20261101_000001_platform`) created, except the roles: roles belong to the
-- cluster, and other databases may use them.

-- In this table the crate `migration` records what it has done in this database (`record.sql`).
DROP TABLE IF EXISTS private.sparc_record;

DO $$
DECLARE
  created_extension record;
BEGIN
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
  END IF;
END
$$;
