-- What the migration program records about this database: the `version` of the program that migrated last, the
-- `objects` (functions, triggers, policies and views) and `schemas` (`auth` and `private`) that it created, the
-- `migrations` that it applied, and, in the entry `jobs`, that the jobs have been scheduled. With this record a later
-- version can drop objects that are no longer part of the schema, without dropping any that an operator created, and
-- the command `check` can report a lost row of `sparc_migrations`.
CREATE TABLE IF NOT EXISTS private.sparc_record (
  name text PRIMARY KEY,
  value text NOT NULL
);
COMMENT ON TABLE private.sparc_record IS 'What the migration program records about this database.';
COMMENT ON COLUMN private.sparc_record.name IS 'Name of the entry.';
COMMENT ON COLUMN private.sparc_record.value IS 'Value of the entry; a list has one line per item.';
ALTER TABLE private.sparc_record ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON private.sparc_record FROM PUBLIC, anon, authenticated, service_role;

-- The table in which SeaORM lists the applied migrations is in schema `public`, so the API would expose it.
ALTER TABLE public.sparc_migrations ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON TABLE public.sparc_migrations FROM PUBLIC, anon, authenticated, service_role;
