//! An account with every kind of row that an account can have outside the archive, and the writes that it may make.

use uuid::Uuid;

use crate::world::{
    GameSession, SqlCaller, World, insert_attribute_check_sql, insert_character_sql, insert_heroic_save_sql,
    insert_seat_sql,
};

/// An account with every kind of row that an account can have outside the archive, as Seer, player and author.
pub struct PopulatedAccount {
    pub account_id: Uuid,
    pub caller: SqlCaller,
    /// An active session that the account runs as Seer.
    pub live_session: GameSession,
    /// A completed session that the account ran as Seer. (Its field `seer` is another user, who created it.)
    pub completed_session: GameSession,
    /// Another Seer's active session, where the account has a seat.
    pub joined_session: GameSession,
    /// Another Seer's waiting session, where the account had a seat and left it.
    pub left_session: GameSession,
    /// A waiting public session in which the account has no part.
    pub public_session_id: Uuid,
    /// The character of the account's seats in `joined_session` and `left_session`.
    pub seated_character_id: Uuid,
    /// A character that never had a seat.
    pub spare_character_id: Uuid,
    /// A published adventure of the account that nobody has played.
    pub published_adventure_id: Uuid,
    /// A creature of the published adventure.
    pub creature_id: Uuid,
    /// A failed roll of the seated character in `joined_session`, which a heroic save can repeat.
    pub failed_roll_id: Uuid,
}

/// Creates a [`PopulatedAccount`].
pub async fn create_populated_account(world: &World) -> PopulatedAccount {
    let owner = world.owner();
    let (live_session, completed_session) = (world.new_active_session(2).await, world.new_active_session(2).await);
    let caller = live_session.seer.clone();
    let account_id = caller.user_id();
    let (seated_character_id, spare_character_id) =
        (world.new_character(account_id).await, world.new_character(account_id).await);
    world.update_session(&completed_session, &format!("seer_id = '{account_id}'")).await;
    world.update_session(&completed_session, "status = 'completed'").await;
    let (joined_session, left_session) = (world.new_session(1).await, world.new_session(1).await);
    for game in [&joined_session, &left_session] {
        owner.execute(&insert_seat_sql(game.session_id, account_id, seated_character_id)).await.unwrap();
    }
    world.update_session(&joined_session, "status = 'active'").await;
    let leave = format!(
        "UPDATE session_players SET is_active = false WHERE user_id = '{account_id}' AND session_id = '{}'",
        left_session.session_id
    );
    owner.execute(&leave).await.unwrap();
    let failed_roll_id = world.new_failed_roll(joined_session.session_id, seated_character_id).await;
    let public_session = world.new_session(0).await;
    world.update_session(&public_session, "is_public = true").await;
    let published_adventure_id = world.new_adventure(account_id).await;
    let sql =
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{published_adventure_id}', 'Wolf') RETURNING id");
    let creature_id = owner.fetch_value(&sql).await.unwrap();
    owner.execute(&format!("INSERT INTO tutorial_progress (user_id) VALUES ('{account_id}')")).await.unwrap();
    PopulatedAccount {
        account_id,
        caller,
        live_session,
        completed_session,
        joined_session,
        left_session,
        public_session_id: public_session.session_id,
        seated_character_id,
        spare_character_id,
        published_adventure_id,
        creature_id,
        failed_roll_id,
    }
}

