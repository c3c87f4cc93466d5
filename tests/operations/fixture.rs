//! The rows that the tests call the operations on: an archived session and sessions in every status but `cancelled`,
//! with their participants and rolls; adventures; and accounts that are closed or have reached a limit. A *living*
//! character is one that is not retired. A *live* session is one that has not ended.

use sparc::service::{IdentityConnection, JoinCode, Sparc};
use uuid::Uuid;

use super::callers::Caller;
use crate::world::{Player, World, insert_attribute_check_sql, insert_seat_sql};

/// A migrated database, and the ids of the rows in it.
pub struct Fixture {
    pub world: World,
    /// The account of the Seer.
    pub seer: Uuid,
    pub player: Player,
    pub former_player: Player,
    pub stranger: Player,
    /// An account with ten living characters (one of them in twenty live sessions) and a hundred retired characters. It
    /// runs twenty live sessions as Seer, has left `session_left_by_account_at_limits`, and has two hundred adventures.
    pub account_at_limits: Uuid,
    /// The character that is in twenty live sessions. It is the same as `most_experienced_character`.
    pub character_at_seat_limit: Uuid,
    /// A living character without a seat.
    pub unseated_character_of_account_at_limits: Uuid,
    pub retired_character_of_account_at_limits: Uuid,
    pub session_left_by_account_at_limits: Uuid,
    /// An adventure with two hundred creatures.
    pub adventure_at_limits: Uuid,
    /// A closed account with a retired and a living character.
    pub closed_account: Uuid,
    pub retired_character_of_closed_account: Uuid,
    pub living_character_of_closed_account: Uuid,
    /// A character with the maximum experience.
    pub most_experienced_character: Uuid,
    /// Two characters of the player: one that never had a seat, and a retired one.
    pub spare_character: Uuid,
    pub retired_character: Uuid,
    /// A published adventure that was played, a valid draft that was never played, and an invalid draft.
    pub adventure: Uuid,
    pub draft_adventure: Uuid,
    pub invalid_draft_adventure: Uuid,
    /// A creature of `adventure`.
    pub creature: Uuid,
    pub creature_of_draft: Uuid,
    /// The Seer runs this session and those that follow, up to `session_with_save_used`. In each of them `player` has a
    /// seat, and `former_player` has left. All are private, except `waiting_session`. The status of `private_session`
    /// is `waiting`, too.
    pub waiting_session: Uuid,
    pub private_session: Uuid,
    /// `former_player` has left this session, and the Seer has then removed them.
    pub starting_soon_session: Uuid,
    pub active_session: Uuid,
    pub paused_session: Uuid,
    pub completed_session: Uuid,
    pub archived_session: Uuid,
    /// An active session in which the player's heroic save is used up.
    pub session_with_save_used: Uuid,
    /// A public session, all of whose seats other players have taken.
    pub full_session: Uuid,
    /// Waiting sessions that the Seer runs and `former_player` has left. In the first, three of the four seats are
    /// taken; in the second, both of its two seats.
    pub session_with_one_seat_free: Uuid,
    pub full_session_left_by_former_player: Uuid,
    /// An active public session of another Seer, with another player.
    pub public_active_session: Uuid,
    /// An active session of the Seer. Its only player has left.
    pub session_without_player: Uuid,
    /// Rolls of the player's character. These three are in `active_session`; `expired_roll` is too old for a heroic
    /// save.
    pub failed_roll: Uuid,
    pub successful_roll: Uuid,
    pub expired_roll: Uuid,
    /// A failed roll that a heroic save has repeated, in `session_with_save_used`.
    pub repeated_roll: Uuid,
    /// Another failed roll in that session. It was not repeated, but the player has no save left.
    pub failed_roll_without_save_left: Uuid,
    /// Failed rolls that the player cannot repeat with a heroic save. Both are in `active_session`.
    pub roll_of_creature: Uuid,
    pub roll_of_retired_character: Uuid,
}

impl Fixture {
    pub async fn new() -> Self {
        Self::new_in(World::new().await).await
    }

