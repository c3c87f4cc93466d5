-- The platform grants everything in `public` to the API's roles, so that only row security protects the rows. The
-- specification's monthly job writes to `archived_sessions`, which the specification never creates.
CREATE TABLE archived_sessions (LIKE sessions);
GRANT ALL ON ALL TABLES IN SCHEMA public TO anon, authenticated, service_role;
GRANT ALL ON ALL ROUTINES IN SCHEMA public TO anon, authenticated, service_role;