/// Returns writes that the account may make. They cover every table that users may write, every column that they may
/// update, and every function with which they can write, except `private.close_account`. Each succeeds if none of the
/// others has been run.
pub fn all_writes(fixture: &PopulatedAccount) -> Vec<String> {
    let PopulatedAccount {
        account_id: account,
        seated_character_id: seated_character,
        spare_character_id: spare_character,
        published_adventure_id: adventure,
        creature_id: creature,
        public_session_id: public_session,
        failed_roll_id: failed_roll,
        ..
    } = fixture;
    let (live_session, completed_session, joined_session, left_session) = (
        fixture.live_session.session_id,
        fixture.completed_session.session_id,
        fixture.joined_session.session_id,
        fixture.left_session.session_id,
    );
    let update_session_sql = |id: Uuid, set: &str| format!("UPDATE sessions SET {set} WHERE id = '{id}'");
    let update_character_sql = |set: &str| format!("UPDATE characters SET {set} WHERE id = '{seated_character}'");
    let update_adventure_sql = |set: &str| format!("UPDATE adventures SET {set} WHERE id = '{adventure}'");
    let update_own_seat_sql = |id: Uuid, set: &str| {
        format!("UPDATE session_players SET {set} WHERE session_id = '{id}' AND user_id = '{account}'")
    };
    let update_players_seat_sql = |set: &str| {
        format!(
            "UPDATE session_players SET {set} WHERE session_id = '{live_session}' AND user_id = '{}'",
            fixture.live_session.players[0].user_id
        )
    };
    let code_subquery = |id: Uuid| format!("(SELECT code::text FROM sessions WHERE id = '{id}')");
    vec![
        format!("UPDATE users SET bio = 'Back.' WHERE id = '{account}'"),
        format!("UPDATE users SET display_name = 'Back again' WHERE id = '{account}'"),
        format!("UPDATE users SET avatar_url = '/back.png' WHERE id = '{account}'"),
        insert_character_sql(Uuid::new_v4(), *account),
        update_character_sql("name = 'Back again'"),
        update_character_sql("hit_points = 1"),
        update_character_sql("equipment = '[1]'"),
        update_character_sql("special_ability = '{\"name\": \"Back\"}'"),
        format!("UPDATE characters SET retired_at = now() WHERE id = '{spare_character}'"),
        format!("DELETE FROM characters WHERE id = '{spare_character}'"),
        format!("SELECT * FROM private.change_hit_points('{seated_character}', -1)"),
        format!("SELECT * FROM private.change_hit_points('{}', -1)", fixture.live_session.players[0].character_id),
        format!("INSERT INTO adventures (creator_id, name) VALUES ('{account}', 'A new draft')"),
        update_adventure_sql("name = 'Renamed'"),
        update_adventure_sql("difficulty = 'hard'"),
        update_adventure_sql("min_players = 1, max_players = 6"),
        update_adventure_sql("estimated_duration = 90"),
        update_adventure_sql("description = 'Back.', thumbnail_url = '/back.png', artwork_url = '/back.png'"),
        update_adventure_sql("content = '{\"nodes\": []}', status = 'draft'"),
        update_adventure_sql("status = 'archived'"),
        format!("DELETE FROM adventures WHERE id = '{adventure}'"),
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure}', 'Mud Hag')"),
        format!("UPDATE creatures SET name = 'Renamed' WHERE id = '{creature}'"),
        format!(
            "UPDATE creatures
             SET description = 'Back.', stats = '{{\"might\": 1, \"grace\": 1, \"wit\": 1, \"heart\": 1}}',
               abilities = '[1]', hit_points = 9, armor = 1
             WHERE id = '{creature}'"
        ),
        format!("DELETE FROM creatures WHERE id = '{creature}'"),
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{account}', '{adventure}')"),
        update_session_sql(live_session, "looking_for = 'Anybody'"),
        update_session_sql(live_session, "is_public = true"),
        update_session_sql(live_session, "max_players = 5"),
        update_session_sql(live_session, "scheduled_start = now()"),
        update_session_sql(live_session, "current_scene_id = 'ford'"),
        update_session_sql(live_session, "current_encounter_id = 'ford'"),
        update_session_sql(live_session, "game_state = '{\"round\": 1}'"),
        update_session_sql(live_session, "status = 'paused'"),
        update_session_sql(completed_session, "looking_for = 'Anybody'"),
        update_session_sql(completed_session, "is_public = true"),
        format!("SELECT * FROM private.replace_session_code('{live_session}')"),
        insert_seat_sql(*public_session, *account, *seated_character),
        format!("SELECT * FROM private.join_by_code({}, '{seated_character}')", code_subquery(*public_session)),
        format!("SELECT * FROM private.join_by_code({}, '{seated_character}')", code_subquery(left_session)),
        update_own_seat_sql(left_session, "is_active = true"),
        update_own_seat_sql(left_session, &format!("character_id = '{spare_character}'")),
        update_own_seat_sql(joined_session, "is_active = false"),
        update_players_seat_sql("is_active = false"),
        update_players_seat_sql("removed_at = now()"),
        insert_attribute_check_sql(joined_session, *seated_character),
        insert_attribute_check_sql(live_session, fixture.live_session.players[0].character_id),
        insert_heroic_save_sql(joined_session, *seated_character, *failed_roll),
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{live_session}', 'client.wave')"),
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{completed_session}', 'client.wave')"),
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{joined_session}', 'client.wave')"),
        format!("UPDATE tutorial_progress SET skipped = true WHERE user_id = '{account}'"),
        format!(
            "UPDATE tutorial_progress SET current_step = 'character-basics', path = 'player'
             WHERE user_id = '{account}'"
        ),
        format!(
            "UPDATE tutorial_progress SET completed_steps = '{{welcome}}', completed_at = NULL
             WHERE user_id = '{account}'"
        ),
        format!(
            "INSERT INTO tutorial_progress (user_id, skipped) VALUES ('{account}', true)
             ON CONFLICT (user_id) DO UPDATE SET user_id = excluded.user_id, skipped = true"
        ),
        format!(
            "MERGE INTO characters AS target USING (SELECT '{seated_character}'::uuid AS id) AS wanted
             ON target.id = wanted.id WHEN MATCHED THEN UPDATE SET name = 'Merged'"
        ),
        format!(
            "WITH renamed AS (
               UPDATE characters SET name = 'Renamed in a CTE' WHERE id = '{seated_character}' RETURNING id
             )
             SELECT * FROM renamed"
        ),
    ]
}
