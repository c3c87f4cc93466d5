-- Lists each privilege, role attribute, membership and ownership that a migration needs and the current role lacks.
-- This query is not run for superusers, who lack none.
WITH
  migrating_role AS (
    SELECT rolcreaterole, rolbypassrls, current_setting('server_version_num')::integer AS server_version
    FROM pg_catalog.pg_roles
    WHERE rolname = current_user
  ),
  api_role AS (
    SELECT
      required_role.name,
      EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = required_role.name) AS exists_already
    FROM (VALUES ('anon'), ('authenticated'), ('service_role')) AS required_role (name)
  )
SELECT format('CREATE on database %I', current_database()) AS name
WHERE NOT has_database_privilege(current_database(), 'CREATE')
UNION ALL
SELECT 'CREATE on schema public'
WHERE NOT has_schema_privilege('public', 'CREATE')
UNION ALL
SELECT 'CREATEROLE (to create the roles anon, authenticated and service_role)'
FROM migrating_role
WHERE NOT rolcreaterole
  AND EXISTS (SELECT FROM api_role WHERE NOT exists_already)
UNION ALL
SELECT
  CASE WHEN server_version < 160000 THEN 'SUPERUSER' ELSE 'BYPASSRLS' END
    || ' (to create service_role, which bypasses row security)'
FROM migrating_role
WHERE EXISTS (SELECT FROM api_role WHERE name = 'service_role' AND NOT exists_already)
  AND (server_version < 160000 OR NOT rolbypassrls)
UNION ALL
-- The current role must be able to assume each of the API's roles (`anon`, `authenticated`, `service_role`), or to
-- grant itself the membership for that, as `platform/up.sql` does. Before PostgreSQL 16, a role with CREATEROLE can
-- grant itself any membership. From PostgreSQL 16 on, it needs a membership with the option ADMIN for that, and only a
-- membership with the option SET lets its member assume the role.
SELECT 'membership in role ' || api_role.name
FROM api_role, migrating_role
WHERE CASE
    WHEN NOT api_role.exists_already THEN false
    WHEN server_version < 160000 THEN NOT rolcreaterole AND NOT pg_has_role(api_role.name, 'MEMBER')
    ELSE NOT pg_has_role(api_role.name, 'SET') AND NOT pg_has_role(api_role.name, 'MEMBER WITH ADMIN OPTION')
  END
UNION ALL
SELECT 'USAGE on schema auth'
WHERE to_regnamespace('auth') IS NOT NULL
  AND NOT has_schema_privilege('auth', 'USAGE')
UNION ALL
SELECT required.privilege || ' on table auth.users'
FROM pg_catalog.pg_class
CROSS JOIN (VALUES ('SELECT'), ('REFERENCES'), ('TRIGGER')) AS required (privilege)
WHERE relnamespace = to_regnamespace('auth')
  AND relname = 'users'
  AND NOT has_table_privilege(pg_class.oid, required.privilege)
UNION ALL
SELECT 'ownership of publication supabase_realtime'
FROM pg_catalog.pg_publication
WHERE pubname = 'supabase_realtime'
  AND NOT pg_has_role(pubowner, 'USAGE')
UNION ALL
SELECT 'ownership of schema private'
FROM pg_catalog.pg_namespace
WHERE nspname = 'private'
  AND NOT pg_has_role(nspowner, 'USAGE')
UNION ALL
SELECT 'USAGE on schema cron (to schedule the jobs)'
WHERE EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_cron')
  AND NOT has_schema_privilege('cron', 'USAGE')
