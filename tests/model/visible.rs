//! The rows that an identity sees in the model and in the database, as one line of text per row (for events, one line
//! per session and type, with the number of events).

use std::sync::LazyLock;

use sea_orm::sqlx::{AssertSqlSafe, PgPool, query_scalar, raw_sql};
use uuid::Uuid;

use super::game::Game;

/// Whose role and claims a transaction has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelIdentity {
    Visitor,
    Service,
    /// The user with this index in the model's list of users.
    User(usize),
}

/// Queries that every role may run. Only closed accounts have the display name `Former player`.
const QUERIES_FOR_EVERYBODY: &str = "
    SELECT concat_ws(' ', 'user', id, games_played, games_run, display_name = 'Former player') AS line FROM public.users
    UNION ALL
    SELECT concat_ws(' ', 'adventure', id, creator_id, status, times_played) FROM public.adventures
    UNION ALL
    SELECT concat_ws(' ', 'creature', id, adventure_id) FROM public.creatures
    UNION ALL
    SELECT concat_ws(' ', 'session', id, seer_id, is_public, max_players, status, seats_taken, encounter_number,
      coalesce(current_scene_id, '-'), coalesce(current_encounter_id, '-'), game_state_version) FROM public.sessions
    UNION ALL
    SELECT concat_ws(' ', 'archived', id, seer_id, is_public, status, seats_taken) FROM public.archived_sessions";

/// Queries that a visitor may not run.
const QUERIES_NOT_FOR_VISITORS: &str = "
    UNION ALL
    SELECT concat_ws(' ', 'character', id, user_id, name, retired_at IS NOT NULL, hit_points) FROM public.characters
    UNION ALL
    SELECT concat_ws(' ', 'seat', session_id, user_id, character_id, is_active, heroic_saves_used, removed_at IS NOT NULL)
    FROM public.session_players
    UNION ALL
    SELECT concat_ws(' ', 'roll', id, session_id, coalesce(character_id::text, '-'), success, coalesce(original_roll_id::text, '-'))
    FROM public.dice_rolls
    UNION ALL
    SELECT concat_ws(' ', 'events', session_id, event_type, count(*)) FROM public.session_events GROUP BY session_id, event_type
    UNION ALL
    SELECT concat_ws(' ', 'archived seat', session_id, user_id, character_id, is_active) FROM public.archived_session_players
    UNION ALL
    SELECT concat_ws(' ', 'archived roll', id, session_id, success) FROM public.archived_dice_rolls";

/// Returns the statements that begin a transaction with this identity.
pub fn begin_sql(identity: ModelIdentity, game: &Game) -> String {
    let (role, id) = match identity {
        ModelIdentity::Visitor => ("anon", None),
        ModelIdentity::Service => ("service_role", None),
        ModelIdentity::User(user) => ("authenticated", Some(game.users[user].id)),
    };
    let claims = serde_json::json!({ "role": role, "sub": id });
    format!("BEGIN; SET LOCAL ROLE {role}; SET LOCAL request.jwt.claims = '{claims}'; ")
}

/// Returns what an identity sees in the database. There are only two query texts, so each connection prepares each of
/// them once.
pub async fn read_visible_lines(pool: &PgPool, game: &Game, identity: ModelIdentity) -> Vec<String> {
    static ALL_QUERIES: LazyLock<String> =
        LazyLock::new(|| format!("{QUERIES_FOR_EVERYBODY}{QUERIES_NOT_FOR_VISITORS}"));
    let sql = if identity == ModelIdentity::Visitor { QUERIES_FOR_EVERYBODY } else { &ALL_QUERIES };
    let mut connection = pool.acquire().await.unwrap();
    raw_sql(AssertSqlSafe(begin_sql(identity, game))).execute(&mut *connection).await.unwrap();
    let lines = query_scalar::<_, String>(AssertSqlSafe(sql)).fetch_all(&mut *connection).await;
    raw_sql("COMMIT").execute(&mut *connection).await.unwrap();
    let mut lines = lines.unwrap();
    lines.sort_unstable();
    lines
}

/// Returns a boolean as `concat_ws` prints it.
fn pg_bool(value: bool) -> char {
    if value { 't' } else { 'f' }
}

