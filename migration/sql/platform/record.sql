-- What the migration program records about this database. The entries are:
-- * `version`: the version of the program that migrated last;
-- * `objects`: the functions, triggers, policies and views that the program created;
-- * `schemas`: those of the schemas `auth` and `private` that it created;
-- * `migrations`: the migrations that it applied;
-- * `jobs`: present once the jobs have been scheduled;
-- * `former privileges`: if schema `private` is older than the first migration, the privileges on it that the API's
--   roles and PUBLIC had before.
-- With this record, a later version can drop objects that are no longer part of the schema, and drops none that an
-- operator created. The command `check` can report a lost row of `sparc_migrations`, and `down` can restore the
-- privileges.
CREATE TABLE IF NOT EXISTS private.sparc_record (
  name text PRIMARY KEY,
  value text NOT NULL
);
COMMENT ON TABLE private.sparc_record IS 'What the migration program records about this database.';
COMMENT ON COLUMN private.sparc_record.name IS 'Name of the entry.';
COMMENT ON COLUMN private.sparc_record.value IS 'Value of the entry; a list has one line per item.';
ALTER TABLE private.sparc_record ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON private.sparc_record FROM PUBLIC, anon, authenticated, service_role;

-- Records the privileges on an older schema `private`, because the migration replaces them after this script.
INSERT INTO private.sparc_record (name, value)
SELECT
  'former privileges',
  string_agg(
    concat(
      privilege_type, ' TO ', coalesce(quote_ident(rolname), 'PUBLIC'),
      CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END
    ),
    E'\n'
  )
FROM pg_catalog.pg_namespace
CROSS JOIN LATERAL aclexplode(nspacl) AS acl_item
LEFT JOIN pg_catalog.pg_roles ON pg_roles.oid = grantee
WHERE nspname = 'private'
  AND coalesce(obj_description(pg_namespace.oid, 'pg_namespace'), '') NOT LIKE 'made by sparc%'
  AND (grantee = 0 OR rolname IN ('anon', 'authenticated', 'service_role'))
HAVING count(*) > 0
ON CONFLICT (name) DO NOTHING;

-- The table in which SeaORM lists the applied migrations is in schema `public`, so the API would expose it.
ALTER TABLE public.sparc_migrations ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON TABLE public.sparc_migrations FROM PUBLIC, anon, authenticated, service_role;
