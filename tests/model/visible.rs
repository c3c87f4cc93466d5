//! The rows that a user sees, according to the model and according to the database: one line per row.

use std::sync::LazyLock;

use sea_orm::sqlx::{AssertSqlSafe, PgPool, query_scalar, raw_sql};
use uuid::Uuid;

use super::game::Game;

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Visitor,
    Service,
    Of(usize),
}

/// Queries that every role may run.
const OPEN: &str = "
    SELECT concat_ws(' ', 'user', id, games_played, games_run, display_name = 'Former player') AS line FROM public.users
    UNION ALL
    SELECT concat_ws(' ', 'adventure', id, creator_id, status, times_played) FROM public.adventures
    UNION ALL
    SELECT concat_ws(' ', 'creature', id, adventure_id) FROM public.creatures
    UNION ALL
    SELECT concat_ws(' ', 'session', id, seer_id, is_public, max_players, status, seats_taken, encounters_begun,
      coalesce(current_scene_id, '-'), coalesce(current_encounter_id, '-'), game_state_version) FROM public.sessions
    UNION ALL
    SELECT concat_ws(' ', 'archived', id, seer_id, is_public, status, seats_taken) FROM public.archived_sessions";

/// Queries that a visitor may not run.
const CLOSED: &str = "
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

/// Returns the statements that set an identity, for a transaction in one message.
pub fn set_identity(reader: Reader, game: &Game) -> String {
    let (role, id) = match reader {
        Reader::Visitor => ("anon", None),
        Reader::Service => ("service_role", None),
        Reader::Of(person) => ("authenticated", Some(game.people[person].id)),
    };
    let claims = serde_json::json!({ "role": role, "sub": id });
    format!("BEGIN; SET LOCAL ROLE {role}; SET LOCAL request.jwt.claims = '{claims}'; ")
}

/// Returns what a user or a visitor sees. There are two statements, so that each is prepared once per connection.
pub async fn seen(pool: &PgPool, game: &Game, reader: Reader) -> Vec<String> {
    static SIGNED_IN: LazyLock<String> = LazyLock::new(|| format!("{OPEN}{CLOSED}"));
    let sql = if reader == Reader::Visitor { OPEN } else { &SIGNED_IN };
    let mut connection = pool.acquire().await.unwrap();
    raw_sql(AssertSqlSafe(set_identity(reader, game))).execute(&mut *connection).await.unwrap();
    let lines = query_scalar::<_, String>(AssertSqlSafe(sql)).fetch_all(&mut *connection).await;
    raw_sql("COMMIT").execute(&mut *connection).await.unwrap();
    let mut lines = lines.unwrap();
    lines.sort_unstable();
    lines
}

fn flag(is: bool) -> char {
    if is { 't' } else { 'f' }
}

impl Game {
    /// Returns the same according to the model.
    pub fn seen(&self, reader: Reader) -> Vec<String> {
        let mut lines = Vec::new();
        let me = |person: usize| reader == Reader::Service || reader == Reader::Of(person);
        let signed_in = reader != Reader::Visitor;
        let person = |place: usize| self.people[place].id;
        let hero = |place: usize| self.characters[place].id;
        for person in &self.people {
            lines.push(format!("user {} {} {} {}", person.id, person.played, person.run, flag(person.closed)));
        }
        for adventure in self.adventures.iter().filter(|adventure| !adventure.gone) {
            if adventure.status == "published" || me(adventure.creator) {
                let creator = person(adventure.creator);
                lines.push(format!("adventure {} {creator} {} {}", adventure.id, adventure.status, adventure.played));
                lines.extend(adventure.creature.map(|creature| format!("creature {creature} {}", adventure.id)));
            }
        }
        for character in self.characters.iter().filter(|hero| !hero.gone && me(hero.owner)) {
            let owner = person(character.owner);
            let (id, name, retired) = (character.id, character.name, flag(character.retired));
            lines.push(format!("character {id} {owner} Hero {name} {retired} {}", character.hit_points));
        }
        let or_none = |text: Option<u8>| text.map_or("-".to_owned(), |text| text.to_string());
        for session in self.sessions.iter().filter(|session| !session.gone) {
            let mine = match reader {
                Reader::Visitor => false,
                Reader::Service => true,
                Reader::Of(person) => session.has_participant(person),
            };
            let (id, seer, public) = (session.id, person(session.seer), flag(session.public));
            if mine || session.public {
                lines.push(if session.archived {
                    format!("archived {id} {seer} {public} {} {}", session.status, session.taken())
                } else {
                    format!(
                        "session {id} {seer} {public} {} {} {} {} {} {} {}",
                        session.size,
                        session.status,
                        session.taken(),
                        session.encounters,
                        or_none(session.scene),
                        or_none(session.encounter),
                        session.version
                    )
                });
            }
            // A removed player still sees their own seat.
            let shows = |player: usize| mine || (signed_in && (session.public || me(player)));
            for (player, seat) in session.seats.iter().filter(|(player, _)| shows(**player)) {
                let (player, hero, active) = (person(*player), hero(seat.hero), flag(seat.active));
                lines.push(if session.archived {
                    format!("archived seat {id} {player} {hero} {active}")
                } else {
                    let (saved, removed) = (u8::from(seat.saved.is_some()), flag(seat.removed));
                    format!("seat {id} {player} {hero} {active} {saved} {removed}")
                });
            }
            if mine && !session.archived {
                lines.extend(session.events.iter().map(|(kind, count)| format!("events {id} {kind} {count}")));
            }
            let place = self.place(id);
            for roll in self.rolls.iter().filter(|roll| mine && roll.session == place) {
                let success = flag(roll.success);
                lines.push(if session.archived {
                    format!("archived roll {} {id} {success}", roll.id)
                } else {
                    let by = roll.hero.map_or("-".to_owned(), |place| hero(place).to_string());
                    let saves = roll.saves.map_or("-".to_owned(), |first| self.rolls[first].id.to_string());
                    format!("roll {} {id} {by} {success} {saves}", roll.id)
                });
            }
        }
        lines.sort_unstable();
        lines
    }

    fn place(&self, session: Uuid) -> usize {
        self.sessions.iter().position(|other| other.id == session).unwrap()
    }
}
