-- Accounts that were there before us get their profile. Once, when the tables are new: from then on profiles come with their
-- accounts, and a later migration would look at every account while it holds the tables.
DO $$
DECLARE
  account record;
BEGIN
  FOR account IN
    SELECT id, email, raw_user_meta_data, deleted_at
    FROM auth.users
    ORDER BY created_at, id
  LOOP
    PERFORM private.create_profile(account.id, account.email, account.raw_user_meta_data);
    IF account.deleted_at IS NOT NULL THEN
      PERFORM private.erase_account(account.id);
    END IF;
  END LOOP;
END
$$;
