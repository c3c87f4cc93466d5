-- How long a text and how large a document may be, and when a session may begin: a client of the API writes them
-- directly. Documents are measured as they come, before they are packed; that costs no more than looking.
--
-- In a database that an earlier version let hold more, a bound that rows are beyond is left out and said: held, it would
-- refuse every later change of such a row, a seat's or a count's too. The next renewal tries again.
DO $$
DECLARE
  bound record;
BEGIN
  FOR bound IN
    SELECT *
    FROM (
      VALUES
        ('users', 'bounded_display_name', 'char_length(display_name) BETWEEN 1 AND 100'),
        ('users', 'bounded_avatar_url', 'char_length(avatar_url) <= 2000'),
        ('users', 'bounded_bio', 'char_length(bio) <= 2000'),
        ('characters', 'bounded_equipment', 'pg_column_size(equipment) <= 65536'),
        ('characters', 'bounded_special_ability', 'pg_column_size(special_ability) <= 16384'),
        ('adventures', 'bounded_description', 'char_length(description) <= 10000'),
        ('adventures', 'bounded_thumbnail_url', 'char_length(thumbnail_url) <= 2000'),
        ('adventures', 'bounded_artwork_url', 'char_length(artwork_url) <= 2000'),
        ('adventures', 'bounded_content', 'pg_column_size(content) <= 1048576'),
        ('creatures', 'bounded_description', 'char_length(description) <= 5000'),
        ('creatures', 'bounded_stats', 'pg_column_size(stats) <= 16384'),
        ('creatures', 'bounded_abilities', 'pg_column_size(abilities) <= 65536'),
        ('sessions', 'bounded_looking_for', 'char_length(looking_for) <= 500'),
        -- Infinity and the year 294,276 are dates to PostgreSQL, and the end of many a client.
        ('sessions', 'bounded_schedule', 'scheduled_start >= ''2000-01-01 00:00+00'' AND scheduled_start < ''3000-01-01 00:00+00'''),
        ('sessions', 'bounded_scene', 'char_length(current_scene_id) <= 200'),
        ('sessions', 'bounded_encounter', 'char_length(current_encounter_id) <= 200'),
        ('sessions', 'bounded_game_state', 'pg_column_size(game_state) <= 262144'),
        ('session_events', 'bounded_payload', 'NOT starts_with(event_type, ''client.'') OR pg_column_size(payload) <= 16384'),
        ('dice_rolls', 'bounded_description', 'char_length(description) <= 500'),
        ('dice_rolls', 'bounded_modifiers', 'pg_column_size(modifiers) <= 8192')
    ) AS bounds (relation, name, condition)
    WHERE NOT EXISTS (
      SELECT
      FROM pg_catalog.pg_constraint
      WHERE conrelid = ('public.' || relation)::regclass
        AND conname = name
    )
  LOOP
    IF bound.name = 'bounded_schedule' THEN
      UPDATE public.sessions
      SET scheduled_start = NULL
      WHERE scheduled_start < '2000-01-01 00:00+00'
        OR scheduled_start >= '3000-01-01 00:00+00';
    END IF;
    BEGIN
      EXECUTE format('ALTER TABLE public.%I ADD CONSTRAINT %I CHECK (%s)', bound.relation, bound.name, bound.condition);
    EXCEPTION
      WHEN check_violation THEN
        RAISE WARNING 'rows of % are beyond %: it is not held here', bound.relation, bound.name;
    END;
  END LOOP;
END
$$;
