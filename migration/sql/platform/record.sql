-- What the program remembers of this database, so that a later version can drop what it no longer has, and nothing that an
-- operator made: `version` of the program that migrated last, `objects` that it made, `schemas` that it made, `migrations` that it
-- applied, `jobs` once they were scheduled.
CREATE TABLE IF NOT EXISTS private.sparc_record (
  name text PRIMARY KEY,
  value text NOT NULL
);
COMMENT ON TABLE private.sparc_record IS 'What the migration program remembers of this database.';
COMMENT ON COLUMN private.sparc_record.name IS 'What is remembered.';
COMMENT ON COLUMN private.sparc_record.value IS 'Its value, one line for each of several.';
ALTER TABLE private.sparc_record ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON private.sparc_record FROM PUBLIC, anon, authenticated, service_role;

-- The list of migrations lies in `public`, where the API would serve it.
ALTER TABLE public.sparc_migrations ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON TABLE public.sparc_migrations FROM PUBLIC, anon, authenticated, service_role;
