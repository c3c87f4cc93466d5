//! The rows that operations are called on: sessions in every state, with their participants.

use sparc::service::{IdentityConnection, JoinCode, Sparc};
use uuid::Uuid;

use crate::world::{Player, World, roll, seat};

/// The caller of an operation. Each list of outcomes is in the order of the first six.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Visitor,
    Stranger,
    /// A player who left every session.
    Leaver,
    Player,
    Seer,
    Service,
    /// A user whose account was erased and whose token is still valid.
    Erased,
    /// A user at the limits; see [`Scene::at_limits`].
    AtLimits,
}

pub const EVERYBODY: [Who; 6] = [Who::Visitor, Who::Stranger, Who::Leaver, Who::Player, Who::Seer, Who::Service];

pub struct Scene {
    pub world: World,
    pub seer: Uuid,
    pub player: Player,
    pub leaver: Player,
    pub stranger: Player,
    /// An account with ten living characters, one of them in twenty live sessions, and one retired character. It runs
    /// twenty live sessions as Seer, and left `given_up`.
    pub at_limits: Uuid,
    pub at_limits_living: Uuid,
    pub at_limits_retired: Uuid,
    pub given_up: Uuid,
    /// An erased account with a retired and a living character.
    pub erased: Uuid,
    pub erased_retired: Uuid,
    pub erased_living: Uuid,
    /// A character with the maximum experience.
    pub most_experienced: Uuid,
    /// Two characters of the player: one that was never played, and a retired one.
    pub spare: Uuid,
    pub retired: Uuid,
    /// A published adventure that was played, a valid draft that was never played, and an invalid draft.
    pub adventure: Uuid,
    pub draft: Uuid,
    pub invalid_draft: Uuid,
    pub creature: Uuid,
    pub foreign_creature: Uuid,
    /// Sessions of the Seer: `player` has a seat in each, `leaver` has left each.
    pub waiting: Uuid,
    pub private: Uuid,
    pub starting_soon: Uuid,
    pub active: Uuid,
    pub paused: Uuid,
    pub completed: Uuid,
    pub archived: Uuid,
    /// Active; the player's heroic save is used.
    pub save_used: Uuid,
    /// Public, and full of other players.
    pub full: Uuid,
    /// Sessions of the Seer that wait and that `leaver` left: one with three of four seats taken, one with two of two.
    pub one_seat_free: Uuid,
    pub no_seat_free: Uuid,
    /// Public and active.
    pub open: Uuid,
    /// Active; its only player has left.
    pub without_player: Uuid,
    /// Rolls of the player's character. `late` is too old to be saved; `unsaved` failed in the same session as `saved`.
    pub failed: Uuid,
    pub succeeded: Uuid,
    pub late: Uuid,
    pub saved: Uuid,
    pub unsaved: Uuid,
}

impl Scene {
    pub async fn new() -> Self {
        Self::of(World::new().await).await
    }

