-- What was asked when a row was created, and by whom: a repeat of the same request gives the row, whatever became of it since,
-- and any other with its id is a conflict. Two hashes of the document that the insertable columns make, which PostgreSQL
-- computes by value; nothing of the request itself. Nobody but our functions reaches it. Rolls and events never change, and are
-- compared as they are.
CREATE TABLE private.requests (
  relation text NOT NULL,
  id uuid NOT NULL,
  asker uuid,
  digest bigint[] NOT NULL,
  PRIMARY KEY (id, relation)
);

ALTER TABLE private.requests ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON TABLE private.requests FROM PUBLIC, anon, authenticated, service_role;

COMMENT ON TABLE private.requests IS 'What was asked when a row was created, as hashes.';
