-- The invariants of the schema, as one query that must return no row:
-- `psql "$DATABASE_URL" -f migration/sql/invariants.sql`.
--
-- Constraints and triggers maintain the invariants. A row in the result means that a constraint or trigger was
-- disabled, that a restore was incomplete, that there is a bug, or that a statement of the role `service_role` wrote
-- what only triggers should write (such as a `dice_rolled` event). The query reads most tables whole, so run it while
-- the server is not busy, on a replica if there is one. Run it as the tables' owner, whom row security does not limit.
--
-- A *live* session is one that has not ended. An *active* seat is one that its player holds now, and a *live* seat is
-- an active seat in a live session. A *living* character is one that is not retired. An account (a row in `auth.users`)
-- has a *profile* in `public.users`, which may stay when the account is deleted, and a *gate* in
-- `private.account_gates`.
WITH live_sessions AS (
  SELECT * FROM public.sessions WHERE status NOT IN ('completed', 'cancelled')
),
seat_counts AS (
  SELECT session_id, count(*) FILTER (WHERE is_active) AS active_seats FROM public.session_players GROUP BY session_id
),
every_seat AS (
  SELECT session_id, user_id FROM public.session_players
  UNION ALL
  SELECT session_id, user_id FROM public.archived_session_players
),
-- The sessions that `games_played`, `games_run` and `times_played` count: completed ones in which somebody besides the
-- Seer had a seat.
counted_sessions AS (
  SELECT session.id, session.seer_id, session.adventure_id
  FROM (
    SELECT id, seer_id, adventure_id, status FROM public.sessions
    UNION ALL
    SELECT id, seer_id, adventure_id, status FROM public.archived_sessions
  ) AS session
  WHERE session.status = 'completed'
    AND EXISTS (SELECT FROM every_seat AS seat WHERE seat.session_id = session.id AND seat.user_id <> session.seer_id)
)
SELECT 'sessions.seats_taken is the number of active seats' AS invariant, session.id::text AS row,
  format('counter %s, actual %s', session.seats_taken, coalesce(seat_counts.active_seats, 0)) AS detail
FROM public.sessions AS session LEFT JOIN seat_counts ON seat_counts.session_id = session.id
WHERE session.seats_taken <> coalesce(seat_counts.active_seats, 0)
UNION ALL
SELECT 'a session has at most max_players active seats', session.id::text,
  format('%s of %s', seat_counts.active_seats, session.max_players)
FROM public.sessions AS session JOIN seat_counts ON seat_counts.session_id = session.id
WHERE seat_counts.active_seats > session.max_players
UNION ALL
SELECT 'the counters of an account are correct and within their limits', profile.id::text,
  format('counters %s, actual %s', counters, actual_counts)
FROM public.users AS profile
CROSS JOIN LATERAL (
  SELECT
    ARRAY[
      profile.living_characters, profile.retired_characters, profile.live_seats, profile.live_sessions,
      profile.adventure_count
    ] AS counters,
    ARRAY[
      (SELECT count(*) FROM public.characters WHERE user_id = profile.id AND retired_at IS NULL),
      (SELECT count(*) FROM public.characters WHERE user_id = profile.id AND retired_at IS NOT NULL),
      (
        SELECT count(*)
        FROM public.session_players AS seat JOIN live_sessions ON live_sessions.id = seat.session_id
        WHERE seat.user_id = profile.id AND seat.is_active
      ),
      (SELECT count(*) FROM live_sessions WHERE live_sessions.seer_id = profile.id),
      (SELECT count(*) FROM public.adventures WHERE creator_id = profile.id)
    ]::integer[] AS actual_counts
) AS counts
WHERE counters <> actual_counts
  -- The limits, in the order of the array.
  OR actual_counts[1] > 10 OR actual_counts[2] > 100 OR actual_counts[3] > 20 OR actual_counts[4] > 20
  OR actual_counts[5] > 200
UNION ALL
SELECT 'characters.live_seats is the number of live seats', character.id::text,
  format('counter %s, actual %s', character.live_seats, actual.seats)