    pub async fn of(world: World) -> Self {
        let owner = world.owner();
        let seer = world.new_account().await;
        let (player, leaver, stranger) = (world.new_player().await, world.new_player().await, world.new_player().await);
        let spare = world.new_character(player.id).await;
        let retired = world.new_character(player.id).await;
        let (at_limits, erased) = (world.new_account().await, world.new_account().await);
        let at_limits_retired = world.new_character(at_limits).await;
        let erased_retired = world.new_character(erased).await;
        let erased_living = world.new_character(erased).await;
        let most_experienced = world.new_character(at_limits).await;
        owner
            .exec(&format!("UPDATE characters SET experience = 2147483647 WHERE id = '{most_experienced}'"))
            .await
            .unwrap();
        owner
            .exec(&format!(
                "UPDATE characters SET retired_at = now()
                 WHERE id IN ('{retired}', '{at_limits_retired}', '{erased_retired}')"
            ))
            .await
            .unwrap();
        for _ in 0..9 {
            world.new_character(at_limits).await;
        }

        let adventure = world.new_adventure(seer).await;
        let story = r#"{"start": "a", "nodes": [{"id": "a", "type": "story"}]}"#;
        let insert_draft = |name: &str, content: &str| {
            format!(
                "INSERT INTO adventures (creator_id, name, content)
                 VALUES ('{seer}', '{name}', '{content}') RETURNING id"
            )
        };
        let draft = owner.value(&insert_draft("The Quiet Mill", story)).await.unwrap();
        let invalid_draft = owner.value(&insert_draft("The Torn Page", "{}")).await.unwrap();
        let insert_creature = |of: Uuid| {
            format!("INSERT INTO creatures (adventure_id, name) VALUES ('{of}', 'Reed Horror') RETURNING id")
        };
        let foreign_creature = owner.value(&insert_creature(draft)).await.unwrap();
        let creature = owner.value(&insert_creature(adventure)).await.unwrap();

        let mut sessions = Vec::new();
        for (public, statuses) in [
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
                 VALUES ('{seer}', '{adventure}', {public}) RETURNING id"
            );
            let session: Uuid = owner.value(&sql).await.unwrap();
            for participant in [&leaver, &player] {
                owner.exec(&seat(session, participant.id, participant.character)).await.unwrap();
            }
            let leave = format!(
                "UPDATE session_players SET is_active = false WHERE session_id = '{session}' AND user_id = '{}'",
                leaver.id
            );
            owner.exec(&leave).await.unwrap();
            for status in statuses.split_whitespace() {
                let sql = format!("UPDATE sessions SET status = '{status}' WHERE id = '{session}'");
                owner.exec(&sql).await.unwrap();
            }
            sessions.push(session);
        }
        let &[waiting, private, starting_soon, active, paused, completed, save_used, archived] = &sessions[..] else {
            unreachable!()
        };
        owner.exec(&roll(archived, player.character)).await.unwrap();
        let long_ago = format!("UPDATE sessions SET ended_at = now() - INTERVAL '1 year' WHERE id = '{archived}'");
        owner.exec(&long_ago).await.unwrap();
        assert_eq!(owner.value::<i32>("SELECT private.archive_sessions(10)").await, Ok(1));

        let full = world.new_session(2).await;
        world.set(&full, "is_public = true, max_players = 2").await;
        let sql = format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{seer}', '{adventure}') RETURNING id");
        let without_player: Uuid = owner.value(&sql).await.unwrap();
        let (one_seat_free, no_seat_free): (Uuid, Uuid) =
            (owner.value(&sql).await.unwrap(), owner.value(&sql).await.unwrap());
        for session in [one_seat_free, no_seat_free] {
            owner.exec(&seat(session, leaver.id, leaver.character)).await.unwrap();
            let leave = format!("UPDATE session_players SET is_active = false WHERE session_id = '{session}'");
            owner.exec(&leave).await.unwrap();
        }
        let only_player = world.new_player().await;
        owner.exec(&seat(without_player, only_player.id, only_player.character)).await.unwrap();
        for (session, others) in [(one_seat_free, 2), (no_seat_free, 1)] {
            owner.exec(&seat(session, player.id, player.character)).await.unwrap();
            for _ in 0..others {
                let other = world.new_player().await;
                owner.exec(&seat(session, other.id, other.character)).await.unwrap();
            }
        }
        owner.exec(&seat(one_seat_free, erased, erased_living)).await.unwrap();
        owner.exec(&format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{erased}'")).await.unwrap();
        owner.exec(&format!("UPDATE sessions SET max_players = 2 WHERE id = '{no_seat_free}'")).await.unwrap();
        owner.exec(&format!("UPDATE sessions SET status = 'active' WHERE id = '{without_player}'")).await.unwrap();
        owner
            .exec(&format!("UPDATE session_players SET is_active = false WHERE session_id = '{without_player}'"))
            .await
            .unwrap();
        let open = world.new_active_session(1).await;
        world.set(&open, "is_public = true").await;
        let insert = format!(
            "INSERT INTO sessions (seer_id, adventure_id)
             SELECT '{at_limits}', '{adventure}' FROM generate_series(1, 20)"
        );
        owner.exec(&insert).await.unwrap();

        // The Seer has removed `leaver` from `starting_soon`.
        owner
            .exec(&format!(
                "UPDATE session_players SET removed_at = now() WHERE session_id = '{starting_soon}' AND user_id = '{}'",
                leaver.id
            ))
            .await
            .unwrap();
        let seers = world.new_accounts(2).await;
        let insert = format!(
            "WITH opened AS (
               INSERT INTO sessions (seer_id, adventure_id)
               SELECT ('{seers}'::uuid[])[1 + i % 2], '{adventure}' FROM generate_series(1, {{}}) AS i
               RETURNING id
             )
             INSERT INTO session_players (session_id, user_id, character_id)
             SELECT id, '{at_limits}', '{most_experienced}' FROM opened RETURNING session_id"
        );
        let given_up: Uuid = owner.value(&insert.replace("{}", "1")).await.unwrap();
        owner
            .exec(&format!("UPDATE session_players SET is_active = false WHERE session_id = '{given_up}'"))
            .await
            .unwrap();
        owner.exec(&insert.replace("{}", "20")).await.unwrap();

