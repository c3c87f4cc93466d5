//! Random calls, made to the database (in plain SQL or through the crate `service`) and to the model.

use proptest::prelude::*;
use sea_orm::sqlx::{AssertSqlSafe, PgPool, raw_sql};
use sea_orm::{DbErr, RuntimeErr};
use sparc::service::{Error, JoinCode, Operations, Sparc, maintenance::JobOptions};
use uuid::Uuid;

use super::{
    game::{Answer, Game, SESSION_STATUSES},
    picks::{LIKELY_PICK_LIMIT, Pick, pick_character, pick_index, pick_player, pick_session},
    visible::{ModelIdentity, begin_sql},
};

/// A random call by a random user.
#[derive(Clone, Debug)]
pub struct Step {
    /// Selects the user who makes the call, and whether the session's Seer or the adventure's creator makes it instead.
    pub caller: Pick,
    pub action: Action,
    /// Selects who reads, after the call, all rows that they may see.
    pub reader: Pick,
}

/// What a step does. `hero` selects a character, `name_number` is the number in a character's name, and `to` the new
/// value (for a status, its index in the list of statuses).
#[derive(Clone, Debug)]
pub enum Action {
    CreateCharacter { name_number: u8 },
    Retire { hero: Pick },
    Unretire { hero: Pick },
    DeleteCharacter { hero: Pick },
    Damage { hero: Pick, points: i8 },
    CreateSession { adventure: Pick, is_public: bool },
    SetVisibility { session: Pick, is_public: bool },
    SetMaxPlayers { session: Pick, max_players: u8 },
    ChangeStatus { session: Pick, to: u8 },
    Join { session: Pick, hero: Pick },
    InsertSeat { session: Pick, player: Pick, hero: Pick },
    SetSeatActive { session: Pick, player: Pick, is_active: bool },
    Readmit { session: Pick, player: Pick },
    ChangeCharacter { session: Pick, player: Pick, hero: Pick },
    Roll { session: Pick, hero: Pick },
    RollCreature { session: Pick, adventure: Pick },
    HeroicSave { roll: Pick },
    SendEvent { session: Pick, is_reserved_type: bool },
    SetScene { session: Pick, to: Option<u8> },
    SetEncounter { session: Pick, to: Option<u8> },
    SetGameState { session: Pick, to: u8 },
    CreateAdventure,
    SetAdventureStatus { adventure: Pick, to: u8 },
    DeleteAdventure { adventure: Pick },
    CloseAccount,
    ArchiveSessions,
}

/// Returns the strategy that generates random steps.
pub fn step_strategy() -> impl Strategy<Value = Step> {
    let pick = any::<Pick>;
    let scene_or_encounter = || proptest::option::of(0_u8..3);
    // The index of a status in `SESSION_STATUSES`. The weights keep most sessions live.
    let status = prop_oneof![1 => Just(0_u8), 2 => Just(1), 6 => Just(2), 2 => Just(3), 1 => Just(4), 1 => Just(5)];
    let action = prop_oneof![
        3 => (0_u8..14).prop_map(|name_number| Action::CreateCharacter { name_number }),
        2 => pick().prop_map(|hero| Action::Retire { hero }),
        2 => pick().prop_map(|hero| Action::Unretire { hero }),
        1 => pick().prop_map(|hero| Action::DeleteCharacter { hero }),
        1 => (pick(), -2_i8..4).prop_map(|(hero, points)| Action::Damage { hero, points }),
        3 => (pick(), any::<bool>()).prop_map(|(adventure, is_public)| Action::CreateSession { adventure, is_public }),
        1 => (pick(), any::<bool>()).prop_map(|(session, is_public)| Action::SetVisibility { session, is_public }),
        2 => (pick(), 2_u8..7).prop_map(|(session, max_players)| Action::SetMaxPlayers { session, max_players }),
        5 => (pick(), status).prop_map(|(session, to)| Action::ChangeStatus { session, to }),
        6 => (pick(), pick()).prop_map(|(session, hero)| Action::Join { session, hero }),
        6 => (pick(), pick(), pick()).prop_map(|(session, player, hero)| Action::InsertSeat { session, player, hero }),
        4 => (pick(), pick(), any::<bool>())
            .prop_map(|(session, player, is_active)| Action::SetSeatActive { session, player, is_active }),
        2 => (pick(), pick()).prop_map(|(session, player)| Action::Readmit { session, player }),
        3 => (pick(), pick(), pick())
            .prop_map(|(session, player, hero)| Action::ChangeCharacter { session, player, hero }),
        8 => (pick(), pick()).prop_map(|(session, hero)| Action::Roll { session, hero }),
        2 => (pick(), pick()).prop_map(|(session, adventure)| Action::RollCreature { session, adventure }),
        6 => pick().prop_map(|roll| Action::HeroicSave { roll }),
        3 => (pick(), any::<bool>())
            .prop_map(|(session, is_reserved_type)| Action::SendEvent { session, is_reserved_type }),
        1 => (pick(), scene_or_encounter()).prop_map(|(session, to)| Action::SetScene { session, to }),
        2 => (pick(), scene_or_encounter()).prop_map(|(session, to)| Action::SetEncounter { session, to }),
        1 => (pick(), 0_u8..3).prop_map(|(session, to)| Action::SetGameState { session, to }),
        1 => Just(Action::CreateAdventure),
        2 => (pick(), 0_u8..3).prop_map(|(adventure, to)| Action::SetAdventureStatus { adventure, to }),
        1 => pick().prop_map(|adventure| Action::DeleteAdventure { adventure }),
        // Closing an account and archiving sessions are rare: the account or sessions cannot be changed afterwards.
        1 => (0_u8..8).prop_map(|number| if number == 0 { Action::CloseAccount } else { Action::CreateAdventure }),
        1 => (0_u8..4).prop_map(|number| if number == 0 { Action::ArchiveSessions } else { Action::CreateAdventure }),
    ];
    (any::<u8>(), action, any::<u8>()).prop_map(|(caller, action, reader)| Step { caller, action, reader })
}

