-- A profile is public, an address is not; a user edits three columns and no more.

-- The own address, which no column privilege can give to its owner alone.
CREATE OR REPLACE FUNCTION private.my_email()
RETURNS text
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  RETURN (SELECT profile.email FROM public.users AS profile WHERE profile.id = auth.uid());
END
$$;

-- Deletes an account softly, as the platform does: the trigger on `auth.users` erases the profile. Where the platform
-- keeps its accounts to itself, the profile is erased all the same. One's own, or by the server. Tells whether there
-- was such an account.
CREATE OR REPLACE FUNCTION private.close_account(account_id uuid)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  IF NOT private.is_server() AND account_id IS DISTINCT FROM auth.uid() THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = 'An account is closed by its owner or the server';
  END IF;
  BEGIN
    UPDATE auth.users
    SET deleted_at = now(),
        email = NULL,
        phone = NULL,
        raw_user_meta_data = '{}'
    WHERE id = account_id
      AND deleted_at IS NULL;
  EXCEPTION
    WHEN insufficient_privilege THEN
      NULL;
  END;
  IF NOT private.is_erased(account_id) THEN
    PERFORM private.erase_account(account_id);
  END IF;
  RETURN EXISTS (SELECT FROM public.users AS profile WHERE profile.id = account_id);
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
GRANT SELECT, INSERT, UPDATE, DELETE ON public.users TO service_role;