FROM public.characters AS character
CROSS JOIN LATERAL (
  SELECT count(*) AS seats
  FROM public.session_players AS seat JOIN live_sessions ON live_sessions.id = seat.session_id
  WHERE seat.character_id = character.id AND seat.is_active
) AS actual
WHERE character.live_seats <> actual.seats
UNION ALL
SELECT 'adventures.creature_count is the number of creatures', adventure.id::text,
  format('counter %s, actual %s', adventure.creature_count, actual.creatures)
FROM public.adventures AS adventure
CROSS JOIN LATERAL (
  SELECT count(*) AS creatures FROM public.creatures WHERE adventure_id = adventure.id
) AS actual
WHERE adventure.creature_count <> actual.creatures
UNION ALL
SELECT 'the gate of an account is open if and only if the account is', profile.id::text, profile.closed_at::text
FROM public.users AS profile
LEFT JOIN private.account_gates AS gate ON gate.account_id = profile.id
WHERE gate.is_open IS DISTINCT FROM (profile.closed_at IS NULL)
UNION ALL
SELECT 'an active seat in a live session has a living character of its player', seat.session_id::text,
  seat.user_id::text
FROM public.session_players AS seat
JOIN live_sessions ON live_sessions.id = seat.session_id
JOIN public.characters AS character ON character.id = seat.character_id
WHERE seat.is_active AND (character.user_id <> seat.user_id OR character.retired_at IS NOT NULL)
UNION ALL
SELECT 'a seat has left_at if and only if it is inactive', session_id::text, user_id::text
FROM public.session_players
WHERE is_active = (left_at IS NOT NULL)
UNION ALL
SELECT 'a session has started_at and ended_at as its status requires', id::text, status::text
FROM public.sessions
WHERE (status IN ('completed', 'cancelled')) <> (ended_at IS NOT NULL)
  OR (status IN ('active', 'paused', 'completed') AND started_at IS NULL)
UNION ALL
SELECT 'a heroic save has the parameters of its original roll, which failed and is no heroic save', save.id::text,
  original_roll.id::text
FROM public.dice_rolls AS save
JOIN public.dice_rolls AS original_roll ON original_roll.id = save.original_roll_id
WHERE original_roll.session_id <> save.session_id
  OR original_roll.character_id IS DISTINCT FROM save.character_id
  OR original_roll.success
  OR original_roll.roll_type = 'heroic_save'
  OR original_roll.attribute <> save.attribute
  OR original_roll.difficulty <> save.difficulty
UNION ALL
SELECT 'a roll has at most one heroic save', original_roll_id::text, count(*)::text
FROM public.dice_rolls
WHERE original_roll_id IS NOT NULL
GROUP BY original_roll_id
HAVING count(*) > 1
UNION ALL
SELECT 'a seat uses at most one heroic save per encounter', session_id::text,
  format('%s used in encounter %s', heroic_saves_used, heroic_saves_encounter)
FROM public.session_players
WHERE heroic_saves_used > 1
UNION ALL
SELECT 'a creature rolls only in sessions of its adventure', roll.id::text, roll.creature_id::text
FROM public.dice_rolls AS roll
JOIN public.creatures AS creature ON creature.id = roll.creature_id
JOIN public.sessions AS session ON session.id = roll.session_id
WHERE creature.adventure_id <> session.adventure_id
UNION ALL
-- This query checks only the rolls of the last 23 hours, because events that are 24 hours old are deleted.
SELECT 'every roll has an event', roll.id::text, roll.session_id::text
FROM public.dice_rolls AS roll
WHERE roll.created_at BETWEEN now() - INTERVAL '23 hours' AND now()
  AND NOT EXISTS (
    SELECT FROM public.session_events AS event
    WHERE event.session_id = roll.session_id
      AND event.event_type = 'dice_rolled'
      AND event.payload ->> 'roll_id' = roll.id::text
  )
UNION ALL
SELECT 'every dice_rolled event has a roll', event.id::text, event.payload ->> 'roll_id'
FROM public.session_events AS event
WHERE event.event_type = 'dice_rolled'
  AND NOT EXISTS (SELECT FROM public.dice_rolls AS roll WHERE roll.id::text = event.payload ->> 'roll_id')
