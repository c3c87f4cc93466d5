-- What belongs to a session itself: its adventure, its planned start, the transitions of its status, its game state,
-- and the events of its changes. A *live* session is one that has not ended.

-- Fills in the Seer. Refuses an adventure that the Seer may not use, and an id that another Seer's session has. This
-- function refuses only callers who may create the session; for all others row security refuses the row. Users get the
-- same error for somebody else's draft as for an adventure that does not exist.
--
-- Only the service may assign a session to another Seer, or change its adventure: users have no privilege to update
-- these columns. Once the session has started, not even the service may change the adventure, because creatures of the
-- adventure may have rolled. Once the session has ended, neither the Seer nor the adventure may change, because the
-- session may have been counted for both.
CREATE OR REPLACE FUNCTION private.prepare_session()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  is_service CONSTANT boolean := private.is_service();
BEGIN
  NEW.seer_id := coalesce(NEW.seer_id, auth.uid());
  IF TG_OP = 'UPDATE' THEN
    IF (NEW.seer_id <> OLD.seer_id OR NEW.adventure_id <> OLD.adventure_id)
      AND OLD.status IN ('completed', 'cancelled')
    THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP004',
        MESSAGE = 'The session has ended; its Seer and adventure can no longer change',
        TABLE = 'sessions',
        CONSTRAINT = 'session_not_ended';
    END IF;
    IF NEW.adventure_id <> OLD.adventure_id AND OLD.status IN ('active', 'paused') THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP005',
        MESSAGE = 'The session has started; its adventure can no longer change',
        TABLE = 'sessions',
        CONSTRAINT = 'session_not_started';
    END IF;
  END IF;
  IF NOT is_service AND NEW.seer_id IS DISTINCT FROM auth.uid() THEN
    RETURN NEW;
  END IF;
  IF NOT is_service
    AND TG_OP = 'INSERT'
    AND EXISTS (SELECT FROM public.sessions WHERE id = NEW.id AND seer_id <> NEW.seer_id)
  THEN
    PERFORM private.refuse_used_id('sessions');
  END IF;
  -- If the service names an adventure that does not exist, the foreign key refuses the row.
  IF NOT EXISTS (
    SELECT
    FROM public.adventures AS adventure
    WHERE adventure.id = NEW.adventure_id
      AND (adventure.status = 'published' OR adventure.creator_id = NEW.seer_id)
  )
    AND (NOT is_service OR EXISTS (SELECT FROM public.adventures WHERE id = NEW.adventure_id))
  THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP009',
      MESSAGE = 'The adventure of a session must be published, or the Seer''s own',
      TABLE = 'sessions',
      CONSTRAINT = 'adventure_playable';
  END IF;
  RETURN NEW;
END
$$;

