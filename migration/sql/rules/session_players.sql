-- Seats: as many as the session has, each with a living character of the player who sits there.

CREATE OR REPLACE FUNCTION private.check_session_capacity()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  session record;
  hero record;
  takes_seat boolean := NEW.is_active;
  changes_character boolean := true;
  seated boolean := false;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    takes_seat := NEW.is_active AND NOT OLD.is_active;
    changes_character := NEW.character_id <> OLD.character_id;
    IF NOT takes_seat AND NOT changes_character AND NEW.is_active = OLD.is_active THEN
      RETURN NEW;
    END IF;
  END IF;

  -- The session owns the limit: whoever wants a seat waits here for the one before.
  SELECT status, max_players, seats_taken
  INTO session
  FROM public.sessions
  WHERE id = NEW.session_id
  FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN NEW; -- The foreign key answers.
  END IF;

  IF NOT (TG_OP = 'INSERT' AND NOT NEW.is_active) AND session.status IN ('completed', 'cancelled') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP004',
      MESSAGE = 'The session is over',
      TABLE = 'session_players',
      CONSTRAINT = 'session_live';
  END IF;

  IF TG_OP = 'INSERT' THEN
    -- Somebody who sits here already is answered by the primary key, not by the limit.
    seated := EXISTS (
      SELECT
      FROM public.session_players AS seat
      WHERE seat.session_id = NEW.session_id
        AND seat.user_id = NEW.user_id
        AND seat.is_active
    );
  END IF;
  IF takes_seat AND NOT seated AND session.seats_taken >= session.max_players THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP002',
      MESSAGE = 'Session is full',
      TABLE = 'session_players',
      CONSTRAINT = 'session_capacity';
  END IF;

  IF TG_OP = 'UPDATE' AND changes_character AND OLD.is_active THEN
    IF session.status NOT IN ('waiting', 'starting_soon') THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP005',
        MESSAGE = 'The session has started',
        TABLE = 'session_players',
        CONSTRAINT = 'session_not_started';
    END IF;
    IF auth.uid() <> NEW.user_id THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP018',
        MESSAGE = 'A player alone chooses the own character',
        TABLE = 'session_players',
        CONSTRAINT = 'own_choice';
    END IF;
  END IF;

  IF takes_seat OR changes_character THEN
    -- Shared, so that the character neither retires nor changes hands before this seat is seen.
    SELECT user_id, retired_at
    INTO hero
    FROM public.characters
    WHERE id = NEW.character_id
    FOR SHARE;
    IF FOUND AND hero.user_id <> NEW.user_id THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP006',
        MESSAGE = 'The character belongs to somebody else',
        TABLE = 'session_players',
        CONSTRAINT = 'own_character';
    END IF;
    IF NEW.is_active AND hero.retired_at IS NOT NULL THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP007',
        MESSAGE = 'The character is retired',
        TABLE = 'session_players',
        CONSTRAINT = 'living_character';
    END IF;
    IF takes_seat THEN
      PERFORM private.refuse_erased(NEW.user_id);
    END IF;
  END IF;

  IF TG_OP = 'UPDATE' THEN
    IF takes_seat THEN
      NEW.left_at := NULL;
    ELSIF NOT NEW.is_active AND OLD.is_active THEN
      NEW.left_at := now();
    END IF;
  ELSIF NOT NEW.is_active THEN
    NEW.left_at := coalesce(NEW.left_at, now());
  END IF;
  RETURN NEW;
END
$$;

-- The session knows its seats without counting, and the table is told who came and who left.
CREATE OR REPLACE FUNCTION private.count_seats()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  seat public.session_players := coalesce(NEW, OLD);
  change integer := 0;
  seats integer;
  places integer;
BEGIN
  IF TG_OP <> 'DELETE' THEN
    change := NEW.is_active::integer;
  END IF;
  IF TG_OP <> 'INSERT' THEN
    change := change - OLD.is_active::integer;
  END IF;
  IF change = 0 THEN
    RETURN NULL;
  END IF;

  UPDATE public.sessions
  SET seats_taken = seats_taken + change
  WHERE id = seat.session_id
  RETURNING seats_taken, max_players INTO seats, places;
  IF NOT FOUND THEN
    RETURN NULL; -- The session itself is going, and its events with it.
  END IF;

  INSERT INTO public.session_events (session_id, event_type, payload)
  SELECT
    seat.session_id,
    CASE WHEN change > 0 THEN 'player_joined' ELSE 'player_left' END,
    jsonb_build_object(
      'userId', seat.user_id,
      'displayName', profile.display_name,
      'avatarUrl', profile.avatar_url,
      'characterId', seat.character_id,
      'characterName', hero.name,
      'characterClass', hero.class,
      'seatsTaken', seats,
      'maxPlayers', places
    )
  FROM public.users AS profile
  JOIN public.characters AS hero ON hero.id = seat.character_id
  WHERE profile.id = seat.user_id;
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER enforce_session_capacity
  BEFORE INSERT OR UPDATE OF is_active, character_id ON public.session_players
  FOR EACH ROW EXECUTE FUNCTION private.check_session_capacity();

CREATE OR REPLACE TRIGGER count_seats
  AFTER INSERT OR DELETE OR UPDATE OF is_active ON public.session_players
  FOR EACH ROW EXECUTE FUNCTION private.count_seats();