    /// Creates the rows in the world's database.
    pub async fn new_in(world: World) -> Self {
        let owner = world.owner();
        let seer = world.new_account().await;
        let (player, former_player, stranger) =
            (world.new_player().await, world.new_player().await, world.new_player().await);
        let spare_character = world.new_character(player.user_id).await;
        let retired_character = world.new_character(player.user_id).await;
        let (account_at_limits, closed_account) = (world.new_account().await, world.new_account().await);
        let retired_character_of_account_at_limits = world.new_character(account_at_limits).await;
        let retired_character_of_closed_account = world.new_character(closed_account).await;
        let living_character_of_closed_account = world.new_character(closed_account).await;
        let most_experienced_character = world.new_character(account_at_limits).await;
        owner
            .execute(&format!(
                "UPDATE characters SET experience = 2147483647 WHERE id = '{most_experienced_character}'"
            ))
            .await
            .unwrap();
        owner
            .execute(&format!(
                "UPDATE characters SET retired_at = now()
                 WHERE id IN (
                   '{retired_character}', '{retired_character_of_account_at_limits}', '{retired_character_of_closed_account}'
                 )"
            ))
            .await
            .unwrap();
        // These eight, `most_experienced_character` and `unseated_character_of_account_at_limits` are the ten living
        // characters of `account_at_limits`.
        for _ in 0..8 {
            world.new_character(account_at_limits).await;
        }
        let unseated_character_of_account_at_limits = world.new_character(account_at_limits).await;
        // These 99 and `retired_character_of_account_at_limits` are its hundred retired characters.
        let insert = format!(
            "INSERT INTO characters (user_id, name, class, might, grace, wit, heart, special_ability, retired_at)
             SELECT '{account_at_limits}', 'Veteran ' || i, 'warrior', 5, 3, 2, 2, '{{}}', now()
             FROM generate_series(1, 99) AS i"
        );
        owner.execute(&insert).await.unwrap();

        let adventure = world.new_adventure(seer).await;
        let valid_content = r#"{"start": "a", "nodes": [{"id": "a", "type": "story"}]}"#;
        let insert_draft_sql = |name: &str, content: &str| {
            format!(
                "INSERT INTO adventures (creator_id, name, content)
                 VALUES ('{seer}', '{name}', '{content}') RETURNING id"
            )
        };
        let draft_adventure = owner.fetch_value(&insert_draft_sql("The Quiet Mill", valid_content)).await.unwrap();
        let invalid_draft_adventure = owner.fetch_value(&insert_draft_sql("The Torn Page", "{}")).await.unwrap();
        let insert_creature_sql = |adventure: Uuid| {
            format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure}', 'Reed Horror') RETURNING id")
        };
        let creature_of_draft = owner.fetch_value(&insert_creature_sql(draft_adventure)).await.unwrap();
        let creature = owner.fetch_value(&insert_creature_sql(adventure)).await.unwrap();
        let creature_with_roll: Uuid = owner.fetch_value(&insert_creature_sql(adventure)).await.unwrap();
        let adventure_at_limits = world.new_draft_adventure(account_at_limits).await;
        let insert = format!(
            "INSERT INTO adventures (creator_id, name)
             SELECT '{account_at_limits}', 'Draft ' || i FROM generate_series(1, 199) AS i"
        );
        owner.execute(&insert).await.unwrap();
        let insert = format!(
            "INSERT INTO creatures (adventure_id, name)
             SELECT '{adventure_at_limits}', 'Rat ' || i FROM generate_series(1, 200) AS i"
        );
        owner.execute(&insert).await.unwrap();

        let mut sessions = Vec::new();
        // Whether the session is public, and the statuses that it is given one after another. The names of the sessions
        // follow below.
        for (is_public, statuses) in [
            (true, ""),
            (false, ""),
            (false, "starting_soon"),
            (false, "active"),
            (false, "active paused"),
            (false, "active completed"),
            (false, "active"),
            (false, "active completed"),
        ] {
            let sql = format!(
                "INSERT INTO sessions (seer_id, adventure_id, is_public)
                 VALUES ('{seer}', '{adventure}', {is_public}) RETURNING id"
            );
            let session: Uuid = owner.fetch_value(&sql).await.unwrap();
            for participant in [&former_player, &player] {
                owner.execute(&insert_seat_sql(session, participant.user_id, participant.character_id)).await.unwrap();
            }
            let leave_sql = format!(
                "UPDATE session_players SET is_active = false WHERE session_id = '{session}' AND user_id = '{}'",
                former_player.user_id
            );
            owner.execute(&leave_sql).await.unwrap();
            for status in statuses.split_whitespace() {
                let sql = format!("UPDATE sessions SET status = '{status}' WHERE id = '{session}'");
                owner.execute(&sql).await.unwrap();
            }
            sessions.push(session);
        }
        let &[
            waiting_session,
            private_session,
            starting_soon_session,
            active_session,
            paused_session,
            completed_session,
            session_with_save_used,
            archived_session,
        ] = &sessions[..]
        else {
            unreachable!()
        };
        owner.execute(&insert_attribute_check_sql(archived_session, player.character_id)).await.unwrap();
        let end_long_ago_sql =
            format!("UPDATE sessions SET ended_at = now() - INTERVAL '1 year' WHERE id = '{archived_session}'");
        owner.execute(&end_long_ago_sql).await.unwrap();
        assert_eq!(owner.fetch_value::<i32>("SELECT private.archive_sessions(10)").await, Ok(1));

