-- Closing an account removes its personal data and keeps others' history. Deleting an account closes it and deletes its
-- profile, unless somebody else's history references it.

-- Locks an account's seats as `lock_sessions` locks sessions: it waits for one seat while it holds none, then tries to
-- lock the others. A fixed order would not avoid deadlocks, because a Seer who removes several players locks their
-- seats in scan order.
CREATE OR REPLACE FUNCTION private.lock_seats(account uuid, sessions uuid[])
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  busy uuid := sessions[1];
  session uuid;
BEGIN
  FOR attempt IN 1 .. 4
  LOOP
    BEGIN
      session := NULL;
      PERFORM FROM public.session_players WHERE session_id = busy AND user_id = account FOR NO KEY UPDATE;
      FOREACH session IN ARRAY sessions
      LOOP
        PERFORM FROM public.session_players WHERE session_id = session AND user_id = account FOR NO KEY UPDATE NOWAIT;
      END LOOP;
      RETURN;
    EXCEPTION
      WHEN lock_not_available THEN
        IF session IS NULL THEN
          RAISE; -- The caller's own lock_timeout expired.
        END IF;
        busy := session;
    END;
  END LOOP;
  PERFORM
  FROM public.session_players
  WHERE session_id = ANY (sessions)
    AND user_id = account
  ORDER BY session_id
  FOR NO KEY UPDATE;
END
$$;

