-- Recomputes, from the rows themselves, the counters that limits depend on (of seats, characters, sessions, adventures
-- and creatures), and whether each account's gate (its row in `private.account_gates`) is open. Creates gates that are
-- missing. Run this script after rows were loaded with triggers disabled (`session_replication_role = replica`), or
-- when `invariants.sql` finds that one of these counters or gates is wrong. Run it in one transaction while nobody
-- writes, as a role that may set `session_replication_role`. The counters `games_played`, `games_run` and
-- `times_played` are not recomputed, because they include sessions that have been deleted.

-- Disables the triggers until the transaction ends, so that they neither count nor refuse what this script writes.
SET LOCAL session_replication_role = replica;

INSERT INTO private.account_gates (account_id)
SELECT id
FROM public.users
ON CONFLICT DO NOTHING;

UPDATE private.account_gates AS gate
SET is_open = profile.closed_at IS NULL
FROM public.users AS profile
WHERE profile.id = gate.account_id
  AND gate.is_open IS DISTINCT FROM (profile.closed_at IS NULL);

UPDATE public.sessions AS session
SET seats_taken = actual.seats
FROM (
  SELECT session.id, count(seat.user_id) AS seats
  FROM public.sessions AS session
  LEFT JOIN public.session_players AS seat ON seat.session_id = session.id AND seat.is_active
  GROUP BY session.id
) AS actual
WHERE actual.id = session.id
  AND session.seats_taken <> actual.seats;

UPDATE public.characters AS character
SET live_seats = actual.seats
FROM (
  SELECT character.id, count(session.id) AS seats
  FROM public.characters AS character
  LEFT JOIN public.session_players AS seat ON seat.character_id = character.id AND seat.is_active
  LEFT JOIN public.sessions AS session
    ON session.id = seat.session_id AND session.status NOT IN ('completed', 'cancelled')
  GROUP BY character.id
) AS actual
WHERE actual.id = character.id
  AND character.live_seats <> actual.seats;

UPDATE public.adventures AS adventure
SET creature_count = actual.creatures
FROM (
  SELECT adventure.id, count(creature.id) AS creatures
  FROM public.adventures AS adventure
  LEFT JOIN public.creatures AS creature ON creature.adventure_id = adventure.id
  GROUP BY adventure.id
) AS actual
WHERE actual.id = adventure.id
  AND adventure.creature_count <> actual.creatures;

UPDATE public.users AS profile
SET living_characters = coalesce(character_counts.living, 0),
    retired_characters = coalesce(character_counts.retired, 0),
    live_seats = coalesce(seat_counts.live, 0),
    live_sessions = coalesce(session_counts.live, 0),
    adventure_count = coalesce(adventure_counts.created, 0)
FROM public.users AS counted_profile
LEFT JOIN (
  SELECT
    user_id,
    count(*) FILTER (WHERE retired_at IS NULL) AS living,
    count(*) FILTER (WHERE retired_at IS NOT NULL) AS retired
  FROM public.characters
  GROUP BY user_id
) AS character_counts ON character_counts.user_id = counted_profile.id
LEFT JOIN (
  SELECT seat.user_id, count(*) AS live
  FROM public.session_players AS seat
  JOIN public.sessions AS session
    ON session.id = seat.session_id AND session.status NOT IN ('completed', 'cancelled')
  WHERE seat.is_active
  GROUP BY seat.user_id
) AS seat_counts ON seat_counts.user_id = counted_profile.id
LEFT JOIN (
  SELECT seer_id, count(*) AS live
  FROM public.sessions
  WHERE status NOT IN ('completed', 'cancelled')
  GROUP BY seer_id
) AS session_counts ON session_counts.seer_id = counted_profile.id
LEFT JOIN (
  SELECT creator_id, count(*) AS created
  FROM public.adventures
  GROUP BY creator_id
) AS adventure_counts ON adventure_counts.creator_id = counted_profile.id
WHERE counted_profile.id = profile.id
  AND (
    profile.living_characters, profile.retired_characters, profile.live_seats, profile.live_sessions,
    profile.adventure_count
  ) IS DISTINCT FROM (
    coalesce(character_counts.living, 0), coalesce(character_counts.retired, 0), coalesce(seat_counts.live, 0),
    coalesce(session_counts.live, 0), coalesce(adventure_counts.created, 0)
  );
