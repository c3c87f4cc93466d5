-- Profiles are created, changed and closed together with the accounts in `auth.users`.

-- Returns a name that is safe to show to others: line breaks become spaces, forbidden characters are removed, and it is
-- cut to a hundred characters. Returns NULL if nothing visible remains, or if the value is not a string.
CREATE OR REPLACE FUNCTION private.clean_name(value jsonb)
RETURNS text
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  name text := left(value #>> '{}', 1000);
BEGIN
  IF jsonb_typeof(value) IS DISTINCT FROM 'string' THEN
    RETURN NULL;
  END IF;
  name := regexp_replace(name, '[\u0001-\u001f\u007f-\u009f\u2028\u2029]+', ' ', 'g');
  name := regexp_replace(name, '[\u200b\u202a-\u202e\u2066-\u2069\ufeff]', '', 'g');
  name := btrim(left(btrim(name), 100));
  RETURN CASE WHEN name <> '' AND private.is_clean_name(name) THEN name END;
END
$$;

-- Returns the address to store for an account: its own, or the reserved one if it has none. The domains of reserved
-- addresses are ours, so an address in them counts as none.
CREATE OR REPLACE FUNCTION private.kept_email(account uuid, address text)
RETURNS text
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF btrim(coalesce(address, '')) = '' OR lower(address) ~ '@(no-email|deleted)\.invalid\.?\s*$' THEN
    RETURN account || '@no-email.invalid';
  END IF;
  RETURN address;
END
$$;

-- Creates a profile, and must never fail, because the sign-up would fail with it. An account without an address, or
-- with one that another account holds (single sign-on allows that), gets the reserved address of its id. ON CONFLICT
-- waits for a concurrent sign-up. An id that signs up again gets its history back.
CREATE OR REPLACE FUNCTION private.create_profile(account uuid, account_email text, metadata jsonb)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  address text := private.kept_email(account, account_email);
  no_address CONSTANT text := account || '@no-email.invalid';
  -- The first usable name: from the platform's metadata, else the local part of the address.
  name text := coalesce(
    private.clean_name(metadata -> 'display_name'),
    private.clean_name(metadata -> 'full_name'),
    private.clean_name(metadata -> 'name'),
    private.clean_name(to_jsonb(split_part(account_email, '@', 1))),
    'Adventurer'
  );
  avatar text := coalesce(private.web_address(metadata -> 'avatar_url'), private.web_address(metadata -> 'picture'));
BEGIN
  INSERT INTO public.users (id, account_id, email, display_name, avatar_url)
  VALUES (account, account, address, name, avatar)
  ON CONFLICT DO NOTHING;
  IF FOUND THEN
    RETURN;
  END IF;
  INSERT INTO public.users (id, account_id, email, display_name, avatar_url)
  VALUES (account, account, no_address, name, avatar)
  ON CONFLICT DO NOTHING;
  IF FOUND THEN
    RETURN;
  END IF;

  UPDATE public.users AS profile
  SET account_id = account,
      email = no_address,
      display_name = CASE WHEN profile.closed_at IS NULL THEN profile.display_name ELSE name END,
      avatar_url = CASE WHEN profile.closed_at IS NULL THEN profile.avatar_url ELSE avatar END,
      closed_at = NULL
  WHERE profile.id = account;
  UPDATE private.account_gates
  SET is_open = true
  WHERE account_id = account;
  PERFORM private.change_email(account, address);
END
$$;

-- Returns the URL of a picture if it is an http(s) URL of at most 2,000 characters, else NULL.
CREATE OR REPLACE FUNCTION private.web_address(value jsonb)
RETURNS text
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF jsonb_typeof(value) = 'string' AND char_length(value #>> '{}') <= 2000 AND value #>> '{}' ~* '^https?://[^\s/]\S*$' THEN
    RETURN value #>> '{}';
  END IF;
  RETURN NULL;
END
$$;

-- Changes the address of a profile. If another profile holds it, the change of the account still succeeds, and this
-- profile gets its reserved address.
CREATE OR REPLACE FUNCTION private.change_email(account uuid, address text)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- The address is a key, so changing it waits for transactions whose foreign keys lock the profile; those may go on to
  -- update its counters. The gate is locked first, so that neither deadlocks.
  PERFORM FROM private.account_gates WHERE account_id = account FOR UPDATE;
  UPDATE public.users
  SET email = private.kept_email(account, address)
  WHERE id = account
    AND closed_at IS NULL;
EXCEPTION
  WHEN unique_violation THEN
    UPDATE public.users
    SET email = account || '@no-email.invalid'
    WHERE id = account
      AND closed_at IS NULL;
END
$$;

CREATE OR REPLACE FUNCTION private.handle_new_user()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.create_profile(NEW.id, NEW.email, NEW.raw_user_meta_data);
  IF NEW.deleted_at IS NOT NULL THEN
    PERFORM private.erase_account(NEW.id);
  END IF;
  RETURN NEW;
END
$$;

-- Creates the gate of a new account.
CREATE OR REPLACE FUNCTION private.make_gate()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  INSERT INTO private.account_gates (account_id, is_open)
  VALUES (NEW.id, NEW.closed_at IS NULL)
  ON CONFLICT DO NOTHING;
  RETURN NULL;
END
$$;

-- Locks an account's seats in the way in which `lock_sessions` locks sessions: a Seer who removes several players locks
-- their seats in scan order.
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
END
$$;

-- Locks all rows that closing an account changes: first its gate, so that no write of the account is in progress, then
-- the rest in the lock order, including the participants of the sessions that will end.
CREATE OR REPLACE FUNCTION private.lock_account(account uuid)
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
    -- The account's own profile gets another address, which is a key and needs the stronger lock.
    IF person = account THEN
      PERFORM FROM public.users WHERE id = person FOR UPDATE;
    ELSE
      PERFORM FROM public.users WHERE id = person FOR NO KEY UPDATE;
    END IF;
  END LOOP;
END
$$;

-- Closes an account: removes personal data, keeps history, gives up seats in live sessions, cancels live sessions that
-- it runs. Idempotent.
CREATE OR REPLACE FUNCTION private.erase_account(account uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.lock_account(account);

  -- A digest of an address and a name can be guessed.
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
  -- A session that is being archived is skipped: its events are deleted with it.
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

CREATE OR REPLACE FUNCTION private.handle_changed_user()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NEW.deleted_at IS NOT NULL THEN
    PERFORM private.erase_account(NEW.id);
  ELSIF NEW.email IS DISTINCT FROM OLD.email THEN
    PERFORM private.change_email(NEW.id, NEW.email);
  END IF;
  RETURN NEW;
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
  -- This must be the first change of the profile: at a second one, the foreign key would look for the account again.
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

-- Deletes adventures of an account that nobody else has played. An adventure stays if another transaction has locked
-- one of its sessions, because closing an account must not depend on others.
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
      DELETE FROM public.adventures WHERE id = unplayed;
    EXCEPTION
      WHEN foreign_key_violation THEN
        NULL;
    END;
  END LOOP;
END
$$;

-- Deletes what involves only the account itself: sessions in which nobody else ever had a seat, and then whatever
-- nothing references any more.
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

-- Deletes an account's own history with its profile. The foreign keys keep what others' history references and refuse
-- the whole deletion. It fires AFTER, because deleting these rows updates counters of the profile, and a BEFORE DELETE
-- trigger must not update the row that is being deleted. The capital letter makes it fire before the foreign keys'
-- triggers, which are called `RI_...`.
CREATE OR REPLACE FUNCTION private.delete_own_history()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.delete_unshared(OLD.id);
  RETURN NULL;
END
$$;

-- Refuses changes to the profile of a closed account, by anyone.
CREATE OR REPLACE FUNCTION private.check_profile_change()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.refuse_closed_account();
  RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER on_auth_user_created
  AFTER INSERT ON auth.users
  FOR EACH ROW EXECUTE FUNCTION private.handle_new_user();

CREATE OR REPLACE TRIGGER on_auth_user_changed
  AFTER UPDATE OF email, deleted_at ON auth.users
  FOR EACH ROW
  WHEN (NEW.email IS DISTINCT FROM OLD.email OR NEW.deleted_at IS DISTINCT FROM OLD.deleted_at)
  EXECUTE FUNCTION private.handle_changed_user();

-- The capital letter makes it fire before the foreign key's trigger, which would lock the profile before its sessions.
CREATE OR REPLACE TRIGGER "On_auth_user_deleted"
  AFTER DELETE ON auth.users
  FOR EACH ROW EXECUTE FUNCTION private.handle_deleted_user();

CREATE OR REPLACE TRIGGER make_gate
  AFTER INSERT ON public.users
  FOR EACH ROW EXECUTE FUNCTION private.make_gate();

CREATE OR REPLACE TRIGGER "Delete_own_history"
  AFTER DELETE ON public.users
  FOR EACH ROW EXECUTE FUNCTION private.delete_own_history();

CREATE OR REPLACE TRIGGER check_profile_change
  BEFORE UPDATE OF display_name, avatar_url, bio ON public.users
  FOR EACH ROW
  WHEN (
    OLD.closed_at IS NOT NULL AND NEW.closed_at IS NOT NULL
    AND (
      NEW.display_name <> OLD.display_name
      OR NEW.avatar_url IS DISTINCT FROM OLD.avatar_url
      OR NEW.bio IS DISTINCT FROM OLD.bio
    )
  )
  EXECUTE FUNCTION private.check_profile_change();

CREATE OR REPLACE TRIGGER set_updated_at
  BEFORE UPDATE ON public.users
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();
