-- Creates profiles for accounts that existed before the schema. It runs once, when the tables are new: from then on a
-- trigger creates profiles, and repeating this in a later migration would read every account while the tables are
-- locked.
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
