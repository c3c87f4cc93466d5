-- These functions say who the caller is (a user, or the service, whose role is `service_role`), whether the user's
-- account is open, and which sessions the user takes part in. `policies/function_grants.sql` says who may call each
-- function. An account's *gate* is its row in `private.account_gates`.

-- Whether the caller is the service rather than a user of the API. In a function that runs as its owner, `current_user`
-- is the owner. So this function checks the role that was set with SET ROLE, and whether the login role may assume the
-- service's role. A login role that has set no role, such as an operator's, counts as the service if it may assume that
-- role.
CREATE OR REPLACE FUNCTION private.is_service()
RETURNS boolean
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN current_setting('role') NOT IN ('anon', 'authenticated')
    AND pg_has_role(session_user, 'service_role', 'MEMBER');
END
$$;

-- Returns true, or raises an error if the caller is a user whose account is closed or does not exist. It locks the
-- account's gate, so the account stays open until the end of the transaction. Closing the account locks the gate too,
-- so a write waits here while the account is being closed. A write locks the gate first. Closing the account locks
-- the account's row in `auth.users` and then the gate, before any other row. So, as a rule, neither waits for the gate
-- while it holds a row that the other needs. (A transaction in which a user changes their own profile twice also locks
-- the row in `auth.users`; `lock_gate_and_rows` in `account_locks.sql` allows for that.)
--
-- The lock conflicts with itself, so the transactions in which one account writes run one after the other. So do those
-- with `SELECT ... FOR SHARE`, because PostgreSQL applies the policies for UPDATE to it. If the lock were shared, a
-- user with two connections could keep shared locks on their own rows in transactions that overlap. Then everybody who
-- has to change these rows, such as the Seer who ends a session, would wait for ever. Only the lock that the service
-- takes (FOR KEY SHARE, in `lock_gate`) is compatible with this one.
CREATE OR REPLACE FUNCTION private.require_and_lock_open_account()
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  is_account_open boolean;
BEGIN
  SELECT is_open
  INTO is_account_open
  FROM private.account_gates
  WHERE account_id = auth.uid()
  FOR NO KEY UPDATE;
  IF is_account_open IS NOT TRUE AND NOT private.is_service() THEN
    PERFORM private.require_open_account(); -- Raises the error.
  END IF;
  RETURN true;
END
$$;

-- Refuses a caller whose account is closed or does not exist, because a token outlives its account by up to an hour.
-- The Rust crate `service` begins each transaction of a user with this check. The check takes no lock, so the account
-- may be closed right after it. A write therefore also calls `require_and_lock_open_account`, which waits for a
-- transaction that is closing the account.
CREATE OR REPLACE FUNCTION private.require_open_account()
RETURNS void
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  is_account_open boolean;
BEGIN
  SELECT is_open
  INTO is_account_open
  FROM private.account_gates
  WHERE account_id = auth.uid();
  IF is_account_open IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP032',
      MESSAGE = 'The account does not exist',
      TABLE = 'users',
      CONSTRAINT = 'known_account';
  END IF;
  IF NOT is_account_open THEN
    PERFORM private.refuse_closed_account();
  END IF;
END
$$;

-- Locks an account's gate, whether the account is open or closed. It is called early, before rows of other accounts are
-- locked: with the player's account when the service seats a player, and with the user's own account when a user sends
-- an event. The lock on the caller's own gate conflicts with itself. The lock on another account's gate is shared: the
-- service may lock several gates in one transaction, and two such transactions could otherwise deadlock.
CREATE OR REPLACE FUNCTION private.lock_gate(account uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF account = auth.uid() THEN
    PERFORM FROM private.account_gates WHERE account_id = account FOR NO KEY UPDATE;
  ELSE
    PERFORM FROM private.account_gates WHERE account_id = account FOR KEY SHARE;
  END IF;
END
$$;

CREATE OR REPLACE FUNCTION private.refuse_closed_account()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'SP019',
    MESSAGE = 'The account is closed',
    TABLE = 'users',
    CONSTRAINT = 'account_open';
END
$$;

-- Raises the same error as a policy that refuses a row, but with a reason as the message, and the name of the rule as
-- the constraint. If the caller's account is closed or does not exist, it raises the error for that instead.
CREATE OR REPLACE FUNCTION private.refuse(reason text, relation text, rule text)
RETURNS void
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.require_open_account();
  RAISE EXCEPTION USING
    ERRCODE = 'insufficient_privilege',
    MESSAGE = reason,
    TABLE = relation,
    CONSTRAINT = rule;
END
$$;

-- Returns the ids of the sessions that the caller takes part in: those that the caller runs, has a seat in, or has
-- left. A player whom the Seer removed no longer takes part. Otherwise that player could read a renewed join code, and
-- watch the game. The result is an array, because a policy that compares with an array computes it once per query and
-- can use an index. A subquery on `session_players` in the policy would instead read that whole table into a hash
-- table.
CREATE OR REPLACE FUNCTION private.my_session_ids()
RETURNS uuid[]
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me uuid := auth.uid();
BEGIN
  IF me IS NULL THEN
    RETURN '{}'::uuid[];
  END IF;
  RETURN ARRAY(
    SELECT session.id
    FROM public.sessions AS session
    WHERE session.seer_id = me
    UNION ALL
    SELECT seat.session_id
    FROM public.session_players AS seat
    WHERE seat.user_id = me
      AND seat.removed_at IS NULL
  );
END
$$;

-- Returns the ids of the archived sessions that the caller took part in, by the same rule as `my_session_ids`.
CREATE OR REPLACE FUNCTION private.my_archived_session_ids()
RETURNS uuid[]
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me uuid := auth.uid();
BEGIN
  IF me IS NULL THEN
    RETURN '{}'::uuid[];
  END IF;
  RETURN ARRAY(
    SELECT session.id
    FROM public.archived_sessions AS session
    WHERE session.seer_id = me
    UNION ALL
    SELECT seat.session_id
    FROM public.archived_session_players AS seat
    WHERE seat.user_id = me
      AND seat.removed_at IS NULL
  );
END
$$;