        let full_game = world.new_session(2).await;
        world.update_session(&full_game, "is_public = true, max_players = 2").await;
        let sql = format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{seer}', '{adventure}') RETURNING id");
        let session_without_player: Uuid = owner.fetch_value(&sql).await.unwrap();
        let (session_with_one_seat_free, full_session_left_by_former_player): (Uuid, Uuid) =
            (owner.fetch_value(&sql).await.unwrap(), owner.fetch_value(&sql).await.unwrap());
        for session in [session_with_one_seat_free, full_session_left_by_former_player] {
            owner.execute(&insert_seat_sql(session, former_player.user_id, former_player.character_id)).await.unwrap();
            let leave_sql = format!("UPDATE session_players SET is_active = false WHERE session_id = '{session}'");
            owner.execute(&leave_sql).await.unwrap();
        }
        let only_player = world.new_player().await;
        owner
            .execute(&insert_seat_sql(session_without_player, only_player.user_id, only_player.character_id))
            .await
            .unwrap();
        for (session, other_player_count) in [(session_with_one_seat_free, 2), (full_session_left_by_former_player, 1)]
        {
            owner.execute(&insert_seat_sql(session, player.user_id, player.character_id)).await.unwrap();
            for _ in 0..other_player_count {
                let other_player = world.new_player().await;
                owner
                    .execute(&insert_seat_sql(session, other_player.user_id, other_player.character_id))
                    .await
                    .unwrap();
            }
        }
        owner
            .execute(&insert_seat_sql(session_with_one_seat_free, closed_account, living_character_of_closed_account))
            .await
            .unwrap();
        // Setting `deleted_at` closes the account, and closing it gives up its seat.
        owner
            .execute(&format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{closed_account}'"))
            .await
            .unwrap();
        owner
            .execute(&format!("UPDATE sessions SET max_players = 2 WHERE id = '{full_session_left_by_former_player}'"))
            .await
            .unwrap();
        owner
            .execute(&format!("UPDATE sessions SET status = 'active' WHERE id = '{session_without_player}'"))
            .await
            .unwrap();
        owner
            .execute(&format!(
                "UPDATE session_players SET is_active = false WHERE session_id = '{session_without_player}'"
            ))
            .await
            .unwrap();
        let public_active_game = world.new_active_session(1).await;
        world.update_session(&public_active_game, "is_public = true").await;
        let insert = format!(
            "INSERT INTO sessions (seer_id, adventure_id)
             SELECT '{account_at_limits}', '{adventure}' FROM generate_series(1, 20)"
        );
        owner.execute(&insert).await.unwrap();

        // The Seer has removed `former_player` from `starting_soon_session`.
        owner
            .execute(&format!(
                "UPDATE session_players SET removed_at = now()
                 WHERE session_id = '{starting_soon_session}' AND user_id = '{}'",
                former_player.user_id
            ))
            .await
            .unwrap();
        // `account_at_limits` takes a seat in 21 sessions. A Seer may run at most twenty live ones, so two Seers share
        // the 21.
        let seer_ids_literal = world.new_account_ids_literal(2).await;
        let create_and_join_sessions_sql = |count: usize| {
            format!(
                "WITH created AS (
                   INSERT INTO sessions (seer_id, adventure_id)
                   SELECT ('{seer_ids_literal}'::uuid[])[1 + i % 2], '{adventure}' FROM generate_series(1, {count}) AS i
                   RETURNING id
                 )
                 INSERT INTO session_players (session_id, user_id, character_id)
                 SELECT id, '{account_at_limits}', '{most_experienced_character}' FROM created RETURNING session_id"
            )
        };
        let session_left_by_account_at_limits: Uuid =
            owner.fetch_value(&create_and_join_sessions_sql(1)).await.unwrap();
        owner
            .execute(&format!(
                "UPDATE session_players SET is_active = false WHERE session_id = '{session_left_by_account_at_limits}'"
            ))
            .await
            .unwrap();
        owner.execute(&create_and_join_sessions_sql(20)).await.unwrap();

