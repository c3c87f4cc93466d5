//! The rows to which access is attempted: public and private sessions in every status, archived sessions, and
//! adventures in every status; and one user for each part that a user can have in these sessions.

use uuid::Uuid;

use crate::world::{Player, SqlCaller, World, insert_seat_sql};

/// Every status of a session.
pub const STATUSES: [&str; 6] = ["waiting", "starting_soon", "active", "paused", "completed", "cancelled"];

/// Names of the actors. `INTRODUCTION` in `mod.rs` says who they are.
pub const ACTORS: [&str; 10] =
    ["visitor", "stranger", "player", "left", "retired", "removed", "closed", "other Seer", "Seer", "service"];

/// Somebody who attempts statements: a user, the visitor, or the service.
pub struct Actor {
    pub caller: SqlCaller,
    /// The id of the account. The visitor and the service have no account: for them, this id and the ids of the two
    /// characters are nil.
    pub id: Uuid,
    /// The character with which the user takes seats.
    pub character: Uuid,
    /// A character of the user's that never had a seat.
    pub spare_character: Uuid,
}

/// A session of the Seer, with a roll of the player and the session's first event.
pub struct SeersSession {
    /// The session's visibility and status, as `docs/generated/access.md` names them.
    pub name: String,
    pub status: &'static str,
    /// The id of the session.
    pub id: Uuid,
    pub roll_id: Uuid,
    pub event_id: Uuid,
}

/// A database with all these rows.
pub struct Fixture {
    pub world: World,
    /// In the order of [`ACTORS`].
    pub actors: Vec<Actor>,
    pub seers_sessions: Vec<SeersSession>,
    /// A waiting and an active session of the other Seer. In each, only one user is seated, who is none of the actors.
    pub other_seers_sessions: [Uuid; 2],
    /// An archived public session and an archived private one.
    pub archived_sessions: [Uuid; 2],
    /// The Seer's adventures: of each, its name in `access.md`, its id, and the id of its creature. Only the first one
    /// was played, so it cannot be deleted.
    pub adventures: Vec<(&'static str, Uuid, Uuid)>,
    /// The creature of the adventure that was played.
    pub creature_of_played_adventure: Uuid,
}

impl Fixture {
    pub async fn new() -> Self {
        let world = World::new().await;
        let owner = world.owner();
        // The users with their spare characters, from the stranger to the Seer, in the order of [`ACTORS`].
        let mut users = Vec::new();
        for _ in 1..ACTORS.len() - 1 {
            users.push((world.new_player().await, Uuid::nil()));
        }
        for (user, spare_character) in &mut users {
            *spare_character = world.new_character(user.user_id).await;
            let insert_tutorial = format!("INSERT INTO tutorial_progress (user_id) VALUES ('{}')", user.user_id);
            owner.execute(&insert_tutorial).await.unwrap();
        }
        let [_stranger, _player, _left, (retired, _), _removed, (closed, _), (other_seer, _), (seer, _)] = &users[..]
        else {
            unreachable!()
        };
        let (character_to_retire, account_to_close) = (retired.character_id, closed.user_id);
        let (other_seer, seer) = (other_seer.user_id, seer.user_id);

        let mut adventures = Vec::new();
        for (name, status) in [
            ("published, played", "published"),
            ("published", "published"),
            ("draft", "draft"),
            ("archived", "archived"),
        ] {
            let sql = format!(
                "INSERT INTO adventures (creator_id, name, status, is_valid)
                 VALUES ('{seer}', 'The Drowned Ford', '{status}', true) RETURNING id"
            );
            let id: Uuid = owner.fetch_value(&sql).await.unwrap();
            let sql = format!("INSERT INTO creatures (adventure_id, name) VALUES ('{id}', 'Reed Horror') RETURNING id");
            adventures.push((name, id, owner.fetch_value(&sql).await.unwrap()));
        }
        let (_, played_adventure, creature_of_played_adventure) = adventures[0];

        let mut seers_sessions = Vec::new();
        for is_public in [true, false] {
            for status in STATUSES {
                seers_sessions.push(create_seers_session(&world, &users, played_adventure, is_public, status).await);
            }
        }
        let mut archived_sessions = [Uuid::nil(); 2];
        for (is_public, id) in [true, false].into_iter().zip(&mut archived_sessions) {
            *id = create_seers_session(&world, &users, played_adventure, is_public, "completed").await.id;
            let sql = format!("UPDATE sessions SET ended_at = now() - INTERVAL '1 year' WHERE id = '{id}'");
            owner.execute(&sql).await.unwrap();
        }
        assert_eq!(owner.fetch_value::<i32>("SELECT private.archive_sessions(10)").await, Ok(2));
        let retire = format!("UPDATE characters SET retired_at = now() WHERE id = '{character_to_retire}'");
        owner.execute(&retire).await.unwrap();
        let mut other_seers_sessions = [Uuid::nil(); 2];
        for (is_active, id) in [false, true].into_iter().zip(&mut other_seers_sessions) {
            *id = create_session(&world, other_seer, played_adventure, true).await;
            let guest = world.new_player().await;
            owner.execute(&insert_seat_sql(*id, guest.user_id, guest.character_id)).await.unwrap();
            if is_active {
                owner.execute(&format!("UPDATE sessions SET status = 'active' WHERE id = '{id}'")).await.unwrap();
            }
        }
        let close = format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{account_to_close}'");
        owner.execute(&close).await.unwrap();

        let actor_without_account =
            |caller: SqlCaller| Actor { caller, id: Uuid::nil(), character: Uuid::nil(), spare_character: Uuid::nil() };
        let mut actors = vec![actor_without_account(world.visitor())];
        for (user, spare_character) in users {
            let Player { caller, user_id, character_id } = user;
            actors.push(Actor { caller, id: user_id, character: character_id, spare_character });
        }
        actors.push(actor_without_account(world.service()));
        Self {
            world,
            actors,
            seers_sessions,
            other_seers_sessions,
            archived_sessions,
            adventures,
            creature_of_played_adventure,
        }
    }

