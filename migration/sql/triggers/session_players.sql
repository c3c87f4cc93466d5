-- A *seat* is a row of `session_players`. Each player takes their own seat, with a living (not retired) character of
-- their own. `seat_counts.sql` counts the seats.

CREATE OR REPLACE FUNCTION private.refuse_seat_after_end()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'SP004',
    MESSAGE = 'The session has ended; its seats can no longer change',
    TABLE = 'session_players',
    CONSTRAINT = 'session_not_ended';
END
$$;

CREATE OR REPLACE FUNCTION private.refuse_seat_after_start()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'SP005',
    MESSAGE = 'The session has started; seats and characters are chosen before the start',
    TABLE = 'session_players',
    CONSTRAINT = 'session_not_started';
END
$$;

CREATE OR REPLACE FUNCTION private.refuse_character_of_other_player()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'SP006',
    MESSAGE = 'The character must belong to the player',
    TABLE = 'session_players',
    CONSTRAINT = 'own_character';
END
$$;

-- Fills in the player, refuses changes that the caller may not make to a seat, and sets the seat's timestamps. Because
-- row security filters the rows of an UPDATE first, only the player, the session's Seer and roles that bypass row
-- security reach this function with an existing seat.
CREATE OR REPLACE FUNCTION private.prepare_seat()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me uuid := auth.uid();
  is_service CONSTANT boolean := private.is_service();
BEGIN
  IF TG_OP = 'INSERT' THEN
    NEW.user_id := coalesce(NEW.user_id, me);
    -- If a user takes the seat, a policy or `join_by_code` calls `require_and_lock_open_account`, which locks the
    -- player's row in `private.account_gates`. If the service or an operator seats the player, that row is locked here.
    IF me IS NULL OR is_service THEN
      PERFORM private.lock_gate(NEW.user_id);
    END IF;
    IF NEW.is_active THEN
      NEW.left_at := NULL;
    ELSE
      NEW.left_at := coalesce(NEW.left_at, now());
    END IF;
    RETURN NEW;
  END IF;
  IF NEW.character_id <> OLD.character_id
    AND (is_service OR NEW.user_id = me)
    AND EXISTS (SELECT FROM public.characters WHERE id = NEW.character_id AND user_id <> NEW.user_id)
  THEN
    PERFORM private.refuse_character_of_other_player();
  END IF;
  IF (
    NEW.is_active <> OLD.is_active
    OR NEW.character_id <> OLD.character_id
    OR (OLD.is_active AND NEW.removed_at IS NOT NULL)
  )
    AND EXISTS (SELECT FROM public.sessions WHERE id = NEW.session_id AND status IN ('completed', 'cancelled'))
  THEN
    -- `check_session_capacity` checks this too, but only after it has locked the session. If that waited for a
    -- transaction that archives the session, this seat would stay locked meanwhile, and archiving would skip the
    -- session, or wait for the seat too.
    PERFORM private.refuse_seat_after_end();
  END IF;
  IF NOT is_service AND NEW.user_id <> me
    AND (NEW.character_id <> OLD.character_id OR (NEW.is_active AND NOT OLD.is_active))
  THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP018',
      MESSAGE = 'Only the player may take the seat and choose the character',
      TABLE = 'session_players',
      CONSTRAINT = 'own_choice';
  END IF;
  IF NOT is_service AND NEW.user_id = me AND OLD.removed_at IS NOT NULL
    AND (NEW.is_active OR NEW.removed_at IS DISTINCT FROM OLD.removed_at)
  THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP028',
      MESSAGE = 'The Seer removed this player; only the Seer can let them back in',
      TABLE = 'session_players',
      CONSTRAINT = 'player_removed';
  END IF;

  -- The database sets the time of a removal. A caller could otherwise write `infinity`, which clients cannot read.
  IF NEW.removed_at IS NOT NULL AND OLD.removed_at IS NULL THEN
    -- A player who sets `removed_at` of their own seat leaves the session, but is not marked as removed.
    NEW.removed_at := CASE WHEN NOT is_service AND NEW.user_id = me THEN NULL ELSE now() END;
    NEW.is_active := false;
  ELSIF NEW.removed_at IS NOT NULL THEN
    NEW.removed_at := CASE WHEN NEW.is_active THEN NULL ELSE OLD.removed_at END;
  END IF;
  IF NEW.is_active AND NOT OLD.is_active THEN
    NEW.left_at := NULL;
  ELSIF NOT NEW.is_active AND OLD.is_active THEN
    NEW.left_at := now();
  END IF;
  RETURN NEW;
END
$$;

-- Marks a player as removed when the Seer sets `is_active` of the seat to false, even if the player has already left.
CREATE OR REPLACE FUNCTION private.set_removed_at()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NEW.user_id <> auth.uid() AND NOT private.is_service() THEN
    NEW.removed_at := now();
  END IF;
  RETURN NEW;
END
$$;

-- Refuses somebody else's character before the foreign key locks it. Otherwise the statement could hold that lock while
-- it waits for the session, which the caller can keep locked on another connection. Meanwhile the character's owner
-- could neither rename nor delete the character.
CREATE OR REPLACE FUNCTION private.check_own_character()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF EXISTS (SELECT FROM public.characters WHERE id = NEW.character_id AND user_id <> NEW.user_id) THEN
    PERFORM private.refuse_character_of_other_player();
  END IF;
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER prepare_seat
  BEFORE INSERT OR UPDATE OF is_active, character_id, removed_at ON public.session_players
  FOR EACH ROW EXECUTE FUNCTION private.prepare_seat();

-- Fires when a statement sets `is_active` to false, even if it is false already, so that the Seer can mark a player who
-- has just left as removed. Its name puts this trigger after `prepare_seat`.
CREATE OR REPLACE TRIGGER set_removed_at
  BEFORE UPDATE OF is_active ON public.session_players
  FOR EACH ROW
  WHEN (NOT NEW.is_active AND OLD.removed_at IS NULL)
  EXECUTE FUNCTION private.set_removed_at();

-- The capital letter makes this trigger fire before those of the foreign keys.
CREATE OR REPLACE TRIGGER "Check_own_character"
  AFTER INSERT ON public.session_players
  FOR EACH ROW EXECUTE FUNCTION private.check_own_character();
