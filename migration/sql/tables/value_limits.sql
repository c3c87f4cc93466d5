-- These check constraints limit the length of texts, the size of documents, the form of picture URLs, and the range of
-- times, because clients of the API write such values directly. PostgreSQL evaluates check constraints in the order of
-- their names. The names of the size limits (`bounded_...`) sort before those of the check constraints that parse a
-- document, so that an oversized document is refused before it is parsed.
--
-- A picture's URL must begin with http:// or https://, or have no scheme at all (a path in Supabase's storage). A
-- `javascript:` URL would run as code in a page that links to it. Browsers ignore blanks before a scheme and line
-- breaks within it, so a pattern that only refused `javascript:` could be evaded. The pattern below therefore refuses
-- every text with a colon before the first `/`, `?` or `#`, unless the text begins with http:// or https://.
ALTER TABLE public.users
  ADD CONSTRAINT bounded_display_name CHECK (char_length(display_name) BETWEEN 1 AND 100),
  ADD CONSTRAINT bounded_avatar_url CHECK (char_length(avatar_url) <= 2000),
  ADD CONSTRAINT web_avatar_url CHECK (avatar_url ~* '^(https?://[^\s/]\S*|[^:/?#]*([/?#].*)?)$'),
  ADD CONSTRAINT bounded_bio CHECK (char_length(bio) <= 2000);

ALTER TABLE public.characters
  ADD CONSTRAINT bounded_equipment CHECK (pg_column_size(equipment) <= 65536),
  ADD CONSTRAINT bounded_special_ability CHECK (pg_column_size(special_ability) <= 16384);

ALTER TABLE public.adventures
  ADD CONSTRAINT bounded_description CHECK (char_length(description) <= 10000),
  ADD CONSTRAINT bounded_thumbnail_url CHECK (char_length(thumbnail_url) <= 2000),
  ADD CONSTRAINT bounded_artwork_url CHECK (char_length(artwork_url) <= 2000),
  ADD CONSTRAINT web_thumbnail_url CHECK (thumbnail_url ~* '^(https?://[^\s/]\S*|[^:/?#]*([/?#].*)?)$'),
  ADD CONSTRAINT web_artwork_url CHECK (artwork_url ~* '^(https?://[^\s/]\S*|[^:/?#]*([/?#].*)?)$'),
  ADD CONSTRAINT bounded_content CHECK (pg_column_size(content) <= 1048576);

ALTER TABLE public.creatures
  ADD CONSTRAINT bounded_description CHECK (char_length(description) <= 5000),
  ADD CONSTRAINT bounded_stats CHECK (pg_column_size(stats) <= 16384),
  ADD CONSTRAINT bounded_abilities CHECK (pg_column_size(abilities) <= 65536);

ALTER TABLE public.sessions
  ADD CONSTRAINT bounded_looking_for CHECK (char_length(looking_for) <= 500),
  ADD CONSTRAINT bounded_schedule
    CHECK (scheduled_start >= '2000-01-01 00:00+00' AND scheduled_start < '3000-01-01 00:00+00'),
  ADD CONSTRAINT bounded_scene CHECK (char_length(current_scene_id) <= 200),
  ADD CONSTRAINT bounded_encounter CHECK (char_length(current_encounter_id) <= 200),
  ADD CONSTRAINT bounded_game_state CHECK (pg_column_size(game_state) <= 262144);

-- Only the payloads of client events (their type begins with `client.`), which participants send, are limited here. All
-- other events are written by the database or by the service, and can contain a whole `game_state`.
ALTER TABLE public.session_events
  ADD CONSTRAINT bounded_payload CHECK (NOT starts_with(event_type, 'client.') OR pg_column_size(payload) <= 16384);

ALTER TABLE public.dice_rolls
  ADD CONSTRAINT bounded_description CHECK (char_length(description) <= 500),
  ADD CONSTRAINT bounded_modifiers CHECK (pg_column_size(modifiers) <= 8192);

-- PostgreSQL accepts `infinity` and the year 294,276 as times, but such values crash many clients, among them the Rust
-- crate `service`. In the columns of type `timestamptz`, triggers replace what a user writes, except in
-- `scheduled_start`, which also has a check of its own (`bounded_schedule`). But the service (role `service_role`) can
-- write most of these columns itself.
DO $$
DECLARE
  relation text;
  time_column_list text;
BEGIN
  FOREACH relation IN ARRAY ARRAY[
    'users', 'characters', 'adventures', 'creatures', 'sessions', 'session_players', 'dice_rolls', 'session_events',
    'tutorial_progress', 'archived_sessions', 'archived_session_players', 'archived_dice_rolls'
  ]
  LOOP
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
    INTO time_column_list
    FROM pg_attribute
    WHERE attrelid = format('public.%I', relation)::regclass AND attnum > 0 AND atttypid = 'timestamptz'::regtype;
    EXECUTE format(
      'ALTER TABLE public.%1$I ADD CONSTRAINT bounded_times
         CHECK (LEAST(%2$s) >= ''2000-01-01 00:00+00'' AND GREATEST(%2$s) < ''3000-01-01 00:00+00'')',
      relation, time_column_list
    );
  END LOOP;
END
$$;
