//! An account with every kind of row that an account can have, and all writes that it may make.

use uuid::Uuid;

use crate::world::{
    GameSession, Person, World, insert_character_sql, insert_heroic_save_sql, insert_roll_sql, insert_seat_sql,
};

/// An account with every kind of row that an account can have, as Seer, player and author.
pub struct FullAccount {
    pub account: Uuid,
    pub person: Person,
    /// An active session that the account runs as Seer.
    pub live: GameSession,
    /// A completed session that the account ran as Seer.
    pub finished: GameSession,
    /// Another Seer's active session, where the account has a seat with `hero`.
    pub joined: GameSession,
    /// Another Seer's waiting session, where the account had a seat with `hero` and left it.
    pub left: GameSession,
    /// A waiting public session in which the account has no part.
    pub public_session: Uuid,
    pub hero: Uuid,
    /// A character that never had a seat.
    pub spare: Uuid,
    /// A published adventure of the account that nobody has played. It contains `creature`.
    pub published: Uuid,
    pub creature: Uuid,
    /// A failed roll of `hero` in `joined`, which a heroic save can repeat.
    pub failed_roll: Uuid,
}

pub async fn create_full_account(world: &World) -> FullAccount {
    let owner = world.owner();
    let (live, finished) = (world.new_active_session(2).await, world.new_active_session(2).await);
    let person = live.seer.clone();
    let account = person.user_id();
    let (hero, spare) = (world.new_character(account).await, world.new_character(account).await);
    owner
        .execute(&format!("UPDATE sessions SET seer_id = '{account}' WHERE id = '{}'", finished.session_id))
        .await
        .unwrap();
    world.update_session(&finished, "status = 'completed'").await;
    let (joined, left) = (world.new_session(1).await, world.new_session(1).await);
    for game in [&joined, &left] {
        owner.execute(&insert_seat_sql(game.session_id, account, hero)).await.unwrap();
    }
    world.update_session(&joined, "status = 'active'").await;
    let leave = format!(
        "UPDATE session_players SET is_active = false WHERE user_id = '{account}' AND session_id = '{}'",
        left.session_id
    );
    owner.execute(&leave).await.unwrap();
    let failed_roll = world.new_failed_roll(joined.session_id, hero).await;
    let public = world.new_session(0).await;
    world.update_session(&public, "is_public = true").await;
    let published = world.new_adventure(account).await;
    let sql = format!("INSERT INTO creatures (adventure_id, name) VALUES ('{published}', 'Wolf') RETURNING id");
    let creature = owner.fetch_value(&sql).await.unwrap();
    owner.execute(&format!("INSERT INTO tutorial_progress (user_id) VALUES ('{account}')")).await.unwrap();
    FullAccount {
        account,
        person,
        live,
        finished,
        joined,
        left,
        public_session: public.session_id,
        hero,
        spare,
        published,
        creature,
        failed_roll,
    }
}

/// Returns every write that the account may make. Each succeeds if it is the first one.
pub fn all_writes(fixture: &FullAccount) -> Vec<String> {
    let FullAccount { account, hero, spare, published, failed_roll, creature, public_session, .. } = fixture;
    let (live, finished, joined, left) =
        (fixture.live_session.session_id, fixture.completed_session.session_id, fixture.joined_session.session_id, fixture.left_session.session_id);
    let update_session = |id: Uuid, set: &str| format!("UPDATE sessions SET {set} WHERE id = '{id}'");
    let update_hero = |set: &str| format!("UPDATE characters SET {set} WHERE id = '{hero}'");
    let update_adventure = |set: &str| format!("UPDATE adventures SET {set} WHERE id = '{published}'");
    let update_own_seat = |id: Uuid, set: &str| {
        format!("UPDATE session_players SET {set} WHERE session_id = '{id}' AND user_id = '{account}'")
    };
    let code_of = |id: Uuid| format!("(SELECT code::text FROM sessions WHERE id = '{id}')");
    vec![
        format!("UPDATE users SET bio = 'Back.' WHERE id = '{account}'"),
        format!("UPDATE users SET display_name = 'Back again' WHERE id = '{account}'"),
        insert_character_sql(Uuid::new_v4(), *account),
        update_hero("name = 'Back again'"),
        update_hero("hit_points = 1"),
        update_hero("equipment = '[1]'"),
        format!("UPDATE characters SET retired_at = now() WHERE id = '{spare}'"),
        format!("DELETE FROM characters WHERE id = '{spare}'"),
        format!("SELECT * FROM private.change_hit_points('{hero}', -1)"),
        format!("SELECT * FROM private.change_hit_points('{}', -1)", fixture.live_session.players[0].character_id),
        format!("INSERT INTO adventures (creator_id, name) VALUES ('{account}', 'A new draft')"),
        update_adventure("name = 'Renamed'"),
        update_adventure("difficulty = 'hard'"),
        update_adventure("min_players = 1"),
        update_adventure("estimated_duration = 90"),
        update_adventure("status = 'archived'"),
        format!("DELETE FROM adventures WHERE id = '{published}'"),
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{published}', 'Mud Hag')"),
        format!("UPDATE creatures SET name = 'Renamed' WHERE id = '{creature}'"),
        format!("DELETE FROM creatures WHERE id = '{creature}'"),
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{account}', '{published}')"),
        update_session(live, "looking_for = 'Anybody'"),
        update_session(live, "is_public = true"),
        update_session(live, "max_players = 5"),
        update_session(live, "current_scene_id = 'ford'"),
        update_session(live, "current_encounter_id = 'ford'"),
        update_session(live, "game_state = '{\"round\": 1}'"),
        update_session(live, "status = 'paused'"),
        update_session(finished, "looking_for = 'Anybody'"),
        update_session(finished, "is_public = true"),
        insert_seat_sql(*public_session, *account, *hero),
        format!("SELECT * FROM private.join_by_code({}, '{hero}')", code_of(*public_session)),
        format!("SELECT * FROM private.join_by_code({}, '{hero}')", code_of(left)),
        update_own_seat(left, "is_active = true"),
        update_own_seat(left, &format!("character_id = '{spare}'")),
        update_own_seat(joined, "is_active = false"),
        format!(
            "UPDATE session_players SET is_active = false WHERE session_id = '{live}' AND user_id = '{}'",
            fixture.live_session.players[0].user_id
        ),
        insert_roll_sql(joined, *hero),
        insert_roll_sql(live, fixture.live_session.players[0].character_id),
        insert_heroic_save_sql(joined, *hero, *failed_roll),
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{live}', 'client.wave')"),
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{finished}', 'client.wave')"),
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{joined}', 'client.wave')"),
        format!("UPDATE tutorial_progress SET skipped = true WHERE user_id = '{account}'"),
        format!(
            "UPDATE tutorial_progress SET current_step = 'character-basics', path = 'player' WHERE user_id = '{account}'"
        ),
        format!(
            "INSERT INTO tutorial_progress (user_id, skipped) VALUES ('{account}', true)
             ON CONFLICT (user_id) DO UPDATE SET skipped = true"
        ),
        format!(
            "MERGE INTO characters AS hero USING (SELECT '{hero}'::uuid AS id) AS wanted ON hero.id = wanted.id
             WHEN MATCHED THEN UPDATE SET name = 'Merged'"
        ),
        format!(
            "WITH renamed AS (UPDATE characters SET name = 'Renamed in a CTE' WHERE id = '{hero}' RETURNING id)
             SELECT * FROM renamed"
        ),
    ]
}
