-- The rows on which the statements of `statements.rs` run. `@name` is an id: see `world.rs`.
--
-- Each limit has one place left: a tenth character, a seat. Ada and Bob both have seats in sessions of two Seers, whose
-- rows were inserted in opposite orders, so that statements over several rows find them in opposite orders too.
INSERT INTO auth.users (id, email) VALUES
  (@zoe, 'zoe@example.org'), (@bob, 'bob@example.org'), (@ada, 'ada@example.org'),
  (@eve, 'eve@example.org'), (@seer, 'seer@example.org');

INSERT INTO characters (id, user_id, name, class, might, grace, wit, heart, special_ability)
SELECT hero.id::uuid, hero.owner::uuid, hero.name, 'warrior', 5, 3, 2, 2, '{}'
FROM (VALUES
  (@bob1, @bob, 'Bob one'), (@ada1, @ada, 'Ada one'), (@ada2, @ada, 'Ada two'), (@ada3, @ada, 'Ada three'),
  (@adaold, @ada, 'Ada old'), (@bob2, @bob, 'Bob two'), (@eve1, @eve, 'Eve one'), (@zoe1, @zoe, 'Zoe one'),
  (@seer1, @seer, 'Seer one')
) AS hero (id, owner, name);
UPDATE characters SET retired_at = now() WHERE id = @adaold;
INSERT INTO characters (user_id, name, class, might, grace, wit, heart, special_ability)
SELECT @ada::uuid, 'Spare ' || number, 'rogue', 2, 5, 3, 2, '{}' FROM generate_series(1, 6) AS number;

INSERT INTO tutorial_progress (user_id) VALUES (@ada);

INSERT INTO adventures (id, creator_id, name, status, is_valid) VALUES
  (@ford, @seer, 'The Drowned Ford', 'published', true),
  (@draft, @seer, 'A draft', 'draft', true),
  (@mill, @zoe, 'The Burnt Mill', 'published', true),
  (@tower, @zoe, 'The Sunken Tower', 'published', true),
  (@own, @zoe, 'A draft that is played', 'draft', true);
INSERT INTO creatures (id, adventure_id, name) VALUES (@wolf, @ford, 'Wolf'), (@rat, @draft, 'Rat');

INSERT INTO sessions (id, seer_id, adventure_id, code, is_public, max_players, created_at) VALUES
  (@zoepaused, @zoe, @mill, 'PAUSED', false, 4, now()),
  (@zoewaits, @zoe, @mill, 'ZWAITS', true, 4, now()),
  (@zoeown, @zoe, @own, 'ZOEXWN', true, 4, now()),
  (@onewaits, @seer, @ford, 'WAITSX', true, 2, now()),
  (@hidden, @seer, @ford, 'HIDDEN', false, 3, now()),
  (@plays, @seer, @ford, 'PLAYSX', false, 4, now()),
  (@again, @seer, @ford, 'AGAINX', true, 3, now()),
  (@over, @seer, @ford, 'OVERXX', false, 4, now() - INTERVAL '400 days'),
  (@pin, @eve, @tower, 'PINXXX', false, 4, now() - INTERVAL '400 days'),
  (@forgotten, @eve, @ford, 'FORGOT', false, 4, now() - INTERVAL '60 days');

INSERT INTO session_players (session_id, user_id, character_id) VALUES
  (@zoepaused, @bob, @bob1), (@zoepaused, @ada, @ada1),
  (@zoewaits, @ada, @ada1),
  (@zoeown, @bob, @bob1),
  (@onewaits, @bob, @bob1),
  (@hidden, @zoe, @zoe1), (@hidden, @bob, @bob1),
  (@plays, @ada, @ada1), (@plays, @bob, @bob1),
  (@again, @bob, @bob1), (@again, @ada, @ada1), (@again, @eve, @eve1),
  (@over, @bob, @bob1), (@over, @ada, @ada1),
  (@forgotten, @bob, @bob2);
UPDATE session_players SET is_active = false WHERE session_id = @again AND user_id IN (@ada, @eve);
UPDATE sessions SET status = 'active' WHERE id IN (@zoepaused, @plays, @over);
UPDATE sessions SET status = 'paused' WHERE id = @zoepaused;
UPDATE sessions SET status = 'completed', ended_at = now() - INTERVAL '399 days' WHERE id = @over;
UPDATE sessions SET status = 'cancelled', ended_at = now() - INTERVAL '399 days' WHERE id = @pin;

-- In the future, where a heroic save is never too late.
INSERT INTO dice_rolls (id, session_id, character_id, attribute, difficulty, roll_type, results, created_at) VALUES
  (@failed, @plays, @ada1, 'might', 18, 'attack', '{1,2}', now() + INTERVAL '1 day'),
  (@failed2, @plays, @ada1, 'wit', 18, 'attack', '{1,2}', now() + INTERVAL '1 day');
INSERT INTO session_events (session_id, event_type, created_at)
SELECT @plays, 'client.old', now() - INTERVAL '2 days' FROM generate_series(1, 3);
