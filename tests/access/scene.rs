//! Sessions of every visibility in every status, with users in every relation to them.

use uuid::Uuid;

use crate::world::{Person, Player, World, seat};

pub const STATUSES: [&str; 6] = ["waiting", "starting_soon", "active", "paused", "completed", "cancelled"];

pub const ACTORS: [&str; 10] =
    ["visitor", "stranger", "player", "left", "retired", "removed", "closed", "other Seer", "Seer", "service"];

/// A user who makes attempts.
pub struct Actor {
    pub person: Person,
    /// The account; nil for the visitor and the service.
    pub id: Uuid,
    /// A character that was played, and one that was not.
    pub character: Uuid,
    pub spare: Uuid,
}

pub struct Game {
    pub name: String,
    pub status: &'static str,
    pub id: Uuid,
    pub roll: Uuid,
    pub event: Uuid,
}

pub struct Scene {
    pub world: World,
    /// In the order of [`ACTORS`].
    pub actors: Vec<Actor>,
    pub games: Vec<Game>,
    /// A waiting and an active session of another Seer, whose player takes part in nothing else.
    pub elsewhere: [Uuid; 2],
    /// An archived public session and an archived private one.
    pub archived: [Uuid; 2],
    /// The Seer's adventures by status, each with a creature; those that were played cannot be deleted.
    pub adventures: Vec<(&'static str, Uuid, Uuid)>,
    pub creature: Uuid,
}

impl Scene {
    pub async fn new() -> Self {
        let world = World::new().await;
        let owner = world.owner();
        let mut people = Vec::new();
        // From the stranger to the Seer, in the order of [`ACTORS`].
        for _ in 1..ACTORS.len() - 1 {
            people.push((world.new_player().await, Uuid::nil()));
        }
        for (player, spare) in &mut people {
            *spare = world.new_character(player.id).await;
            let tutorial = format!("INSERT INTO tutorial_progress (user_id) VALUES ('{}')", player.id);
            owner.exec(&tutorial).await.unwrap();
        }
        let seer = people[7].0.id;

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
            let id: Uuid = owner.value(&sql).await.unwrap();
            let sql = format!("INSERT INTO creatures (adventure_id, name) VALUES ('{id}', 'Reed Horror') RETURNING id");
            adventures.push((name, id, owner.value(&sql).await.unwrap()));
        }
        let (_, adventure, creature) = adventures[0];

        let mut games = Vec::new();
        for public in [true, false] {
            for status in STATUSES {
                games.push(game(&world, &people, adventure, public, status).await);
            }
        }
        let mut archived = [Uuid::nil(); 2];
        for (public, id) in [true, false].into_iter().zip(&mut archived) {
            *id = game(&world, &people, adventure, public, "completed").await.id;
            let sql = format!("UPDATE sessions SET ended_at = now() - INTERVAL '1 year' WHERE id = '{id}'");
            owner.exec(&sql).await.unwrap();
        }
        assert_eq!(owner.value::<i32>("SELECT private.archive_sessions(10)").await, Ok(2));
        let retire = format!("UPDATE characters SET retired_at = now() WHERE id = '{}'", people[3].0.character);
        owner.exec(&retire).await.unwrap();
        let mut elsewhere = [Uuid::nil(); 2];
        for (active, id) in [false, true].into_iter().zip(&mut elsewhere) {
            *id = session(&world, people[6].0.id, adventure, true).await;
            let guest = world.new_player().await;
            owner.exec(&seat(*id, guest.id, guest.character)).await.unwrap();
            if active {
                owner.exec(&format!("UPDATE sessions SET status = 'active' WHERE id = '{id}'")).await.unwrap();
            }
        }
        let close = format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{}'", people[5].0.id);
        owner.exec(&close).await.unwrap();

        let without_account =
            |person: Person| Actor { person, id: Uuid::nil(), character: Uuid::nil(), spare: Uuid::nil() };
        let mut actors = vec![without_account(world.visitor())];
        let mut order: Vec<(Player, Uuid)> = people;
        let stranger = order.remove(0);
        for (player, spare) in [stranger].into_iter().chain(order) {
            actors.push(Actor { person: player.person, id: player.id, character: player.character, spare });
        }
        actors.push(without_account(world.service()));
        Self { world, actors, games, elsewhere, archived, adventures, creature }
    }

    pub fn actor(&self, name: &str) -> &Actor {
        let place = ACTORS.iter().position(|actor| *actor == name).unwrap();
        &self.actors[place]
    }
}

async fn session(world: &World, seer: Uuid, adventure: Uuid, public: bool) -> Uuid {
    let sql = format!(
        "INSERT INTO sessions (seer_id, adventure_id, is_public) VALUES ('{seer}', '{adventure}', {public}) RETURNING id"
    );
    world.owner().value(&sql).await.unwrap()
}

/// Creates a session where the player is seated; others left, were removed, or close their account later.
async fn game(world: &World, people: &[(Player, Uuid)], adventure: Uuid, public: bool, status: &'static str) -> Game {
    let owner = world.owner();
    let [_, (player, _), (left, _), (retired, _), (removed, _), (closed, _), _, (seer, _)] = people else {
        unreachable!()
    };
    let id = session(world, seer.id, adventure, public).await;
    for sits in [player, closed] {
        owner.exec(&seat(id, sits.id, sits.character)).await.unwrap();
    }
    for (sits, by) in [(left, &left.person), (retired, &retired.person), (removed, &seer.person)] {
        owner.exec(&seat(id, sits.id, sits.character)).await.unwrap();
        let leave = format!(
            "UPDATE session_players SET is_active = false WHERE session_id = '{id}' AND user_id = '{}'",
            sits.id
        );
        assert_eq!(by.exec(&leave).await, Ok(1));
    }
    // In the future, so that a heroic save is never too late.
    let roll = world.new_roll(id, player.character, "{1,2}", 10, -3600).await;
    let event = format!("SELECT id FROM session_events WHERE session_id = '{id}' ORDER BY seq LIMIT 1");
    let event = owner.value(&event).await.unwrap();
    let steps: &[&str] = match status {
        "waiting" => &[],
        "paused" => &["active", "paused"],
        "completed" => &["active", "completed"],
        _ => &[status],
    };
    for step in steps {
        owner.exec(&format!("UPDATE sessions SET status = '{step}' WHERE id = '{id}'")).await.unwrap();
    }
    let name = format!("{}, {}", if public { "public" } else { "private" }, status.replace('_', " "));
    Game { name, status, id, roll, event }
}
