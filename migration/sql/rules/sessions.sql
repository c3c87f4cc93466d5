-- A session's code, its life from waiting to its end, and what its end counts for.

-- Six characters that nobody mixes up, from the strong random source. It runs as its owner, so that a code is free
-- whatever sessions the asker may see; two askers who draw the same code at once are held apart by the unique constraint.
CREATE OR REPLACE FUNCTION private.generate_session_code()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  alphabet CONSTANT text := 'ABCDEFGHJKMNPQRSTUVWXYZ23456789';
  place integer;
  drawn text;
BEGIN
  LOOP
    drawn := '';
    FOREACH place IN ARRAY private.random_numbers(length(alphabet), 6)
    LOOP
      drawn := drawn || substr(alphabet, place + 1, 1);
    END LOOP;
    EXIT WHEN NOT EXISTS (SELECT FROM public.sessions WHERE code = drawn::bpchar);
  END LOOP;
  NEW.code := drawn;
  RETURN NEW;
END
$$;

-- A session plays a published adventure or one of the Seer's own.
CREATE OR REPLACE FUNCTION private.check_session_adventure()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  NEW.seer_id := coalesce(NEW.seer_id, auth.uid());
  PERFORM private.refuse_erased(NEW.seer_id);
  IF EXISTS (
    SELECT
    FROM public.adventures AS adventure
    WHERE adventure.id = NEW.adventure_id
      AND adventure.status <> 'published'
      AND adventure.creator_id <> NEW.seer_id
  )
  THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP009',
      MESSAGE = 'A session plays a published adventure or one of the Seer''s own',
      TABLE = 'sessions',
      CONSTRAINT = 'adventure_playable';
  END IF;
  RETURN NEW;
END
$$;

-- The status machine, and the moments that it stamps.
CREATE OR REPLACE FUNCTION private.check_session_status()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = ''
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
    IF NEW.current_encounter_id IS DISTINCT FROM OLD.current_encounter_id THEN
      NEW.encounters_begun := OLD.encounters_begun + 1;
    END IF;
  END IF;
  IF NEW.status = 'active' THEN
    NEW.started_at := coalesce(NEW.started_at, now());
  END IF;
  IF NEW.status IN ('completed', 'cancelled') THEN
    NEW.ended_at := coalesce(NEW.ended_at, now());
  END IF;
  RETURN NEW;
END
$$;

-- Two screens of one Seer: who writes over a state says which one it was.
CREATE OR REPLACE FUNCTION private.number_game_state()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = ''
AS $$
BEGIN
  NEW.game_state_version := OLD.game_state_version + 1;
  RETURN NEW;
END
$$;

-- A new encounter gives everyone the heroic save back. A seat that somebody is just leaving is not waited for (it
-- waits for this session): its save counts for an encounter that is over, which is what a claim looks at.
CREATE OR REPLACE FUNCTION private.give_heroic_saves_back()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
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
        FOR NO KEY UPDATE SKIP LOCKED
      )
    );
  RETURN NULL;
END
$$;

-- Completing counts once, for the Seer, everyone who was seated, and the adventure. Rows are taken in the order of
-- their keys, so that two sessions with the same players cannot wait for each other.
CREATE OR REPLACE FUNCTION private.update_user_stats()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  players uuid[];
  played uuid[];
BEGIN
  SELECT array_agg(seat.user_id), array_agg(seat.character_id)
  INTO players, played
  FROM public.session_players AS seat
  WHERE seat.session_id = NEW.id;

  PERFORM FROM public.characters WHERE id = ANY (played) ORDER BY id FOR NO KEY UPDATE;
  UPDATE public.characters
  SET last_played_at = NEW.ended_at
  WHERE id = ANY (played);

  PERFORM FROM public.users WHERE id = ANY (NEW.seer_id || players) ORDER BY id FOR NO KEY UPDATE;
  UPDATE public.users
  SET games_run = games_run + (id = NEW.seer_id)::integer,
      games_played = games_played + coalesce(id = ANY (players), false)::integer
  WHERE id = ANY (NEW.seer_id || players);

  UPDATE public.adventures
  SET times_played = times_played + 1
  WHERE id = NEW.adventure_id;
  RETURN NULL;
END
$$;

-- What a table is told of its session, each with a payload that needs no further query.
CREATE OR REPLACE FUNCTION private.tell_session_change()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  IF NEW.status <> OLD.status THEN
    INSERT INTO public.session_events (session_id, event_type, payload)
    VALUES (
      NEW.id,
      'session_status',
      jsonb_build_object('from', OLD.status, 'to', NEW.status, 'startedAt', NEW.started_at, 'endedAt', NEW.ended_at)
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
  IF NEW.game_state IS DISTINCT FROM OLD.game_state THEN
    INSERT INTO public.session_events (session_id, event_type, payload)
    VALUES (
      NEW.id,
      'game_state',
      jsonb_build_object('gameState', NEW.game_state, 'version', NEW.game_state_version)
    );
  END IF;
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER set_session_code
  BEFORE INSERT ON public.sessions
  FOR EACH ROW
  WHEN (NEW.code IS NULL)
  EXECUTE FUNCTION private.generate_session_code();

CREATE OR REPLACE TRIGGER check_session_adventure
  BEFORE INSERT OR UPDATE OF adventure_id, seer_id ON public.sessions
  FOR EACH ROW EXECUTE FUNCTION private.check_session_adventure();

CREATE OR REPLACE TRIGGER check_session_status
  BEFORE INSERT OR UPDATE ON public.sessions
  FOR EACH ROW EXECUTE FUNCTION private.check_session_status();

CREATE OR REPLACE TRIGGER number_game_state
  BEFORE UPDATE OF game_state ON public.sessions
  FOR EACH ROW
  WHEN (NEW.game_state IS DISTINCT FROM OLD.game_state)
  EXECUTE FUNCTION private.number_game_state();

CREATE OR REPLACE TRIGGER give_heroic_saves_back
  AFTER UPDATE OF current_encounter_id ON public.sessions
  FOR EACH ROW
  WHEN (NEW.current_encounter_id IS DISTINCT FROM OLD.current_encounter_id)
  EXECUTE FUNCTION private.give_heroic_saves_back();

CREATE OR REPLACE TRIGGER on_session_complete
  AFTER UPDATE ON public.sessions
  FOR EACH ROW
  WHEN (NEW.status = 'completed' AND OLD.status <> 'completed')
  EXECUTE FUNCTION private.update_user_stats();

CREATE OR REPLACE TRIGGER on_session_change
  AFTER UPDATE OF status, current_scene_id, current_encounter_id, game_state ON public.sessions
  FOR EACH ROW EXECUTE FUNCTION private.tell_session_change();

CREATE OR REPLACE TRIGGER set_updated_at
  BEFORE UPDATE ON public.sessions
  FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();

CREATE OR REPLACE TRIGGER check_readable_game_state
  BEFORE INSERT OR UPDATE OF game_state ON public.sessions
  FOR EACH ROW
  WHEN (NEW.game_state <> '{}' AND NOT private.is_readable(NEW.game_state))
  EXECUTE FUNCTION private.check_readable('game_state');
