-- For each character, adventure, creature and session, and for each account that the service has created, this table
-- stores a digest of the request that created it, and the caller who sent the request. A caller who repeats the same
-- request gets the created row, even if it was edited since; any other request with the same id is a conflict. The
-- request itself is not stored. Closing an account deletes its digest.
--
-- The digest is two hashes of a JSON document of the columns that a request sets. PostgreSQL hashes the document by
-- value, so a number has the same hash in all its notations. No digest is stored for rolls and events: no request
-- changes them, so a repeated request is compared with the row itself. Only our functions can access this table.
CREATE TABLE private.request_digests (
  relation text NOT NULL, -- The table of the created row; `users` stands for `auth.users`.
  id uuid NOT NULL, -- The id of the created row.
  requested_by uuid, -- The user who sent the request; NULL for the service and operators.
  digest bigint[] NOT NULL,
  PRIMARY KEY (id, relation)
);

ALTER TABLE private.request_digests ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON TABLE private.request_digests FROM PUBLIC, anon, authenticated, service_role;

COMMENT ON TABLE private.request_digests IS 'Hashes of the requests that created rows, to recognize repeated requests.';
