-- What the tables of an earlier version lack. Each line changes nothing where it is there already.
ALTER TABLE public.sessions
  ADD COLUMN IF NOT EXISTS game_state_version integer NOT NULL DEFAULT 0
    CONSTRAINT sessions_game_state_version_check CHECK (game_state_version >= 0);
ALTER TABLE public.archived_sessions
  ADD COLUMN IF NOT EXISTS game_state_version integer NOT NULL DEFAULT 0
    CONSTRAINT archived_sessions_game_state_version_check CHECK (game_state_version >= 0);

-- Indexes that kept their name and grew by the order in which they are read.
DO $$
DECLARE
  grown record;
BEGIN
  FOR grown IN
    SELECT *
    FROM (
      VALUES
        ('idx_dice_rolls_type', 'public.dice_rolls (session_id, roll_type, created_at DESC, id)'),
        ('idx_dice_rolls_character', 'public.dice_rolls (character_id, created_at DESC, id)'),
        ('idx_session_events_created', 'public.session_events (session_id, created_at DESC, id)'),
        ('idx_adventures_creator_id', 'public.adventures (creator_id, created_at DESC, id)'),
        ('idx_adventures_published', 'public.adventures (published_at DESC, id) WHERE status = ''published''')
    ) AS indexes (name, definition)
    WHERE NOT EXISTS (
      SELECT
      FROM pg_catalog.pg_attribute
      WHERE attrelid = to_regclass('public.' || name)
        AND attname = 'id'
    )
  LOOP
    EXECUTE format('DROP INDEX IF EXISTS public.%I', grown.name);
    EXECUTE format('CREATE INDEX %I ON %s', grown.name, grown.definition);
  END LOOP;
END
$$;

CREATE INDEX IF NOT EXISTS idx_dice_rolls_history ON public.dice_rolls (session_id, created_at DESC, id);
CREATE INDEX IF NOT EXISTS idx_adventures_most_played
ON public.adventures (times_played DESC, id)
WHERE status = 'published';
CREATE INDEX IF NOT EXISTS idx_adventures_best_rated
ON public.adventures (average_rating DESC NULLS LAST, id)
WHERE status = 'published';

-- A function that tells something else than it did is made anew: its result cannot be replaced.
DO $$
DECLARE
  changed regprocedure;
BEGIN
  FOR changed IN
    SELECT oid::regprocedure
    FROM (
      VALUES
        ('private.join_by_code(text, uuid)', 'uuid'),
        ('private.newest_adventures(timestamptz, uuid, integer)', 'public.adventures'),
        ('private.most_played_adventures(integer, uuid, integer)', 'public.adventures'),
        ('private.best_rated_adventures(numeric, uuid, integer)', 'public.adventures')
    ) AS earlier (name, result)
    JOIN pg_catalog.pg_proc ON oid = to_regprocedure(name)
    WHERE prorettype = result::regtype
  LOOP
    EXECUTE format('DROP FUNCTION %s', changed);
  END LOOP;
END
$$;

-- Helpers that others took the place of.
DROP FUNCTION IF EXISTS
  private.display_name_of(jsonb, text),
  private.session_roster(uuid),
  private.session_adventure(uuid),
  private.session_company(uuid),
  private.can_see_session(uuid);