/// The database under test, for calls in plain SQL and through the crate `service`.
pub struct Target<'a> {
    pub pool: &'a PgPool,
    pub sparc: &'a Sparc,
}

/// Returns the code that the crate `service` gives to an error.
fn error_code(error: sea_orm::sqlx::Error) -> &'static str {
    Error::from(DbErr::Query(RuntimeErr::SqlxError(error.into()))).code()
}

impl Target<'_> {
    /// Runs one statement as the user `me`, in a transaction that is sent as one message.
    async fn run_sql(&self, game: &Game, me: usize, sql: &str) -> Answer {
        let message = format!("{}{sql}; COMMIT", begin_sql(ModelIdentity::User(me), game));
        let mut connection = self.pool.acquire().await.map_err(error_code)?;
        let outcome = raw_sql(AssertSqlSafe(message)).execute(&mut *connection).await;
        if outcome.is_err() {
            raw_sql("ROLLBACK").execute(&mut *connection).await.map_err(error_code)?;
        }
        outcome.map(|result| result.rows_affected() > 0).map_err(error_code)
    }

    async fn query_bool(&self, sql: String) -> bool {
        sea_orm::sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(self.pool).await.unwrap()
    }
}

impl Step {
    /// Makes the call to the database and to the model, and returns their answers, in this order. Makes no call and
    /// returns `None` if no row exists yet that the call could concern.
    pub async fn call(&self, game: &mut Game, target: &Target<'_>) -> Option<(Answer, Answer)> {
        let me = pick_index(&game.users, self.caller)?;
        // In half of the calls, the session's Seer makes the call instead of the random user, to whom most changes of a
        // session are refused.
        let caller_or_seer =
            |session: usize, game: &Game| if self.caller >= 128 { game.sessions[session].seer } else { me };
        let update_session_sql = |session: usize, set: String, game: &Game| {
            format!("UPDATE public.sessions SET {set} WHERE id = '{}'", game.sessions[session].id)
        };
        let sql_literal = |to: Option<u8>| to.map_or("NULL".to_owned(), |to| format!("'{to}'"));
        Some(match self.action {
            Action::CreateCharacter { name_number } => {
                let id = game.next_id();
                let sql = format!(
                    "INSERT INTO public.characters (id, user_id, name, class, might, grace, wit, heart, special_ability)
                     VALUES ('{id}', '{}', 'Hero {name_number}', 'warrior', 5, 3, 2, 2, '{{}}')",
                    game.users[me].id
                );
                (target.run_sql(game, me, &sql).await, game.create_character(me, id, name_number))
            }
            Action::Retire { hero: pick } => {
                let hero = pick_character(game, me, pick)?;
                let id = game.characters[hero].id;
                let sql = format!("UPDATE public.characters SET retired_at = now() WHERE id = '{id}'");
                (target.run_sql(game, me, &sql).await, game.retire(me, hero))
            }
            Action::Unretire { hero: pick } => {
                let hero = pick_character(game, me, pick)?;
                let id = game.characters[hero].id;
                let sql = format!("UPDATE public.characters SET retired_at = NULL WHERE id = '{id}'");
                (target.run_sql(game, me, &sql).await, game.unretire(me, hero))
            }
            Action::DeleteCharacter { hero: pick } => {
                let hero = pick_character(game, me, pick)?;
                let sql = format!("DELETE FROM public.characters WHERE id = '{}'", game.characters[hero].id);
                (target.run_sql(game, me, &sql).await, game.delete_character(me, hero))
            }
            Action::Damage { hero: pick, points } => {
                let hero = pick_index(&game.characters, pick)?;
                let id = game.characters[hero].id;
                let sql = format!("SELECT * FROM private.change_hit_points('{id}', {})", -i32::from(points));
                (target.run_sql(game, me, &sql).await, game.damage(me, hero, i32::from(points)))
            }
            Action::CreateSession { adventure, is_public } => {
                let (id, adventure) = (game.next_id(), pick_index(&game.adventures, adventure)?);
                let sql = format!(
                    "INSERT INTO public.sessions (id, seer_id, adventure_id, is_public)
                     VALUES ('{id}', '{}', '{}', {is_public})",
                    game.users[me].id, game.adventures[adventure].id
                );
                (target.run_sql(game, me, &sql).await, game.create_session(me, id, adventure, is_public))
            }
            Action::SetVisibility { session: pick, is_public } => {
                let session = pick_session(game, pick)?;
                let me = caller_or_seer(session, game);
                let actual = target
                    .run_sql(game, me, &update_session_sql(session, format!("is_public = {is_public}"), game))
                    .await;
                (actual, game.set_visibility(me, session, is_public))
            }
            Action::SetMaxPlayers { session: pick, max_players } => {
                let session = pick_session(game, pick)?;
                let me = caller_or_seer(session, game);
                let actual = target
                    .run_sql(game, me, &update_session_sql(session, format!("max_players = {max_players}"), game))
                    .await;
                (actual, game.set_max_players(me, session, usize::from(max_players)))
            }
            Action::ChangeStatus { session: pick, to } => {
                let session = pick_session(game, pick)?;
                let (me, to) = (caller_or_seer(session, game), SESSION_STATUSES[usize::from(to)]);
                let actual =
                    target.run_sql(game, me, &update_session_sql(session, format!("status = '{to}'"), game)).await;
                (actual, game.change_status(me, session, to))
            }
            Action::Join { session: pick, hero: hero_pick } => {
                let (session, hero) = (pick_session(game, pick)?, pick_character(game, me, hero_pick)?);
                let sql = format!(
                    "SELECT code::text FROM (SELECT id, code FROM public.sessions UNION ALL SELECT id, code FROM
                     public.archived_sessions) AS all_sessions WHERE id = '{}'",
                    game.sessions[session].id
                );
                // A session that was deleted with its adventure has no code any more, so an unknown code is used.
                let stored_code: Option<String> =
                    sea_orm::sqlx::query_scalar(AssertSqlSafe(sql)).fetch_optional(target.pool).await.unwrap();
                let code: JoinCode = stored_code.as_deref().unwrap_or("ZZZZZZ").parse().unwrap();
                let my_connection = target.sparc.as_user(game.users[me].id);
                let actual = my_connection.sessions().join(&code, game.characters[hero].id).await;
                (actual.map(|_| true).map_err(|error| error.code()), game.join(me, session, hero))
            }
            Action::InsertSeat { session: pick, player, hero: hero_pick } => {
                let session = pick_session(game, pick)?;
                // In half of the calls, the Seer attempts to seat a user. In most others, the caller takes a new seat.
                let (me, player) = if self.caller >= 128 {
                    (game.sessions[session].seer, pick_index(&game.users, player)?)
                } else {
                    (me, if player < LIKELY_PICK_LIMIT { me } else { pick_index(&game.users, player)? })
                };
                let hero = pick_character(game, player, hero_pick)?;
                let sql = format!(
                    "INSERT INTO public.session_players (session_id, user_id, character_id) VALUES ('{}', '{}', '{}')",
                    game.sessions[session].id, game.users[player].id, game.characters[hero].id
                );
                (target.run_sql(game, me, &sql).await, game.insert_seat(me, session, player, hero))
            }
            Action::SetSeatActive { session: pick, player, is_active } => {
                let session = pick_session(game, pick)?;
                let (me, player) = (caller_or_seer(session, game), pick_player(game, session, player)?);
                let sql = format!(
                    "UPDATE public.session_players SET is_active = {is_active}
                     WHERE session_id = '{}' AND user_id = '{}'",
                    game.sessions[session].id, game.users[player].id
                );
                (target.run_sql(game, me, &sql).await, game.set_seat_active(me, session, player, is_active))
            }
            Action::Readmit { session: pick, player } => {
                let session = pick_session(game, pick)?;
                let player = pick_player(game, session, player)?;
                let me = caller_or_seer(session, game);
                let sql = format!(
                    "UPDATE public.session_players SET removed_at = NULL WHERE session_id = '{}' AND user_id = '{}'",
                    game.sessions[session].id, game.users[player].id
                );
                (target.run_sql(game, me, &sql).await, game.readmit(me, session, player))
            }
            Action::ChangeCharacter { session: pick, player, hero: hero_pick } => {
                let session = pick_session(game, pick)?;
                let player = pick_player(game, session, player)?;
                // In a quarter of the calls, the picked player makes the call.
                let me = if self.caller < 64 { player } else { caller_or_seer(session, game) };
                let hero = pick_character(game, player, hero_pick)?;
                let sql = format!(
                    "UPDATE public.session_players SET character_id = '{}' WHERE session_id = '{}' AND user_id = '{}'",
                    game.characters[hero].id, game.sessions[session].id, game.users[player].id
                );
                (target.run_sql(game, me, &sql).await, game.change_character(me, session, player, hero))
            }
            Action::Roll { session: pick, hero: hero_pick } => {
                let session = pick_session(game, pick)?;
                let me = caller_or_seer(session, game);
                let heroes_of_seats: Vec<usize> = game.sessions[session].seats.values().map(|seat| seat.hero).collect();
                let hero = pick_index(&heroes_of_seats, hero_pick)
                    .filter(|_| hero_pick < LIKELY_PICK_LIMIT)
                    .map(|index| heroes_of_seats[index])
                    .or_else(|| pick_character(game, me, hero_pick))?;
                let id = game.next_id();
                let sql = insert_attack_roll_sql(game, id, session, &format!("'{}', NULL", game.characters[hero].id));
                let actual = target.run_sql(game, me, &sql).await;
                let expected = game.roll(me, id, session, Some(hero), None);
                self.copy_success_of_roll(game, target, id, &actual).await;
                (actual, expected)
            }
            Action::RollCreature { session: pick, adventure } => {
                let (session, adventure) = (pick_session(game, pick)?, pick_index(&game.adventures, adventure)?);
                let creature = game.adventures[adventure].creature?;
                let (me, id) = (caller_or_seer(session, game), game.next_id());
                let sql = insert_attack_roll_sql(game, id, session, &format!("NULL, '{creature}'"));
                let actual = target.run_sql(game, me, &sql).await;
                let expected = game.roll(me, id, session, None, Some(adventure));
                self.copy_success_of_roll(game, target, id, &actual).await;
                (actual, expected)
            }
            Action::HeroicSave { roll: pick } => {
                // One of the last six rolls is picked, because earlier ones may be too old for a save.
                let first_of_newest = game.rolls.len().saturating_sub(6);
                let original = first_of_newest + pick_index(&game.rolls[first_of_newest..], pick)?;
                let me = caller_or_seer(game.rolls[original].session, game);
                let my_connection = target.sparc.as_user(game.users[me].id);
                let actual = my_connection.dice().use_heroic_save(game.rolls[original].id).await;
                let id = actual.as_ref().map_or_else(|_| Uuid::nil(), |save| save.id);
                let actual = actual.map(|_| true).map_err(|error| error.code());
                let expected = game.use_heroic_save(me, id, original);
                self.copy_success_of_roll(game, target, id, &actual).await;
                (actual, expected)
            }
            Action::SendEvent { session: pick, is_reserved_type } => {
                let session = pick_session(game, pick)?;
                let event_type = if is_reserved_type { "dice_rolled" } else { "client.wave" };
                let sql = format!(
                    "INSERT INTO public.session_events (session_id, event_type) VALUES ('{}', '{event_type}')",
                    game.sessions[session].id
                );
                (target.run_sql(game, me, &sql).await, game.send_event(me, session, is_reserved_type))
            }
            Action::SetScene { session: pick, to } => {
                let session = pick_session(game, pick)?;
                let me = caller_or_seer(session, game);
                let set = format!("current_scene_id = {}", sql_literal(to));
                (
                    target.run_sql(game, me, &update_session_sql(session, set, game)).await,
                    game.set_scene(me, session, to),
                )
            }
            Action::SetEncounter { session: pick, to } => {
                let session = pick_session(game, pick)?;
                let me = caller_or_seer(session, game);
                let set = format!("current_encounter_id = {}", sql_literal(to));
                (
                    target.run_sql(game, me, &update_session_sql(session, set, game)).await,
                    game.set_encounter(me, session, to),
                )
            }
            Action::SetGameState { session: pick, to } => {
                let session = pick_session(game, pick)?;
                let me = caller_or_seer(session, game);
                let set = if to == 0 { "game_state = '{}'".to_owned() } else { format!("game_state = '[{to}]'") };
                (
                    target.run_sql(game, me, &update_session_sql(session, set, game)).await,
                    game.set_game_state(me, session, to),
                )
            }
            Action::CreateAdventure => {
                let id = game.next_id();
                let creator = game.users[me].id;
                let sql = format!(
                    "INSERT INTO public.adventures (id, creator_id, name) VALUES ('{id}', '{creator}', 'Draft')"
                );
                (target.run_sql(game, me, &sql).await, game.create_adventure(me, id))
            }
            Action::SetAdventureStatus { adventure, to } => {
                let adventure = pick_index(&game.adventures, adventure)?;
                let me = if self.caller >= 128 { game.adventures[adventure].creator } else { me };
                let to = ["draft", "published", "archived"][usize::from(to)];
                let id = game.adventures[adventure].id;
                let sql = format!("UPDATE public.adventures SET status = '{to}' WHERE id = '{id}'");
                (target.run_sql(game, me, &sql).await, game.set_adventure_status(me, adventure, to))
            }
            Action::DeleteAdventure { adventure } => {
                let adventure = pick_index(&game.adventures, adventure)?;
                let sql = format!("DELETE FROM public.adventures WHERE id = '{}'", game.adventures[adventure].id);
                (target.run_sql(game, me, &sql).await, game.delete_adventure(me, adventure))
            }
            Action::CloseAccount => {
                let id = game.users[me].id;
                let actual = target.sparc.as_user(id).users().close_account(id).await;
                (actual.map(|()| true).map_err(|error| error.code()), game.close_account(me))
            }
            Action::ArchiveSessions => {
                let end_a_year_ago_sql = "UPDATE public.sessions SET ended_at = now() - INTERVAL '1 year'
                     WHERE status IN ('completed', 'cancelled')";
                raw_sql(end_a_year_ago_sql).execute(target.pool).await.unwrap();
                let actual =
                    target.sparc.as_service().maintenance().archive_sessions(JobOptions::default(), |_| ()).await;
                (actual.map(|_| true).map_err(|error| error.code()), game.archive_sessions())
            }
        })
    }

    /// Copies to the model whether the new roll, if there is one, succeeded: the database rolls the dice.
    async fn copy_success_of_roll(&self, game: &mut Game, target: &Target<'_>, id: Uuid, actual: &Answer) {
        if let (Ok(true), Some(roll)) = (actual, game.rolls.last_mut())
            && roll.id == id
        {
            roll.success = target.query_bool(format!("SELECT success FROM public.dice_rolls WHERE id = '{id}'")).await;
        }
    }
}

/// Returns an INSERT of an attack roll. `roller_values` is the SQL of the values of `character_id` and `creature_id`.
fn insert_attack_roll_sql(game: &Game, id: Uuid, session: usize, roller_values: &str) -> String {
    format!(
        "INSERT INTO public.dice_rolls (id, session_id, attribute, difficulty, roll_type, character_id, creature_id)
         VALUES ('{id}', '{}', 'wit', 12, 'attack', {roller_values})",
        game.sessions[session].id
    )
}