        // All but `late` are in the future, so that a heroic save is never too late.
        let hero = player.character;
        let failed = world.new_roll(active, hero, "{1,2}", 10, -3600).await;
        let succeeded = world.new_roll(active, hero, "{6}", 10, -3600).await;
        let late = world.new_roll(active, hero, "{1,2}", 10, 3600).await;
        let saved = world.new_roll(save_used, hero, "{1,2}", 10, -3600).await;
        let unsaved = world.new_roll(save_used, hero, "{1,2}", 10, -3600).await;
        owner.exec(&crate::world::heroic_save(save_used, hero, saved)).await.unwrap();
        owner
            .exec(&format!("INSERT INTO tutorial_progress (user_id, path) VALUES ('{}', 'player')", player.id))
            .await
            .unwrap();
        Self {
            seer,
            player,
            leaver,
            stranger,
            at_limits,
            at_limits_living: most_experienced,
            at_limits_retired,
            given_up,
            erased,
            erased_retired,
            erased_living,
            most_experienced,
            spare,
            retired,
            adventure,
            draft,
            invalid_draft,
            creature,
            foreign_creature,
            waiting,
            private,
            starting_soon,
            active,
            paused,
            completed,
            archived,
            save_used,
            full: full.session,
            one_seat_free,
            no_seat_free,
            open: open.session,
            without_player,
            failed,
            succeeded,
            late,
            saved,
            unsaved,
            world,
        }
    }

    pub fn identity(&self, sparc: &Sparc, who: Who) -> IdentityConnection {
        match who {
            Who::Visitor => sparc.as_anon(),
            Who::Stranger => sparc.as_user(self.stranger.id),
            Who::Leaver => sparc.as_user(self.leaver.id),
            Who::Player => sparc.as_user(self.player.id),
            Who::Seer => sparc.as_user(self.seer),
            Who::Service => sparc.as_service(),
            Who::Erased => sparc.as_user(self.erased),
            Who::AtLimits => sparc.as_user(self.at_limits),
        }
    }

    pub async fn code(&self, session: Uuid) -> JoinCode {
        let sql = format!("SELECT code::text FROM sessions WHERE id = '{session}'");
        self.world.owner().value::<String>(&sql).await.unwrap().parse().unwrap()
    }

    /// Returns a hash of all rows of all tables.
    pub async fn digest(&self) -> String {
        let sql = "SELECT md5(string_agg(query_to_xml(format('SELECT * FROM public.%I ORDER BY 1, 2', relname),
                     true, true, '')::text, '' ORDER BY relname))
                   FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
        self.world.owner().value(sql).await.unwrap()
    }
}
