-- The request that created a row, and its caller. A repeat of the same request returns the row, whatever happened to it
-- since; any other request with the same id is a conflict. The digest is two hashes of a JSON document of the
-- insertable columns. PostgreSQL hashes it by value, so a number has the same hash in all its notations. The request
-- itself is not stored. Only our functions can access this table. Rolls and events never change and are compared
-- directly. The relation `users` stands for the accounts in `auth.users`.
CREATE TABLE private.requests (
  relation text NOT NULL,
  id uuid NOT NULL,
  asker uuid, -- The user who sent the request; NULL for the service.
  digest bigint[] NOT NULL,
  PRIMARY KEY (id, relation)
);

ALTER TABLE private.requests ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON TABLE private.requests FROM PUBLIC, anon, authenticated, service_role;

COMMENT ON TABLE private.requests IS 'Hashes of the requests that created rows, to recognize repeated requests.';