UNION ALL
SELECT 'the last session_status event has the session''s status', session.id::text, latest.status
FROM public.sessions AS session
CROSS JOIN LATERAL (
  SELECT event.payload ->> 'to' AS status
  FROM public.session_events AS event
  WHERE event.session_id = session.id AND event.event_type = 'session_status'
  ORDER BY event.seq DESC
  LIMIT 1
) AS latest
WHERE latest.status <> session.status::text
UNION ALL
-- The counters in the next three queries also count sessions that have been deleted since, so they can be higher than
-- the numbers of sessions that exist, but not lower.
SELECT 'users.games_run is at least the number of counted sessions that still exist', profile.id::text,
  format('counter %s, existing %s', profile.games_run, existing.session_count)
FROM public.users AS profile
JOIN (
  SELECT seer_id, count(*) AS session_count FROM counted_sessions GROUP BY seer_id
) AS existing ON existing.seer_id = profile.id
WHERE profile.games_run < existing.session_count
UNION ALL
SELECT 'users.games_played is at least the number of counted sessions that still exist', profile.id::text,
  format('counter %s, existing %s', profile.games_played, existing.session_count)
FROM public.users AS profile
JOIN (
  SELECT seat.user_id, count(*) AS session_count
  FROM every_seat AS seat JOIN counted_sessions AS session ON session.id = seat.session_id
  GROUP BY seat.user_id
) AS existing ON existing.user_id = profile.id
WHERE profile.games_played < existing.session_count
UNION ALL
SELECT 'adventures.times_played is at least the number of counted sessions that still exist', adventure.id::text,
  format('counter %s, existing %s', adventure.times_played, existing.session_count)
FROM public.adventures AS adventure
JOIN (
  SELECT adventure_id, count(*) AS session_count FROM counted_sessions GROUP BY adventure_id
) AS existing ON existing.adventure_id = adventure.id
WHERE adventure.times_played < existing.session_count
UNION ALL
SELECT 'a session is not in both sessions and archived_sessions', session.id::text, archived.archived_at::text
FROM public.sessions AS session JOIN public.archived_sessions AS archived ON archived.id = session.id
UNION ALL
SELECT 'a roll is not in both dice_rolls and archived_dice_rolls', roll.id::text, archived.session_id::text
FROM public.dice_rolls AS roll JOIN public.archived_dice_rolls AS archived ON archived.id = roll.id
UNION ALL
SELECT 'a closed account has no live seat, live session, draft or personal data', profile.id::text, leftover.description
FROM public.users AS profile
CROSS JOIN LATERAL (
  SELECT 'seat ' || seat.session_id AS description
  FROM public.session_players AS seat JOIN live_sessions ON live_sessions.id = seat.session_id
  WHERE seat.user_id = profile.id AND seat.is_active
  UNION ALL
  SELECT 'session ' || live_sessions.id FROM live_sessions WHERE live_sessions.seer_id = profile.id
  UNION ALL
  SELECT 'adventure ' || draft.id FROM public.adventures AS draft
  WHERE draft.creator_id = profile.id AND draft.status = 'draft'
  UNION ALL
  SELECT 'e-mail address, name, picture or description'
  WHERE profile.email <> profile.id || '@deleted.invalid'
    OR profile.display_name <> 'Former player'
    OR profile.avatar_url IS NOT NULL
    OR profile.bio IS NOT NULL
) AS leftover
WHERE profile.closed_at IS NOT NULL
UNION ALL
SELECT 'the profile of a deleted account is closed', profile.id::text, profile.created_at::text
FROM public.users AS profile
WHERE profile.account_id IS NULL
  AND profile.closed_at IS NULL
UNION ALL
SELECT 'every account has a profile', account.id::text, account.created_at::text
FROM auth.users AS account
WHERE NOT EXISTS (
  SELECT FROM public.users AS profile WHERE profile.id = account.id AND profile.account_id = account.id
);
