-- What the specification's database needs in addition to `specification.sql`.

-- The specification has a monthly job that writes to `archived_sessions`, a table that the specification does not
-- create. (The job is not in `specification.sql`; `src/writes/accounts_and_jobs.rs` has its statements.)
CREATE TABLE archived_sessions (LIKE sessions);

-- Supabase grants everything in `public` to the API's roles, so that only row-level security protects the rows.
GRANT ALL ON ALL TABLES IN SCHEMA public TO anon, authenticated, service_role;
GRANT ALL ON ALL ROUTINES IN SCHEMA public TO anon, authenticated, service_role;
