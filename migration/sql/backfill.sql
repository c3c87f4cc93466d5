-- Makes up for triggers on `auth.users` that did not exist yet, were missing, or had no effect (because they were
-- disabled, for example). An account is a row of `auth.users`; its profile is a row of `public.users`. Gives each
-- account that has no profile a new profile, or its former one back. Brings the other profiles up to date with new
-- e-mail addresses, soft deletions (`deleted_at`) and deletions of their accounts. The profile of a closed account
-- stays as it is, even if the platform (Supabase) has not recorded the soft deletion, or the account was deleted since.
-- The queries read every account, which can take long, and meanwhile the migration command `up` holds its locks on the
-- tables. So an `up` runs this script only if it installs the schema, or restores one of these triggers or its
-- function.
DO $$
DECLARE
  account_to_sync record;
  profile_without_account record;
BEGIN
  -- Deletions come first, because they free e-mail addresses. If an account was deleted without the trigger, the
  -- foreign key has set `account_id` of its profile to NULL. If an account with the profile's id exists again, this
  -- loop leaves the profile out, and the loop below gives it back to the account.
  FOR profile_without_account IN
    SELECT profile.id
    FROM public.users AS profile
    WHERE profile.account_id IS NULL
      AND profile.closed_at IS NULL
      AND NOT EXISTS (SELECT FROM auth.users AS account WHERE account.id = profile.id)
    ORDER BY profile.id
  LOOP
    PERFORM private.apply_account_deletion(profile_without_account.id);
  END LOOP;
  -- If the address of an account still belongs to another account's profile, the account's own profile gets the
  -- account's reserved address (`email_to_store`). After the first pass, the profiles have given up their old
  -- addresses, so the second pass tries the real address of each such account again.
  FOR pass IN 1..2 LOOP
    FOR account_to_sync IN
      SELECT
        account.id, account.email, account.raw_user_meta_data, account.deleted_at,
        profile.id IS NULL AS lacks_profile
      FROM auth.users AS account
      LEFT JOIN public.users AS profile ON profile.account_id = account.id
      WHERE profile.id IS NULL
        OR (
          profile.closed_at IS NULL
          AND (account.deleted_at IS NOT NULL OR profile.email <> private.email_to_store(account.id, account.email))
        )
      ORDER BY account.deleted_at IS NULL, account.created_at, account.id
    LOOP
      IF account_to_sync.lacks_profile THEN
        PERFORM private.create_or_reopen_profile(
          account_to_sync.id, account_to_sync.email, account_to_sync.raw_user_meta_data
        );
      ELSE
        PERFORM private.change_email(account_to_sync.id, account_to_sync.email);
      END IF;
      IF account_to_sync.deleted_at IS NOT NULL THEN
        PERFORM private.close_account_unchecked(account_to_sync.id);
      END IF;
    END LOOP;
    EXIT WHEN NOT FOUND; -- The pass has found nothing to do.
  END LOOP;
END
$$;
