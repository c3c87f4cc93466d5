-- Profiles are public, except for the e-mail address, `account_id`, `closed_at` and the counters on which limits are
-- based. A user can edit only three columns of their own profile.

-- Returns the caller's e-mail address. This is a function because a column privilege cannot be limited to the user's
-- own row.
CREATE OR REPLACE FUNCTION private.my_email()
RETURNS text
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN (SELECT profile.email FROM public.users AS profile WHERE profile.id = auth.uid());
END
$$;

-- Soft-deletes an account as the platform (Supabase) does: keeps the row in `auth.users`, sets its `deleted_at`, and
-- clears its e-mail address, phone number and metadata. The trigger on `auth.users` then closes the profile. If the
-- function's owner may not update `auth.users`, only the profile is closed. Only the account's user and the service may
-- call this. Returns whether the account has a profile.
CREATE OR REPLACE FUNCTION private.close_account(account uuid)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT private.is_service() AND account IS DISTINCT FROM auth.uid() THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = 'Only the account itself or the service may close it';
  END IF;
  BEGIN
    -- If the user's transaction already has a transaction id, it may have locked the account's gate (its row in
    -- `private.account_gates`). The platform locks the row in `auth.users` first and then the gate. So waiting for the
    -- row in `auth.users` here could make the platform's deletion of the account fail in a deadlock.
    IF NOT private.is_service() AND pg_current_xact_id_if_assigned() IS NOT NULL THEN
      BEGIN
        PERFORM FROM auth.users WHERE id = account FOR UPDATE NOWAIT;
      EXCEPTION
        WHEN lock_not_available THEN
          RAISE EXCEPTION USING
            ERRCODE = 'serialization_failure',
            MESSAGE = 'The account is being changed; try again';
      END;
    END IF;
    UPDATE auth.users
    SET deleted_at = now(),
        email = NULL,
        phone = NULL,
        raw_user_meta_data = '{}'
    WHERE id = account
      AND deleted_at IS NULL;
  EXCEPTION
    WHEN insufficient_privilege THEN
      NULL;
  END;
  PERFORM private.close_account_unchecked(account);
  RETURN EXISTS (SELECT FROM public.users AS profile WHERE profile.id = account);
END
$$;

CREATE POLICY "Public profiles readable"
ON public.users FOR SELECT
TO anon, authenticated
USING (true);

CREATE POLICY "Users can update own profile"
ON public.users FOR UPDATE
TO authenticated
USING (id = (SELECT auth.uid()))
WITH CHECK (id = (SELECT auth.uid()));

GRANT SELECT (id, display_name, avatar_url, bio, is_verified, games_played, games_run, created_at, updated_at)
ON public.users TO anon, authenticated;
GRANT UPDATE (display_name, avatar_url, bio) ON public.users TO authenticated;

-- Not even the service can write `closed_at` and the counters on which limits are based; only the schema's functions
-- do.
GRANT SELECT, DELETE ON public.users TO service_role;
GRANT INSERT (
  id, account_id, email, display_name, avatar_url, bio, is_verified, games_played, games_run, created_at, updated_at
) ON public.users TO service_role;
GRANT UPDATE (
  email, display_name, avatar_url, bio, is_verified, games_played, games_run, created_at, updated_at
) ON public.users TO service_role;

-- The columns of `users` that everybody may read. Clients that select all columns use this view, because `SELECT *`
-- from the table needs the privilege on every column. The caller's privileges apply.
CREATE OR REPLACE VIEW public.profiles
WITH (security_invoker = true)
AS
SELECT id, display_name, avatar_url, bio, is_verified, games_played, games_run, created_at, updated_at
FROM public.users;

REVOKE ALL ON public.profiles FROM PUBLIC, anon, authenticated, service_role;
GRANT SELECT ON public.profiles TO anon, authenticated, service_role;
