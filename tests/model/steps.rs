//! Random calls, made to the database (in plain SQL or through the service) and to the model.

use proptest::prelude::*;
use sea_orm::sqlx::{AssertSqlSafe, PgPool, raw_sql};
use sea_orm::{DbErr, RuntimeErr};
use sparc::service::{Error, JoinCode, Operations, Sparc, maintenance::JobOptions};
use uuid::Uuid;

use super::{
    game::{Answer, Game, STATUSES},
    visible::{Reader, set_identity},
};

/// A random call. A [`Pick`] is a number that selects one of the existing rows of a kind.
#[derive(Clone, Debug)]
pub struct Step {
    pub who: u8,
    pub act: Act,
    /// Who reads afterwards.
    pub reader: u8,
}

type Pick = u8;

#[derive(Clone, Debug)]
pub enum Act {
    CreateCharacter { name: u8 },
    Retire { hero: Pick },
    Unretire { hero: Pick },
    DeleteCharacter { hero: Pick },
    Wound { hero: Pick, points: i8 },
    CreateSession { adventure: Pick, public: bool },
    Open { session: Pick, public: bool },
    Resize { session: Pick, size: u8 },
    Status { session: Pick, to: u8 },
    Join { session: Pick, hero: Pick },
    Sit { session: Pick, player: Pick, hero: Pick },
    Active { session: Pick, player: Pick, active: bool },
    Readmit { session: Pick, player: Pick },
    Change { session: Pick, player: Pick, hero: Pick },
    Roll { session: Pick, hero: Pick },
    RollCreature { session: Pick, adventure: Pick },
    Save { roll: Pick },
    Send { session: Pick, servers: bool },
    Scene { session: Pick, to: Option<u8> },
    Encounter { session: Pick, to: Option<u8> },
    State { session: Pick, to: u8 },
    CreateAdventure,
    Adventure { adventure: Pick, to: u8 },
    DeleteAdventure { adventure: Pick },
    Close,
    Archive,
}

pub fn step() -> impl Strategy<Value = Step> {
    let pick = any::<Pick>;
    let few = || proptest::option::of(0_u8..3);
    // Waiting, starting soon, active, paused, completed, cancelled; weighted so that most sessions stay live.
    let status = prop_oneof![1 => Just(0_u8), 2 => Just(1), 6 => Just(2), 2 => Just(3), 1 => Just(4), 1 => Just(5)];
    let act = prop_oneof![
        3 => (0_u8..14).prop_map(|name| Act::CreateCharacter { name }),
        2 => pick().prop_map(|hero| Act::Retire { hero }),
        2 => pick().prop_map(|hero| Act::Unretire { hero }),
        1 => pick().prop_map(|hero| Act::DeleteCharacter { hero }),
        1 => (pick(), -2_i8..4).prop_map(|(hero, points)| Act::Wound { hero, points }),
        3 => (pick(), any::<bool>()).prop_map(|(adventure, public)| Act::CreateSession { adventure, public }),
        1 => (pick(), any::<bool>()).prop_map(|(session, public)| Act::Open { session, public }),
        2 => (pick(), 2_u8..7).prop_map(|(session, size)| Act::Resize { session, size }),
        5 => (pick(), status).prop_map(|(session, to)| Act::Status { session, to }),
        6 => (pick(), pick()).prop_map(|(session, hero)| Act::Join { session, hero }),
        6 => (pick(), pick(), pick()).prop_map(|(session, player, hero)| Act::Sit { session, player, hero }),
        4 => (pick(), pick(), any::<bool>())
            .prop_map(|(session, player, active)| Act::Active { session, player, active }),
        2 => (pick(), pick()).prop_map(|(session, player)| Act::Readmit { session, player }),
        3 => (pick(), pick(), pick()).prop_map(|(session, player, hero)| Act::Change { session, player, hero }),
        8 => (pick(), pick()).prop_map(|(session, hero)| Act::Roll { session, hero }),
        2 => (pick(), pick()).prop_map(|(session, adventure)| Act::RollCreature { session, adventure }),
        6 => pick().prop_map(|roll| Act::Save { roll }),
        3 => (pick(), any::<bool>()).prop_map(|(session, servers)| Act::Send { session, servers }),
        1 => (pick(), few()).prop_map(|(session, to)| Act::Scene { session, to }),
        2 => (pick(), few()).prop_map(|(session, to)| Act::Encounter { session, to }),
        1 => (pick(), 0_u8..3).prop_map(|(session, to)| Act::State { session, to }),
        1 => Just(Act::CreateAdventure),
        2 => (pick(), 0_u8..3).prop_map(|(adventure, to)| Act::Adventure { adventure, to }),
        1 => pick().prop_map(|adventure| Act::DeleteAdventure { adventure }),
        1 => (0_u8..8).prop_map(|odds| if odds == 0 { Act::Close } else { Act::CreateAdventure }),
        1 => (0_u8..4).prop_map(|odds| if odds == 0 { Act::Archive } else { Act::CreateAdventure }),
    ];
    (any::<u8>(), act, any::<u8>()).prop_map(|(who, act, reader)| Step { who, act, reader })
}

