-- A profile is public, an address is not; a user edits three columns and no more.

-- The own address, which no column privilege can give to its owner alone.
CREATE FUNCTION private.my_email()
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
