-- What the platform does around the specification's schema: everything in `public` is granted to the API's roles, and row
-- security alone stands before the rows. The table that its monthly job writes to is named there and never made.
CREATE TABLE archived_sessions (LIKE sessions);
GRANT ALL ON ALL TABLES IN SCHEMA public TO anon, authenticated, service_role;
GRANT ALL ON ALL ROUTINES IN SCHEMA public TO anon, authenticated, service_role;
