
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE SCHEMA auth;

COMMENT ON SCHEMA auth IS 'made by sparc: stand-in for the platform';

CREATE SCHEMA extensions;

COMMENT ON SCHEMA extensions IS 'made by sparc: stand-in for the platform';

CREATE SCHEMA private;

COMMENT ON SCHEMA private IS 'made by sparc: rules and helpers that the API does not serve';

CREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA extensions;

COMMENT ON EXTENSION pgcrypto IS 'made by sparc';

CREATE EXTENSION IF NOT EXISTS "uuid-ossp" WITH SCHEMA extensions;

COMMENT ON EXTENSION "uuid-ossp" IS 'made by sparc';

CREATE TYPE public.adventure_status AS ENUM (
    'draft',
    'published',
    'archived'
);

CREATE TYPE public.attribute AS ENUM (
    'might',
    'grace',
    'wit',
    'heart'
);

CREATE TYPE public.character_class AS ENUM (
    'warrior',
    'rogue',
    'wizard',
    'cleric',
    'paladin',
    'ranger',
    'necromancer'
);

CREATE TYPE public.difficulty_level AS ENUM (
    'easy',
    'medium',
    'hard'
);

CREATE TYPE public.roll_outcome AS ENUM (
    'critical_success',
    'success',
    'failure',
    'critical_failure'
);

CREATE TYPE public.roll_type AS ENUM (
    'attribute_check',
    'attack',
    'defense',
    'initiative',
    'damage',
    'healing',
    'ability',
    'heroic_save'
);

CREATE TYPE public.session_status AS ENUM (
    'waiting',
    'starting_soon',
    'active',
    'paused',
    'completed',
    'cancelled'
);

CREATE TYPE public.tutorial_path AS ENUM (
    'player',
    'seer'
);

CREATE FUNCTION auth.jwt() RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
BEGIN
  RETURN coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')
  )::jsonb;
END
$$;

CREATE FUNCTION auth.role() RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
BEGIN
  RETURN coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
  );
END
$$;

CREATE FUNCTION auth.uid() RETURNS uuid
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
BEGIN
  RETURN coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
  )::uuid;
END
$$;

