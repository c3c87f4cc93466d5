-- Creates profiles for accounts that existed before the schema, or that signed up while the trigger that creates
-- profiles was missing. It reads every account while the tables are locked, so `up` runs it only after migrations and
-- when it restores that trigger.
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
