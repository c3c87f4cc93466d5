-- The rows on which the statements of `statements.rs` run. `@name` is an id: see `game_database.rs`.
--
-- Some limits allow exactly one more row, so that two statements compete for it: Ada has nine of at most ten
-- characters that are not retired, and the waiting sessions @one_seat_free (public) and @private have one free seat
-- each. Ada and Bob both have a seat in @zoe_paused, whose Seer is Zoe, and in @active, whose Seer is the user @seer.
-- Bob's seat is inserted before Ada's in the first, and after it in the second. So if Zoe and @seer each change both
-- seats in one statement, their statements reach the rows of Ada and Bob (such as their profiles) in opposite orders.
INSERT INTO auth.users (id, email) VALUES
  (@zoe, 'zoe@example.org'), (@bob, 'bob@example.org'), (@ada, 'ada@example.org'),
  (@eve, 'eve@example.org'), (@seer, 'seer@example.org');

INSERT INTO characters (id, user_id, name, class, might, grace, wit, heart, special_ability)
SELECT id::uuid, owner::uuid, name, 'warrior', 5, 3, 2, 2, '{}'
FROM (VALUES
  (@bob1, @bob, 'Bob one'), (@ada1, @ada, 'Ada one'), (@ada2, @ada, 'Ada two'), (@ada3, @ada, 'Ada three'),
  (@ada_retired, @ada, 'Ada old'), (@bob2, @bob, 'Bob two'), (@eve1, @eve, 'Eve one'), (@zoe1, @zoe, 'Zoe one'),
  (@seer1, @seer, 'Seer one')
) AS new_character (id, owner, name);
UPDATE characters SET retired_at = now() WHERE id = @ada_retired;
INSERT INTO characters (user_id, name, class, might, grace, wit, heart, special_ability)
SELECT @ada::uuid, 'Spare ' || number, 'rogue', 2, 5, 3, 2, '{}' FROM generate_series(1, 6) AS number;

INSERT INTO tutorial_progress (user_id) VALUES (@ada);

INSERT INTO adventures (id, creator_id, name, status, is_valid) VALUES
  (@ford, @seer, 'The Drowned Ford', 'published', true),
  (@draft, @seer, 'A draft', 'draft', true),
  (@mill, @zoe, 'The Burnt Mill', 'published', true),
  (@tower, @zoe, 'The Sunken Tower', 'published', true),
  (@zoe_draft, @zoe, 'A draft that is played', 'draft', true);
INSERT INTO creatures (id, adventure_id, name) VALUES (@wolf, @ford, 'Wolf'), (@rat, @draft, 'Rat');

-- The sessions created 400 days ago ended more than 90 days ago, so they can be archived. The one created 60 days ago
-- has not started within a month of its creation, so it is abandoned.
INSERT INTO sessions (id, seer_id, adventure_id, code, is_public, max_players, created_at) VALUES
  (@zoe_paused, @zoe, @mill, 'PAUSED', false, 4, now()),
  (@zoe_waiting, @zoe, @mill, 'ZWAITS', true, 4, now()),
  (@zoe_draft_session, @zoe, @zoe_draft, 'ZDRAFT', true, 4, now()),
  (@one_seat_free, @seer, @ford, 'WAITSX', true, 2, now()),
  (@private, @seer, @ford, 'HIDDEN', false, 3, now()),
  (@active, @seer, @ford, 'PLAYSX', false, 4, now()),
  (@left_by_ada_and_eve, @seer, @ford, 'AGAINX', true, 3, now()),
  (@completed, @seer, @ford, 'OVERXX', false, 4, now() - INTERVAL '400 days'),
  (@empty_cancelled, @eve, @tower, 'CANCEL', false, 4, now() - INTERVAL '400 days'),
  (@abandoned, @eve, @ford, 'FORGOT', false, 4, now() - INTERVAL '60 days');

INSERT INTO session_players (session_id, user_id, character_id) VALUES
  (@zoe_paused, @bob, @bob1), (@zoe_paused, @ada, @ada1),
  (@zoe_waiting, @ada, @ada1),
  (@zoe_draft_session, @bob, @bob1),
  (@one_seat_free, @bob, @bob1),
  (@private, @zoe, @zoe1), (@private, @bob, @bob1),
  (@active, @ada, @ada1), (@active, @bob, @bob1),
  (@left_by_ada_and_eve, @bob, @bob1), (@left_by_ada_and_eve, @ada, @ada1), (@left_by_ada_and_eve, @eve, @eve1),
  (@completed, @bob, @bob1), (@completed, @ada, @ada1),
  (@abandoned, @bob, @bob2);
UPDATE session_players SET is_active = false WHERE session_id = @left_by_ada_and_eve AND user_id IN (@ada, @eve);
-- A session must become active before it can be paused or completed.
UPDATE sessions SET status = 'active' WHERE id IN (@zoe_paused, @active, @completed);
UPDATE sessions SET status = 'paused' WHERE id = @zoe_paused;
UPDATE sessions SET status = 'completed', ended_at = now() - INTERVAL '399 days' WHERE id = @completed;
UPDATE sessions SET status = 'cancelled', ended_at = now() - INTERVAL '399 days' WHERE id = @empty_cancelled;

-- Both rolls have failed (dice of 1 and 2 do not reach the difficulty of 18), so a heroic save can repeat each of them.
-- The rolls are dated in the future, so that a heroic save is never too late.
INSERT INTO dice_rolls (id, session_id, character_id, attribute, difficulty, roll_type, results, created_at) VALUES
  (@failed_roll_1, @active, @ada1, 'might', 18, 'attack', '{1,2}', now() + INTERVAL '1 day'),
  (@failed_roll_2, @active, @ada1, 'wit', 18, 'attack', '{1,2}', now() + INTERVAL '1 day');
-- Events older than a day. After each statement that inserts events, `cleanup_events_trigger` deletes such events. The
-- trigger is disabled here, so that the events below stay. While one transaction deletes the old events of @completed,
-- another can archive or delete that session.
ALTER TABLE session_events DISABLE TRIGGER cleanup_events_trigger;
INSERT INTO session_events (session_id, event_type, created_at)
SELECT session_id, 'client.old', now() - INTERVAL '2 days'
FROM unnest(ARRAY[@active, @completed]::uuid[]) AS session_id, generate_series(1, 3);
ALTER TABLE session_events ENABLE TRIGGER cleanup_events_trigger;