    /// Returns the actor with one of the names in [`ACTORS`].
    pub fn actor(&self, name: &str) -> &Actor {
        let index = ACTORS.iter().position(|actor| *actor == name).unwrap();
        &self.actors[index]
    }
}

/// Creates a waiting session and returns its id.
async fn create_session(world: &World, seer: Uuid, adventure: Uuid, is_public: bool) -> Uuid {
    let sql = format!(
        "INSERT INTO sessions (seer_id, adventure_id, is_public)
         VALUES ('{seer}', '{adventure}', {is_public}) RETURNING id"
    );
    world.owner().fetch_value(&sql).await.unwrap()
}

/// Creates a session in which two users are seated, the player and the one whose account is closed later. Two other
/// users have left it, and the Seer has removed a third.
async fn create_seers_session(
    world: &World,
    users: &[(Player, Uuid)],
    adventure: Uuid,
    is_public: bool,
    status: &'static str,
) -> SeersSession {
    let owner = world.owner();
    let [_stranger, (player, _), (left, _), (retired, _), (removed, _), (closed, _), _other_seer, (seer, _)] = users
    else {
        unreachable!()
    };
    let id = create_session(world, seer.user_id, adventure, is_public).await;
    for seated in [player, closed] {
        owner.execute(&insert_seat_sql(id, seated.user_id, seated.character_id)).await.unwrap();
    }
    for (former_player, deactivated_by) in [(left, &left.caller), (retired, &retired.caller), (removed, &seer.caller)] {
        owner.execute(&insert_seat_sql(id, former_player.user_id, former_player.character_id)).await.unwrap();
        let deactivate = format!(
            "UPDATE session_players SET is_active = false WHERE session_id = '{id}' AND user_id = '{}'",
            former_player.user_id
        );
        assert_eq!(deactivated_by.execute(&deactivate).await, Ok(1));
    }
    let roll_id = world.new_failed_roll(id, player.character_id).await;
    let select_first_event = format!("SELECT id FROM session_events WHERE session_id = '{id}' ORDER BY seq LIMIT 1");
    let event_id = owner.fetch_value(&select_first_event).await.unwrap();
    // The statuses that the session is given one after another.
    let status_changes: &[&str] = match status {
        "waiting" => &[],
        "paused" => &["active", "paused"],
        "completed" => &["active", "completed"],
        _ => &[status],
    };
    for new_status in status_changes {
        owner.execute(&format!("UPDATE sessions SET status = '{new_status}' WHERE id = '{id}'")).await.unwrap();
    }
    let name = format!("{}, {}", if is_public { "public" } else { "private" }, status.replace('_', " "));
    SeersSession { name, status, id, roll_id, event_id }
}
