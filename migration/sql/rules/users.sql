-- Profiles follow accounts: they come, change and go with `auth.users`.

-- A sign-up must never fail because of us: an account without an address, or with one that another account holds
-- (single sign-on allows that), gets one that nobody else can have. ON CONFLICT waits for a sign-up under way.
CREATE OR REPLACE FUNCTION private.create_profile(account_id uuid, account_email text, metadata jsonb)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  -- The first name that says something: what the platform was told, else the mailbox.
  name text := coalesce(
    nullif(btrim(left(metadata ->> 'display_name', 100)), ''),
    nullif(btrim(left(metadata ->> 'full_name', 100)), ''),
    nullif(btrim(left(metadata ->> 'name', 100)), ''),
    nullif(btrim(left(split_part(account_email, '@', 1), 100)), ''),
    'Adventurer'
  );
BEGIN
  IF btrim(account_email) <> '' THEN
    INSERT INTO public.users (id, email, display_name)
    VALUES (account_id, account_email, name)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN;
    END IF;
  END IF;
  INSERT INTO public.users (id, email, display_name)
  VALUES (account_id, account_id || '@no-email.invalid', name)
  ON CONFLICT DO NOTHING;
END
$$;

CREATE OR REPLACE FUNCTION private.handle_new_user()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  PERFORM private.create_profile(NEW.id, NEW.email, NEW.raw_user_meta_data);
  IF NEW.deleted_at IS NOT NULL THEN
    PERFORM private.erase_account(NEW.id);
  END IF;
  RETURN NEW;
END
$$;

-- Soft deletion, as Supabase does it: personal data goes, history stays. Rows are taken in the lock order.
CREATE OR REPLACE FUNCTION private.erase_account(account_id uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  PERFORM
  FROM public.session_players AS seat
  JOIN public.sessions AS session ON session.id = seat.session_id
  WHERE seat.user_id = account_id
    AND seat.is_active
    AND session.status NOT IN ('completed', 'cancelled')
  ORDER BY seat.session_id
  FOR NO KEY UPDATE OF seat;

  PERFORM
  FROM public.sessions AS session
  WHERE session.status NOT IN ('completed', 'cancelled')
    AND (
      session.seer_id = account_id
      OR session.id IN (
        SELECT seat.session_id
        FROM public.session_players AS seat
        WHERE seat.user_id = account_id
          AND seat.is_active
      )
    )
  ORDER BY session.id
  FOR NO KEY UPDATE;

  -- The profile first: what is told below of leaving and cancelling names nobody any more.
  UPDATE public.users
  SET email = account_id || '@deleted.invalid',
      display_name = 'Former player',
      avatar_url = NULL,
      bio = NULL
  WHERE id = account_id
    AND email <> account_id || '@deleted.invalid';
  UPDATE public.session_events
  SET payload = payload || '{"displayName": "Former player", "avatarUrl": null}'
  WHERE session_id IN (SELECT seat.session_id FROM public.session_players AS seat WHERE seat.user_id = account_id)
    AND event_type IN ('player_joined', 'player_left')
    AND payload ->> 'userId' = account_id::text;

  UPDATE public.session_players AS seat
  SET is_active = false
  FROM public.sessions AS session
  WHERE session.id = seat.session_id
    AND seat.user_id = account_id
    AND seat.is_active
    AND session.status NOT IN ('completed', 'cancelled');

  UPDATE public.sessions
  SET status = 'cancelled'
  WHERE seer_id = account_id
    AND status IN ('waiting', 'starting_soon');

  -- A draft that was played holds other people's history; it is put away instead.
  DELETE FROM public.adventures AS adventure
  WHERE adventure.creator_id = account_id
    AND adventure.status = 'draft'
    AND NOT EXISTS (SELECT FROM public.sessions AS played WHERE played.adventure_id = adventure.id)
    AND NOT EXISTS (SELECT FROM public.archived_sessions AS played WHERE played.adventure_id = adventure.id);
  UPDATE public.adventures
  SET status = 'archived'
  WHERE creator_id = account_id
    AND status = 'draft';
END
$$;

-- Whether an account was erased: its token may outlive it by an hour, and must not bring personal data back.
CREATE OR REPLACE FUNCTION private.is_erased(account_id uuid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.users AS profile
    WHERE profile.id = account_id
      AND profile.email = account_id || '@deleted.invalid'
  );
END
$$;

CREATE OR REPLACE FUNCTION private.refuse_erased(account_id uuid)
RETURNS void
LANGUAGE plpgsql
SET search_path = ''
AS $$
BEGIN
  IF private.is_erased(account_id) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP019',
      MESSAGE = 'The account is closed',
      CONSTRAINT = 'account_open';
  END IF;
END
$$;

-- A changed address reaches the profile; one that another profile holds does not stop the change.
CREATE OR REPLACE FUNCTION private.handle_changed_user()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  IF NEW.deleted_at IS NOT NULL THEN
    IF OLD.deleted_at IS NULL THEN
      PERFORM private.erase_account(NEW.id);
    END IF;
    RETURN NEW;
  END IF;
  IF NEW.email IS DISTINCT FROM OLD.email AND NOT private.is_erased(NEW.id) THEN
    BEGIN
      UPDATE public.users
      SET email = coalesce(nullif(btrim(NEW.email), ''), NEW.id || '@no-email.invalid')
      WHERE id = NEW.id;
    EXCEPTION
      WHEN unique_violation THEN
        UPDATE public.users
        SET email = NEW.id || '@no-email.invalid'
        WHERE id = NEW.id;
    END;
  END IF;
  RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION private.check_profile_change()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  PERFORM private.refuse_erased(OLD.id);
  RETURN NEW;
END
$$;

-- A hard deletion takes the sessions in which nobody else ever sat; whatever other people's history holds is kept by
-- the foreign keys, which then refuse the whole deletion.
CREATE OR REPLACE FUNCTION private.delete_own_history()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  DELETE FROM public.sessions AS session
  WHERE session.seer_id = OLD.id
    AND NOT EXISTS (
      SELECT
      FROM public.session_players AS seat
      WHERE seat.session_id = session.id
        AND seat.user_id <> OLD.id
    );
  DELETE FROM public.archived_sessions AS session
  WHERE session.seer_id = OLD.id
    AND NOT EXISTS (
      SELECT
      FROM public.archived_session_players AS seat
      WHERE seat.session_id = session.id
        AND seat.user_id <> OLD.id
    );
  RETURN OLD;
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

CREATE OR REPLACE TRIGGER delete_own_history
  BEFORE DELETE ON public.users
  FOR EACH ROW EXECUTE FUNCTION private.delete_own_history();

CREATE OR REPLACE TRIGGER check_profile_change
  BEFORE UPDATE OF display_name, avatar_url, bio ON public.users
  FOR EACH ROW EXECUTE FUNCTION private.check_profile_change();

CREATE OR REPLACE TRIGGER set_updated_at
  BEFORE UPDATE ON public.users
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();
