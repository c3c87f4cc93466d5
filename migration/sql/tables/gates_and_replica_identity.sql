-- The gates of accounts: the row of an account in this table is its *gate*. Every write by an account's user locks the
-- account's gate before any other row. Closing the account (`triggers/account_deletion.sql`) locks the gate before any
-- other row but the account's row in `auth.users`. So of a write and the closing, the later one waits for the earlier
-- one. The account's profile (its row in `public.users`) cannot serve as the gate: it comes late in the lock order
-- (`triggers/shared.sql`), because it holds counters. Only the schema's own functions can access this table, so nobody
-- can lock the gate of another account.
CREATE TABLE private.account_gates (
  account_id uuid PRIMARY KEY REFERENCES public.users (id) ON DELETE CASCADE,
  is_open boolean NOT NULL DEFAULT true
);

ALTER TABLE private.account_gates ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON TABLE private.account_gates FROM PUBLIC, anon, authenticated, service_role;

COMMENT ON TABLE private.account_gates
IS 'One row per account, locked by every write of the account''s user and by closing the account.';
COMMENT ON COLUMN private.account_gates.account_id IS 'Id of the account''s profile.';
COMMENT ON COLUMN private.account_gates.is_open IS 'Whether the account may write; false once it is closed.';

-- The replica identity of seats is the column `replica_identity`, a random id. When the platform (Supabase) sends the
-- changes of a published table to subscribers, it does not apply row-level security to deletions: every subscriber
-- receives the replica identity of each deleted row. The primary key, which is the default, would reveal the user who
-- held the seat.
ALTER TABLE public.session_players REPLICA IDENTITY USING INDEX session_players_replica_identity_key;