-- Locks all rows that closing an account changes: first its gate, so that no write of the account is in progress, then
-- the other rows in the lock order, including the participants of the sessions that will end.
CREATE OR REPLACE FUNCTION private.lock_rows_of_account(account uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  live CONSTANT public.session_status[] := '{waiting,starting_soon,active,paused}'::public.session_status[];
  seated uuid[];
  sessions uuid[];
  person uuid;
BEGIN
  PERFORM FROM private.account_gates WHERE account_id = account FOR UPDATE;
  seated := ARRAY(
    SELECT seat.session_id
    FROM public.session_players AS seat
    JOIN public.sessions AS session ON session.id = seat.session_id
    WHERE seat.user_id = account
      AND seat.is_active
      AND session.status = ANY (live)
    ORDER BY seat.session_id
  );
  IF seated <> '{}' THEN
    PERFORM private.lock_seats(account, seated);
  END IF;
  sessions := ARRAY(
    SELECT id
    FROM public.sessions
    WHERE status = ANY (live)
      AND (seer_id = account OR id = ANY (seated))
    ORDER BY id
  );
  IF sessions <> '{}' THEN
    PERFORM private.lock_sessions(sessions);
  END IF;
  PERFORM
  FROM public.characters
  WHERE id IN (SELECT character_id FROM public.session_players WHERE session_id = ANY (sessions))
  ORDER BY id
  FOR NO KEY UPDATE;
  FOR person IN
    SELECT account
    UNION
    SELECT user_id FROM public.session_players WHERE session_id = ANY (sessions)
    ORDER BY 1
  LOOP
    -- The account's own profile gets another e-mail address, which is a key and needs the stronger lock.
    IF person = account THEN
      PERFORM FROM public.users WHERE id = person FOR UPDATE;
    ELSE
      PERFORM FROM public.users WHERE id = person FOR NO KEY UPDATE;
    END IF;
  END LOOP;
END
$$;

-- Locks the rows of an account, and tries again after a deadlock with a statement of a user, which may lock rows in an
-- order of its own. The platform closes and deletes accounts and does not retry. A failed attempt releases its locks,
-- so the other statement proceeds.
CREATE OR REPLACE FUNCTION private.lock_account(account uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  FOR attempt IN 1 .. 5
  LOOP
    BEGIN
      PERFORM private.lock_rows_of_account(account);
      RETURN;
    EXCEPTION
      WHEN deadlock_detected THEN
        IF attempt = 5 THEN
          RAISE;
        END IF;
    END;
  END LOOP;
END
$$;

-- Closes an account: removes personal data, keeps history, gives up seats in live sessions, cancels live sessions of
-- which it is the Seer. Idempotent.
CREATE OR REPLACE FUNCTION private.erase_account(account uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.lock_account(account);

  -- This row has a digest of the sign-up, with which guesses of the e-mail address and the name could be verified.
  DELETE FROM private.requests
  WHERE id = account
    AND relation = 'users';
  -- The profile comes first, so that the events of leaving and cancelling below contain no personal data.
  UPDATE public.users
  SET email = account || '@deleted.invalid',
      display_name = 'Former player',
      avatar_url = NULL,
      bio = NULL
  WHERE id = account
    AND closed_at IS NULL;
  -- A session that others have locked FOR UPDATE, for example to delete it, is skipped: its events would make the
  -- closing wait.
  UPDATE public.session_events
  SET payload = payload || '{"display_name": "Former player", "avatar_url": null}'
  WHERE session_id = ANY (
    ARRAY(
      SELECT id
      FROM public.sessions
      WHERE id IN (SELECT seat.session_id FROM public.session_players AS seat WHERE seat.user_id = account)
      FOR KEY SHARE SKIP LOCKED
    )
  )
    AND event_type IN ('player_joined', 'player_left')
    AND payload ->> 'user_id' = account::text;

  UPDATE public.session_players AS seat
  SET is_active = false
  FROM public.sessions AS session
  WHERE session.id = seat.session_id
    AND seat.user_id = account
    AND seat.is_active
    AND session.status NOT IN ('completed', 'cancelled');

  UPDATE public.sessions
  SET status = 'cancelled'
  WHERE seer_id = account
    AND status NOT IN ('completed', 'cancelled');

  -- A draft that others have played is part of their history, so it is archived instead.
  PERFORM private.delete_unplayed_adventures(account, ARRAY['draft']::public.adventure_status[]);
  UPDATE public.adventures
  SET status = 'archived'
  WHERE creator_id = account
    AND status = 'draft';

  UPDATE public.users
  SET closed_at = now()
  WHERE id = account
    AND closed_at IS NULL;
  UPDATE private.account_gates
  SET is_open = false
  WHERE account_id = account;
END
$$;

-- Handles the deletion of an account, which always succeeds: the account is closed, and the profile is deleted unless
-- somebody else's history references it.
CREATE OR REPLACE FUNCTION private.handle_deleted_user()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM FROM private.account_gates WHERE account_id = OLD.id FOR UPDATE;
  -- Ended sessions are deleted below. Like all sessions, they must be locked before any profile.
  PERFORM
  FROM public.sessions
  WHERE seer_id = OLD.id
    AND status IN ('completed', 'cancelled')
  ORDER BY id
  FOR UPDATE;
  PERFORM private.lock_account(OLD.id);
  -- This must be the first change of the profile. From the second change in a transaction on, the foreign key is
  -- checked even if its column is unchanged, and the account no longer exists.
  UPDATE public.users
  SET account_id = NULL
  WHERE id = OLD.id;
  PERFORM private.erase_account(OLD.id);
  BEGIN
    DELETE FROM public.users WHERE id = OLD.id;
  EXCEPTION
    WHEN foreign_key_violation THEN
      BEGIN
        PERFORM private.delete_unshared(OLD.id);
      EXCEPTION
        WHEN foreign_key_violation THEN
          NULL; -- Somebody joined meanwhile: the history stays.
      END;
  END;
  RETURN NULL;
END
$$;

-- Deletes an account's adventures that nobody else has played. An adventure stays if another transaction has locked it
-- or one of its sessions, because closing an account must not depend on others: whoever creates a session of an
-- adventure locks it, and with overlapping transactions they could keep it locked for ever.
CREATE OR REPLACE FUNCTION private.delete_unplayed_adventures(account uuid, statuses public.adventure_status[])
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  unplayed uuid;
BEGIN
  FOR unplayed IN
    SELECT id
    FROM public.adventures
    WHERE creator_id = account
      AND status = ANY (statuses)
      AND NOT private.adventure_has_history(id)
    ORDER BY id
  LOOP
    BEGIN
      PERFORM FROM public.adventures WHERE id = unplayed FOR UPDATE NOWAIT;
      PERFORM FROM public.sessions WHERE adventure_id = unplayed FOR UPDATE NOWAIT;
      DELETE FROM public.adventures WHERE id = unplayed;
    EXCEPTION
      WHEN foreign_key_violation OR lock_not_available THEN
        NULL;
    END;
  END LOOP;
END
$$;

-- Deletes rows that involve only the account: sessions in which nobody else ever had a seat, and then rows that are no
-- longer referenced.
CREATE OR REPLACE FUNCTION private.delete_unshared(account uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM public.sessions AS session
  WHERE session.seer_id = account
    AND NOT EXISTS (
      SELECT
      FROM public.session_players AS seat
      WHERE seat.session_id = session.id
        AND seat.user_id <> account
    );
  DELETE FROM public.archived_sessions AS session
  WHERE session.seer_id = account
    AND NOT EXISTS (
      SELECT
      FROM public.archived_session_players AS seat
      WHERE seat.session_id = session.id
        AND seat.user_id <> account
    );
  DELETE FROM public.tutorial_progress
  WHERE user_id = account;
  PERFORM private.delete_unplayed_adventures(account, ARRAY['draft', 'published', 'archived']::public.adventure_status[]);
  DELETE FROM public.characters AS hero
  WHERE hero.user_id = account
    AND NOT EXISTS (SELECT FROM public.session_players WHERE character_id = hero.id)
    AND NOT EXISTS (SELECT FROM public.archived_session_players WHERE character_id = hero.id)
    AND NOT EXISTS (SELECT FROM public.dice_rolls WHERE character_id = hero.id)
    AND NOT EXISTS (SELECT FROM public.archived_dice_rolls WHERE character_id = hero.id);
END
$$;

-- Deletes an account's own history with its profile. If others' history references any of it, the foreign keys refuse
-- the whole deletion. If an adventure stays, this trigger refuses the deletion itself: the foreign key would delete the
-- adventure too, and wait for the transaction that has locked it. This trigger fires AFTER, because deleting these rows
-- updates counters of the profile, and a BEFORE DELETE trigger must not update the row that is being deleted. The
-- capital letter makes it fire before the foreign keys' triggers, which are called `RI_...`.
CREATE OR REPLACE FUNCTION private.delete_own_history()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.delete_unshared(OLD.id);
  IF EXISTS (SELECT FROM public.adventures WHERE creator_id = OLD.id) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'foreign_key_violation',
      MESSAGE = 'The account has adventures that others have played or are using',
      TABLE = 'adventures',
      CONSTRAINT = 'adventures_creator_id_fkey';
  END IF;
  RETURN NULL;
END
$$;

-- The capital letter makes it fire before the foreign key's trigger, which would lock the profile before its sessions.
CREATE OR REPLACE TRIGGER "On_auth_user_deleted"
  AFTER DELETE ON auth.users
  FOR EACH ROW EXECUTE FUNCTION private.handle_deleted_user();

CREATE OR REPLACE TRIGGER "Delete_own_history"
  AFTER DELETE ON public.users
  FOR EACH ROW EXECUTE FUNCTION private.delete_own_history();
