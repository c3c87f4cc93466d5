-- A profile is public, its e-mail address is not; a user edits only three columns.

-- Returns the caller's e-mail address. A column privilege cannot grant it to the owner of the row only.
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

-- Soft-deletes an account as the platform does: the trigger on `auth.users` closes the profile. If the function's owner
-- may not update `auth.users`, only the profile is closed. Only the account itself and the service may call it. Returns
-- whether the account has a profile.
CREATE OR REPLACE FUNCTION private.close_account(account uuid)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT private.is_server() AND account IS DISTINCT FROM auth.uid() THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = 'Only the account itself or the service may close it';
  END IF;
  BEGIN
    -- A transaction of the user that has an id may have locked the account's gate already. The platform locks the
    -- account first and then the gate, so waiting for the account here could end its deletion in a deadlock.
    IF NOT private.is_server() AND pg_current_xact_id_if_assigned() IS NOT NULL THEN
      PERFORM FROM auth.users WHERE id = account FOR UPDATE NOWAIT;
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
    WHEN lock_not_available THEN
      RAISE EXCEPTION USING
        ERRCODE = 'serialization_failure',
        MESSAGE = 'The account is being changed; try again';
  END;
  PERFORM private.erase_account(account);
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

-- Even the service cannot write `closed_at` and the counters of limits; only the schema's functions do.
GRANT SELECT, DELETE ON public.users TO service_role;
GRANT INSERT (
  id, account_id, email, display_name, avatar_url, bio, is_verified, games_played, games_run, created_at, updated_at
) ON public.users TO service_role;
GRANT UPDATE (
  email, display_name, avatar_url, bio, is_verified, games_played, games_run, created_at, updated_at
) ON public.users TO service_role;

-- `users` without the e-mail address, with the caller's privileges, for clients that select all columns.
CREATE OR REPLACE VIEW public.profiles
WITH (security_invoker = true)
AS
SELECT id, display_name, avatar_url, bio, is_verified, games_played, games_run, created_at, updated_at
FROM public.users;

REVOKE ALL ON public.profiles FROM PUBLIC, anon, authenticated, service_role;
GRANT SELECT ON public.profiles TO anon, authenticated, service_role;
