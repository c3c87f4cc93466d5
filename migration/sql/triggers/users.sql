-- Creates a *profile* (a row of `public.users`) for each account in `auth.users`, and keeps the profile up to date with
-- the account. The functions that close and delete accounts are in `account_deletion.sql`. An account's *gate* is its
-- row in `private.account_gates`, which says whether the account is open, and which serves as a lock.

-- Returns a name that is safe to show to others: line breaks and control characters become spaces; zero-width spaces,
-- byte-order marks and characters that change the direction of the text are removed; and what remains is cut to a
-- hundred characters. Returns NULL if nothing visible remains, or if the value is not a string.
CREATE OR REPLACE FUNCTION private.displayable_name(value jsonb)
RETURNS text
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  -- A very long text is cut first, so that the replacements below stay cheap.
  name text := left(value #>> '{}', 1000);
BEGIN
  IF jsonb_typeof(value) IS DISTINCT FROM 'string' THEN
    RETURN NULL;
  END IF;
  name := regexp_replace(name, '[\u0001-\u001f\u007f-\u009f\u2028\u2029]+', ' ', 'g');
  name := regexp_replace(name, '[\u200b\u202a-\u202e\u2066-\u2069\ufeff]', '', 'g');
  name := btrim(left(btrim(name), 100));
  RETURN CASE WHEN name <> '' AND private.is_displayable_name(name) THEN name END;
END
$$;

-- Returns the e-mail address to store in the profile of an account: the account's own address or, if it has none, its
-- *reserved* address `<id>@no-email.invalid`. Only this schema assigns addresses in the reserved domains
-- (`no-email.invalid`, `deleted.invalid`), so an account with such an address counts as one without an address.
CREATE OR REPLACE FUNCTION private.email_to_store(account uuid, address text)
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

-- Inserts a profile unless the id or the e-mail address is in use, and returns whether it was inserted. A transaction
-- that closes another account may be giving up the address, and may then stay open for a long time. This function waits
-- for that transaction no longer than a second, and then returns false.
CREATE OR REPLACE FUNCTION private.try_insert_profile(account uuid, address text, name text, avatar text)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
BEGIN
  INSERT INTO public.users (id, account_id, email, display_name, avatar_url)
  VALUES (account, account, address, name, avatar)
  ON CONFLICT DO NOTHING;
  RETURN FOUND;
EXCEPTION
  WHEN lock_not_available THEN
    RETURN false;
END
$$;

-- Creates the profile of an account, or gives the account its former profile back. This must never fail, because the
-- sign-up would fail with it. An account without an e-mail address, or with one that another account has (single
-- sign-on allows that), gets its reserved address (`email_to_store`). If another sign-up with the same address is in
-- progress, ON CONFLICT waits for it, but no longer than a second; then this account gets its reserved address, too. If
-- the id already has a profile, the account gets that profile back, with its history, and is open again.
CREATE OR REPLACE FUNCTION private.create_or_reopen_profile(account uuid, account_email text, metadata jsonb)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  address text := private.email_to_store(account, account_email);
  reserved_email CONSTANT text := account || '@no-email.invalid';
  -- The first usable name: from the account's metadata, else the local part of the e-mail address, else `Adventurer`.
  name text := coalesce(
    private.displayable_name(metadata -> 'display_name'),
    private.displayable_name(metadata -> 'full_name'),
    private.displayable_name(metadata -> 'name'),
    private.displayable_name(to_jsonb(split_part(account_email, '@', 1))),
    'Adventurer'
  );
  avatar text := coalesce(private.http_url(metadata -> 'avatar_url'), private.http_url(metadata -> 'picture'));
BEGIN
  -- Another transaction may have locked one of these tables as a whole, for example to create an index. This statement
  -- waits for that transaction without a time limit; the limit of `try_insert_profile` would be too short.
  LOCK TABLE public.users, private.account_gates IN ROW EXCLUSIVE MODE;
  IF private.try_insert_profile(account, address, name, avatar) THEN
    RETURN;
  END IF;
  INSERT INTO public.users (id, account_id, email, display_name, avatar_url)
  VALUES (account, account, reserved_email, name, avatar)
  ON CONFLICT DO NOTHING;
  IF FOUND THEN
    RETURN;
  END IF;

  UPDATE public.users AS profile
  SET account_id = account,
      email = reserved_email,
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

-- Returns the value (the URL of a picture) if it is an http(s) URL of at most 2,000 characters, else NULL.
CREATE OR REPLACE FUNCTION private.http_url(value jsonb)
RETURNS text
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF jsonb_typeof(value) = 'string'
    AND char_length(value #>> '{}') <= 2000
    AND value #>> '{}' ~* '^https?://[^\s/]\S*$'
  THEN
    RETURN value #>> '{}';
  END IF;
  RETURN NULL;
END
$$;

-- Stores an e-mail address in an open account's profile. Returns false if another profile has the address. A
-- transaction that closes another account may be giving up the address, and may then stay open for a long time. This
-- function waits for that transaction no longer than a second, and then returns false. For a closed account it does
-- nothing, and returns true.
CREATE OR REPLACE FUNCTION private.try_set_email(account uuid, address text)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
BEGIN
  UPDATE public.users
  SET email = address
  WHERE id = account
    AND closed_at IS NULL;
  RETURN true;
EXCEPTION
  WHEN unique_violation OR lock_not_available THEN
    RETURN false;
END
$$;

-- Changes the e-mail address of an open account's profile. If `try_set_email` cannot store the new address, the profile
-- gets its reserved address (`email_to_store`) instead, so that the change of the account still succeeds.
CREATE OR REPLACE FUNCTION private.change_email(account uuid, address text)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- The e-mail address is a key, so its change waits for transactions whose foreign keys have locked the profile. Such
  -- a transaction may then update the profile's counters and wait for this change, which would be a deadlock. Locking
  -- the gate first avoids the deadlock. The profile is locked before `try_set_email` is called, so that the time limit
  -- of that function covers only the wait for the address.
  PERFORM FROM private.account_gates WHERE account_id = account FOR UPDATE;
  PERFORM FROM public.users WHERE id = account FOR UPDATE;
  IF NOT private.try_set_email(account, private.email_to_store(account, address)) THEN
    UPDATE public.users
    SET email = account || '@no-email.invalid'
    WHERE id = account
      AND closed_at IS NULL;
  END IF;
END
$$;

-- Creates the profile of a new account. If the account is deleted already, closes it. (The platform, Supabase, sets
-- `deleted_at` when it deletes an account softly, that is, keeps the row.)
CREATE OR REPLACE FUNCTION private.handle_new_user()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.create_or_reopen_profile(NEW.id, NEW.email, NEW.raw_user_meta_data);
  IF NEW.deleted_at IS NOT NULL THEN
    PERFORM private.close_account_unchecked(NEW.id);
  END IF;
  RETURN NEW;
END
$$;

-- Creates the gate of a new account: its row in `private.account_gates`. Every statement with which the account's user
-- writes locks this row first.
CREATE OR REPLACE FUNCTION private.create_gate()
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

-- Closes an account that is deleted softly. Otherwise stores the account's new e-mail address in its profile.
CREATE OR REPLACE FUNCTION private.handle_changed_user()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NEW.deleted_at IS NOT NULL THEN
    PERFORM private.close_account_unchecked(NEW.id);
  ELSIF NEW.email IS DISTINCT FROM OLD.email THEN
    PERFORM private.change_email(NEW.id, NEW.email);
  END IF;
  RETURN NEW;
END
$$;

-- Refuses changes to the e-mail address, name, picture and description of a closed account, whoever makes them. The
-- trigger's WHEN condition has already found such a change, so this function always refuses.
CREATE OR REPLACE FUNCTION private.refuse_change_of_closed_profile()
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

CREATE OR REPLACE TRIGGER create_gate
  AFTER INSERT ON public.users
  FOR EACH ROW EXECUTE FUNCTION private.create_gate();

CREATE OR REPLACE TRIGGER check_profile_change
  BEFORE UPDATE OF email, display_name, avatar_url, bio ON public.users
  FOR EACH ROW
  WHEN (
    OLD.closed_at IS NOT NULL AND NEW.closed_at IS NOT NULL
    AND (
      NEW.email <> OLD.email
      OR NEW.display_name <> OLD.display_name
      OR NEW.avatar_url IS DISTINCT FROM OLD.avatar_url
      OR NEW.bio IS DISTINCT FROM OLD.bio
    )
  )
  EXECUTE FUNCTION private.refuse_change_of_closed_profile();

-- Changes of the counters (see `private.touch_updated_at`) and of the e-mail address do not set `updated_at`.
CREATE OR REPLACE TRIGGER set_updated_at
  BEFORE UPDATE OF display_name, avatar_url, bio, is_verified, created_at, updated_at ON public.users
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();