-- Refuses a planned start that is more than an hour in the past (the trigger's WHEN compares the time): users plan
-- sessions for the future, with an hour of grace. The service may set any planned start. The other columns of a session
-- whose planned start has passed can still be edited.
CREATE OR REPLACE FUNCTION private.check_schedule()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND NEW.scheduled_start IS NOT DISTINCT FROM OLD.scheduled_start THEN
    RETURN NEW;
  END IF;
  -- If an INSERT leaves out the Seer, `prepare_session`, whose trigger fires later, fills in the caller.
  IF coalesce(NEW.seer_id, auth.uid()) = auth.uid() AND NOT private.is_service() THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP030',
      MESSAGE = 'scheduled_start must not be more than an hour in the past',
      TABLE = 'sessions',
      COLUMN = 'scheduled_start',
      CONSTRAINT = 'scheduled_in_future';
  END IF;
  RETURN NEW;
END
$$;

-- Runs after a session was inserted. Refuses the id of an archived session, counts the session for its Seer if it is
-- live (a Seer has at most twenty live sessions), and checks the adventure again, because it may have been unpublished
-- since the caller's snapshot. At READ COMMITTED a plain query sees that. At higher isolation levels the adventure's
-- row must be locked: the lock fails if the row has changed since the snapshot. The lock is released at once, by
-- rolling back the block that takes it. Otherwise two accounts that keep creating sessions of the adventure in
-- overlapping transactions could make its creator, or the completion of another session, wait for ever.
CREATE OR REPLACE FUNCTION private.count_and_check_new_session()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  current_adventure record;
BEGIN
  IF EXISTS (SELECT FROM public.archived_sessions WHERE id = NEW.id) THEN
    PERFORM private.refuse_used_id('sessions');
  END IF;
  IF NEW.status NOT IN ('completed', 'cancelled') THEN
    PERFORM private.add_to_account_counters(NEW.seer_id, sessions => 1);
  END IF;
  IF current_setting('transaction_isolation') = 'read committed' THEN
    SELECT status, creator_id
    INTO current_adventure
    FROM public.adventures
    WHERE id = NEW.adventure_id;
  ELSE
    BEGIN
      SELECT status, creator_id
      INTO current_adventure
      FROM public.adventures
      WHERE id = NEW.adventure_id
      FOR SHARE;
      RAISE triggered_action_exception; -- Releases the lock; `current_adventure` keeps its value.
    EXCEPTION
      WHEN triggered_action_exception THEN
        -- The query of `archived_sessions` above sees only what was archived before the snapshot.
        PERFORM private.check_id_not_archived_since_snapshot(NEW);
    END;
  END IF;
  IF current_adventure.status <> 'published' AND current_adventure.creator_id <> NEW.seer_id THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP009',
      MESSAGE = 'The adventure of a session must be published, or the Seer''s own',
      TABLE = 'sessions',
      CONSTRAINT = 'adventure_playable';
  END IF;
  RETURN NULL;
END
$$;

-- Checks the transitions of the status, sets the timestamps that belong to them, and counts encounters. Refuses to
-- start or resume a session that has no seated player. Refuses users most changes of an ended session: its Seer may
-- still edit its note (`looking_for`) and its visibility (`is_public`), for example to withdraw it from view.
CREATE OR REPLACE FUNCTION private.prepare_session_status()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    IF NEW.status <> OLD.status
      AND NEW.status <> ALL (
        CASE OLD.status
          WHEN 'waiting' THEN '{starting_soon,active,cancelled}'
          WHEN 'starting_soon' THEN '{waiting,active,cancelled}'
          WHEN 'active' THEN '{paused,completed,cancelled}'
          WHEN 'paused' THEN '{active,completed,cancelled}'
          ELSE '{}'
        END::public.session_status[]
      )
    THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP003',
        MESSAGE = format('A session cannot go from %s to %s', OLD.status, NEW.status),
        DETAIL = OLD.status || ' -> ' || NEW.status,
        TABLE = 'sessions',
        CONSTRAINT = 'session_status_transition';
    END IF;
    -- This rule applies to the roles `anon` and `authenticated` and to the logins that may assume them, as in
    -- `triggers/statement_limits.sql`.
    IF OLD.status IN ('completed', 'cancelled')
      AND row_security_active(TG_RELID)
      AND (pg_has_role('anon', 'MEMBER') OR pg_has_role('authenticated', 'MEMBER'))
      AND (
        NEW.max_players <> OLD.max_players
        OR NEW.scheduled_start IS DISTINCT FROM OLD.scheduled_start
        OR NEW.current_scene_id IS DISTINCT FROM OLD.current_scene_id
        OR NEW.current_encounter_id IS DISTINCT FROM OLD.current_encounter_id
        OR record_image_ne(ROW(NEW.game_state), ROW(OLD.game_state))
      )
    THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP004',
        MESSAGE = 'The session has ended; only its note and visibility can still change',
        TABLE = 'sessions',
        CONSTRAINT = 'session_not_ended';
    END IF;
    IF NEW.status = 'active' AND OLD.status <> 'active' AND NEW.seats_taken = 0 THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP029',
        MESSAGE = 'A session needs a seated player to become active',
        TABLE = 'sessions',
        CONSTRAINT = 'session_has_player';
    END IF;
    IF NEW.current_encounter_id IS DISTINCT FROM OLD.current_encounter_id THEN
      NEW.encounter_number := OLD.encounter_number + 1;
    END IF;
  END IF;
  -- The service may also insert a session that has started or ended already.
  IF NEW.status IN ('active', 'paused', 'completed') THEN
    NEW.started_at := coalesce(NEW.started_at, NEW.ended_at, now());
  END IF;
  IF NEW.status IN ('completed', 'cancelled') THEN
    -- This transaction may have begun before the one that started the session, so `now()` may be earlier than
    -- `started_at`.
    NEW.ended_at := coalesce(NEW.ended_at, greatest(now(), NEW.started_at));
  END IF;
  RETURN NEW;
END
$$;

-- Counts the changes of the game state, in `game_state_version`. The trigger's WHEN compares the documents as they are
-- stored: 12 and 12.0 are equal as numbers, but clients see the difference. A client's UPDATE can name, in its WHERE
-- clause, the version that it replaces, so that two devices of one Seer do not overwrite each other's changes
-- unnoticed.
CREATE OR REPLACE FUNCTION private.increment_game_state_version()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  NEW.game_state_version := OLD.game_state_version + 1;
  RETURN NEW;
END
$$;

-- Lets each seat use its heroic save (a second roll of a failed roll, once per encounter) in the session's new
-- encounter. This function skips locked seats: a player who is just leaving has locked the seat and waits for this
-- session, so waiting for the seat would be a deadlock. It also skips the seats of removed players, who still see their
-- own seat and could otherwise learn of encounters in a session that they may no longer see. A skipped seat is still
-- correct, because its used save belongs to an earlier encounter (`heroic_saves_encounter`), and `claim_heroic_save`
-- counts only saves of the current one.
CREATE OR REPLACE FUNCTION private.clear_used_heroic_saves()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  UPDATE public.session_players
  SET heroic_saves_used = 0
  WHERE session_id = NEW.id
    AND user_id = ANY (
      ARRAY(
        SELECT seat.user_id
        FROM public.session_players AS seat
        WHERE seat.session_id = NEW.id
          AND seat.heroic_saves_used > 0
          AND seat.removed_at IS NULL
        FOR NO KEY UPDATE SKIP LOCKED
      )
    );
  RETURN NULL;
END
$$;

-- When the service assigns a live session to another Seer, the session counts for the new Seer, and no longer for the
-- former one. The function raises an error if the new Seer's account is closed, or already has the maximum number of
-- live sessions.
CREATE OR REPLACE FUNCTION private.move_session_count()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NEW.status NOT IN ('completed', 'cancelled') THEN
    PERFORM FROM public.users WHERE id IN (OLD.seer_id, NEW.seer_id) ORDER BY id FOR NO KEY UPDATE;
    PERFORM private.add_to_account_counters(OLD.seer_id, sessions => -1);
    PERFORM private.add_to_account_counters(NEW.seer_id, sessions => 1);
  END IF;
  RETURN NULL;
END
$$;

-- Emits the events of a changed session. Each payload contains the whole change, so a reader needs no further query.
-- Times are printed in UTC, because a caller could set a time zone whose offset no client can parse.
CREATE OR REPLACE FUNCTION private.emit_session_change()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
  -- An expression of the statement, such as one in RETURNING, may have changed the session again. The second change has
  -- already emitted its events, so an event of the first change would now come last, with an old state. Such a
  -- statement is refused.
  IF NOT EXISTS (
    SELECT
    FROM public.sessions
    WHERE id = NEW.id
      AND status = NEW.status
      AND encounter_number = NEW.encounter_number
      AND game_state_version = NEW.game_state_version
      AND current_scene_id IS NOT DISTINCT FROM NEW.current_scene_id
  ) THEN
    PERFORM private.refuse_change_by_called_function('sessions');
  END IF;
  IF NEW.status <> OLD.status THEN
    INSERT INTO public.session_events (session_id, event_type, payload)
    VALUES (
      NEW.id,
      'session_status',
      jsonb_build_object('from', OLD.status, 'to', NEW.status, 'started_at', NEW.started_at, 'ended_at', NEW.ended_at)
    );
  END IF;
  IF NEW.current_scene_id IS DISTINCT FROM OLD.current_scene_id THEN
    INSERT INTO public.session_events (session_id, event_type, payload)
    VALUES (
      NEW.id,
      'scene_changed',
      jsonb_build_object('from', OLD.current_scene_id, 'to', NEW.current_scene_id)
    );
  END IF;
  IF NEW.current_encounter_id IS DISTINCT FROM OLD.current_encounter_id THEN
    INSERT INTO public.session_events (session_id, event_type, payload)
    VALUES (
      NEW.id,
      'encounter_changed',
      jsonb_build_object('from', OLD.current_encounter_id, 'to', NEW.current_encounter_id)
    );
  END IF;
  IF record_image_ne(ROW(NEW.game_state), ROW(OLD.game_state)) THEN
    INSERT INTO public.session_events (session_id, event_type, payload)
    VALUES (
      NEW.id,
      'game_state',
      jsonb_build_object('game_state', NEW.game_state, 'version', NEW.game_state_version)
    );
  END IF;
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER prepare_session
  BEFORE INSERT OR UPDATE OF adventure_id, seer_id ON public.sessions
  FOR EACH ROW EXECUTE FUNCTION private.prepare_session();

CREATE OR REPLACE TRIGGER prepare_session_status
  BEFORE INSERT OR UPDATE ON public.sessions
  FOR EACH ROW EXECUTE FUNCTION private.prepare_session_status();

CREATE OR REPLACE TRIGGER increment_game_state_version
  BEFORE UPDATE OF game_state ON public.sessions
  FOR EACH ROW
  WHEN (record_image_ne(ROW(NEW.game_state), ROW(OLD.game_state)))
  EXECUTE FUNCTION private.increment_game_state_version();

CREATE OR REPLACE TRIGGER clear_used_heroic_saves
  AFTER UPDATE OF current_encounter_id ON public.sessions
  FOR EACH ROW
  WHEN (NEW.current_encounter_id IS DISTINCT FROM OLD.current_encounter_id)
  EXECUTE FUNCTION private.clear_used_heroic_saves();

CREATE OR REPLACE TRIGGER check_schedule
  BEFORE INSERT OR UPDATE OF scheduled_start ON public.sessions
  FOR EACH ROW
  WHEN (NEW.scheduled_start < now() - INTERVAL '1 hour')
  EXECUTE FUNCTION private.check_schedule();

-- The capital letter makes this trigger fire before those of the foreign keys.
CREATE OR REPLACE TRIGGER "Count_and_check_new_session"
  AFTER INSERT ON public.sessions
  FOR EACH ROW EXECUTE FUNCTION private.count_and_check_new_session();

CREATE OR REPLACE TRIGGER move_session_count
  AFTER UPDATE OF seer_id ON public.sessions
  FOR EACH ROW
  WHEN (NEW.seer_id <> OLD.seer_id)
  EXECUTE FUNCTION private.move_session_count();

CREATE OR REPLACE TRIGGER on_session_change
  AFTER UPDATE OF status, current_scene_id, current_encounter_id, game_state ON public.sessions
  FOR EACH ROW EXECUTE FUNCTION private.emit_session_change();

CREATE OR REPLACE TRIGGER set_updated_at
  BEFORE UPDATE OF
    seer_id, adventure_id, code, is_public, max_players, looking_for, scheduled_start, status, current_scene_id,
    current_encounter_id, game_state, started_at, ended_at, created_at, updated_at
  ON public.sessions
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();

CREATE OR REPLACE TRIGGER check_parsable_game_state
  BEFORE INSERT OR UPDATE OF game_state ON public.sessions
  FOR EACH ROW
  WHEN (NEW.game_state <> '{}' AND NOT private.is_client_parsable(NEW.game_state, 262144))
  EXECUTE FUNCTION private.refuse_unparsable_column('game_state');