impl Game {
    /// Returns what an identity sees in the model.
    pub fn lines_visible_to(&self, identity: ModelIdentity) -> Vec<String> {
        let mut lines = Vec::new();
        let is_service_or = |user: usize| identity == ModelIdentity::Service || identity == ModelIdentity::User(user);
        let is_visitor = identity == ModelIdentity::Visitor;
        let user_id = |index: usize| self.users[index].id;
        let character_id = |index: usize| self.characters[index].id;
        for user in &self.users {
            lines.push(format!(
                "user {} {} {} {}",
                user.id,
                user.games_played,
                user.games_run,
                pg_bool(user.has_closed_account)
            ));
        }
        for adventure in self.adventures.iter().filter(|adventure| !adventure.is_deleted) {
            if adventure.status == "published" || is_service_or(adventure.creator) {
                let creator = user_id(adventure.creator);
                lines.push(format!(
                    "adventure {} {creator} {} {}",
                    adventure.id, adventure.status, adventure.times_played
                ));
                lines.extend(adventure.creature.map(|creature| format!("creature {creature} {}", adventure.id)));
            }
        }
        for character in self.characters.iter().filter(|hero| !hero.is_deleted && is_service_or(hero.owner)) {
            let owner = user_id(character.owner);
            let (id, name_number, retired) = (character.id, character.name_number, pg_bool(character.is_retired));
            lines.push(format!("character {id} {owner} Hero {name_number} {retired} {}", character.hit_points));
        }
        let or_dash = |id: Option<u8>| id.map_or("-".to_owned(), |id| id.to_string());
        for session in self.sessions.iter().filter(|session| !session.is_deleted) {
            let sees_as_participant = match identity {
                ModelIdentity::Visitor => false,
                ModelIdentity::Service => true,
                ModelIdentity::User(user) => session.has_participant(user),
            };
            let (id, seer, public) = (session.id, user_id(session.seer), pg_bool(session.is_public));
            if sees_as_participant || session.is_public {
                lines.push(if session.is_archived {
                    format!("archived {id} {seer} {public} {} {}", session.status, session.seats_taken())
                } else {
                    format!(
                        "session {id} {seer} {public} {} {} {} {} {} {} {}",
                        session.max_players,
                        session.status,
                        session.seats_taken(),
                        session.encounter_number,
                        or_dash(session.current_scene_id),
                        or_dash(session.current_encounter_id),
                        session.game_state_version
                    )
                });
            }
            // A removed player still sees their own seat.
            let sees_seat =
                |player: usize| sees_as_participant || (!is_visitor && (session.is_public || is_service_or(player)));
            for (player, seat) in session.seats.iter().filter(|(player, _)| sees_seat(**player)) {
                let (player, hero, active) = (user_id(*player), character_id(seat.hero), pg_bool(seat.is_active));
                lines.push(if session.is_archived {
                    format!("archived seat {id} {player} {hero} {active}")
                } else {
                    let (saves_used, removed) = (seat.heroic_saves_used, pg_bool(seat.is_removed));
                    format!("seat {id} {player} {hero} {active} {saves_used} {removed}")
                });
            }
            if sees_as_participant && !session.is_archived {
                lines.extend(session.events.iter().map(|(kind, count)| format!("events {id} {kind} {count}")));
            }
            let index = self.session_index(id);
            for roll in self.rolls.iter().filter(|roll| sees_as_participant && roll.session == index) {
                let success = pg_bool(roll.success);
                lines.push(if session.is_archived {
                    format!("archived roll {} {id} {success}", roll.id)
                } else {
                    let roller = roll.hero.map_or("-".to_owned(), |index| character_id(index).to_string());
                    let original = roll.original.map_or("-".to_owned(), |index| self.rolls[index].id.to_string());
                    format!("roll {} {id} {roller} {success} {original}", roll.id)
                });
            }
        }
        lines.sort_unstable();
        lines
    }

    /// Returns the index of the session with this id.
    fn session_index(&self, id: Uuid) -> usize {
        self.sessions.iter().position(|session| session.id == id).unwrap()
    }
}