/// The database under test.
pub struct Target<'a> {
    pub pool: &'a PgPool,
    pub sparc: &'a Sparc,
}

/// Returns the service's code of an error.
fn code(error: sea_orm::sqlx::Error) -> &'static str {
    Error::from(DbErr::Query(RuntimeErr::SqlxError(error.into()))).code()
}

impl Target<'_> {
    /// Runs one statement as that user, in one message.
    async fn sql(&self, game: &Game, me: usize, sql: &str) -> Answer {
        let message = format!("{}{sql}; COMMIT", set_identity(Reader::Of(me), game));
        let mut connection = self.pool.acquire().await.map_err(code)?;
        let outcome = raw_sql(AssertSqlSafe(message)).execute(&mut *connection).await;
        if outcome.is_err() {
            raw_sql("ROLLBACK").execute(&mut *connection).await.map_err(code)?;
        }
        outcome.map(|result| result.rows_affected() > 0).map_err(code)
    }

    async fn flag(&self, sql: String) -> bool {
        sea_orm::sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(self.pool).await.unwrap()
    }
}

fn at<T>(all: &[T], pick: Pick) -> Option<usize> {
    (!all.is_empty()).then(|| usize::from(pick) % all.len())
}

/// Picks a character, mostly one of the player's own.
fn hero(game: &Game, player: usize, pick: Pick) -> Option<usize> {
    let own: Vec<usize> = (0..game.characters.len()).filter(|place| game.characters[*place].owner == player).collect();
    if pick < 200 && !own.is_empty() { Some(own[usize::from(pick) % own.len()]) } else { at(&game.characters, pick) }
}

/// Picks a session, mostly one of the newest.
fn session(game: &Game, pick: Pick) -> Option<usize> {
    let all = game.sessions.len();
    let newest = all.saturating_sub(4);
    if pick < 200 && all > 0 { Some(newest + usize::from(pick) % (all - newest)) } else { at(&game.sessions, pick) }
}

/// Picks a user, mostly one who has or had a seat in the session.
fn seated(game: &Game, session: usize, pick: Pick) -> Option<usize> {
    let there: Vec<usize> = game.sessions[session].seats.keys().copied().collect();
    at(&there, pick).filter(|_| pick < 200).map(|place| there[place]).or_else(|| at(&game.people, pick))
}

