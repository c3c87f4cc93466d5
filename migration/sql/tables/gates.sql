-- One row per account. Every write of the account locks it before any other row, and so does closing the account. The
-- profile cannot serve as the gate, because it is locked late in the lock order, for its counters.
-- Only our functions can access this table, so nobody can lock the gate of another account.
CREATE TABLE private.account_gates (
  account_id uuid PRIMARY KEY REFERENCES public.users (id) ON DELETE CASCADE,
  is_open boolean NOT NULL DEFAULT true
);

ALTER TABLE private.account_gates ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON TABLE private.account_gates FROM PUBLIC, anon, authenticated, service_role;

-- Row-level security does not apply to deletions in a publication: every subscriber receives the replica identity of
-- each deleted row. The primary key would reveal a user, so the replica identity is a random id.
ALTER TABLE public.session_players REPLICA IDENTITY USING INDEX session_players_replica_id_key;

COMMENT ON TABLE private.account_gates IS 'One row per account, locked by every write of the account and by closing it.';
COMMENT ON COLUMN private.account_gates.account_id IS 'Id of the account''s profile.';
COMMENT ON COLUMN private.account_gates.is_open IS 'Whether the account may write; false once it is closed.';