CREATE FUNCTION private.archive_sessions(batch integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
  moving uuid[];
BEGIN
  -- Skipping what another run holds: two at once share the work instead of waiting.
  moving := ARRAY(
    SELECT session.id
    FROM public.sessions AS session
    WHERE session.status = 'completed'
      AND session.ended_at < now() - INTERVAL '90 days'
    ORDER BY session.ended_at
    LIMIT batch
    FOR UPDATE SKIP LOCKED
  );
  INSERT INTO public.archived_sessions (
    id, seer_id, adventure_id, code, is_public, max_players, looking_for, scheduled_start, status, current_scene_id,
    current_encounter_id, game_state, started_at, ended_at, created_at, updated_at, seats_taken, encounters_begun,
    game_state_version
  )
  SELECT
    id, seer_id, adventure_id, code, is_public, max_players, looking_for, scheduled_start, status, current_scene_id,
    current_encounter_id, game_state, started_at, ended_at, created_at, updated_at, seats_taken, encounters_begun,
    game_state_version
  FROM public.sessions
  WHERE id = ANY (moving);

  INSERT INTO public.archived_session_players (
    session_id, user_id, character_id, is_active, heroic_saves_used, joined_at, left_at, heroic_saves_encounter
  )
  SELECT
    session_id, user_id, character_id, is_active, heroic_saves_used, joined_at, left_at, heroic_saves_encounter
  FROM public.session_players
  WHERE session_id = ANY (moving);

  INSERT INTO public.archived_dice_rolls (
    id, session_id, character_id, creature_id, character_name, attribute, dice_count, difficulty, roll_type, modifiers,
    results, total, modified_total, success, outcome, margin, description, animation_seed, original_roll_id, created_at
  )
  SELECT
    id, session_id, character_id, creature_id, character_name, attribute, dice_count, difficulty, roll_type, modifiers,
    results, total, modified_total, success, outcome, margin, description, animation_seed, original_roll_id, created_at
  FROM public.dice_rolls
  WHERE session_id = ANY (moving);

  DELETE FROM public.sessions
  WHERE id = ANY (moving);
  RETURN cardinality(moving);
END
$$;

CREATE FUNCTION private.are_valid_modifiers(modifiers jsonb) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO ''
    AS $$
DECLARE
  modifier jsonb;
  number numeric;
BEGIN
  IF modifiers = '[]' THEN
    RETURN true;
  END IF;
  IF modifiers IS NULL OR jsonb_typeof(modifiers) <> 'array' OR jsonb_array_length(modifiers) > 10 THEN
    RETURN false;
  END IF;
  FOR modifier IN SELECT element FROM jsonb_array_elements(modifiers) AS list (element)
  LOOP
    IF jsonb_typeof(modifier) <> 'object'
      OR jsonb_typeof(modifier -> 'type') IS DISTINCT FROM 'string'
      OR jsonb_typeof(modifier -> 'value') IS DISTINCT FROM 'number'
      OR jsonb_typeof(modifier -> 'source') IS DISTINCT FROM 'string'
      OR char_length(btrim(modifier ->> 'source')) NOT BETWEEN 1 AND 100
    THEN
      RETURN false;
    END IF;
    number := (modifier ->> 'value')::numeric;
    IF number <> trunc(number)
      OR (CASE modifier ->> 'type' WHEN 'dice' THEN abs(number) > 5 WHEN 'flat' THEN abs(number) > 10 ELSE true END)
    THEN
      RETURN false;
    END IF;
  END LOOP;
  RETURN true;
END
$$;

CREATE FUNCTION private.are_valid_stats(stats jsonb) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO ''
    AS $$
DECLARE
  name text;
  number numeric;
BEGIN
  IF jsonb_typeof(stats) IS DISTINCT FROM 'object' THEN
    RETURN false;
  END IF;
  FOREACH name IN ARRAY ARRAY['might', 'grace', 'wit', 'heart']
  LOOP
    IF jsonb_typeof(stats -> name) IS DISTINCT FROM 'number' THEN
      RETURN false;
    END IF;
    number := (stats ->> name)::numeric;
    IF number <> trunc(number) OR number NOT BETWEEN 1 AND 10 THEN
      RETURN false;
    END IF;
  END LOOP;
  RETURN true;
END
$$;

SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE public.adventures (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    creator_id uuid NOT NULL,
    name text NOT NULL,
    description text,
    thumbnail_url text,
    artwork_url text,
    difficulty public.difficulty_level DEFAULT 'medium'::public.difficulty_level NOT NULL,
    estimated_duration integer DEFAULT 60 NOT NULL,
    min_players integer DEFAULT 2 NOT NULL,
    max_players integer DEFAULT 4 NOT NULL,
    content jsonb DEFAULT '{}'::jsonb NOT NULL,
    status public.adventure_status DEFAULT 'draft'::public.adventure_status NOT NULL,
    published_at timestamp with time zone,
    is_valid boolean DEFAULT false NOT NULL,
    validation_errors jsonb DEFAULT '[]'::jsonb NOT NULL,
    times_played integer DEFAULT 0 NOT NULL,
    average_rating numeric(3,2),
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT adventures_estimated_duration_check CHECK ((estimated_duration > 0)),
    CONSTRAINT adventures_max_players_check CHECK (((max_players >= 1) AND (max_players <= 6))),
    CONSTRAINT adventures_min_players_check CHECK (((min_players >= 1) AND (min_players <= 6))),
    CONSTRAINT adventures_times_played_check CHECK ((times_played >= 0)),
    CONSTRAINT bounded_artwork_url CHECK ((char_length(artwork_url) <= 2000)),
    CONSTRAINT bounded_content CHECK ((pg_column_size(content) <= 1048576)),
    CONSTRAINT bounded_description CHECK ((char_length(description) <= 10000)),
    CONSTRAINT bounded_thumbnail_url CHECK ((char_length(thumbnail_url) <= 2000)),
    CONSTRAINT published_is_valid CHECK (((status <> 'published'::public.adventure_status) OR (is_valid AND (published_at IS NOT NULL)))),
    CONSTRAINT valid_name CHECK (((char_length(name) >= 3) AND (char_length(name) <= 100))),
    CONSTRAINT valid_player_range CHECK ((min_players <= max_players))
)
WITH (autovacuum_vacuum_threshold='5000', autovacuum_vacuum_scale_factor='0.002', vacuum_index_cleanup='on');

CREATE FUNCTION private.best_rated_adventures(place numeric, last_id uuid, wanted integer) RETURNS SETOF public.adventures
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    SET enable_sort TO 'off'
    AS $$
BEGIN
  IF last_id IS NULL THEN
    RETURN QUERY
    SELECT adventure.*
    FROM public.adventures AS adventure
    WHERE adventure.status = 'published'
    ORDER BY adventure.average_rating DESC NULLS LAST, adventure.id
    LIMIT wanted;
  ELSIF place IS NULL THEN
    RETURN QUERY
    SELECT adventure.*
    FROM public.adventures AS adventure
    WHERE adventure.status = 'published'
      AND adventure.average_rating IS NULL
      AND adventure.id > last_id
    ORDER BY adventure.average_rating DESC NULLS LAST, adventure.id
    LIMIT wanted;
  ELSE
    RETURN QUERY
    SELECT adventure.*
    FROM public.adventures AS adventure
    WHERE adventure.status = 'published'
      AND adventure.id = ANY (private.best_rated_after(place, last_id, wanted))
    ORDER BY adventure.average_rating DESC NULLS LAST, adventure.id;
  END IF;
END
$$;

CREATE FUNCTION private.best_rated_after(rating numeric, last_id uuid, wanted integer) RETURNS uuid[]
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  RETURN ARRAY(
    SELECT id
    FROM (
      (
        SELECT id, average_rating
        FROM public.adventures
        WHERE status = 'published'
          AND average_rating <= rating
          AND (average_rating < rating OR id > last_id)
        ORDER BY average_rating DESC NULLS LAST, id
        LIMIT wanted
      )
      UNION ALL
      (
        SELECT id, average_rating
        FROM public.adventures
        WHERE status = 'published'
          AND average_rating IS NULL
        ORDER BY average_rating DESC NULLS LAST, id
        LIMIT wanted
      )
    ) AS following
    ORDER BY average_rating DESC NULLS LAST, id
    LIMIT wanted
  );
END
$$;

CREATE FUNCTION private.can_see_adventure(wanted uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.adventures AS adventure
    WHERE adventure.id = wanted
      AND (adventure.status = 'published' OR adventure.creator_id = auth.uid())
  );
END
$$;

CREATE FUNCTION private.change_hit_points(hero_id uuid, change integer) RETURNS TABLE(character_id uuid, hit_points integer, max_hit_points integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
  me uuid := auth.uid();
BEGIN
  RETURN QUERY
  UPDATE public.characters AS hero
  SET hit_points = greatest(0, least(hero.max_hit_points, hero.hit_points::bigint + change))
  WHERE hero.id = hero_id
    AND (
      private.is_server()
      OR hero.user_id = me
      OR EXISTS (
        SELECT
        FROM public.session_players AS seat
        JOIN public.sessions AS session ON session.id = seat.session_id
        WHERE seat.character_id = hero_id
          AND seat.is_active
          AND session.seer_id = me
          AND session.status IN ('active', 'paused')
      )
    )
  RETURNING hero.id, hero.hit_points, hero.max_hit_points;
END
$$;

CREATE FUNCTION private.check_adventure() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    NEW.creator_id := coalesce(NEW.creator_id, auth.uid());
    PERFORM private.refuse_erased(NEW.creator_id);
    IF NEW.status = 'published' THEN
      NEW.published_at := coalesce(NEW.published_at, now());
    END IF;
    RETURN NEW;
  END IF;

  -- A token outlives its account by an hour. What is put away stays so, and nothing new is told in it; the counts of what
  -- others play go on.
  IF auth.uid() = NEW.creator_id
    AND (
      (NEW.status <> OLD.status AND NEW.status <> 'archived')
      OR (NEW.name, NEW.description, NEW.thumbnail_url, NEW.artwork_url, NEW.content)
        IS DISTINCT FROM (OLD.name, OLD.description, OLD.thumbnail_url, OLD.artwork_url, OLD.content)
    )
  THEN
    PERFORM private.refuse_erased(NEW.creator_id);
  END IF;
  IF NEW.content IS DISTINCT FROM OLD.content THEN
    IF OLD.status = 'published' AND NEW.status = 'published' THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP010',
        MESSAGE = 'A published adventure is taken back before it is edited',
        TABLE = 'adventures',
        CONSTRAINT = 'published_not_edited';
    END IF;
    -- Content and verdict written together, on a row without a verdict, are the service's own.
    IF OLD.is_valid OR NOT NEW.is_valid THEN
      NEW.is_valid := false;
      NEW.validation_errors := '[]';
    END IF;
  END IF;
  IF NEW.status = 'published' AND OLD.status <> 'published' THEN
    NEW.published_at := now();
  END IF;
  RETURN NEW;
END
$$;

CREATE FUNCTION private.check_character_limit() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    NEW.user_id := coalesce(NEW.user_id, auth.uid());
    -- A row of this id is there already: the primary key answers, not the limit.
    IF EXISTS (SELECT FROM public.characters WHERE id = NEW.id) THEN
      RETURN NEW;
    END IF;
  ELSIF NEW.retired_at IS NOT NULL AND OLD.retired_at IS NULL THEN
    NEW.retired_at := now();
  ELSIF NEW.retired_at IS NOT NULL THEN
    NEW.retired_at := OLD.retired_at;
  END IF;

  IF TG_OP = 'UPDATE'
    AND (NEW.user_id <> OLD.user_id OR (NEW.retired_at IS NOT NULL AND OLD.retired_at IS NULL))
    AND EXISTS (
      SELECT
      FROM public.session_players AS seat
      JOIN public.sessions AS session ON session.id = seat.session_id
      WHERE seat.character_id = NEW.id
        AND seat.is_active
        AND session.status NOT IN ('completed', 'cancelled')
    )
  THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP008',
      MESSAGE = 'The character has a seat at a live table',
      TABLE = 'characters',
      CONSTRAINT = 'character_not_seated';
  END IF;

  IF NEW.retired_at IS NULL
    AND (TG_OP = 'INSERT' OR NEW.user_id <> OLD.user_id OR OLD.retired_at IS NOT NULL)
  THEN
    -- The account owns the limit: whoever adds a character to it waits here for the one before.
    PERFORM FROM public.users WHERE id = NEW.user_id FOR NO KEY UPDATE;
    IF TG_OP = 'INSERT' AND EXISTS (SELECT FROM public.characters WHERE id = NEW.id) THEN
      RETURN NEW;
    END IF;
    PERFORM private.refuse_erased(NEW.user_id);
    IF (
      SELECT count(*)
      FROM public.characters AS living
      WHERE living.user_id = NEW.user_id
        AND living.retired_at IS NULL
        AND living.id <> NEW.id
    ) >= 10
    THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP001',
        MESSAGE = 'Character limit reached (maximum 10)',
        TABLE = 'characters',
        CONSTRAINT = 'character_limit';
    END IF;
  END IF;
  RETURN NEW;
END
$$;

CREATE FUNCTION private.check_profile_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  PERFORM private.refuse_erased(OLD.id);
  RETURN NEW;
END
$$;

CREATE FUNCTION private.check_readable() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'check_violation',
    MESSAGE = format('%s is nested deeper than 100 levels, or holds a number beyond 1e308', TG_ARGV[0]),
    TABLE = TG_TABLE_NAME,
    COLUMN = TG_ARGV[0],
    CONSTRAINT = 'readable_document';
END
$$;

CREATE FUNCTION private.check_session_adventure() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
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

CREATE FUNCTION private.check_session_capacity() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
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

CREATE FUNCTION private.check_session_status() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO ''
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

CREATE FUNCTION private.check_tutorial_step() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
  known CONSTANT text[] := private.tutorial_steps('player') || private.tutorial_steps('seer');
  steps text[];
  place integer;
  place_before integer := 1;
  done text[];
BEGIN
  IF NOT NEW.current_step || NEW.completed_steps <@ known THEN
    RETURN NEW; -- The table's own check answers.
  END IF;
  -- Who names a step of one path alone has chosen that path.
  IF NEW.path IS NULL AND NEW.current_step <> 'welcome' THEN
    NEW.path := CASE WHEN NEW.current_step = ANY (private.tutorial_steps('seer')) THEN 'seer' ELSE 'player' END::public.tutorial_path;
  END IF;
  steps := private.tutorial_steps(NEW.path);
  place := array_position(steps, NEW.current_step);

  IF TG_OP = 'UPDATE' THEN
    place_before := array_position(steps, OLD.current_step);
    IF place = 1 AND OLD.current_step <> 'welcome' THEN
      NEW.completed_steps := '{}';
      NEW.completed_at := NULL;
      NEW.skipped := NEW.skipped AND NOT OLD.skipped;
      RETURN NEW;
    END IF;
  END IF;
  IF private.is_server() THEN
    RETURN NEW;
  END IF;

  IF NEW.completed_at IS NOT NULL THEN
    NEW.completed_at := coalesce(CASE WHEN TG_OP = 'UPDATE' THEN OLD.completed_at END, now());
  END IF;
  done := CASE WHEN NEW.completed_at IS NULL THEN steps[:place - 1] ELSE steps END;
  IF place BETWEEN place_before AND place_before + 1
    AND (NEW.completed_at IS NULL OR (NEW.path IS NOT NULL AND place = cardinality(steps)))
    -- The step that one is at may be done already; nothing beyond it, and nothing before it left out.
    AND (
      NEW.completed_steps IN (done, steps[:place])
      OR NEW.completed_steps = CASE WHEN TG_OP = 'UPDATE' THEN OLD.completed_steps ELSE '{}' END
    )
  THEN
    IF NEW.completed_steps <> steps[:place] THEN
      NEW.completed_steps := done;
    END IF;
    RETURN NEW;
  END IF;
  RAISE EXCEPTION USING
    ERRCODE = 'SP021',
    MESSAGE = 'The tutorial is learnt in its order',
    TABLE = 'tutorial_progress',
    CONSTRAINT = 'tutorial_in_order';
END
$$;

CREATE FUNCTION private.sum_of_dice(results integer[]) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO ''
    AS $$
DECLARE
  total integer := 0;
  die integer;
BEGIN
  FOREACH die IN ARRAY coalesce(results, '{}')
  LOOP
    total := total + coalesce(die, 0);
  END LOOP;
  RETURN total;
END
$$;

CREATE FUNCTION private.sum_of_modifiers(modifiers jsonb, kind text) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO ''
    AS $$
BEGIN
  IF modifiers = '[]' OR NOT private.are_valid_modifiers(modifiers) THEN
    RETURN 0;
  END IF;
  RETURN (
    SELECT coalesce(sum((element ->> 'value')::numeric), 0)::integer
    FROM jsonb_array_elements(modifiers) AS list (element)
    WHERE element ->> 'type' = kind
  );
END
$$;

CREATE TABLE public.dice_rolls (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    session_id uuid NOT NULL,
    character_id uuid,
    creature_id uuid,
    character_name text NOT NULL,
    attribute public.attribute NOT NULL,
    dice_count integer NOT NULL,
    difficulty integer NOT NULL,
    roll_type public.roll_type NOT NULL,
    modifiers jsonb DEFAULT '[]'::jsonb NOT NULL,
    results integer[] NOT NULL,
    total integer NOT NULL,
    modified_total integer NOT NULL,
    success boolean NOT NULL,
    outcome public.roll_outcome NOT NULL,
    margin integer NOT NULL,
    description text,
    animation_seed bigint,
    original_roll_id uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT bounded_description CHECK ((char_length(description) <= 500)),
    CONSTRAINT bounded_modifiers CHECK ((pg_column_size(modifiers) <= 8192)),
    CONSTRAINT dice_rolls_dice_count_check CHECK (((dice_count >= 1) AND (dice_count <= 10))),
    CONSTRAINT dice_rolls_difficulty_check CHECK (((difficulty >= 3) AND (difficulty <= 18))),
    CONSTRAINT valid_heroic_save CHECK (((roll_type = 'heroic_save'::public.roll_type) = (original_roll_id IS NOT NULL))),
    CONSTRAINT valid_margin CHECK ((margin = (modified_total - difficulty))),
    CONSTRAINT valid_modified_total CHECK ((modified_total = (total + private.sum_of_modifiers(modifiers, 'flat'::text)))),
    CONSTRAINT valid_modifiers CHECK (private.are_valid_modifiers(modifiers)),
    CONSTRAINT valid_outcome CHECK ((outcome =
CASE
    WHEN (6 = ALL (results)) THEN 'critical_success'::public.roll_outcome
    WHEN (1 = ALL (results)) THEN 'critical_failure'::public.roll_outcome
    WHEN (modified_total >= difficulty) THEN 'success'::public.roll_outcome
    ELSE 'failure'::public.roll_outcome
END)),
    CONSTRAINT valid_results CHECK (((cardinality(results) = dice_count) AND (array_ndims(results) = 1) AND (array_lower(results, 1) = 1) AND (array_position(results, NULL::integer) IS NULL) AND (1 <= ALL (results)) AND (6 >= ALL (results)))),
    CONSTRAINT valid_roller CHECK ((num_nonnulls(character_id, creature_id) <= 1)),
    CONSTRAINT valid_success CHECK ((success = (outcome = ANY (ARRAY['critical_success'::public.roll_outcome, 'success'::public.roll_outcome])))),
    CONSTRAINT valid_total CHECK ((total = private.sum_of_dice(results)))
);

CREATE FUNCTION private.claim_heroic_save(save public.dice_rolls) RETURNS public.dice_rolls
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
  first public.dice_rolls;
  encounter integer;
  moment timestamptz := CASE WHEN save.results IS NULL THEN clock_timestamp() ELSE save.created_at END;
BEGIN
  SELECT *
  INTO first
  FROM public.dice_rolls
  WHERE id = save.original_roll_id;
  IF first.id IS NULL
    OR first.session_id <> save.session_id
    OR first.character_id IS NULL
    OR first.character_id IS DISTINCT FROM save.character_id
    OR first.roll_type = 'heroic_save'
  THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP015',
      MESSAGE = 'A heroic save repeats a roll of the same character at the same table',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'heroic_save_of_own_roll';
  END IF;
  IF first.success THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP012',
      MESSAGE = 'The roll did not fail',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'heroic_save_after_failure';
  END IF;

  PERFORM
  FROM public.session_players
  WHERE session_id = save.session_id
    AND character_id = save.character_id
    AND is_active
  FOR NO KEY UPDATE;
  SELECT encounters_begun
  INTO encounter
  FROM public.sessions
  WHERE id = save.session_id
  FOR NO KEY UPDATE;
  IF EXISTS (SELECT FROM public.dice_rolls WHERE original_roll_id = first.id) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP014',
      MESSAGE = 'The roll was saved already',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'heroic_save_once_a_roll';
  END IF;
  IF moment > first.created_at + INTERVAL '30 seconds' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP013',
      MESSAGE = 'A heroic save follows its roll within 30 seconds',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'heroic_save_in_time';
  END IF;

  UPDATE public.session_players
  SET heroic_saves_used = 1,
      heroic_saves_encounter = encounter
  WHERE session_id = save.session_id
    AND character_id = save.character_id
    AND is_active
    AND (heroic_saves_used = 0 OR heroic_saves_encounter <> encounter);
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP011',
      MESSAGE = 'The heroic save of this encounter is spent',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'heroic_save_once_an_encounter';
  END IF;

  save.attribute := first.attribute;
  save.difficulty := first.difficulty;
  save.modifiers := first.modifiers;
  RETURN save;
END
$$;

CREATE FUNCTION private.clean_events(batch integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
  gone integer;
BEGIN
  DELETE FROM public.session_events
  WHERE ctid = ANY (
    ARRAY(
      SELECT old.ctid
      FROM public.session_events AS old
      WHERE old.created_at < now() - INTERVAL '24 hours'
      ORDER BY old.created_at
      LIMIT batch
      FOR UPDATE SKIP LOCKED
    )
  );
  GET DIAGNOSTICS gone = ROW_COUNT;
  RETURN gone;
END
$$;

CREATE FUNCTION private.cleanup_old_events() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
  IF EXISTS (SELECT FROM public.session_events WHERE created_at < now() - INTERVAL '24 hours') THEN
    PERFORM private.clean_events(100);
  END IF;
  RETURN NULL;
END
$$;

CREATE FUNCTION private.close_account(account_id uuid) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  IF NOT private.is_server() AND account_id IS DISTINCT FROM auth.uid() THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = 'An account is closed by its owner or the server';
  END IF;
  BEGIN
    UPDATE auth.users
    SET deleted_at = now(),
        email = NULL,
        phone = NULL,
        raw_user_meta_data = '{}'
    WHERE id = account_id
      AND deleted_at IS NULL;
  EXCEPTION
    WHEN insufficient_privilege THEN
      NULL;
  END;
  IF NOT private.is_erased(account_id) THEN
    PERFORM private.erase_account(account_id);
  END IF;
  RETURN EXISTS (SELECT FROM public.users AS profile WHERE profile.id = account_id);
END
$$;

CREATE FUNCTION private.count_seats() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
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

CREATE FUNCTION private.create_profile(account_id uuid, account_email text, metadata jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
  -- The first name that says something: what the platform was told, else the mailbox.
  name text := coalesce(
    nullif(btrim(left(metadata ->> 'display_name', 100)), ''),
    nullif(btrim(left(metadata ->> 'full_name', 100)), ''),
    nullif(btrim(left(metadata ->> 'name', 100)), ''),
    nullif(btrim(left(split_part(account_email, '@', 1), 100)), ''),
    'Adventurer'
  );
BEGIN
  IF btrim(account_email) <> '' THEN
    INSERT INTO public.users (id, email, display_name)
    VALUES (account_id, account_email, name)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN;
    END IF;
  END IF;
  INSERT INTO public.users (id, email, display_name)
  VALUES (account_id, account_id || '@no-email.invalid', name)
  ON CONFLICT DO NOTHING;
END
$$;

CREATE FUNCTION private.delete_own_history() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  DELETE FROM public.sessions AS session
  WHERE session.seer_id = OLD.id
    AND NOT EXISTS (
      SELECT
      FROM public.session_players AS seat
      WHERE seat.session_id = session.id
        AND seat.user_id <> OLD.id
    );
  DELETE FROM public.archived_sessions AS session
  WHERE session.seer_id = OLD.id
    AND NOT EXISTS (
      SELECT
      FROM public.archived_session_players AS seat
      WHERE seat.session_id = session.id
        AND seat.user_id <> OLD.id
    );
  RETURN OLD;
END
$$;

CREATE FUNCTION private.erase_account(account_id uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  PERFORM
  FROM public.session_players AS seat
  JOIN public.sessions AS session ON session.id = seat.session_id
  WHERE seat.user_id = account_id
    AND seat.is_active
    AND session.status NOT IN ('completed', 'cancelled')
  ORDER BY seat.session_id
  FOR NO KEY UPDATE OF seat;

  PERFORM
  FROM public.sessions AS session
  WHERE session.status NOT IN ('completed', 'cancelled')
    AND (
      session.seer_id = account_id
      OR session.id IN (
        SELECT seat.session_id
        FROM public.session_players AS seat
        WHERE seat.user_id = account_id
          AND seat.is_active
      )
    )
  ORDER BY session.id
  FOR NO KEY UPDATE;

  -- The profile first: what is told below of leaving and cancelling names nobody any more.
  UPDATE public.users
  SET email = account_id || '@deleted.invalid',
      display_name = 'Former player',
      avatar_url = NULL,
      bio = NULL
  WHERE id = account_id
    AND email <> account_id || '@deleted.invalid';
  UPDATE public.session_events
  SET payload = payload || '{"displayName": "Former player", "avatarUrl": null}'
  WHERE session_id IN (SELECT seat.session_id FROM public.session_players AS seat WHERE seat.user_id = account_id)
    AND event_type IN ('player_joined', 'player_left')
    AND payload ->> 'userId' = account_id::text;

  UPDATE public.session_players AS seat
  SET is_active = false
  FROM public.sessions AS session
  WHERE session.id = seat.session_id
    AND seat.user_id = account_id
    AND seat.is_active
    AND session.status NOT IN ('completed', 'cancelled');

  UPDATE public.sessions
  SET status = 'cancelled'
  WHERE seer_id = account_id
    AND status IN ('waiting', 'starting_soon');

  -- A draft that was played holds other people's history; it is put away instead.
  DELETE FROM public.adventures AS adventure
  WHERE adventure.creator_id = account_id
    AND adventure.status = 'draft'
    AND NOT EXISTS (SELECT FROM public.sessions AS played WHERE played.adventure_id = adventure.id)
    AND NOT EXISTS (SELECT FROM public.archived_sessions AS played WHERE played.adventure_id = adventure.id);
  UPDATE public.adventures
  SET status = 'archived'
  WHERE creator_id = account_id
    AND status = 'draft';
END
$$;

CREATE FUNCTION private.generate_session_code() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
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

CREATE FUNCTION private.give_heroic_saves_back() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
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

CREATE FUNCTION private.handle_changed_user() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  IF NEW.deleted_at IS NOT NULL THEN
    IF OLD.deleted_at IS NULL THEN
      PERFORM private.erase_account(NEW.id);
    END IF;
    RETURN NEW;
  END IF;
  IF NEW.email IS DISTINCT FROM OLD.email AND NOT private.is_erased(NEW.id) THEN
    BEGIN
      UPDATE public.users
      SET email = coalesce(nullif(btrim(NEW.email), ''), NEW.id || '@no-email.invalid')
      WHERE id = NEW.id;
    EXCEPTION
      WHEN unique_violation THEN
        UPDATE public.users
        SET email = NEW.id || '@no-email.invalid'
        WHERE id = NEW.id;
    END;
  END IF;
  RETURN NEW;
END
$$;

CREATE FUNCTION private.handle_new_user() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  PERFORM private.create_profile(NEW.id, NEW.email, NEW.raw_user_meta_data);
  IF NEW.deleted_at IS NOT NULL THEN
    PERFORM private.erase_account(NEW.id);
  END IF;
  RETURN NEW;
END
$$;

CREATE FUNCTION private.initiative_order(rolls uuid[]) RETURNS uuid[]
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
  mine uuid[] := private.my_session_ids();
  sees_all boolean := private.is_server();
BEGIN
  RETURN ARRAY(
    SELECT roll.id
    FROM public.dice_rolls AS roll
    LEFT JOIN public.characters AS hero ON hero.id = roll.character_id
    LEFT JOIN public.creatures AS creature ON creature.id = roll.creature_id
    WHERE roll.id = ANY (rolls)
      AND (sees_all OR roll.session_id = ANY (mine))
    ORDER BY roll.total DESC, coalesce(hero.grace, (creature.stats ->> 'grace')::numeric) DESC NULLS LAST, roll.id
  );
END
$$;

CREATE FUNCTION private.is_at_table(wanted uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
  me uuid := auth.uid();
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.sessions AS session
    LEFT JOIN public.session_players AS seat ON seat.session_id = session.id AND seat.user_id = me
    WHERE session.id = wanted
      AND (session.seer_id = me OR seat.is_active)
  );
END
$$;

CREATE FUNCTION private.is_erased(account_id uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.users AS profile
    WHERE profile.id = account_id
      AND profile.email = account_id || '@deleted.invalid'
  );
END
$$;

CREATE FUNCTION private.is_public_archived_session(wanted uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.archived_sessions AS session
    WHERE session.id = wanted
      AND session.is_public
  );
END
$$;

CREATE FUNCTION private.is_public_session(wanted uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.sessions AS session
    WHERE session.id = wanted
      AND session.is_public
  );
END
$$;

CREATE FUNCTION private.is_readable(document jsonb) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO ''
    AS $_$
BEGIN
  RETURN NOT jsonb_path_exists(document, '$.**{100}')
    AND NOT jsonb_path_exists(document, '$.** ? (@.type() == "number" && (@ > 1e308 || @ < -1e308))');
END
$_$;

CREATE FUNCTION private.is_seer(wanted uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.sessions AS session
    WHERE session.id = wanted
      AND session.seer_id = auth.uid()
  );
END
$$;

CREATE FUNCTION private.is_server() RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
BEGIN
  RETURN current_setting('role') NOT IN ('anon', 'authenticated')
    AND pg_has_role(session_user, 'service_role', 'MEMBER');
END
$$;

CREATE TABLE public.session_players (
    session_id uuid NOT NULL,
    user_id uuid NOT NULL,
    character_id uuid NOT NULL,
    is_active boolean DEFAULT true NOT NULL,
    heroic_saves_used integer DEFAULT 0 NOT NULL,
    joined_at timestamp with time zone DEFAULT now() NOT NULL,
    left_at timestamp with time zone,
    heroic_saves_encounter integer DEFAULT 0 NOT NULL,
    CONSTRAINT session_players_heroic_saves_encounter_check CHECK ((heroic_saves_encounter >= 0)),
    CONSTRAINT session_players_heroic_saves_used_check CHECK ((heroic_saves_used >= 0))
);

CREATE FUNCTION private.join_by_code(session_code text, hero uuid) RETURNS SETOF public.session_players
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
  me uuid := auth.uid();
  session record;
  seat record;
BEGIN
  SELECT id, status
  INTO session
  FROM public.sessions
  WHERE code = session_code::bpchar;
  IF NOT FOUND OR me IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP020',
      MESSAGE = 'No session has this code',
      TABLE = 'sessions',
      CONSTRAINT = 'known_code';
  END IF;

  SELECT is_active
  INTO seat
  FROM public.session_players
  WHERE session_id = session.id
    AND user_id = me
  FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    IF session.status IN ('active', 'paused') THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP005',
        MESSAGE = 'The session has started',
        TABLE = 'session_players',
        CONSTRAINT = 'session_not_started';
    END IF;
    INSERT INTO public.session_players (session_id, user_id, character_id)
    VALUES (session.id, me, hero)
    ON CONFLICT DO NOTHING;
  ELSIF NOT seat.is_active THEN
    UPDATE public.session_players
    SET is_active = true,
        character_id = hero
    WHERE session_id = session.id
      AND user_id = me;
  END IF;
  RETURN QUERY
  SELECT *
  FROM public.session_players
  WHERE session_id = session.id
    AND user_id = me;
END
$$;

CREATE FUNCTION private.may_roll(wanted uuid, hero uuid, creature uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
  me uuid := auth.uid();
  seer uuid;
  is_seated boolean;
BEGIN
  -- The player's own seat, by its key.
  SELECT session.seer_id, coalesce(seat.character_id = hero AND seat.is_active, false)
  INTO seer, is_seated
  FROM public.sessions AS session
  LEFT JOIN public.session_players AS seat ON seat.session_id = session.id AND seat.user_id = me
  WHERE session.id = wanted
    AND session.status = 'active';
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  IF creature IS NOT NULL THEN
    RETURN seer = me;
  END IF;
  IF is_seated OR seer IS DISTINCT FROM me THEN
    RETURN is_seated;
  END IF;
  RETURN EXISTS (
    SELECT
    FROM public.session_players AS seat
    WHERE seat.session_id = wanted
      AND seat.character_id = hero
      AND seat.is_active
  )
  OR EXISTS (
    SELECT
    FROM public.characters AS own
    WHERE own.id = hero
      AND own.user_id = me
      AND own.retired_at IS NULL
  );
END
$$;

CREATE FUNCTION private.may_take_seat(wanted uuid, player uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.sessions AS session
    WHERE session.id = wanted
      AND (
        session.seer_id = auth.uid()
        OR (player = auth.uid() AND session.is_public AND session.status IN ('waiting', 'starting_soon'))
      )
  );
END
$$;

CREATE FUNCTION private.most_played_adventures(place integer, last_id uuid, wanted integer) RETURNS SETOF public.adventures
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    SET enable_sort TO 'off'
    AS $$
BEGIN
  RETURN QUERY
  SELECT adventure.*
  FROM public.adventures AS adventure
  WHERE adventure.status = 'published'
    AND adventure.times_played <= coalesce(place, 2147483647)
    AND (place IS NULL OR adventure.times_played < place OR adventure.id > last_id)
  ORDER BY adventure.times_played DESC, adventure.id
  LIMIT wanted;
END
$$;

CREATE FUNCTION private.my_archived_session_ids() RETURNS uuid[]
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
  me uuid := auth.uid();
BEGIN
  IF me IS NULL THEN
    RETURN '{}'::uuid[];
  END IF;
  RETURN ARRAY(
    SELECT session.id
    FROM public.archived_sessions AS session
    WHERE session.seer_id = me
    UNION ALL
    SELECT seat.session_id
    FROM public.archived_session_players AS seat
    WHERE seat.user_id = me
  );
END
$$;

CREATE FUNCTION private.my_email() RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  RETURN (SELECT profile.email FROM public.users AS profile WHERE profile.id = auth.uid());
END
$$;

CREATE FUNCTION private.my_session_ids() RETURNS uuid[]
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
  me uuid := auth.uid();
BEGIN
  IF me IS NULL THEN
    RETURN '{}'::uuid[];
  END IF;
  RETURN ARRAY(
    SELECT session.id
    FROM public.sessions AS session
    WHERE session.seer_id = me
    UNION ALL
    SELECT seat.session_id
    FROM public.session_players AS seat
    WHERE seat.user_id = me
  );
END
$$;

CREATE FUNCTION private.newest_adventures(place timestamp with time zone, last_id uuid, wanted integer) RETURNS SETOF public.adventures
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    SET enable_sort TO 'off'
    AS $$
BEGIN
  RETURN QUERY
  SELECT adventure.*
  FROM public.adventures AS adventure
  WHERE adventure.status = 'published'
    AND adventure.published_at <= coalesce(place, 'infinity')
    AND (place IS NULL OR adventure.published_at < place OR adventure.id > last_id)
  ORDER BY adventure.published_at DESC, adventure.id
  LIMIT wanted;
END
$$;

CREATE FUNCTION private.number_event() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  PERFORM FROM public.sessions WHERE id = NEW.session_id FOR NO KEY UPDATE;
  NEW.seq := nextval('public.session_events_seq_seq');
  NEW.sender_id := auth.uid();
  RETURN NEW;
END
$$;

CREATE FUNCTION private.number_game_state() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
BEGIN
  NEW.game_state_version := OLD.game_state_version + 1;
  RETURN NEW;
END
$$;

CREATE FUNCTION private.owns_adventure(wanted uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.adventures AS adventure
    WHERE adventure.id = wanted
      AND adventure.creator_id = auth.uid()
  );
END
$$;

CREATE FUNCTION private.random_numbers(bound integer, wanted integer) RETURNS integer[]
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
DECLARE
  numbers integer[] := '{}'::integer[];
  found integer := 0;
  entropy bytea;
  place integer;
  byte integer;
BEGIN
  -- Nothing of what is not known is wanted: no call goes on for ever.
  WHILE found < wanted AND bound <= 256
  LOOP
    entropy := uuid_send(gen_random_uuid());
    FOREACH place IN ARRAY ARRAY[0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15]
    LOOP
      EXIT WHEN found = wanted;
      byte := get_byte(entropy, place);
      IF byte < 256 - 256 % bound THEN
        numbers := numbers || byte % bound;
        found := found + 1;
      END IF;
    END LOOP;
  END LOOP;
  RETURN numbers;
END
$$;

CREATE FUNCTION private.refuse_erased(account_id uuid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
BEGIN
  IF private.is_erased(account_id) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP019',
      MESSAGE = 'The account is closed',
      CONSTRAINT = 'account_open';
  END IF;
END
$$;

CREATE FUNCTION private.roll_dice() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
  strength integer;
BEGIN
  IF num_nonnulls(NEW.character_id, NEW.creature_id) <> 1 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'SP016',
      MESSAGE = 'A roll names one character or one creature',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'one_roller';
  END IF;
  IF NOT private.are_valid_modifiers(NEW.modifiers) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'check_violation',
      MESSAGE = 'new row for relation "dice_rolls" violates check constraint "valid_modifiers"',
      TABLE = 'dice_rolls',
      CONSTRAINT = 'valid_modifiers';
  END IF;
  IF NEW.original_roll_id IS NOT NULL AND NEW.roll_type = 'heroic_save' THEN
    NEW := private.claim_heroic_save(NEW);
  END IF;

  IF NEW.character_id IS NOT NULL THEN
    SELECT
      hero.name,
      CASE NEW.attribute
        WHEN 'might' THEN hero.might
        WHEN 'grace' THEN hero.grace
        WHEN 'wit' THEN hero.wit
        WHEN 'heart' THEN hero.heart
      END
    INTO NEW.character_name, strength
    FROM public.characters AS hero
    WHERE hero.id = NEW.character_id;
  ELSE
    SELECT creature.name, (creature.stats ->> NEW.attribute::text)::numeric::integer
    INTO NEW.character_name, strength
    FROM public.creatures AS creature
    JOIN public.sessions AS session ON session.adventure_id = creature.adventure_id
    WHERE creature.id = NEW.creature_id
      AND session.id = NEW.session_id;
    IF NOT FOUND THEN
      RAISE EXCEPTION USING
        ERRCODE = 'SP017',
        MESSAGE = 'The creature is not in the adventure that the session plays',
        TABLE = 'dice_rolls',
        CONSTRAINT = 'creature_of_adventure';
    END IF;
  END IF;

  IF NEW.results IS NULL THEN
    -- Initiative is one die; everything else the sheet plus bonus dice, at least one and at most ten.
    NEW.dice_count := CASE
      WHEN NEW.roll_type = 'initiative' THEN 1
      ELSE least(10, greatest(1, strength + private.sum_of_modifiers(NEW.modifiers, 'dice')))
    END;
    -- Faces begin at one. A loop, because a query over the array would cost more than the dice.
    NEW.results := private.random_numbers(6, NEW.dice_count);
    FOR die IN 1 .. NEW.dice_count
    LOOP
      NEW.results[die] := NEW.results[die] + 1;
    END LOOP;
  END IF;

  NEW.dice_count := coalesce(NEW.dice_count, cardinality(NEW.results));
  NEW.total := coalesce(NEW.total, private.sum_of_dice(NEW.results));
  NEW.modified_total := coalesce(
    NEW.modified_total,
    NEW.total + private.sum_of_modifiers(NEW.modifiers, 'flat')
  );
  NEW.margin := coalesce(NEW.margin, NEW.modified_total - NEW.difficulty);
  NEW.outcome := coalesce(
    NEW.outcome,
    CASE
      WHEN 6 = ALL (NEW.results) THEN 'critical_success'
      WHEN 1 = ALL (NEW.results) THEN 'critical_failure'
      WHEN NEW.modified_total >= NEW.difficulty THEN 'success'
      ELSE 'failure'
    END::public.roll_outcome
  );
  NEW.success := coalesce(NEW.success, NEW.outcome IN ('critical_success', 'success'));
  -- 48 bits: random enough for an animation, and exact in a client whose numbers are doubles.
  NEW.animation_seed := coalesce(
    NEW.animation_seed,
    ('x' || left(replace(gen_random_uuid()::text, '-', ''), 12))::bit(48)::bigint
  );
  RETURN NEW;
END
$$;

CREATE FUNCTION private.rolls_of_character(hero uuid, kind public.roll_type, begun timestamp with time zone, ended timestamp with time zone, last_at timestamp with time zone, last_id uuid, wanted integer) RETURNS SETOF public.dice_rolls
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    AS $$
BEGIN
  RETURN QUERY
  SELECT roll.*
  FROM public.dice_rolls AS roll
  WHERE roll.character_id = hero
    AND roll.created_at >= coalesce(begun, '-infinity')
    AND roll.created_at < coalesce(ended, 'infinity')
    AND roll.created_at <= coalesce(last_at, 'infinity')
    AND (last_at IS NULL OR roll.created_at < last_at OR roll.id > last_id)
    AND (kind IS NULL OR roll.roll_type = kind)
  ORDER BY roll.created_at DESC, roll.id
  LIMIT wanted;
END
$$;

CREATE FUNCTION private.session_by_code(session_code text) RETURNS TABLE(id uuid, status public.session_status, scheduled_start timestamp with time zone, looking_for text, seats_taken integer, max_players integer, created_at timestamp with time zone, seer_id uuid, seer_name text, adventure_id uuid, adventure_name text, thumbnail_url text, difficulty public.difficulty_level, estimated_duration integer)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  RETURN QUERY
  SELECT
    session.id, session.status, session.scheduled_start, session.looking_for, session.seats_taken,
    session.max_players, session.created_at, session.seer_id, seer.display_name, adventure.id, adventure.name,
    adventure.thumbnail_url, adventure.difficulty, adventure.estimated_duration
  FROM public.sessions AS session
  JOIN public.users AS seer ON seer.id = session.seer_id
  JOIN public.adventures AS adventure ON adventure.id = session.adventure_id
  WHERE session.code = session_code::bpchar;
END
$$;

CREATE FUNCTION private.session_details(wanted uuid) RETURNS TABLE(session_data jsonb, players jsonb, adventure_data jsonb)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
DECLARE
  me uuid := auth.uid();
  sees_all boolean := private.is_server();
BEGIN
  RETURN QUERY
  SELECT
    to_jsonb(session.*),
    CASE
      WHEN sees_all OR me IS NOT NULL THEN (
        SELECT coalesce(
          jsonb_agg(
            jsonb_build_object(
              'userId', seat.user_id,
              'characterId', seat.character_id,
              'characterName', hero.name,
              'characterClass', hero.class,
              'displayName', profile.display_name,
              'avatarUrl', profile.avatar_url,
              'joinedAt', seat.joined_at,
              'isActive', seat.is_active
            )
            ORDER BY seat.joined_at, seat.user_id
          ),
          '[]'
        )
        FROM public.session_players AS seat
        JOIN public.characters AS hero ON hero.id = seat.character_id
        JOIN public.users AS profile ON profile.id = seat.user_id
        WHERE seat.session_id = wanted
      )
      ELSE '[]'::jsonb
    END,
    CASE
      WHEN sees_all OR played.status = 'published' OR played.creator_id = me OR session.seer_id = me OR own.is_active
        THEN to_jsonb(played.*)
      ELSE to_jsonb(played.*) - 'content' - 'validation_errors'
    END
  FROM public.sessions AS session
  JOIN public.adventures AS played ON played.id = session.adventure_id
  LEFT JOIN public.session_players AS own ON own.session_id = session.id AND own.user_id = me
  WHERE session.id = wanted
    AND (sees_all OR session.is_public OR session.seer_id = me OR own.user_id IS NOT NULL);
END
$$;

CREATE FUNCTION private.tell_roll() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
BEGIN
  INSERT INTO public.session_events (session_id, event_type, payload)
  VALUES (
    NEW.session_id,
    'dice_rolled',
    jsonb_build_object(
      'rollId', NEW.id,
      'characterId', NEW.character_id,
      'creatureId', NEW.creature_id,
      'characterName', NEW.character_name,
      'rollType', NEW.roll_type,
      'attribute', NEW.attribute,
      'difficulty', NEW.difficulty,
      'modifiers', NEW.modifiers,
      'diceCount', NEW.dice_count,
      'results', NEW.results,
      'total', NEW.total,
      'modifiedTotal', NEW.modified_total,
      'margin', NEW.margin,
      'outcome', NEW.outcome,
      'success', NEW.success,
      'description', NEW.description,
      'animationSeed', NEW.animation_seed,
      'originalRollId', NEW.original_roll_id
    )
  );
  RETURN NULL;
END
$$;

CREATE FUNCTION private.tell_session_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
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

CREATE FUNCTION private.touch_updated_at() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END
$$;

CREATE FUNCTION private.tutorial_steps(path public.tutorial_path) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $$
BEGIN
  RETURN CASE path
    WHEN 'player' THEN
      ARRAY['welcome', 'character-basics', 'dice-rolling', 'combat-practice', 'player-complete']
    WHEN 'seer' THEN ARRAY['welcome', 'running-sessions', 'seer-complete']
    ELSE ARRAY['welcome']
  END;
END
$$;

CREATE FUNCTION private.update_user_stats() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
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

CREATE FUNCTION public.get_session_details(p_session_id uuid) RETURNS TABLE(session_data jsonb, players jsonb, adventure_data jsonb)
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
BEGIN
  RETURN QUERY
  SELECT *
  FROM private.session_details(p_session_id);
END
$$;

CREATE TABLE auth.users (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    email text,
    phone text,
    raw_user_meta_data jsonb,
    is_sso_user boolean DEFAULT false NOT NULL,
    is_anonymous boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT now(),
    deleted_at timestamp with time zone
);

CREATE TABLE public.archived_dice_rolls (
    id uuid NOT NULL,
    session_id uuid NOT NULL,
    character_id uuid,
    creature_id uuid,
    character_name text NOT NULL,
    attribute public.attribute NOT NULL,
    dice_count integer NOT NULL,
    difficulty integer NOT NULL,
    roll_type public.roll_type NOT NULL,
    modifiers jsonb DEFAULT '[]'::jsonb NOT NULL,
    results integer[] NOT NULL,
    total integer NOT NULL,
    modified_total integer NOT NULL,
    success boolean NOT NULL,
    outcome public.roll_outcome NOT NULL,
    margin integer NOT NULL,
    description text,
    animation_seed bigint,
    original_roll_id uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.archived_session_players (
    session_id uuid NOT NULL,
    user_id uuid NOT NULL,
    character_id uuid NOT NULL,
    is_active boolean DEFAULT true NOT NULL,
    heroic_saves_used integer DEFAULT 0 NOT NULL,
    joined_at timestamp with time zone DEFAULT now() NOT NULL,
    left_at timestamp with time zone,
    heroic_saves_encounter integer DEFAULT 0 NOT NULL,
    CONSTRAINT archived_session_players_heroic_saves_encounter_check CHECK ((heroic_saves_encounter >= 0)),
    CONSTRAINT archived_session_players_heroic_saves_used_check CHECK ((heroic_saves_used >= 0))
);

CREATE TABLE public.archived_sessions (
    id uuid NOT NULL,
    seer_id uuid NOT NULL,
    adventure_id uuid NOT NULL,
    code character(6) NOT NULL,
    is_public boolean DEFAULT false NOT NULL,
    max_players integer DEFAULT 4 NOT NULL,
    looking_for text,
    scheduled_start timestamp with time zone,
    status public.session_status DEFAULT 'waiting'::public.session_status NOT NULL,
    current_scene_id text,
    current_encounter_id text,
    game_state jsonb DEFAULT '{}'::jsonb NOT NULL,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    seats_taken integer DEFAULT 0 NOT NULL,
    encounters_begun integer DEFAULT 0 NOT NULL,
    game_state_version integer DEFAULT 0 NOT NULL,
    archived_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT archived_sessions_encounters_begun_check CHECK ((encounters_begun >= 0)),
    CONSTRAINT archived_sessions_game_state_version_check CHECK ((game_state_version >= 0)),
    CONSTRAINT archived_sessions_seats_taken_check CHECK ((seats_taken >= 0))
);

CREATE TABLE public.characters (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    user_id uuid NOT NULL,
    name text NOT NULL,
    class public.character_class NOT NULL,
    might integer NOT NULL,
    grace integer NOT NULL,
    wit integer NOT NULL,
    heart integer NOT NULL,
    hit_points integer DEFAULT 6 NOT NULL,
    max_hit_points integer DEFAULT 6 NOT NULL,
    experience integer DEFAULT 0 NOT NULL,
    level integer DEFAULT 1 NOT NULL,
    equipment jsonb DEFAULT '[]'::jsonb NOT NULL,
    special_ability jsonb NOT NULL,
    last_played_at timestamp with time zone,
    retired_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT bounded_equipment CHECK ((pg_column_size(equipment) <= 65536)),
    CONSTRAINT bounded_special_ability CHECK ((pg_column_size(special_ability) <= 16384)),
    CONSTRAINT characters_experience_check CHECK ((experience >= 0)),
    CONSTRAINT characters_grace_check CHECK (((grace >= 1) AND (grace <= 6))),
    CONSTRAINT characters_heart_check CHECK (((heart >= 1) AND (heart <= 6))),
    CONSTRAINT characters_hit_points_check CHECK (((hit_points >= 0) AND (hit_points <= max_hit_points))),
    CONSTRAINT characters_level_check CHECK (((level >= 1) AND (level <= 10))),
    CONSTRAINT characters_max_hit_points_check CHECK (((max_hit_points >= 1) AND (max_hit_points <= 10))),
    CONSTRAINT characters_might_check CHECK (((might >= 1) AND (might <= 6))),
    CONSTRAINT characters_wit_check CHECK (((wit >= 1) AND (wit <= 6))),
    CONSTRAINT valid_name CHECK (((char_length(name) >= 2) AND (char_length(name) <= 50)))
);

CREATE TABLE public.creatures (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    adventure_id uuid NOT NULL,
    name text NOT NULL,
    description text,
    stats jsonb DEFAULT '{"wit": 1, "grace": 1, "heart": 1, "might": 1}'::jsonb NOT NULL,
    abilities jsonb DEFAULT '[]'::jsonb NOT NULL,
    hit_points integer DEFAULT 6 NOT NULL,
    armor integer DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT bounded_abilities CHECK ((pg_column_size(abilities) <= 65536)),
    CONSTRAINT bounded_description CHECK ((char_length(description) <= 5000)),
    CONSTRAINT bounded_stats CHECK ((pg_column_size(stats) <= 16384)),
    CONSTRAINT creatures_armor_check CHECK (((armor >= 0) AND (armor <= 100))),
    CONSTRAINT creatures_hit_points_check CHECK (((hit_points >= 0) AND (hit_points <= 1000))),
    CONSTRAINT valid_name CHECK (((char_length(name) >= 1) AND (char_length(name) <= 100))),
    CONSTRAINT valid_stats CHECK (private.are_valid_stats(stats))
);

CREATE TABLE public.seaql_migrations (
    version character varying NOT NULL,
    applied_at bigint NOT NULL
);

CREATE TABLE public.session_events (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    session_id uuid NOT NULL,
    event_type text NOT NULL,
    payload jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    seq bigint NOT NULL,
    sender_id uuid,
    CONSTRAINT bounded_payload CHECK (((NOT starts_with(event_type, 'client.'::text)) OR (pg_column_size(payload) <= 16384))),
    CONSTRAINT valid_event_type CHECK (((char_length(event_type) >= 1) AND (char_length(event_type) <= 64)))
)
WITH (autovacuum_vacuum_threshold='5000', autovacuum_vacuum_scale_factor='0.002', vacuum_index_cleanup='on');

ALTER TABLE public.session_events ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.session_events_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.sessions (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    seer_id uuid NOT NULL,
    adventure_id uuid NOT NULL,
    code character(6) NOT NULL,
    is_public boolean DEFAULT false NOT NULL,
    max_players integer DEFAULT 4 NOT NULL,
    looking_for text,
    scheduled_start timestamp with time zone,
    status public.session_status DEFAULT 'waiting'::public.session_status NOT NULL,
    current_scene_id text,
    current_encounter_id text,
    game_state jsonb DEFAULT '{}'::jsonb NOT NULL,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    seats_taken integer DEFAULT 0 NOT NULL,
    encounters_begun integer DEFAULT 0 NOT NULL,
    game_state_version integer DEFAULT 0 NOT NULL,
    CONSTRAINT bounded_encounter CHECK ((char_length(current_encounter_id) <= 200)),
    CONSTRAINT bounded_game_state CHECK ((pg_column_size(game_state) <= 262144)),
    CONSTRAINT bounded_looking_for CHECK ((char_length(looking_for) <= 500)),
    CONSTRAINT bounded_scene CHECK ((char_length(current_scene_id) <= 200)),
    CONSTRAINT bounded_schedule CHECK (((scheduled_start >= '2000-01-01 00:00:00+00'::timestamp with time zone) AND (scheduled_start < '3000-01-01 00:00:00+00'::timestamp with time zone))),
    CONSTRAINT seats_within_limit CHECK ((seats_taken <= max_players)),
    CONSTRAINT sessions_encounters_begun_check CHECK ((encounters_begun >= 0)),
    CONSTRAINT sessions_game_state_version_check CHECK ((game_state_version >= 0)),
    CONSTRAINT sessions_max_players_check CHECK (((max_players >= 2) AND (max_players <= 6))),
    CONSTRAINT sessions_seats_taken_check CHECK ((seats_taken >= 0)),
    CONSTRAINT valid_code CHECK ((code ~ '^[A-Z0-9]{6}$'::text))
)
WITH (autovacuum_vacuum_threshold='5000', autovacuum_vacuum_scale_factor='0.002', vacuum_index_cleanup='on');

CREATE TABLE public.tutorial_progress (
    user_id uuid NOT NULL,
    path public.tutorial_path,
    current_step text DEFAULT 'welcome'::text NOT NULL,
    completed_steps text[] DEFAULT '{}'::text[] NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    completed_at timestamp with time zone,
    skipped boolean DEFAULT false NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT valid_step CHECK (((ARRAY[current_step] || completed_steps) <@ ARRAY['welcome'::text, 'character-basics'::text, 'dice-rolling'::text, 'combat-practice'::text, 'player-complete'::text, 'running-sessions'::text, 'seer-complete'::text]))
);

CREATE TABLE public.users (
    id uuid NOT NULL,
    email text NOT NULL,
    display_name text NOT NULL,
    avatar_url text,
    bio text,
    is_verified boolean DEFAULT false NOT NULL,
    games_played integer DEFAULT 0 NOT NULL,
    games_run integer DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT bounded_avatar_url CHECK ((char_length(avatar_url) <= 2000)),
    CONSTRAINT bounded_bio CHECK ((char_length(bio) <= 2000)),
    CONSTRAINT bounded_display_name CHECK (((char_length(display_name) >= 1) AND (char_length(display_name) <= 100))),
    CONSTRAINT users_games_played_check CHECK ((games_played >= 0)),
    CONSTRAINT users_games_run_check CHECK ((games_run >= 0))
);

INSERT INTO auth.users VALUES ('a9be9662-b96e-41e7-bfa4-c6b062280608', 'a9be9662-b96e-41e7-bfa4-c6b062280608@example.org', NULL, '{"display_name": "Morgan"}', false, false, '2026-11-26 08:11:10.841581+00', NULL);
INSERT INTO auth.users VALUES ('147d6ec3-3577-4e23-b59a-77fc30e73af6', '147d6ec3-3577-4e23-b59a-77fc30e73af6@example.org', NULL, '{"display_name": "Ada"}', false, false, '2026-11-26 08:11:10.847047+00', NULL);
INSERT INTO auth.users VALUES ('8d286489-6996-48c0-b099-d114796c21c8', '8d286489-6996-48c0-b099-d114796c21c8@example.org', NULL, '{"display_name": "Ben"}', false, false, '2026-11-26 08:11:10.852026+00', NULL);
INSERT INTO auth.users VALUES ('ab961e4e-7156-4502-b201-3d065a57a59b', 'ab961e4e-7156-4502-b201-3d065a57a59b@example.org', NULL, '{"display_name": "Cleo"}', false, false, '2026-11-26 08:11:10.854381+00', NULL);
INSERT INTO auth.users VALUES ('3a25aee1-8073-4032-8389-0f0f2dff5f57', '3a25aee1-8073-4032-8389-0f0f2dff5f57@example.org', NULL, '{"display_name": "Dana"}', false, false, '2026-11-26 08:11:10.856531+00', NULL);
INSERT INTO auth.users VALUES ('57296175-2cea-4ea8-9b3c-0dfc16826831', '57296175-2cea-4ea8-9b3c-0dfc16826831@example.org', NULL, '{"display_name": "Eve"}', false, false, '2026-11-26 08:11:10.858571+00', NULL);

INSERT INTO public.adventures VALUES ('c0b41bc0-638e-41cc-8648-2a0a27838fd7', 'a9be9662-b96e-41e7-bfa4-c6b062280608', 'The Drowned Ford', NULL, NULL, NULL, 'medium', 60, 2, 4, '{"nodes": [{"id": "ford", "text": "The ferry rope is cut. Across the black water a lantern swings, and nobody holds it.", "type": "decision", "title": "The Drowned Ford"}, {"id": "wade", "text": "The water is warm where it should be cold. Then it stands up.", "type": "combat", "title": "Something in the reeds", "enemies": ["Reed Horror"]}, {"id": "bell", "text": "You ring the drowned bell. The lantern bows, once, and leads the way home.", "type": "story", "title": "The bell"}], "start": "ford", "connections": [{"to": "wade", "from": "ford", "label": "Wade across"}, {"to": "bell", "from": "ford", "label": "Ring the bell under the water"}]}', 'published', '2026-11-26 08:11:10.867264+00', true, '[]', 1, NULL, '2026-11-26 08:11:10.86084+00', '2026-11-26 08:11:10.922182+00');

INSERT INTO public.characters VALUES ('306fca88-f6ea-47bb-8c6d-9dbaa21b22ef', '57296175-2cea-4ea8-9b3c-0dfc16826831', 'Far-Walker', 'ranger', 3, 4, 3, 2, 6, 6, 0, 1, '[]', '{"name": "", "description": ""}', NULL, NULL, '2026-11-26 08:11:10.859518+00', '2026-11-26 08:11:10.859518+00');
INSERT INTO public.characters VALUES ('f1369cdd-8faa-48ec-9f20-041a0f88f890', '147d6ec3-3577-4e23-b59a-77fc30e73af6', 'Brunhild', 'warrior', 5, 3, 2, 2, 6, 6, 0, 1, '[]', '{"name": "", "description": ""}', '2026-11-26 08:11:10.922182+00', NULL, '2026-11-26 08:11:10.848138+00', '2026-11-26 08:11:10.922182+00');
INSERT INTO public.characters VALUES ('77c0ac77-d023-422a-b0dd-50efb267f194', '8d286489-6996-48c0-b099-d114796c21c8', 'Quick Nim', 'rogue', 2, 5, 3, 2, 6, 6, 0, 1, '[]', '{"name": "", "description": ""}', '2026-11-26 08:11:10.922182+00', NULL, '2026-11-26 08:11:10.853159+00', '2026-11-26 08:11:10.922182+00');
INSERT INTO public.characters VALUES ('a84e0c8c-5f64-4aa6-ac13-94a29979d946', '3a25aee1-8073-4032-8389-0f0f2dff5f57', 'Sister Maud', 'cleric', 2, 2, 3, 5, 6, 6, 0, 1, '[]', '{"name": "", "description": ""}', '2026-11-26 08:11:10.922182+00', NULL, '2026-11-26 08:11:10.857513+00', '2026-11-26 08:11:10.922182+00');
INSERT INTO public.characters VALUES ('b94fce16-2c7c-40b9-8a77-4afc11157855', 'ab961e4e-7156-4502-b201-3d065a57a59b', 'Old Ambrose', 'wizard', 1, 2, 5, 4, 4, 6, 0, 1, '[]', '{"name": "", "description": ""}', '2026-11-26 08:11:10.922182+00', NULL, '2026-11-26 08:11:10.855369+00', '2026-11-26 08:11:10.922182+00');

INSERT INTO public.creatures VALUES ('1b393438-ac15-4bc4-af6e-36785e610ae3', 'c0b41bc0-638e-41cc-8648-2a0a27838fd7', 'Reed Horror', NULL, '{"wit": 1, "grace": 2, "heart": 1, "might": 4}', '[]', 6, 0, '2026-11-26 08:11:10.86989+00', '2026-11-26 08:11:10.86989+00');

INSERT INTO public.dice_rolls VALUES ('d325b03e-accd-01d5-37ca-3c4201dbd1b7', '65c891ae-9b8e-40ef-934f-45608e861b06', 'f1369cdd-8faa-48ec-9f20-041a0f88f890', NULL, 'Brunhild', 'grace', 1, 3, 'initiative', '[]', '{5}', 5, 5, true, 'success', 2, NULL, 265767220736992, NULL, '2026-11-26 08:11:10.894881+00');
INSERT INTO public.dice_rolls VALUES ('55d38094-f344-0b13-1837-68b7bc34d8b3', '65c891ae-9b8e-40ef-934f-45608e861b06', '77c0ac77-d023-422a-b0dd-50efb267f194', NULL, 'Quick Nim', 'grace', 1, 3, 'initiative', '[]', '{2}', 2, 2, false, 'failure', -1, NULL, 261585268127329, NULL, '2026-11-26 08:11:10.894881+00');
INSERT INTO public.dice_rolls VALUES ('9b5ce2f5-0f1b-0980-229d-72a41f465172', '65c891ae-9b8e-40ef-934f-45608e861b06', 'b94fce16-2c7c-40b9-8a77-4afc11157855', NULL, 'Old Ambrose', 'grace', 1, 3, 'initiative', '[]', '{6}', 6, 6, true, 'critical_success', 3, NULL, 214885270526536, NULL, '2026-11-26 08:11:10.894881+00');
INSERT INTO public.dice_rolls VALUES ('8a5d206f-7c03-039f-04f9-acfa972af061', '65c891ae-9b8e-40ef-934f-45608e861b06', 'a84e0c8c-5f64-4aa6-ac13-94a29979d946', NULL, 'Sister Maud', 'grace', 1, 3, 'initiative', '[]', '{2}', 2, 2, false, 'failure', -1, NULL, 210656714184487, NULL, '2026-11-26 08:11:10.894881+00');
INSERT INTO public.dice_rolls VALUES ('392a18db-8f72-02fd-0784-0e20503223c4', '65c891ae-9b8e-40ef-934f-45608e861b06', NULL, '1b393438-ac15-4bc4-af6e-36785e610ae3', 'Reed Horror', 'grace', 1, 3, 'initiative', '[]', '{3}', 3, 3, true, 'success', 0, NULL, 181519420449997, NULL, '2026-11-26 08:11:10.894881+00');
INSERT INTO public.dice_rolls VALUES ('64396bd3-ad6a-410b-9fb0-f85e3c7a0d1c', '65c891ae-9b8e-40ef-934f-45608e861b06', 'b94fce16-2c7c-40b9-8a77-4afc11157855', NULL, 'Old Ambrose', 'wit', 5, 12, 'attack', '[{"type": "flat", "value": 1, "source": "high ground"}]', '{5,5,6,6,4}', 26, 27, true, 'success', 15, NULL, 151483119149245, NULL, '2026-11-26 08:11:10.9033+00');
INSERT INTO public.dice_rolls VALUES ('c216a042-b188-415b-850b-33eb7bf78961', '65c891ae-9b8e-40ef-934f-45608e861b06', 'f1369cdd-8faa-48ec-9f20-041a0f88f890', NULL, 'Brunhild', 'might', 5, 12, 'attack', '[{"type": "flat", "value": 1, "source": "high ground"}]', '{1,6,3,2,1}', 13, 14, true, 'success', 2, NULL, 45880632052405, NULL, '2026-11-26 08:11:10.905748+00');
INSERT INTO public.dice_rolls VALUES ('565e1eb6-5b2f-4559-a03b-c64fdfc6476d', '65c891ae-9b8e-40ef-934f-45608e861b06', NULL, '1b393438-ac15-4bc4-af6e-36785e610ae3', 'Reed Horror', 'might', 4, 10, 'attack', '[]', '{4,5,5,3}', 17, 17, true, 'success', 7, NULL, 73834432908310, NULL, '2026-11-26 08:11:10.907238+00');
INSERT INTO public.dice_rolls VALUES ('b1ec7e1e-1550-450b-9030-4df6a6484b71', '65c891ae-9b8e-40ef-934f-45608e861b06', '77c0ac77-d023-422a-b0dd-50efb267f194', NULL, 'Quick Nim', 'grace', 5, 12, 'attack', '[{"type": "flat", "value": 1, "source": "high ground"}]', '{2,2,4,5,5}', 18, 19, true, 'success', 7, NULL, 158641093847334, NULL, '2026-11-26 08:11:10.90992+00');
INSERT INTO public.dice_rolls VALUES ('2b186b58-9ce4-4ffe-bd75-f3b4fd09ed9a', '65c891ae-9b8e-40ef-934f-45608e861b06', 'a84e0c8c-5f64-4aa6-ac13-94a29979d946', NULL, 'Sister Maud', 'heart', 5, 12, 'attack', '[{"type": "flat", "value": 1, "source": "high ground"}]', '{5,2,3,6,4}', 20, 21, true, 'success', 9, NULL, 228752495320638, NULL, '2026-11-26 08:11:10.911393+00');
INSERT INTO public.dice_rolls VALUES ('edeeb5fd-5ccd-44da-82c9-b897fe3e5212', '65c891ae-9b8e-40ef-934f-45608e861b06', 'b94fce16-2c7c-40b9-8a77-4afc11157855', NULL, 'Old Ambrose', 'might', 1, 18, 'attribute_check', '[]', '{1}', 1, 1, false, 'critical_failure', -17, NULL, 115397815850373, NULL, '2026-11-26 08:11:10.914487+00');
INSERT INTO public.dice_rolls VALUES ('1e65c322-73e2-4ede-a370-b0ee3719b146', '65c891ae-9b8e-40ef-934f-45608e861b06', 'b94fce16-2c7c-40b9-8a77-4afc11157855', NULL, 'Old Ambrose', 'might', 1, 18, 'heroic_save', '[]', '{5}', 5, 5, false, 'failure', -13, NULL, 251288921775249, 'edeeb5fd-5ccd-44da-82c9-b897fe3e5212', '2026-11-26 08:11:10.915777+00');

INSERT INTO public.seaql_migrations VALUES ('m20261101_000001_platform', 1795680637);
INSERT INTO public.seaql_migrations VALUES ('m20261101_000002_tables', 1795680637);
INSERT INTO public.seaql_migrations VALUES ('m20261101_000003_rules', 1795680637);
INSERT INTO public.seaql_migrations VALUES ('m20261101_000004_access', 1795680637);
INSERT INTO public.seaql_migrations VALUES ('m20261101_000005_live', 1795680637);
INSERT INTO public.seaql_migrations VALUES ('m20261101_000006_upkeep', 1795680637);
INSERT INTO public.seaql_migrations VALUES ('m20261124_000007_renewal', 1795680637);
INSERT INTO public.seaql_migrations VALUES ('m20261124_000008_closed_accounts', 1795680637);
INSERT INTO public.seaql_migrations VALUES ('m20261125_000009_shorter_ways', 1795680637);
INSERT INTO public.seaql_migrations VALUES ('m20261125_000010_clean_up_by_place', 1795680637);
INSERT INTO public.seaql_migrations VALUES ('m20261125_000011_bounded_walks', 1795680637);
INSERT INTO public.seaql_migrations VALUES ('m20261126_000012_long_walks', 1795680637);

INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('324d5d0a-8ef6-4851-b0df-b83a1a7399a6', 'd7053059-9bd8-4150-a124-190c9a1abcd0', 'player_joined', '{"userId": "57296175-2cea-4ea8-9b3c-0dfc16826831", "avatarUrl": null, "maxPlayers": 4, "seatsTaken": 1, "characterId": "306fca88-f6ea-47bb-8c6d-9dbaa21b22ef", "displayName": "Eve", "characterName": "Far-Walker", "characterClass": "ranger"}', '2026-11-26 08:11:10.874895+00', 2, '57296175-2cea-4ea8-9b3c-0dfc16826831');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('56c828cb-3a7c-4877-99eb-6bd293e7f137', '65c891ae-9b8e-40ef-934f-45608e861b06', 'player_joined', '{"userId": "147d6ec3-3577-4e23-b59a-77fc30e73af6", "avatarUrl": null, "maxPlayers": 4, "seatsTaken": 1, "characterId": "f1369cdd-8faa-48ec-9f20-041a0f88f890", "displayName": "Ada", "characterName": "Brunhild", "characterClass": "warrior"}', '2026-11-26 08:11:10.883772+00', 4, '147d6ec3-3577-4e23-b59a-77fc30e73af6');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('9be47b80-a34d-46c5-ba1a-13e76e0576a4', '65c891ae-9b8e-40ef-934f-45608e861b06', 'player_joined', '{"userId": "8d286489-6996-48c0-b099-d114796c21c8", "avatarUrl": null, "maxPlayers": 4, "seatsTaken": 2, "characterId": "77c0ac77-d023-422a-b0dd-50efb267f194", "displayName": "Ben", "characterName": "Quick Nim", "characterClass": "rogue"}', '2026-11-26 08:11:10.885692+00', 6, '8d286489-6996-48c0-b099-d114796c21c8');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('8501fedb-0cb9-4478-aa29-562cb259e709', '65c891ae-9b8e-40ef-934f-45608e861b06', 'player_joined', '{"userId": "ab961e4e-7156-4502-b201-3d065a57a59b", "avatarUrl": null, "maxPlayers": 4, "seatsTaken": 3, "characterId": "b94fce16-2c7c-40b9-8a77-4afc11157855", "displayName": "Cleo", "characterName": "Old Ambrose", "characterClass": "wizard"}', '2026-11-26 08:11:10.887023+00', 8, 'ab961e4e-7156-4502-b201-3d065a57a59b');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('0723c21a-378d-4baa-861b-84400f1b7b40', '65c891ae-9b8e-40ef-934f-45608e861b06', 'player_joined', '{"userId": "3a25aee1-8073-4032-8389-0f0f2dff5f57", "avatarUrl": null, "maxPlayers": 4, "seatsTaken": 4, "characterId": "a84e0c8c-5f64-4aa6-ac13-94a29979d946", "displayName": "Dana", "characterName": "Sister Maud", "characterClass": "cleric"}', '2026-11-26 08:11:10.888265+00', 10, '3a25aee1-8073-4032-8389-0f0f2dff5f57');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('d0d90695-5e03-4c6d-b1ba-4aed188832b4', '65c891ae-9b8e-40ef-934f-45608e861b06', 'session_status', '{"to": "active", "from": "waiting", "endedAt": null, "startedAt": "2026-11-26T08:11:10.890357+00:00"}', '2026-11-26 08:11:10.890357+00', 12, 'a9be9662-b96e-41e7-bfa4-c6b062280608');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('be07d2c5-c3b4-48bc-8448-3c5816c44136', '65c891ae-9b8e-40ef-934f-45608e861b06', 'scene_changed', '{"to": "ford", "from": null}', '2026-11-26 08:11:10.892029+00', 14, 'a9be9662-b96e-41e7-bfa4-c6b062280608');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('176eba20-0b7a-405b-b957-3b66652e217d', '65c891ae-9b8e-40ef-934f-45608e861b06', 'encounter_changed', '{"to": "wade", "from": null}', '2026-11-26 08:11:10.893308+00', 16, 'a9be9662-b96e-41e7-bfa4-c6b062280608');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('55a653e9-6a46-43fe-8ac3-5838cb0196ed', '65c891ae-9b8e-40ef-934f-45608e861b06', 'dice_rolled', '{"total": 5, "margin": 2, "rollId": "d325b03e-accd-01d5-37ca-3c4201dbd1b7", "outcome": "success", "results": [5], "success": true, "rollType": "initiative", "attribute": "grace", "diceCount": 1, "modifiers": [], "creatureId": null, "difficulty": 3, "characterId": "f1369cdd-8faa-48ec-9f20-041a0f88f890", "description": null, "animationSeed": 265767220736992, "characterName": "Brunhild", "modifiedTotal": 5, "originalRollId": null}', '2026-11-26 08:11:10.894881+00', 18, 'a9be9662-b96e-41e7-bfa4-c6b062280608');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('1bf617d5-d36c-426e-bb1a-79570694619c', '65c891ae-9b8e-40ef-934f-45608e861b06', 'dice_rolled', '{"total": 2, "margin": -1, "rollId": "55d38094-f344-0b13-1837-68b7bc34d8b3", "outcome": "failure", "results": [2], "success": false, "rollType": "initiative", "attribute": "grace", "diceCount": 1, "modifiers": [], "creatureId": null, "difficulty": 3, "characterId": "77c0ac77-d023-422a-b0dd-50efb267f194", "description": null, "animationSeed": 261585268127329, "characterName": "Quick Nim", "modifiedTotal": 2, "originalRollId": null}', '2026-11-26 08:11:10.894881+00', 20, 'a9be9662-b96e-41e7-bfa4-c6b062280608');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('684a5edb-46d9-43b8-9df0-dd27a9225a3b', '65c891ae-9b8e-40ef-934f-45608e861b06', 'dice_rolled', '{"total": 6, "margin": 3, "rollId": "9b5ce2f5-0f1b-0980-229d-72a41f465172", "outcome": "critical_success", "results": [6], "success": true, "rollType": "initiative", "attribute": "grace", "diceCount": 1, "modifiers": [], "creatureId": null, "difficulty": 3, "characterId": "b94fce16-2c7c-40b9-8a77-4afc11157855", "description": null, "animationSeed": 214885270526536, "characterName": "Old Ambrose", "modifiedTotal": 6, "originalRollId": null}', '2026-11-26 08:11:10.894881+00', 22, 'a9be9662-b96e-41e7-bfa4-c6b062280608');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('14c9a15d-bd08-4e15-baf8-fdbc6919379d', '65c891ae-9b8e-40ef-934f-45608e861b06', 'dice_rolled', '{"total": 2, "margin": -1, "rollId": "8a5d206f-7c03-039f-04f9-acfa972af061", "outcome": "failure", "results": [2], "success": false, "rollType": "initiative", "attribute": "grace", "diceCount": 1, "modifiers": [], "creatureId": null, "difficulty": 3, "characterId": "a84e0c8c-5f64-4aa6-ac13-94a29979d946", "description": null, "animationSeed": 210656714184487, "characterName": "Sister Maud", "modifiedTotal": 2, "originalRollId": null}', '2026-11-26 08:11:10.894881+00', 24, 'a9be9662-b96e-41e7-bfa4-c6b062280608');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('0bc24bc8-8837-4c04-ad22-410568d8475e', '65c891ae-9b8e-40ef-934f-45608e861b06', 'dice_rolled', '{"total": 3, "margin": 0, "rollId": "392a18db-8f72-02fd-0784-0e20503223c4", "outcome": "success", "results": [3], "success": true, "rollType": "initiative", "attribute": "grace", "diceCount": 1, "modifiers": [], "creatureId": "1b393438-ac15-4bc4-af6e-36785e610ae3", "difficulty": 3, "characterId": null, "description": null, "animationSeed": 181519420449997, "characterName": "Reed Horror", "modifiedTotal": 3, "originalRollId": null}', '2026-11-26 08:11:10.894881+00', 26, 'a9be9662-b96e-41e7-bfa4-c6b062280608');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('0e5dcdc7-7924-4482-9c2f-8aceebca2169', '65c891ae-9b8e-40ef-934f-45608e861b06', 'dice_rolled', '{"total": 26, "margin": 15, "rollId": "64396bd3-ad6a-410b-9fb0-f85e3c7a0d1c", "outcome": "success", "results": [5, 5, 6, 6, 4], "success": true, "rollType": "attack", "attribute": "wit", "diceCount": 5, "modifiers": [{"type": "flat", "value": 1, "source": "high ground"}], "creatureId": null, "difficulty": 12, "characterId": "b94fce16-2c7c-40b9-8a77-4afc11157855", "description": null, "animationSeed": 151483119149245, "characterName": "Old Ambrose", "modifiedTotal": 27, "originalRollId": null}', '2026-11-26 08:11:10.9033+00', 28, 'ab961e4e-7156-4502-b201-3d065a57a59b');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('fa010e59-a796-43c4-9bae-7723588eac57', '65c891ae-9b8e-40ef-934f-45608e861b06', 'dice_rolled', '{"total": 13, "margin": 2, "rollId": "c216a042-b188-415b-850b-33eb7bf78961", "outcome": "success", "results": [1, 6, 3, 2, 1], "success": true, "rollType": "attack", "attribute": "might", "diceCount": 5, "modifiers": [{"type": "flat", "value": 1, "source": "high ground"}], "creatureId": null, "difficulty": 12, "characterId": "f1369cdd-8faa-48ec-9f20-041a0f88f890", "description": null, "animationSeed": 45880632052405, "characterName": "Brunhild", "modifiedTotal": 14, "originalRollId": null}', '2026-11-26 08:11:10.905748+00', 30, '147d6ec3-3577-4e23-b59a-77fc30e73af6');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('7ee92af9-5505-4537-95da-e199d8583b0f', '65c891ae-9b8e-40ef-934f-45608e861b06', 'dice_rolled', '{"total": 17, "margin": 7, "rollId": "565e1eb6-5b2f-4559-a03b-c64fdfc6476d", "outcome": "success", "results": [4, 5, 5, 3], "success": true, "rollType": "attack", "attribute": "might", "diceCount": 4, "modifiers": [], "creatureId": "1b393438-ac15-4bc4-af6e-36785e610ae3", "difficulty": 10, "characterId": null, "description": null, "animationSeed": 73834432908310, "characterName": "Reed Horror", "modifiedTotal": 17, "originalRollId": null}', '2026-11-26 08:11:10.907238+00', 32, 'a9be9662-b96e-41e7-bfa4-c6b062280608');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('8ccb9e0c-eb7f-4e03-8d6d-d0270b28d6bf', '65c891ae-9b8e-40ef-934f-45608e861b06', 'dice_rolled', '{"total": 18, "margin": 7, "rollId": "b1ec7e1e-1550-450b-9030-4df6a6484b71", "outcome": "success", "results": [2, 2, 4, 5, 5], "success": true, "rollType": "attack", "attribute": "grace", "diceCount": 5, "modifiers": [{"type": "flat", "value": 1, "source": "high ground"}], "creatureId": null, "difficulty": 12, "characterId": "77c0ac77-d023-422a-b0dd-50efb267f194", "description": null, "animationSeed": 158641093847334, "characterName": "Quick Nim", "modifiedTotal": 19, "originalRollId": null}', '2026-11-26 08:11:10.90992+00', 34, '8d286489-6996-48c0-b099-d114796c21c8');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('d2874757-94f7-4f06-8f6a-bcccd6496fc7', '65c891ae-9b8e-40ef-934f-45608e861b06', 'dice_rolled', '{"total": 20, "margin": 9, "rollId": "2b186b58-9ce4-4ffe-bd75-f3b4fd09ed9a", "outcome": "success", "results": [5, 2, 3, 6, 4], "success": true, "rollType": "attack", "attribute": "heart", "diceCount": 5, "modifiers": [{"type": "flat", "value": 1, "source": "high ground"}], "creatureId": null, "difficulty": 12, "characterId": "a84e0c8c-5f64-4aa6-ac13-94a29979d946", "description": null, "animationSeed": 228752495320638, "characterName": "Sister Maud", "modifiedTotal": 21, "originalRollId": null}', '2026-11-26 08:11:10.911393+00', 36, '3a25aee1-8073-4032-8389-0f0f2dff5f57');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('36f1eb24-9b6e-4e45-98b5-1bad4d042448', '65c891ae-9b8e-40ef-934f-45608e861b06', 'dice_rolled', '{"total": 1, "margin": -17, "rollId": "edeeb5fd-5ccd-44da-82c9-b897fe3e5212", "outcome": "critical_failure", "results": [1], "success": false, "rollType": "attribute_check", "attribute": "might", "diceCount": 1, "modifiers": [], "creatureId": null, "difficulty": 18, "characterId": "b94fce16-2c7c-40b9-8a77-4afc11157855", "description": null, "animationSeed": 115397815850373, "characterName": "Old Ambrose", "modifiedTotal": 1, "originalRollId": null}', '2026-11-26 08:11:10.914487+00', 38, 'ab961e4e-7156-4502-b201-3d065a57a59b');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('4c51c60f-43cc-41c6-a683-1c1fa98e3233', '65c891ae-9b8e-40ef-934f-45608e861b06', 'dice_rolled', '{"total": 5, "margin": -13, "rollId": "1e65c322-73e2-4ede-a370-b0ee3719b146", "outcome": "failure", "results": [5], "success": false, "rollType": "heroic_save", "attribute": "might", "diceCount": 1, "modifiers": [], "creatureId": null, "difficulty": 18, "characterId": "b94fce16-2c7c-40b9-8a77-4afc11157855", "description": null, "animationSeed": 251288921775249, "characterName": "Old Ambrose", "modifiedTotal": 5, "originalRollId": "edeeb5fd-5ccd-44da-82c9-b897fe3e5212"}', '2026-11-26 08:11:10.915777+00', 40, 'ab961e4e-7156-4502-b201-3d065a57a59b');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('8f85d272-6f16-4c23-8f50-351cd9e7907c', '65c891ae-9b8e-40ef-934f-45608e861b06', 'scene_changed', '{"to": "bell", "from": "ford"}', '2026-11-26 08:11:10.921069+00', 42, 'a9be9662-b96e-41e7-bfa4-c6b062280608');
INSERT INTO public.session_events OVERRIDING SYSTEM VALUE VALUES ('2e4b27c2-93df-41b7-a1fa-e6809fe8d8b5', '65c891ae-9b8e-40ef-934f-45608e861b06', 'session_status', '{"to": "completed", "from": "active", "endedAt": "2026-11-26T08:11:10.922182+00:00", "startedAt": "2026-11-26T08:11:10.890357+00:00"}', '2026-11-26 08:11:10.922182+00', 44, 'a9be9662-b96e-41e7-bfa4-c6b062280608');

INSERT INTO public.session_players VALUES ('d7053059-9bd8-4150-a124-190c9a1abcd0', '57296175-2cea-4ea8-9b3c-0dfc16826831', '306fca88-f6ea-47bb-8c6d-9dbaa21b22ef', true, 0, '2026-11-26 08:11:10.874895+00', NULL, 0);
INSERT INTO public.session_players VALUES ('65c891ae-9b8e-40ef-934f-45608e861b06', '147d6ec3-3577-4e23-b59a-77fc30e73af6', 'f1369cdd-8faa-48ec-9f20-041a0f88f890', true, 0, '2026-11-26 08:11:10.883772+00', NULL, 0);
INSERT INTO public.session_players VALUES ('65c891ae-9b8e-40ef-934f-45608e861b06', '8d286489-6996-48c0-b099-d114796c21c8', '77c0ac77-d023-422a-b0dd-50efb267f194', true, 0, '2026-11-26 08:11:10.885692+00', NULL, 0);
INSERT INTO public.session_players VALUES ('65c891ae-9b8e-40ef-934f-45608e861b06', '3a25aee1-8073-4032-8389-0f0f2dff5f57', 'a84e0c8c-5f64-4aa6-ac13-94a29979d946', true, 0, '2026-11-26 08:11:10.888265+00', NULL, 0);
INSERT INTO public.session_players VALUES ('65c891ae-9b8e-40ef-934f-45608e861b06', 'ab961e4e-7156-4502-b201-3d065a57a59b', 'b94fce16-2c7c-40b9-8a77-4afc11157855', true, 1, '2026-11-26 08:11:10.887023+00', NULL, 1);

INSERT INTO public.sessions VALUES ('d7053059-9bd8-4150-a124-190c9a1abcd0', 'a9be9662-b96e-41e7-bfa4-c6b062280608', 'c0b41bc0-638e-41cc-8648-2a0a27838fd7', 'HA2SS2', true, 4, 'a healer', NULL, 'waiting', NULL, NULL, '{}', NULL, NULL, '2026-11-26 08:11:10.87197+00', '2026-11-26 08:11:10.874895+00', 1, 0, 0);
INSERT INTO public.sessions VALUES ('65c891ae-9b8e-40ef-934f-45608e861b06', 'a9be9662-b96e-41e7-bfa4-c6b062280608', 'c0b41bc0-638e-41cc-8648-2a0a27838fd7', '2TW9JH', false, 4, NULL, NULL, 'completed', 'bell', 'wade', '{}', '2026-11-26 08:11:10.890357+00', '2026-11-26 08:11:10.922182+00', '2026-11-26 08:11:10.879575+00', '2026-11-26 08:11:10.922182+00', 4, 1, 0);

INSERT INTO public.users VALUES ('57296175-2cea-4ea8-9b3c-0dfc16826831', '57296175-2cea-4ea8-9b3c-0dfc16826831@example.org', 'Eve', NULL, NULL, false, 0, 0, '2026-11-26 08:11:10.858571+00', '2026-11-26 08:11:10.858571+00');
INSERT INTO public.users VALUES ('a9be9662-b96e-41e7-bfa4-c6b062280608', 'a9be9662-b96e-41e7-bfa4-c6b062280608@example.org', 'Morgan', NULL, NULL, false, 0, 1, '2026-11-26 08:11:10.841581+00', '2026-11-26 08:11:10.922182+00');
INSERT INTO public.users VALUES ('147d6ec3-3577-4e23-b59a-77fc30e73af6', '147d6ec3-3577-4e23-b59a-77fc30e73af6@example.org', 'Ada', NULL, NULL, false, 1, 0, '2026-11-26 08:11:10.847047+00', '2026-11-26 08:11:10.922182+00');
INSERT INTO public.users VALUES ('8d286489-6996-48c0-b099-d114796c21c8', '8d286489-6996-48c0-b099-d114796c21c8@example.org', 'Ben', NULL, NULL, false, 1, 0, '2026-11-26 08:11:10.852026+00', '2026-11-26 08:11:10.922182+00');
INSERT INTO public.users VALUES ('ab961e4e-7156-4502-b201-3d065a57a59b', 'ab961e4e-7156-4502-b201-3d065a57a59b@example.org', 'Cleo', NULL, NULL, false, 1, 0, '2026-11-26 08:11:10.854381+00', '2026-11-26 08:11:10.922182+00');
INSERT INTO public.users VALUES ('3a25aee1-8073-4032-8389-0f0f2dff5f57', '3a25aee1-8073-4032-8389-0f0f2dff5f57@example.org', 'Dana', NULL, NULL, false, 1, 0, '2026-11-26 08:11:10.856531+00', '2026-11-26 08:11:10.922182+00');

SELECT pg_catalog.setval('public.session_events_seq_seq', 44, true);

ALTER TABLE ONLY auth.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.adventures
    ADD CONSTRAINT adventures_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.archived_dice_rolls
    ADD CONSTRAINT archived_dice_rolls_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.archived_session_players
    ADD CONSTRAINT archived_session_players_pkey PRIMARY KEY (session_id, user_id);

ALTER TABLE ONLY public.archived_sessions
    ADD CONSTRAINT archived_sessions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.characters
    ADD CONSTRAINT characters_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.creatures
    ADD CONSTRAINT creatures_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.dice_rolls
    ADD CONSTRAINT dice_rolls_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.seaql_migrations
    ADD CONSTRAINT seaql_migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.session_events
    ADD CONSTRAINT session_events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.session_players
    ADD CONSTRAINT session_players_pkey PRIMARY KEY (session_id, user_id);

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_code_key UNIQUE (code);

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.tutorial_progress
    ADD CONSTRAINT tutorial_progress_pkey PRIMARY KEY (user_id);

ALTER TABLE ONLY public.characters
    ADD CONSTRAINT unique_user_character_name UNIQUE (user_id, name);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_email_key UNIQUE (email);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);

CREATE INDEX idx_adventures_best_rated ON public.adventures USING btree (average_rating DESC NULLS LAST, id) WHERE (status = 'published'::public.adventure_status);

CREATE INDEX idx_adventures_content ON public.adventures USING gin (content);

CREATE INDEX idx_adventures_creator_id ON public.adventures USING btree (creator_id, created_at DESC, id);

CREATE INDEX idx_adventures_difficulty ON public.adventures USING btree (difficulty) WHERE (status = 'published'::public.adventure_status);

CREATE INDEX idx_adventures_most_played ON public.adventures USING btree (times_played DESC, id) WHERE (status = 'published'::public.adventure_status);

CREATE INDEX idx_adventures_published ON public.adventures USING btree (published_at DESC, id) WHERE (status = 'published'::public.adventure_status);

CREATE INDEX idx_adventures_status ON public.adventures USING btree (status);

CREATE INDEX idx_archived_dice_rolls_character ON public.archived_dice_rolls USING btree (character_id);

CREATE INDEX idx_archived_dice_rolls_creature ON public.archived_dice_rolls USING btree (creature_id);

CREATE INDEX idx_archived_dice_rolls_original ON public.archived_dice_rolls USING btree (original_roll_id);

CREATE INDEX idx_archived_dice_rolls_session ON public.archived_dice_rolls USING btree (session_id, created_at);

CREATE INDEX idx_archived_session_players_character ON public.archived_session_players USING btree (character_id);

CREATE INDEX idx_archived_session_players_user ON public.archived_session_players USING btree (user_id, session_id);

CREATE INDEX idx_archived_sessions_adventure ON public.archived_sessions USING btree (adventure_id);

CREATE INDEX idx_archived_sessions_seer ON public.archived_sessions USING btree (seer_id);

CREATE INDEX idx_characters_class ON public.characters USING btree (class);

CREATE INDEX idx_characters_last_played ON public.characters USING btree (last_played_at DESC NULLS LAST);

CREATE INDEX idx_characters_user_id ON public.characters USING btree (user_id);

CREATE INDEX idx_creatures_adventure_id ON public.creatures USING btree (adventure_id);

CREATE INDEX idx_dice_rolls_character ON public.dice_rolls USING btree (character_id, created_at DESC, id);

CREATE INDEX idx_dice_rolls_created ON public.dice_rolls USING btree (created_at DESC);

CREATE INDEX idx_dice_rolls_creature ON public.dice_rolls USING btree (creature_id);

CREATE INDEX idx_dice_rolls_history ON public.dice_rolls USING btree (session_id, created_at DESC, id);

CREATE UNIQUE INDEX idx_dice_rolls_original ON public.dice_rolls USING btree (original_roll_id);

CREATE INDEX idx_dice_rolls_type ON public.dice_rolls USING btree (session_id, roll_type, created_at DESC, id);

CREATE INDEX idx_session_events_cleanup ON public.session_events USING btree (created_at);

CREATE INDEX idx_session_events_created ON public.session_events USING btree (session_id, created_at DESC, id);

CREATE UNIQUE INDEX idx_session_events_seq ON public.session_events USING btree (session_id, seq);

CREATE INDEX idx_session_players_active ON public.session_players USING btree (session_id) WHERE is_active;

CREATE INDEX idx_session_players_character ON public.session_players USING btree (character_id);

CREATE INDEX idx_session_players_user ON public.session_players USING btree (user_id, session_id);

CREATE INDEX idx_sessions_adventure_id ON public.sessions USING btree (adventure_id);

CREATE INDEX idx_sessions_completed ON public.sessions USING btree (ended_at) WHERE (status = 'completed'::public.session_status);

CREATE INDEX idx_sessions_free_seats ON public.sessions USING btree (scheduled_start, created_at DESC, id) WHERE (is_public AND (status = ANY (ARRAY['waiting'::public.session_status, 'starting_soon'::public.session_status])) AND (seats_taken < max_players));

CREATE INDEX idx_sessions_public_waiting ON public.sessions USING btree (scheduled_start, created_at DESC, id) WHERE (is_public AND (status = ANY (ARRAY['waiting'::public.session_status, 'starting_soon'::public.session_status])));

CREATE INDEX idx_sessions_seer_id ON public.sessions USING btree (seer_id);

CREATE INDEX idx_sessions_status ON public.sessions USING btree (status);

CREATE INDEX idx_tutorial_completed ON public.tutorial_progress USING btree (completed_at) WHERE (completed_at IS NOT NULL);

CREATE INDEX idx_users_created_at ON public.users USING btree (created_at DESC);

CREATE INDEX idx_users_display_name ON public.users USING btree (display_name);

CREATE TRIGGER on_auth_user_changed AFTER UPDATE OF email, deleted_at ON auth.users FOR EACH ROW WHEN (((new.email IS DISTINCT FROM old.email) OR (new.deleted_at IS DISTINCT FROM old.deleted_at))) EXECUTE FUNCTION private.handle_changed_user();

CREATE TRIGGER on_auth_user_created AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION private.handle_new_user();

CREATE TRIGGER check_adventure BEFORE INSERT OR UPDATE ON public.adventures FOR EACH ROW EXECUTE FUNCTION private.check_adventure();

CREATE TRIGGER check_profile_change BEFORE UPDATE OF display_name, avatar_url, bio ON public.users FOR EACH ROW EXECUTE FUNCTION private.check_profile_change();

CREATE TRIGGER check_readable_abilities BEFORE INSERT OR UPDATE OF abilities ON public.creatures FOR EACH ROW WHEN ((NOT private.is_readable(new.abilities))) EXECUTE FUNCTION private.check_readable('abilities');

CREATE TRIGGER check_readable_content BEFORE INSERT OR UPDATE OF content ON public.adventures FOR EACH ROW WHEN ((NOT private.is_readable(new.content))) EXECUTE FUNCTION private.check_readable('content');

CREATE TRIGGER check_readable_equipment BEFORE INSERT OR UPDATE OF equipment ON public.characters FOR EACH ROW WHEN ((NOT private.is_readable(new.equipment))) EXECUTE FUNCTION private.check_readable('equipment');

CREATE TRIGGER check_readable_game_state BEFORE INSERT OR UPDATE OF game_state ON public.sessions FOR EACH ROW WHEN (((new.game_state <> '{}'::jsonb) AND (NOT private.is_readable(new.game_state)))) EXECUTE FUNCTION private.check_readable('game_state');

CREATE TRIGGER check_readable_payload BEFORE INSERT OR UPDATE OF payload ON public.session_events FOR EACH ROW WHEN ((starts_with(new.event_type, 'client.'::text) AND (NOT private.is_readable(new.payload)))) EXECUTE FUNCTION private.check_readable('payload');

CREATE TRIGGER check_readable_special_ability BEFORE INSERT OR UPDATE OF special_ability ON public.characters FOR EACH ROW WHEN ((NOT private.is_readable(new.special_ability))) EXECUTE FUNCTION private.check_readable('special_ability');

CREATE TRIGGER check_readable_stats BEFORE INSERT OR UPDATE OF stats ON public.creatures FOR EACH ROW WHEN ((NOT private.is_readable(new.stats))) EXECUTE FUNCTION private.check_readable('stats');

CREATE TRIGGER check_session_adventure BEFORE INSERT OR UPDATE OF adventure_id, seer_id ON public.sessions FOR EACH ROW EXECUTE FUNCTION private.check_session_adventure();

CREATE TRIGGER check_session_status BEFORE INSERT OR UPDATE ON public.sessions FOR EACH ROW EXECUTE FUNCTION private.check_session_status();

CREATE TRIGGER check_tutorial_step BEFORE INSERT OR UPDATE ON public.tutorial_progress FOR EACH ROW EXECUTE FUNCTION private.check_tutorial_step();

CREATE TRIGGER cleanup_events_trigger AFTER INSERT ON public.session_events FOR EACH STATEMENT EXECUTE FUNCTION private.cleanup_old_events();

CREATE TRIGGER count_seats AFTER INSERT OR DELETE OR UPDATE OF is_active ON public.session_players FOR EACH ROW EXECUTE FUNCTION private.count_seats();

CREATE TRIGGER delete_own_history BEFORE DELETE ON public.users FOR EACH ROW EXECUTE FUNCTION private.delete_own_history();

CREATE TRIGGER enforce_character_limit BEFORE INSERT OR UPDATE OF user_id, retired_at ON public.characters FOR EACH ROW EXECUTE FUNCTION private.check_character_limit();

CREATE TRIGGER enforce_session_capacity BEFORE INSERT OR UPDATE OF is_active, character_id ON public.session_players FOR EACH ROW EXECUTE FUNCTION private.check_session_capacity();

CREATE TRIGGER give_heroic_saves_back AFTER UPDATE OF current_encounter_id ON public.sessions FOR EACH ROW WHEN ((new.current_encounter_id IS DISTINCT FROM old.current_encounter_id)) EXECUTE FUNCTION private.give_heroic_saves_back();

CREATE TRIGGER number_event BEFORE INSERT ON public.session_events FOR EACH ROW EXECUTE FUNCTION private.number_event();

CREATE TRIGGER number_game_state BEFORE UPDATE OF game_state ON public.sessions FOR EACH ROW WHEN ((new.game_state IS DISTINCT FROM old.game_state)) EXECUTE FUNCTION private.number_game_state();

CREATE TRIGGER on_session_change AFTER UPDATE OF status, current_scene_id, current_encounter_id, game_state ON public.sessions FOR EACH ROW EXECUTE FUNCTION private.tell_session_change();

CREATE TRIGGER on_session_complete AFTER UPDATE ON public.sessions FOR EACH ROW WHEN (((new.status = 'completed'::public.session_status) AND (old.status <> 'completed'::public.session_status))) EXECUTE FUNCTION private.update_user_stats();

CREATE TRIGGER roll_dice BEFORE INSERT ON public.dice_rolls FOR EACH ROW EXECUTE FUNCTION private.roll_dice();

CREATE TRIGGER set_session_code BEFORE INSERT ON public.sessions FOR EACH ROW WHEN ((new.code IS NULL)) EXECUTE FUNCTION private.generate_session_code();

CREATE TRIGGER set_updated_at BEFORE UPDATE ON public.adventures FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();

CREATE TRIGGER set_updated_at BEFORE UPDATE ON public.archived_sessions FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();

CREATE TRIGGER set_updated_at BEFORE UPDATE ON public.characters FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();

CREATE TRIGGER set_updated_at BEFORE UPDATE ON public.creatures FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();

CREATE TRIGGER set_updated_at BEFORE UPDATE ON public.sessions FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();

CREATE TRIGGER set_updated_at BEFORE UPDATE ON public.tutorial_progress FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();

CREATE TRIGGER set_updated_at BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at();

CREATE TRIGGER tell_roll AFTER INSERT ON public.dice_rolls FOR EACH ROW EXECUTE FUNCTION private.tell_roll();

CREATE TRIGGER unreadable_modifiers BEFORE INSERT OR UPDATE OF modifiers ON public.dice_rolls FOR EACH ROW WHEN (((new.modifiers <> '[]'::jsonb) AND (NOT private.is_readable(new.modifiers)))) EXECUTE FUNCTION private.check_readable('modifiers');

ALTER TABLE ONLY public.adventures
    ADD CONSTRAINT adventures_creator_id_fkey FOREIGN KEY (creator_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.archived_dice_rolls
    ADD CONSTRAINT archived_dice_rolls_character_id_fkey FOREIGN KEY (character_id) REFERENCES public.characters(id);

ALTER TABLE ONLY public.archived_dice_rolls
    ADD CONSTRAINT archived_dice_rolls_creature_id_fkey FOREIGN KEY (creature_id) REFERENCES public.creatures(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.archived_dice_rolls
    ADD CONSTRAINT archived_dice_rolls_original_roll_id_fkey FOREIGN KEY (original_roll_id) REFERENCES public.archived_dice_rolls(id);

ALTER TABLE ONLY public.archived_dice_rolls
    ADD CONSTRAINT archived_dice_rolls_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.archived_sessions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.archived_session_players
    ADD CONSTRAINT archived_session_players_character_id_fkey FOREIGN KEY (character_id) REFERENCES public.characters(id);

ALTER TABLE ONLY public.archived_session_players
    ADD CONSTRAINT archived_session_players_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.archived_sessions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.archived_session_players
    ADD CONSTRAINT archived_session_players_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.archived_sessions
    ADD CONSTRAINT archived_sessions_adventure_id_fkey FOREIGN KEY (adventure_id) REFERENCES public.adventures(id);

ALTER TABLE ONLY public.archived_sessions
    ADD CONSTRAINT archived_sessions_seer_id_fkey FOREIGN KEY (seer_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.characters
    ADD CONSTRAINT characters_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.creatures
    ADD CONSTRAINT creatures_adventure_id_fkey FOREIGN KEY (adventure_id) REFERENCES public.adventures(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.dice_rolls
    ADD CONSTRAINT dice_rolls_character_id_fkey FOREIGN KEY (character_id) REFERENCES public.characters(id);

ALTER TABLE ONLY public.dice_rolls
    ADD CONSTRAINT dice_rolls_creature_id_fkey FOREIGN KEY (creature_id) REFERENCES public.creatures(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.dice_rolls
    ADD CONSTRAINT dice_rolls_original_roll_id_fkey FOREIGN KEY (original_roll_id) REFERENCES public.dice_rolls(id);

ALTER TABLE ONLY public.dice_rolls
    ADD CONSTRAINT dice_rolls_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.sessions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.session_events
    ADD CONSTRAINT session_events_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.sessions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.session_players
    ADD CONSTRAINT session_players_character_id_fkey FOREIGN KEY (character_id) REFERENCES public.characters(id);

ALTER TABLE ONLY public.session_players
    ADD CONSTRAINT session_players_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.sessions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.session_players
    ADD CONSTRAINT session_players_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_adventure_id_fkey FOREIGN KEY (adventure_id) REFERENCES public.adventures(id);

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_seer_id_fkey FOREIGN KEY (seer_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.tutorial_progress
    ADD CONSTRAINT tutorial_progress_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_id_fkey FOREIGN KEY (id) REFERENCES auth.users(id) ON DELETE CASCADE;

CREATE POLICY "Archived dice rolls visible to session participants" ON public.archived_dice_rolls FOR SELECT TO authenticated USING ((session_id = ANY (( SELECT private.my_archived_session_ids() AS my_archived_session_ids)::uuid[])));

CREATE POLICY "Archived seats visible with their session" ON public.archived_session_players FOR SELECT TO authenticated USING (((user_id = ( SELECT auth.uid() AS uid)) OR (session_id = ANY (( SELECT private.my_archived_session_ids() AS my_archived_session_ids)::uuid[])) OR private.is_public_archived_session(session_id)));

CREATE POLICY "Archived sessions visible to participants or public" ON public.archived_sessions FOR SELECT TO anon, authenticated USING ((is_public OR (seer_id = ( SELECT auth.uid() AS uid)) OR (id = ANY (( SELECT private.my_archived_session_ids() AS my_archived_session_ids)::uuid[]))));

CREATE POLICY "Creators can delete creatures" ON public.creatures FOR DELETE TO authenticated USING (private.owns_adventure(adventure_id));

CREATE POLICY "Creators can delete own adventures" ON public.adventures FOR DELETE TO authenticated USING ((creator_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY "Creators can insert adventures" ON public.adventures FOR INSERT TO authenticated WITH CHECK ((creator_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY "Creators can insert creatures" ON public.creatures FOR INSERT TO authenticated WITH CHECK (private.owns_adventure(adventure_id));

CREATE POLICY "Creators can update creatures" ON public.creatures FOR UPDATE TO authenticated USING (private.owns_adventure(adventure_id)) WITH CHECK (private.owns_adventure(adventure_id));

CREATE POLICY "Creators can update own adventures" ON public.adventures FOR UPDATE TO authenticated USING ((creator_id = ( SELECT auth.uid() AS uid))) WITH CHECK ((creator_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY "Creatures visible with their adventure" ON public.creatures FOR SELECT TO anon, authenticated USING (private.can_see_adventure(adventure_id));

CREATE POLICY "Dice rolls visible to session participants" ON public.dice_rolls FOR SELECT TO authenticated USING ((session_id = ANY (( SELECT private.my_session_ids() AS my_session_ids)::uuid[])));

CREATE POLICY "Events visible to session participants" ON public.session_events FOR SELECT TO authenticated USING ((session_id = ANY (( SELECT private.my_session_ids() AS my_session_ids)::uuid[])));

CREATE POLICY "Participants send client events" ON public.session_events FOR INSERT TO authenticated WITH CHECK ((starts_with(event_type, 'client.'::text) AND private.is_at_table(session_id)));

CREATE POLICY "Players and the Seer change seats" ON public.session_players FOR UPDATE TO authenticated USING (((user_id = ( SELECT auth.uid() AS uid)) OR private.is_seer(session_id))) WITH CHECK (((user_id = ( SELECT auth.uid() AS uid)) OR private.is_seer(session_id)));

CREATE POLICY "Players can create rolls for own characters" ON public.dice_rolls FOR INSERT TO authenticated WITH CHECK (private.may_roll(session_id, character_id, creature_id));

CREATE POLICY "Players take seats, the Seer gives them" ON public.session_players FOR INSERT TO authenticated WITH CHECK ((is_active AND private.may_take_seat(session_id, user_id)));

CREATE POLICY "Public profiles readable" ON public.users FOR SELECT TO anon, authenticated USING (true);

CREATE POLICY "Published adventures visible to all" ON public.adventures FOR SELECT TO anon, authenticated USING (((status = 'published'::public.adventure_status) OR (creator_id = ( SELECT auth.uid() AS uid))));

CREATE POLICY "Seats visible with their session" ON public.session_players FOR SELECT TO authenticated USING (((user_id = ( SELECT auth.uid() AS uid)) OR (session_id = ANY (( SELECT private.my_session_ids() AS my_session_ids)::uuid[])) OR private.is_public_session(session_id)));

CREATE POLICY "Seer can update session" ON public.sessions FOR UPDATE TO authenticated USING ((seer_id = ( SELECT auth.uid() AS uid))) WITH CHECK ((seer_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY "Sessions visible to participants or public" ON public.sessions FOR SELECT TO anon, authenticated USING ((is_public OR (seer_id = ( SELECT auth.uid() AS uid)) OR (id = ANY (( SELECT private.my_session_ids() AS my_session_ids)::uuid[]))));

CREATE POLICY "Users can create own characters" ON public.characters FOR INSERT TO authenticated WITH CHECK ((user_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY "Users can create sessions" ON public.sessions FOR INSERT TO authenticated WITH CHECK ((seer_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY "Users can delete own characters" ON public.characters FOR DELETE TO authenticated USING ((user_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY "Users can start own tutorial" ON public.tutorial_progress FOR INSERT TO authenticated WITH CHECK ((user_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY "Users can update own characters" ON public.characters FOR UPDATE TO authenticated USING ((user_id = ( SELECT auth.uid() AS uid))) WITH CHECK ((user_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY "Users can update own profile" ON public.users FOR UPDATE TO authenticated USING ((id = ( SELECT auth.uid() AS uid))) WITH CHECK ((id = ( SELECT auth.uid() AS uid)));

CREATE POLICY "Users can update own tutorial" ON public.tutorial_progress FOR UPDATE TO authenticated USING ((user_id = ( SELECT auth.uid() AS uid))) WITH CHECK ((user_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY "Users can view own characters" ON public.characters FOR SELECT TO authenticated USING ((user_id = ( SELECT auth.uid() AS uid)));

CREATE POLICY "Users can view own tutorial" ON public.tutorial_progress FOR SELECT TO authenticated USING ((user_id = ( SELECT auth.uid() AS uid)));

ALTER TABLE public.adventures ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.archived_dice_rolls ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.archived_session_players ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.archived_sessions ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.characters ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.creatures ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.dice_rolls ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.seaql_migrations ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.session_events ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.session_players ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.sessions ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.tutorial_progress ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.users ENABLE ROW LEVEL SECURITY;

CREATE PUBLICATION supabase_realtime WITH (publish = 'insert, update, delete, truncate');

COMMENT ON PUBLICATION supabase_realtime IS 'made by sparc: stand-in for the platform';

ALTER PUBLICATION supabase_realtime ADD TABLE ONLY public.dice_rolls;

ALTER PUBLICATION supabase_realtime ADD TABLE ONLY public.session_events;

ALTER PUBLICATION supabase_realtime ADD TABLE ONLY public.session_players;

ALTER PUBLICATION supabase_realtime ADD TABLE ONLY public.sessions;

GRANT USAGE ON SCHEMA auth TO anon;
GRANT USAGE ON SCHEMA auth TO authenticated;
GRANT USAGE ON SCHEMA auth TO service_role;

GRANT USAGE ON SCHEMA extensions TO anon;
GRANT USAGE ON SCHEMA extensions TO authenticated;
GRANT USAGE ON SCHEMA extensions TO service_role;

GRANT USAGE ON SCHEMA private TO anon;
GRANT USAGE ON SCHEMA private TO authenticated;
GRANT USAGE ON SCHEMA private TO service_role;

GRANT ALL ON FUNCTION auth.jwt() TO anon;
GRANT ALL ON FUNCTION auth.jwt() TO authenticated;
GRANT ALL ON FUNCTION auth.jwt() TO service_role;

GRANT ALL ON FUNCTION auth.role() TO anon;
GRANT ALL ON FUNCTION auth.role() TO authenticated;
GRANT ALL ON FUNCTION auth.role() TO service_role;

GRANT ALL ON FUNCTION auth.uid() TO anon;
GRANT ALL ON FUNCTION auth.uid() TO authenticated;
GRANT ALL ON FUNCTION auth.uid() TO service_role;

REVOKE ALL ON FUNCTION private.archive_sessions(batch integer) FROM PUBLIC;
GRANT ALL ON FUNCTION private.archive_sessions(batch integer) TO service_role;

REVOKE ALL ON FUNCTION private.are_valid_modifiers(modifiers jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION private.are_valid_modifiers(modifiers jsonb) TO authenticated;
GRANT ALL ON FUNCTION private.are_valid_modifiers(modifiers jsonb) TO service_role;

REVOKE ALL ON FUNCTION private.are_valid_stats(stats jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION private.are_valid_stats(stats jsonb) TO authenticated;
GRANT ALL ON FUNCTION private.are_valid_stats(stats jsonb) TO service_role;

GRANT SELECT ON TABLE public.adventures TO anon;
GRANT SELECT,DELETE ON TABLE public.adventures TO authenticated;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.adventures TO service_role;

GRANT INSERT(id) ON TABLE public.adventures TO authenticated;

GRANT INSERT(creator_id) ON TABLE public.adventures TO authenticated;

GRANT INSERT(name),UPDATE(name) ON TABLE public.adventures TO authenticated;

GRANT INSERT(description),UPDATE(description) ON TABLE public.adventures TO authenticated;

GRANT INSERT(thumbnail_url),UPDATE(thumbnail_url) ON TABLE public.adventures TO authenticated;

GRANT INSERT(artwork_url),UPDATE(artwork_url) ON TABLE public.adventures TO authenticated;

GRANT INSERT(difficulty),UPDATE(difficulty) ON TABLE public.adventures TO authenticated;

GRANT INSERT(estimated_duration),UPDATE(estimated_duration) ON TABLE public.adventures TO authenticated;

GRANT INSERT(min_players),UPDATE(min_players) ON TABLE public.adventures TO authenticated;

GRANT INSERT(max_players),UPDATE(max_players) ON TABLE public.adventures TO authenticated;

GRANT INSERT(content),UPDATE(content) ON TABLE public.adventures TO authenticated;

GRANT INSERT(status),UPDATE(status) ON TABLE public.adventures TO authenticated;

REVOKE ALL ON FUNCTION private.best_rated_adventures(place numeric, last_id uuid, wanted integer) FROM PUBLIC;
GRANT ALL ON FUNCTION private.best_rated_adventures(place numeric, last_id uuid, wanted integer) TO anon;
GRANT ALL ON FUNCTION private.best_rated_adventures(place numeric, last_id uuid, wanted integer) TO authenticated;
GRANT ALL ON FUNCTION private.best_rated_adventures(place numeric, last_id uuid, wanted integer) TO service_role;

REVOKE ALL ON FUNCTION private.best_rated_after(rating numeric, last_id uuid, wanted integer) FROM PUBLIC;
GRANT ALL ON FUNCTION private.best_rated_after(rating numeric, last_id uuid, wanted integer) TO anon;
GRANT ALL ON FUNCTION private.best_rated_after(rating numeric, last_id uuid, wanted integer) TO authenticated;
GRANT ALL ON FUNCTION private.best_rated_after(rating numeric, last_id uuid, wanted integer) TO service_role;

REVOKE ALL ON FUNCTION private.can_see_adventure(wanted uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION private.can_see_adventure(wanted uuid) TO anon;
GRANT ALL ON FUNCTION private.can_see_adventure(wanted uuid) TO authenticated;
GRANT ALL ON FUNCTION private.can_see_adventure(wanted uuid) TO service_role;

REVOKE ALL ON FUNCTION private.change_hit_points(hero_id uuid, change integer) FROM PUBLIC;
GRANT ALL ON FUNCTION private.change_hit_points(hero_id uuid, change integer) TO authenticated;
GRANT ALL ON FUNCTION private.change_hit_points(hero_id uuid, change integer) TO service_role;

REVOKE ALL ON FUNCTION private.check_adventure() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.check_character_limit() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.check_profile_change() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.check_readable() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.check_session_adventure() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.check_session_capacity() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.check_session_status() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.check_tutorial_step() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.sum_of_dice(results integer[]) FROM PUBLIC;
GRANT ALL ON FUNCTION private.sum_of_dice(results integer[]) TO authenticated;
GRANT ALL ON FUNCTION private.sum_of_dice(results integer[]) TO service_role;

REVOKE ALL ON FUNCTION private.sum_of_modifiers(modifiers jsonb, kind text) FROM PUBLIC;
GRANT ALL ON FUNCTION private.sum_of_modifiers(modifiers jsonb, kind text) TO authenticated;
GRANT ALL ON FUNCTION private.sum_of_modifiers(modifiers jsonb, kind text) TO service_role;

GRANT SELECT ON TABLE public.dice_rolls TO authenticated;
GRANT SELECT,INSERT ON TABLE public.dice_rolls TO service_role;

GRANT INSERT(id) ON TABLE public.dice_rolls TO authenticated;

GRANT INSERT(session_id) ON TABLE public.dice_rolls TO authenticated;

GRANT INSERT(character_id) ON TABLE public.dice_rolls TO authenticated;

GRANT INSERT(creature_id) ON TABLE public.dice_rolls TO authenticated;

GRANT INSERT(attribute) ON TABLE public.dice_rolls TO authenticated;

GRANT INSERT(difficulty) ON TABLE public.dice_rolls TO authenticated;

GRANT INSERT(roll_type) ON TABLE public.dice_rolls TO authenticated;

GRANT INSERT(modifiers) ON TABLE public.dice_rolls TO authenticated;

GRANT INSERT(description) ON TABLE public.dice_rolls TO authenticated;

GRANT INSERT(original_roll_id) ON TABLE public.dice_rolls TO authenticated;

REVOKE ALL ON FUNCTION private.claim_heroic_save(save public.dice_rolls) FROM PUBLIC;

REVOKE ALL ON FUNCTION private.clean_events(batch integer) FROM PUBLIC;
GRANT ALL ON FUNCTION private.clean_events(batch integer) TO service_role;

REVOKE ALL ON FUNCTION private.cleanup_old_events() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.close_account(account_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION private.close_account(account_id uuid) TO authenticated;
GRANT ALL ON FUNCTION private.close_account(account_id uuid) TO service_role;

REVOKE ALL ON FUNCTION private.count_seats() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.create_profile(account_id uuid, account_email text, metadata jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION private.delete_own_history() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.erase_account(account_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION private.generate_session_code() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.give_heroic_saves_back() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.handle_changed_user() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.handle_new_user() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.initiative_order(rolls uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION private.initiative_order(rolls uuid[]) TO authenticated;
GRANT ALL ON FUNCTION private.initiative_order(rolls uuid[]) TO service_role;

REVOKE ALL ON FUNCTION private.is_at_table(wanted uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION private.is_at_table(wanted uuid) TO authenticated;

REVOKE ALL ON FUNCTION private.is_erased(account_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION private.is_public_archived_session(wanted uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION private.is_public_archived_session(wanted uuid) TO authenticated;

REVOKE ALL ON FUNCTION private.is_public_session(wanted uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION private.is_public_session(wanted uuid) TO authenticated;

REVOKE ALL ON FUNCTION private.is_readable(document jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION private.is_readable(document jsonb) TO authenticated;
GRANT ALL ON FUNCTION private.is_readable(document jsonb) TO service_role;

REVOKE ALL ON FUNCTION private.is_seer(wanted uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION private.is_seer(wanted uuid) TO authenticated;

REVOKE ALL ON FUNCTION private.is_server() FROM PUBLIC;
GRANT ALL ON FUNCTION private.is_server() TO anon;
GRANT ALL ON FUNCTION private.is_server() TO authenticated;
GRANT ALL ON FUNCTION private.is_server() TO service_role;

GRANT SELECT ON TABLE public.session_players TO authenticated;
GRANT SELECT,INSERT,DELETE ON TABLE public.session_players TO service_role;

GRANT INSERT(session_id) ON TABLE public.session_players TO authenticated;

GRANT INSERT(user_id) ON TABLE public.session_players TO authenticated;

GRANT INSERT(character_id),UPDATE(character_id) ON TABLE public.session_players TO authenticated;
GRANT UPDATE(character_id) ON TABLE public.session_players TO service_role;

GRANT INSERT(is_active),UPDATE(is_active) ON TABLE public.session_players TO authenticated;
GRANT UPDATE(is_active) ON TABLE public.session_players TO service_role;

GRANT UPDATE(heroic_saves_used) ON TABLE public.session_players TO service_role;

GRANT UPDATE(joined_at) ON TABLE public.session_players TO service_role;

GRANT UPDATE(left_at) ON TABLE public.session_players TO service_role;

GRANT UPDATE(heroic_saves_encounter) ON TABLE public.session_players TO service_role;

REVOKE ALL ON FUNCTION private.join_by_code(session_code text, hero uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION private.join_by_code(session_code text, hero uuid) TO authenticated;

REVOKE ALL ON FUNCTION private.may_roll(wanted uuid, hero uuid, creature uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION private.may_roll(wanted uuid, hero uuid, creature uuid) TO authenticated;

REVOKE ALL ON FUNCTION private.may_take_seat(wanted uuid, player uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION private.may_take_seat(wanted uuid, player uuid) TO authenticated;

REVOKE ALL ON FUNCTION private.most_played_adventures(place integer, last_id uuid, wanted integer) FROM PUBLIC;
GRANT ALL ON FUNCTION private.most_played_adventures(place integer, last_id uuid, wanted integer) TO anon;
GRANT ALL ON FUNCTION private.most_played_adventures(place integer, last_id uuid, wanted integer) TO authenticated;
GRANT ALL ON FUNCTION private.most_played_adventures(place integer, last_id uuid, wanted integer) TO service_role;

REVOKE ALL ON FUNCTION private.my_archived_session_ids() FROM PUBLIC;
GRANT ALL ON FUNCTION private.my_archived_session_ids() TO anon;
GRANT ALL ON FUNCTION private.my_archived_session_ids() TO authenticated;
GRANT ALL ON FUNCTION private.my_archived_session_ids() TO service_role;

REVOKE ALL ON FUNCTION private.my_email() FROM PUBLIC;
GRANT ALL ON FUNCTION private.my_email() TO authenticated;

REVOKE ALL ON FUNCTION private.my_session_ids() FROM PUBLIC;
GRANT ALL ON FUNCTION private.my_session_ids() TO anon;
GRANT ALL ON FUNCTION private.my_session_ids() TO authenticated;
GRANT ALL ON FUNCTION private.my_session_ids() TO service_role;

REVOKE ALL ON FUNCTION private.newest_adventures(place timestamp with time zone, last_id uuid, wanted integer) FROM PUBLIC;
GRANT ALL ON FUNCTION private.newest_adventures(place timestamp with time zone, last_id uuid, wanted integer) TO anon;
GRANT ALL ON FUNCTION private.newest_adventures(place timestamp with time zone, last_id uuid, wanted integer) TO authenticated;
GRANT ALL ON FUNCTION private.newest_adventures(place timestamp with time zone, last_id uuid, wanted integer) TO service_role;

REVOKE ALL ON FUNCTION private.number_event() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.number_game_state() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.owns_adventure(wanted uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION private.owns_adventure(wanted uuid) TO authenticated;

REVOKE ALL ON FUNCTION private.random_numbers(bound integer, wanted integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION private.refuse_erased(account_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION private.roll_dice() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.rolls_of_character(hero uuid, kind public.roll_type, begun timestamp with time zone, ended timestamp with time zone, last_at timestamp with time zone, last_id uuid, wanted integer) FROM PUBLIC;
GRANT ALL ON FUNCTION private.rolls_of_character(hero uuid, kind public.roll_type, begun timestamp with time zone, ended timestamp with time zone, last_at timestamp with time zone, last_id uuid, wanted integer) TO authenticated;
GRANT ALL ON FUNCTION private.rolls_of_character(hero uuid, kind public.roll_type, begun timestamp with time zone, ended timestamp with time zone, last_at timestamp with time zone, last_id uuid, wanted integer) TO service_role;

REVOKE ALL ON FUNCTION private.session_by_code(session_code text) FROM PUBLIC;
GRANT ALL ON FUNCTION private.session_by_code(session_code text) TO authenticated;
GRANT ALL ON FUNCTION private.session_by_code(session_code text) TO service_role;

REVOKE ALL ON FUNCTION private.session_details(wanted uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION private.session_details(wanted uuid) TO anon;
GRANT ALL ON FUNCTION private.session_details(wanted uuid) TO authenticated;
GRANT ALL ON FUNCTION private.session_details(wanted uuid) TO service_role;

REVOKE ALL ON FUNCTION private.tell_roll() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.tell_session_change() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.touch_updated_at() FROM PUBLIC;

REVOKE ALL ON FUNCTION private.tutorial_steps(path public.tutorial_path) FROM PUBLIC;

REVOKE ALL ON FUNCTION private.update_user_stats() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.get_session_details(p_session_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.get_session_details(p_session_id uuid) TO anon;
GRANT ALL ON FUNCTION public.get_session_details(p_session_id uuid) TO authenticated;
GRANT ALL ON FUNCTION public.get_session_details(p_session_id uuid) TO service_role;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE auth.users TO service_role;

GRANT SELECT ON TABLE public.archived_dice_rolls TO authenticated;
GRANT SELECT ON TABLE public.archived_dice_rolls TO service_role;

GRANT SELECT ON TABLE public.archived_session_players TO authenticated;
GRANT SELECT ON TABLE public.archived_session_players TO service_role;

GRANT SELECT ON TABLE public.archived_sessions TO anon;
GRANT SELECT ON TABLE public.archived_sessions TO authenticated;
GRANT SELECT ON TABLE public.archived_sessions TO service_role;

GRANT SELECT,DELETE ON TABLE public.characters TO authenticated;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.characters TO service_role;

GRANT INSERT(id) ON TABLE public.characters TO authenticated;

GRANT INSERT(user_id) ON TABLE public.characters TO authenticated;

GRANT INSERT(name),UPDATE(name) ON TABLE public.characters TO authenticated;

GRANT INSERT(class) ON TABLE public.characters TO authenticated;

GRANT INSERT(might) ON TABLE public.characters TO authenticated;

GRANT INSERT(grace) ON TABLE public.characters TO authenticated;

GRANT INSERT(wit) ON TABLE public.characters TO authenticated;

GRANT INSERT(heart) ON TABLE public.characters TO authenticated;

GRANT UPDATE(hit_points) ON TABLE public.characters TO authenticated;

GRANT INSERT(equipment),UPDATE(equipment) ON TABLE public.characters TO authenticated;

GRANT INSERT(special_ability),UPDATE(special_ability) ON TABLE public.characters TO authenticated;

GRANT UPDATE(retired_at) ON TABLE public.characters TO authenticated;

GRANT SELECT ON TABLE public.creatures TO anon;
GRANT SELECT,DELETE ON TABLE public.creatures TO authenticated;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.creatures TO service_role;

GRANT INSERT(id) ON TABLE public.creatures TO authenticated;

GRANT INSERT(adventure_id) ON TABLE public.creatures TO authenticated;

GRANT INSERT(name),UPDATE(name) ON TABLE public.creatures TO authenticated;

GRANT INSERT(description),UPDATE(description) ON TABLE public.creatures TO authenticated;

GRANT INSERT(stats),UPDATE(stats) ON TABLE public.creatures TO authenticated;

GRANT INSERT(abilities),UPDATE(abilities) ON TABLE public.creatures TO authenticated;

GRANT INSERT(hit_points),UPDATE(hit_points) ON TABLE public.creatures TO authenticated;

GRANT INSERT(armor),UPDATE(armor) ON TABLE public.creatures TO authenticated;

GRANT SELECT ON TABLE public.session_events TO authenticated;
GRANT SELECT,INSERT,DELETE ON TABLE public.session_events TO service_role;

GRANT INSERT(id) ON TABLE public.session_events TO authenticated;

GRANT INSERT(session_id) ON TABLE public.session_events TO authenticated;

GRANT INSERT(event_type) ON TABLE public.session_events TO authenticated;

GRANT INSERT(payload) ON TABLE public.session_events TO authenticated;

GRANT SELECT ON TABLE public.sessions TO anon;
GRANT SELECT ON TABLE public.sessions TO authenticated;
GRANT SELECT,DELETE ON TABLE public.sessions TO service_role;

GRANT INSERT(id) ON TABLE public.sessions TO authenticated;
GRANT INSERT(id) ON TABLE public.sessions TO service_role;

GRANT INSERT(seer_id) ON TABLE public.sessions TO authenticated;
GRANT INSERT(seer_id),UPDATE(seer_id) ON TABLE public.sessions TO service_role;

GRANT INSERT(adventure_id) ON TABLE public.sessions TO authenticated;
GRANT INSERT(adventure_id),UPDATE(adventure_id) ON TABLE public.sessions TO service_role;

GRANT INSERT(code),UPDATE(code) ON TABLE public.sessions TO service_role;

GRANT INSERT(is_public),UPDATE(is_public) ON TABLE public.sessions TO authenticated;
GRANT INSERT(is_public),UPDATE(is_public) ON TABLE public.sessions TO service_role;

GRANT INSERT(max_players),UPDATE(max_players) ON TABLE public.sessions TO authenticated;
GRANT INSERT(max_players),UPDATE(max_players) ON TABLE public.sessions TO service_role;

GRANT INSERT(looking_for),UPDATE(looking_for) ON TABLE public.sessions TO authenticated;
GRANT INSERT(looking_for),UPDATE(looking_for) ON TABLE public.sessions TO service_role;

GRANT INSERT(scheduled_start),UPDATE(scheduled_start) ON TABLE public.sessions TO authenticated;
GRANT INSERT(scheduled_start),UPDATE(scheduled_start) ON TABLE public.sessions TO service_role;

GRANT UPDATE(status) ON TABLE public.sessions TO authenticated;
GRANT INSERT(status),UPDATE(status) ON TABLE public.sessions TO service_role;

GRANT UPDATE(current_scene_id) ON TABLE public.sessions TO authenticated;
GRANT INSERT(current_scene_id),UPDATE(current_scene_id) ON TABLE public.sessions TO service_role;

GRANT UPDATE(current_encounter_id) ON TABLE public.sessions TO authenticated;
GRANT INSERT(current_encounter_id),UPDATE(current_encounter_id) ON TABLE public.sessions TO service_role;

GRANT UPDATE(game_state) ON TABLE public.sessions TO authenticated;
GRANT INSERT(game_state),UPDATE(game_state) ON TABLE public.sessions TO service_role;

GRANT INSERT(started_at),UPDATE(started_at) ON TABLE public.sessions TO service_role;

GRANT INSERT(ended_at),UPDATE(ended_at) ON TABLE public.sessions TO service_role;

GRANT INSERT(created_at),UPDATE(created_at) ON TABLE public.sessions TO service_role;

GRANT INSERT(updated_at),UPDATE(updated_at) ON TABLE public.sessions TO service_role;

GRANT SELECT ON TABLE public.tutorial_progress TO authenticated;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.tutorial_progress TO service_role;

GRANT INSERT(user_id) ON TABLE public.tutorial_progress TO authenticated;

GRANT INSERT(path),UPDATE(path) ON TABLE public.tutorial_progress TO authenticated;

GRANT INSERT(current_step),UPDATE(current_step) ON TABLE public.tutorial_progress TO authenticated;

GRANT INSERT(completed_steps),UPDATE(completed_steps) ON TABLE public.tutorial_progress TO authenticated;

GRANT INSERT(completed_at),UPDATE(completed_at) ON TABLE public.tutorial_progress TO authenticated;

GRANT INSERT(skipped),UPDATE(skipped) ON TABLE public.tutorial_progress TO authenticated;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.users TO service_role;

GRANT SELECT(id) ON TABLE public.users TO anon;
GRANT SELECT(id) ON TABLE public.users TO authenticated;

GRANT SELECT(display_name) ON TABLE public.users TO anon;
GRANT SELECT(display_name),UPDATE(display_name) ON TABLE public.users TO authenticated;

GRANT SELECT(avatar_url) ON TABLE public.users TO anon;
GRANT SELECT(avatar_url),UPDATE(avatar_url) ON TABLE public.users TO authenticated;

GRANT SELECT(bio) ON TABLE public.users TO anon;
GRANT SELECT(bio),UPDATE(bio) ON TABLE public.users TO authenticated;

GRANT SELECT(is_verified) ON TABLE public.users TO anon;
GRANT SELECT(is_verified) ON TABLE public.users TO authenticated;

GRANT SELECT(games_played) ON TABLE public.users TO anon;
GRANT SELECT(games_played) ON TABLE public.users TO authenticated;

GRANT SELECT(games_run) ON TABLE public.users TO anon;
GRANT SELECT(games_run) ON TABLE public.users TO authenticated;

GRANT SELECT(created_at) ON TABLE public.users TO anon;
GRANT SELECT(created_at) ON TABLE public.users TO authenticated;

GRANT SELECT(updated_at) ON TABLE public.users TO anon;
GRANT SELECT(updated_at) ON TABLE public.users TO authenticated;