impl Step {
    /// Makes the call to both and returns both answers, or `None` if no row of the kind exists yet.
    pub async fn call(&self, game: &mut Game, target: &Target<'_>) -> Option<(Answer, Answer)> {
        let me = at(&game.people, self.who)?;
        // Half the time the session's Seer, without whom little happens.
        let or_seer = |session: usize, game: &Game| if self.who >= 128 { game.sessions[session].seer } else { me };
        let of_session = |place: usize, set: String, game: &Game| {
            format!("UPDATE public.sessions SET {set} WHERE id = '{}'", game.sessions[place].id)
        };
        let text = |to: Option<u8>| to.map_or("NULL".to_owned(), |to| format!("'{to}'"));
        Some(match self.act {
            Act::CreateCharacter { name } => {
                let id = game.id();
                let sql = format!(
                    "INSERT INTO public.characters (id, user_id, name, class, might, grace, wit, heart, special_ability)
                     VALUES ('{id}', '{}', 'Hero {name}', 'warrior', 5, 3, 2, 2, '{{}}')",
                    game.people[me].id
                );
                (target.sql(game, me, &sql).await, game.create_character(me, id, name))
            }
            Act::Retire { hero: pick } => {
                let hero = hero(game, me, pick)?;
                let id = game.characters[hero].id;
                let sql = format!("UPDATE public.characters SET retired_at = now() WHERE id = '{id}'");
                (target.sql(game, me, &sql).await, game.retire(me, hero))
            }
            Act::Unretire { hero: pick } => {
                let hero = hero(game, me, pick)?;
                let id = game.characters[hero].id;
                let sql = format!("UPDATE public.characters SET retired_at = NULL WHERE id = '{id}'");
                (target.sql(game, me, &sql).await, game.unretire(me, hero))
            }
            Act::DeleteCharacter { hero: pick } => {
                let hero = hero(game, me, pick)?;
                let sql = format!("DELETE FROM public.characters WHERE id = '{}'", game.characters[hero].id);
                (target.sql(game, me, &sql).await, game.delete_character(me, hero))
            }
            Act::Wound { hero: pick, points } => {
                let hero = at(&game.characters, pick)?;
                let id = game.characters[hero].id;
                let sql = format!("SELECT * FROM private.change_hit_points('{id}', {})", -i32::from(points));
                (target.sql(game, me, &sql).await, game.wound(me, hero, i32::from(points)))
            }
            Act::CreateSession { adventure, public } => {
                let (id, adventure) = (game.id(), at(&game.adventures, adventure)?);
                let sql = format!(
                    "INSERT INTO public.sessions (id, seer_id, adventure_id, is_public) VALUES ('{id}', '{}', '{}', {public})",
                    game.people[me].id, game.adventures[adventure].id
                );
                (target.sql(game, me, &sql).await, game.create_session(me, id, adventure, public))
            }
            Act::Open { session: pick, public } => {
                let place = session(game, pick)?;
                let me = or_seer(place, game);
                let actual = target.sql(game, me, &of_session(place, format!("is_public = {public}"), game)).await;
                (actual, game.show(me, place, public))
            }
            Act::Resize { session: pick, size } => {
                let place = session(game, pick)?;
                let me = or_seer(place, game);
                let actual = target.sql(game, me, &of_session(place, format!("max_players = {size}"), game)).await;
                (actual, game.resize(me, place, usize::from(size)))
            }
            Act::Status { session: pick, to } => {
                let place = session(game, pick)?;
                let (me, to) = (or_seer(place, game), STATUSES[usize::from(to)]);
                let actual = target.sql(game, me, &of_session(place, format!("status = '{to}'"), game)).await;
                (actual, game.change_status(me, place, to))
            }
            Act::Join { session: pick, hero: of } => {
                let (place, hero) = (session(game, pick)?, hero(game, me, of)?);
                let sql = format!(
                    "SELECT code::text FROM (SELECT id, code FROM public.sessions UNION ALL SELECT id, code FROM
                     public.archived_sessions) AS every WHERE id = '{}'",
                    game.sessions[place].id
                );
                // A session that was deleted with its adventure has no code.
                let code = sea_orm::sqlx::query_scalar(AssertSqlSafe(sql)).fetch_optional(target.pool).await.unwrap();
                let code: String = code.unwrap_or_else(|| "ZZZZZZ".to_owned());
                let code: JoinCode = code.parse().unwrap();
                let me_there = target.sparc.as_user(game.people[me].id);
                let actual = me_there.sessions().join(&code, game.characters[hero].id).await;
                (actual.map(|_| true).map_err(|error| error.code()), game.join(me, place, hero))
            }
            Act::Sit { session: pick, player, hero: of } => {
                let place = session(game, pick)?;
                // Half the time as from the lobby.
                let (me, player) = if self.who >= 128 {
                    (game.sessions[place].seer, at(&game.people, player)?)
                } else {
                    (me, if player < 200 { me } else { at(&game.people, player)? })
                };
                let hero = hero(game, player, of)?;
                let sql = format!(
                    "INSERT INTO public.session_players (session_id, user_id, character_id) VALUES ('{}', '{}', '{}')",
                    game.sessions[place].id, game.people[player].id, game.characters[hero].id
                );
                (target.sql(game, me, &sql).await, game.sit(me, place, player, hero))
            }
            Act::Active { session: pick, player, active } => {
                let place = session(game, pick)?;
                let (me, player) = (or_seer(place, game), seated(game, place, player)?);
                let sql = format!(
                    "UPDATE public.session_players SET is_active = {active} WHERE session_id = '{}' AND user_id = '{}'",
                    game.sessions[place].id, game.people[player].id
                );
                (target.sql(game, me, &sql).await, game.set_active(me, place, player, active))
            }
            Act::Readmit { session: pick, player } => {
                let place = session(game, pick)?;
                let player = seated(game, place, player)?;
                let me = or_seer(place, game);
                let sql = format!(
                    "UPDATE public.session_players SET removed_at = NULL WHERE session_id = '{}' AND user_id = '{}'",
                    game.sessions[place].id, game.people[player].id
                );
                (target.sql(game, me, &sql).await, game.readmit(me, place, player))
            }
            Act::Change { session: pick, player, hero: of } => {
                let place = session(game, pick)?;
                let player = seated(game, place, player)?;
                let me = if self.who < 64 { player } else { or_seer(place, game) };
                let hero = hero(game, player, of)?;
                let sql = format!(
                    "UPDATE public.session_players SET character_id = '{}' WHERE session_id = '{}' AND user_id = '{}'",
                    game.characters[hero].id, game.sessions[place].id, game.people[player].id
                );
                (target.sql(game, me, &sql).await, game.change_character(me, place, player, hero))
            }
            Act::Roll { session: pick, hero: of } => {
                let place = session(game, pick)?;
                let me = or_seer(place, game);
                let sitting: Vec<usize> = game.sessions[place].seats.values().map(|seat| seat.hero).collect();
                let hero =
                    at(&sitting, of).filter(|_| of < 200).map(|at| sitting[at]).or_else(|| hero(game, me, of))?;
                let id = game.id();
                let sql = roll(game, id, place, &format!("'{}', NULL", game.characters[hero].id));
                let actual = target.sql(game, me, &sql).await;
                let expected = game.roll(me, id, place, Some(hero), 0);
                self.copy_roll(game, target, id, &actual).await;
                (actual, expected)
            }
            Act::RollCreature { session: pick, adventure } => {
                let (place, adventure) = (session(game, pick)?, at(&game.adventures, adventure)?);
                let creature = game.adventures[adventure].creature?;
                let (me, id) = (or_seer(place, game), game.id());
                let sql = roll(game, id, place, &format!("NULL, '{creature}'"));
                let actual = target.sql(game, me, &sql).await;
                let expected = game.roll(me, id, place, None, adventure);
                self.copy_roll(game, target, id, &actual).await;
                (actual, expected)
            }
            Act::Save { roll: pick } => {
                // One of the last rolls; earlier ones are too old for a save.
                let newest = game.rolls.len().saturating_sub(6);
                let first = newest + at(&game.rolls[newest..], pick)?;
                let me = or_seer(game.rolls[first].session, game);
                let me_there = target.sparc.as_user(game.people[me].id);
                let actual = me_there.dice().heroic_save(game.rolls[first].id).await;
                let id = actual.as_ref().map_or_else(|_| Uuid::nil(), |save| save.id);
                let actual = actual.map(|_| true).map_err(|error| error.code());
                let expected = game.save(me, id, first);
                self.copy_roll(game, target, id, &actual).await;
                (actual, expected)
            }
            Act::Send { session: pick, servers } => {
                let place = session(game, pick)?;
                let kind = if servers { "dice_rolled" } else { "client.wave" };
                let sql = format!(
                    "INSERT INTO public.session_events (session_id, event_type) VALUES ('{}', '{kind}')",
                    game.sessions[place].id
                );
                (target.sql(game, me, &sql).await, game.send(me, place, servers))
            }
            Act::Scene { session: pick, to } => {
                let place = session(game, pick)?;
                let me = or_seer(place, game);
                let set = format!("current_scene_id = {}", text(to));
                (target.sql(game, me, &of_session(place, set, game)).await, game.set_scene(me, place, to))
            }
            Act::Encounter { session: pick, to } => {
                let place = session(game, pick)?;
                let me = or_seer(place, game);
                let set = format!("current_encounter_id = {}", text(to));
                (target.sql(game, me, &of_session(place, set, game)).await, game.set_encounter(me, place, to))
            }
            Act::State { session: pick, to } => {
                let place = session(game, pick)?;
                let me = or_seer(place, game);
                let set = if to == 0 { "game_state = '{}'".to_owned() } else { format!("game_state = '[{to}]'") };
                (target.sql(game, me, &of_session(place, set, game)).await, game.set_state(me, place, to))
            }
            Act::CreateAdventure => {
                let id = game.id();
                let creator = game.people[me].id;
                let sql = format!(
                    "INSERT INTO public.adventures (id, creator_id, name) VALUES ('{id}', '{creator}', 'Draft')"
                );
                (target.sql(game, me, &sql).await, game.create_adventure(me, id))
            }
            Act::Adventure { adventure, to } => {
                let adventure = at(&game.adventures, adventure)?;
                let me = if self.who >= 128 { game.adventures[adventure].creator } else { me };
                let to = ["draft", "published", "archived"][usize::from(to)];
                let id = game.adventures[adventure].id;
                let sql = format!("UPDATE public.adventures SET status = '{to}' WHERE id = '{id}'");
                (target.sql(game, me, &sql).await, game.set_adventure(me, adventure, to))
            }
            Act::DeleteAdventure { adventure } => {
                let adventure = at(&game.adventures, adventure)?;
                let sql = format!("DELETE FROM public.adventures WHERE id = '{}'", game.adventures[adventure].id);
                (target.sql(game, me, &sql).await, game.delete_adventure(me, adventure))
            }
            Act::Close => {
                let id = game.people[me].id;
                let actual = target.sparc.as_user(id).users().close_account(id).await;
                (actual.map(|()| true).map_err(|error| error.code()), game.close(me))
            }
            Act::Archive => {
                let old = "UPDATE public.sessions SET ended_at = now() - INTERVAL '1 year' WHERE status IN ('completed', 'cancelled')";
                raw_sql(old).execute(target.pool).await.unwrap();
                let actual =
                    target.sparc.as_service().maintenance().archive_sessions(JobOptions::default(), |_| ()).await;
                (actual.map(|_| true).map_err(|error| error.code()), game.archive())
            }
        })
    }

    /// Copies the outcome of a roll from the database, which rolls the dice, to the model.
    async fn copy_roll(&self, game: &mut Game, target: &Target<'_>, id: Uuid, actual: &Answer) {
        if let (Ok(true), Some(roll)) = (actual, game.rolls.last_mut())
            && roll.id == id
        {
            roll.success = target.flag(format!("SELECT success FROM public.dice_rolls WHERE id = '{id}'")).await;
        }
    }
}

fn roll(game: &Game, id: Uuid, session: usize, rollers: &str) -> String {
    format!(
        "INSERT INTO public.dice_rolls (id, session_id, attribute, difficulty, roll_type, character_id, creature_id)
         VALUES ('{id}', '{}', 'wit', 12, 'attack', {rollers})",
        game.sessions[session].id
    )
}
