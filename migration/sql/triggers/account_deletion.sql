-- Closing an account removes its personal data and keeps the history of its games. Deleting an account closes it, and
-- also deletes its profile (its row in `public.users`) if the history of others does not reference the profile. Both
-- first lock most of the rows that they change (`account_locks.sql`). A *live* session is one that has not ended.

-- Closes an account: removes its personal data, gives up its seats in live sessions, cancels the live sessions that it
-- runs, deletes its draft adventures without history (`adventure_has_history`), and archives its other drafts. History
-- is kept. It is no error if the account is closed already. This function does not check who calls it; users and the
-- service call `close_account`, which does.
CREATE OR REPLACE FUNCTION private.close_account_unchecked(account uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.lock_gate_and_rows(account);

  -- This row contains a digest of the sign-up, with which somebody could verify a guess of the e-mail address and name.
  DELETE FROM private.request_digests
  WHERE id = account
    AND relation = 'users';
  -- The profile is changed first, so that the events of leaving and cancelling, which are written below, contain no
  -- personal data.
  UPDATE public.users
  SET email = account || '@deleted.invalid',
      display_name = 'Former player',
      avatar_url = NULL,
      bio = NULL
  WHERE id = account
    AND closed_at IS NULL;
  -- Events of joining and leaving contain the name and the picture, which are replaced here. Closing must not wait for
  -- a transaction that is deleting a session or old events, so it skips locked events. It also skips the events of
  -- locked sessions, because at the second update of an event in one transaction, PostgreSQL checks the event's foreign
  -- key again, which locks the session. There can be a second update because this function can run twice in one
  -- transaction: the trigger on `auth.users` calls it when `close_account` changes the account's row there, and then
  -- `close_account` itself calls it.
  UPDATE public.session_events
  SET payload = payload || '{"display_name": "Former player", "avatar_url": null}'
  WHERE id = ANY (
    ARRAY(
      SELECT event.id
      FROM public.session_events AS event
      WHERE event.session_id = ANY (
        ARRAY(
          SELECT id
          FROM public.sessions
          WHERE id IN (SELECT seat.session_id FROM public.session_players AS seat WHERE seat.user_id = account)
          FOR KEY SHARE SKIP LOCKED
        )
      )
        AND event.event_type IN ('player_joined', 'player_left')
        AND event.payload ->> 'user_id' = account::text
      FOR NO KEY UPDATE SKIP LOCKED
    )
  );

  UPDATE public.session_players AS seat
  SET is_active = false
  FROM public.sessions AS session
  WHERE session.id = seat.session_id
    AND seat.user_id = account
    AND seat.is_active
    AND session.status NOT IN ('completed', 'cancelled');

  UPDATE public.sessions
  SET status = 'cancelled'
  WHERE seer_id = account
    AND status NOT IN ('completed', 'cancelled');

  PERFORM private.delete_adventures_without_history(account, ARRAY['draft']::public.adventure_status[]);
  -- The drafts that remain are part of the history of others, or another transaction has locked them, their sessions or
  -- seats.
  UPDATE public.adventures
  SET status = 'archived'
  WHERE creator_id = account
    AND status = 'draft';

  UPDATE public.users
  SET closed_at = now()
  WHERE id = account
    AND closed_at IS NULL;
  UPDATE private.account_gates
  SET is_open = false
  WHERE account_id = account;
END
$$;

-- Closes the profile of an account that was deleted from `auth.users`, and deletes the profile too if the history of
-- others does not reference it. If the history does, the profile stays, and no error is raised. `backfill.sql` calls
-- this for accounts that were deleted while the trigger below was missing.
CREATE OR REPLACE FUNCTION private.apply_account_deletion(account uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.lock_gate_and_rows(account, for_deletion => true);
  -- This must come before the other changes of the profile. When a transaction changes a row again, PostgreSQL checks
  -- the foreign key of `account_id` even if `account_id` stays the same. If it were not NULL by then, the check would
  -- fail, because the account no longer exists.
  UPDATE public.users
  SET account_id = NULL
  WHERE id = account;
  PERFORM private.close_account_unchecked(account);
  -- If the history of others references the profile, only rows that involve nobody else are deleted. Rows that are
  -- deleted with a session or an adventure, such as events, have not been locked in advance, so a deadlock is possible.
  -- A deadlock is treated like a reference.
  BEGIN
    DELETE FROM public.users WHERE id = account;
  EXCEPTION
    WHEN foreign_key_violation OR deadlock_detected THEN
      BEGIN
        PERFORM private.delete_unshared_rows(account);
      EXCEPTION
        WHEN foreign_key_violation OR deadlock_detected THEN
          NULL; -- Another transaction has referenced or locked some of these rows, so all of them stay.
      END;
  END;
END
$$;

-- Runs after an account was deleted from `auth.users`.
CREATE OR REPLACE FUNCTION private.handle_deleted_user()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.apply_account_deletion(OLD.id);
  RETURN NULL;
END
$$;

-- Deletes the adventures of an account that have one of the given statuses and no history (`adventure_has_history`). An
-- adventure stays if another transaction has locked it, one of its sessions, or a seat in one of them. Waiting could
-- take for ever: the foreign key of a new session holds a KEY SHARE lock on the adventure until the transaction ends,
-- and several users with overlapping transactions could keep it locked.
CREATE OR REPLACE FUNCTION private.delete_adventures_without_history(account uuid, statuses public.adventure_status[])
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  deletable_adventure_id uuid;
BEGIN
  FOR deletable_adventure_id IN
    SELECT id
    FROM public.adventures
    WHERE creator_id = account
      AND status = ANY (statuses)
      AND NOT private.adventure_has_history(id)
    ORDER BY id
  LOOP
    BEGIN
      PERFORM FROM public.adventures WHERE id = deletable_adventure_id FOR UPDATE NOWAIT;
      PERFORM FROM public.sessions WHERE adventure_id = deletable_adventure_id FOR UPDATE NOWAIT;
      PERFORM
      FROM public.session_players AS seat
      JOIN public.sessions AS session ON session.id = seat.session_id
      WHERE session.adventure_id = deletable_adventure_id
      FOR UPDATE OF seat NOWAIT;
      DELETE FROM public.adventures WHERE id = deletable_adventure_id;
    EXCEPTION
      WHEN foreign_key_violation OR lock_not_available OR deadlock_detected THEN
        NULL;
    END;
  END LOOP;
END
$$;

-- Deletes the account's *unshared* rows, which involve nobody else: sessions that it ran and in which nobody else ever
-- had a seat (archived ones too), the progress in the tutorial, adventures without history, and characters that are
-- then no longer referenced.
CREATE OR REPLACE FUNCTION private.delete_unshared_rows(account uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM public.sessions AS session
  WHERE session.seer_id = account
    AND NOT EXISTS (
      SELECT
      FROM public.session_players AS seat
      WHERE seat.session_id = session.id
        AND seat.user_id <> account
    );
  DELETE FROM public.archived_sessions AS session
  WHERE session.seer_id = account
    AND NOT EXISTS (
      SELECT
      FROM public.archived_session_players AS seat
      WHERE seat.session_id = session.id
        AND seat.user_id <> account
    );
  DELETE FROM public.tutorial_progress
  WHERE user_id = account;
  PERFORM private.delete_adventures_without_history(
    account,
    ARRAY['draft', 'published', 'archived']::public.adventure_status[]
  );
  DELETE FROM public.characters AS character
  WHERE character.user_id = account
    AND NOT EXISTS (SELECT FROM public.session_players WHERE character_id = character.id)
    AND NOT EXISTS (SELECT FROM public.archived_session_players WHERE character_id = character.id)
    AND NOT EXISTS (SELECT FROM public.dice_rolls WHERE character_id = character.id)
    AND NOT EXISTS (SELECT FROM public.archived_dice_rolls WHERE character_id = character.id);
END
$$;

-- Runs after a profile was deleted, and deletes the rows that involve only its account (`delete_unshared_rows`). If the
-- history of others references the profile, or has come to reference one of these rows meanwhile, the foreign keys
-- refuse the whole deletion. If an adventure of the account could not be deleted, this trigger itself refuses the
-- deletion of the profile. If it did not, the foreign key would delete the adventure with the profile, and would wait
-- for the transaction that has locked the adventure.
CREATE OR REPLACE FUNCTION private.delete_unshared_rows_of_profile()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM private.delete_unshared_rows(OLD.id);
  IF EXISTS (SELECT FROM public.adventures WHERE creator_id = OLD.id) THEN
    -- This is the foreign key's message, because clients tell by its beginning that the row is still referenced.
    RAISE EXCEPTION USING
      ERRCODE = 'foreign_key_violation',
      MESSAGE = 'update or delete on table "users" violates foreign key constraint "adventures_creator_id_fkey" on table "adventures"',
      DETAIL = 'Others have played the adventures of this account, or are using them.',
      TABLE = 'adventures',
      CONSTRAINT = 'adventures_creator_id_fkey';
  END IF;
  RETURN NULL;
END
$$;

-- The capital letter makes this trigger fire before the trigger of the foreign key, which would lock the profile before
-- the account's sessions.
CREATE OR REPLACE TRIGGER "On_auth_user_deleted"
  AFTER DELETE ON auth.users
  FOR EACH ROW EXECUTE FUNCTION private.handle_deleted_user();

-- This is an AFTER trigger, because deleting the unshared rows updates counters of the profile, and a BEFORE DELETE
-- trigger must not update the row that is being deleted. The capital letter makes this trigger fire before the triggers
-- of the foreign keys, which are called `RI_...`.
CREATE OR REPLACE TRIGGER "Delete_unshared_rows"
  AFTER DELETE ON public.users
  FOR EACH ROW EXECUTE FUNCTION private.delete_unshared_rows_of_profile();
