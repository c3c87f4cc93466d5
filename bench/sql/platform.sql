-- The platform's share of the specification's schema: the API's roles are granted everything in `public`, and only row
-- security restricts access to rows. The specification's monthly job writes to a table that it names but never creates;
-- it is created here.
CREATE TABLE archived_sessions (LIKE sessions);
GRANT ALL ON ALL TABLES IN SCHEMA public TO anon, authenticated, service_role;
GRANT ALL ON ALL ROUTINES IN SCHEMA public TO anon, authenticated, service_role;
