-- Creates profiles for accounts that existed before the schema, or that signed up while the trigger that creates
-- profiles was missing. Also applies the changes of accounts that happened while the trigger for them was missing: new
-- e-mail addresses, soft deletions (`deleted_at`) and deletions. A closed account stays closed, even if the platform
-- has not recorded its deletion. The query reads every account while the tables are locked, so `up` runs it only after
-- it has applied the migrations and when it restores one of these triggers.
DO $$
DECLARE
  missed record;
BEGIN
  FOR missed IN
    SELECT account.id, account.email, account.raw_user_meta_data, account.deleted_at, profile.id IS NULL AS is_new
    FROM auth.users AS account
    LEFT JOIN public.users AS profile ON profile.account_id = account.id
    WHERE profile.id IS NULL
      OR (
        profile.closed_at IS NULL
        AND (account.deleted_at IS NOT NULL OR profile.email <> private.email_to_store(account.id, account.email))
      )
    ORDER BY account.created_at, account.id
  LOOP
    IF missed.is_new THEN
      PERFORM private.create_profile(missed.id, missed.email, missed.raw_user_meta_data);
    ELSE
      PERFORM private.change_email(missed.id, missed.email);
    END IF;
    IF missed.deleted_at IS NOT NULL THEN
      PERFORM private.erase_account(missed.id);
    END IF;
  END LOOP;
  -- The foreign key has removed the reference to an account that was deleted.
  FOR missed IN
    SELECT profile.id
    FROM public.users AS profile
    WHERE profile.account_id IS NULL
      AND profile.closed_at IS NULL
    ORDER BY profile.id
  LOOP
    PERFORM private.delete_account(missed.id);
  END LOOP;
END
$$;