        // The rolls of characters, except `expired_roll`, are dated in the future, so that a heroic save is never too
        // late.
        let character = player.character_id;
        let failed_roll = world.new_attack_roll(active_session, character, "{1,2}", 10, -3600).await;
        let successful_roll = world.new_attack_roll(active_session, character, "{6}", 10, -3600).await;
        let expired_roll = world.new_attack_roll(active_session, character, "{1,2}", 10, 3600).await;
        let repeated_roll = world.new_attack_roll(session_with_save_used, character, "{1,2}", 10, -3600).await;
        let failed_roll_without_save_left =
            world.new_attack_roll(session_with_save_used, character, "{1,2}", 10, -3600).await;
        owner
            .execute(&crate::world::insert_heroic_save_sql(session_with_save_used, character, repeated_roll))
            .await
            .unwrap();
        let roll_of_retired_character =
            world.new_attack_roll(active_session, retired_character, "{1,2}", 10, -3600).await;
        let insert = format!(
            "INSERT INTO dice_rolls (session_id, creature_id, attribute, difficulty, roll_type, results)
             VALUES ('{active_session}', '{creature_with_roll}', 'might', 10, 'attack', '{{1,2}}') RETURNING id"
        );
        let roll_of_creature = owner.fetch_value(&insert).await.unwrap();
        owner
            .execute(&format!("INSERT INTO tutorial_progress (user_id, path) VALUES ('{}', 'player')", player.user_id))
            .await
            .unwrap();
        Self {
            seer,
            player,
            former_player,
            stranger,
            account_at_limits,
            character_at_seat_limit: most_experienced_character,
            unseated_character_of_account_at_limits,
            retired_character_of_account_at_limits,
            session_left_by_account_at_limits,
            adventure_at_limits,
            closed_account,
            retired_character_of_closed_account,
            living_character_of_closed_account,
            most_experienced_character,
            spare_character,
            retired_character,
            adventure,
            draft_adventure,
            invalid_draft_adventure,
            creature,
            creature_of_draft,
            waiting_session,
            private_session,
            starting_soon_session,
            active_session,
            paused_session,
            completed_session,
            archived_session,
            session_with_save_used,
            full_session: full_game.session_id,
            session_with_one_seat_free,
            full_session_left_by_former_player,
            public_active_session: public_active_game.session_id,
            session_without_player,
            failed_roll,
            successful_roll,
            expired_roll,
            repeated_roll,
            failed_roll_without_save_left,
            roll_of_creature,
            roll_of_retired_character,
            world,
        }
    }

    /// Returns a connection that acts as the caller.
    pub fn as_caller(&self, sparc: &Sparc, caller: Caller) -> IdentityConnection {
        match caller {
            Caller::Visitor => sparc.as_anon(),
            Caller::Stranger => sparc.as_user(self.stranger.user_id),
            Caller::FormerPlayer => sparc.as_user(self.former_player.user_id),
            Caller::Player => sparc.as_user(self.player.user_id),
            Caller::Seer => sparc.as_user(self.seer),
            Caller::Service => sparc.as_service(),
            Caller::ClosedAccount => sparc.as_user(self.closed_account),
            Caller::AccountAtLimits => sparc.as_user(self.account_at_limits),
        }
    }

    pub async fn join_code(&self, session: Uuid) -> JoinCode {
        self.world.join_code(session).await
    }

    /// Returns a hash of all rows of all tables in the schemas `public` and `private`, and of `auth.users`.
    pub async fn hash_rows(&self) -> String {
        let sql = "SELECT md5(string_agg(query_to_xml(format('SELECT * FROM %s ORDER BY 1, 2', oid::regclass),
                     true, true, '')::text, '' ORDER BY oid))
                   FROM pg_class
                   WHERE relnamespace IN ('public'::regnamespace, 'private'::regnamespace) AND relkind = 'r'
                     OR oid = 'auth.users'::regclass";
        self.world.owner().fetch_value(sql).await.unwrap()
    }
}
