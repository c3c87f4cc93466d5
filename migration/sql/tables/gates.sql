-- One row an account, locked by every write of the account (shared) and by its closing (alone), before any other row. The
-- profile itself cannot serve: it is locked late in the lock order, for its counters. Nobody but our functions reaches it, so
-- nobody can hold another account's.
CREATE TABLE private.account_gates (
  account_id uuid PRIMARY KEY REFERENCES public.users (id) ON DELETE CASCADE,
  is_open boolean NOT NULL DEFAULT true,
  -- A key, so that closing conflicts with the lock of a write: at REPEATABLE READ a write in an older snapshot then fails, while
  -- a lock as foreign keys take it overlooks a change of other columns.
  CONSTRAINT account_gates_is_open_key UNIQUE (account_id, is_open)
);

ALTER TABLE private.account_gates ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON TABLE private.account_gates FROM PUBLIC, anon, authenticated, service_role;

-- Row security does not apply to deletions in a publication: a subscriber receives the replica identity of every deleted row.
ALTER TABLE public.session_players REPLICA IDENTITY USING INDEX session_players_replica_id_key;

COMMENT ON TABLE private.account_gates IS 'The row that every write of an account locks, and its closing.';
COMMENT ON COLUMN private.account_gates.account_id IS 'The account.';
COMMENT ON COLUMN private.account_gates.is_open IS 'Whether the account may write.';
