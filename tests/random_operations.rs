//! Random operations that several users call in the same sessions. Tests of concurrency and of faults run them.

use std::{collections::BTreeMap, sync::Mutex};

use fastrand::Rng;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Statement};
use sparc::{
    entity::sea_orm_active_enums::{Attribute, RollType},
    service::{
        Difficulty, Error, IdentityConnection, JoinCode, Operations, Sparc,
        characters::NewCharacter,
        dice::{HistoryFilter, NewInitiative, NewRoll, RollScope, Roller},
        events::NewEvent,
        maintenance::JobOptions,
        sessions::{ExpectedVersion, LobbyFilter, NewSession, SessionChanges, Visibility},
        users::ProfileChanges,
    },
};
use uuid::Uuid;

use crate::world::World;

/// The users, and the rows that their operations choose from.
pub struct RandomOperations {
    users: Vec<User>,
    adventure_id: Uuid,
    creature_id: Uuid,
    /// All sessions that the operations have created, the oldest first.
    sessions: Mutex<Vec<CreatedSession>>,
}

struct User {
    id: Uuid,
    character_ids: Vec<Uuid>,
}

#[derive(Clone)]
struct CreatedSession {
    id: Uuid,
    seer_id: Uuid,
    code: JoinCode,
}

/// A row whose creation was acknowledged to the caller, so it must still exist at the end of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AcknowledgedRow {
    Session(Uuid),
    Character(Uuid),
    Roll(Uuid),
    Event(Uuid),
}

impl AcknowledgedRow {
    /// Returns the SQL that follows `FROM` in a query that counts the row.
    pub fn sql_after_from(self) -> String {
        match self {
            Self::Session(id) => format!("sessions WHERE id = '{id}'"),
            Self::Character(id) => format!("characters WHERE id = '{id}'"),
            Self::Roll(id) => format!("dice_rolls WHERE id = '{id}'"),
            Self::Event(id) => format!("session_events WHERE id = '{id}'"),
        }
    }
}

/// Operations choose among this many of the newest sessions.
const NEWEST_SESSION_COUNT: usize = 12;

impl RandomOperations {
    /// Creates `user_count` users with two characters each. They have no session yet.
    pub async fn new(world: &World, user_count: usize) -> Self {
        let creator_id = world.new_account().await;
        let adventure_id = world.new_adventure(creator_id).await;
        let sql = format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure_id}', 'Wolf') RETURNING id");
        let creature_id = world.owner().fetch_value(&sql).await.unwrap();
        let mut users = Vec::new();
        for _ in 0..user_count {
            let player = world.new_player().await;
            users.push(User {
                id: player.user_id,
                character_ids: vec![player.character_id, world.new_character(player.user_id).await],
            });
        }
        Self { users, adventure_id, creature_id, sessions: Mutex::default() }
    }

    /// Calls a random operation as a random user. Returns the row that it created, if it created one that must last.
    pub async fn call_random_operation(&self, sparc: &Sparc, rng: &mut Rng) -> Result<Option<AcknowledgedRow>, Error> {
        let user = &self.users[rng.usize(..self.users.len())];
        let character_id = user.character_ids[rng.usize(..user.character_ids.len())];
        let session = {
            let sessions = self.sessions.lock().unwrap();
            let newest_sessions = &sessions[sessions.len().saturating_sub(NEWEST_SESSION_COUNT)..];
            (!newest_sessions.is_empty()).then(|| newest_sessions[rng.usize(..newest_sessions.len())].clone())
        };
        let caller = sparc.as_user(user.id);
        // One call in twenty creates a session, and so does the first.
        let Some(session) = session.filter(|_| rng.u8(..20) > 0) else {
            return self.create_session(&caller, user.id, rng).await;
        };
        // Some operations, such as `start`, are called by the session's Seer half the time. If a random user always
        // called them, hardly any session would start.
        let seer_or_caller = sparc.as_user(if rng.bool() { session.seer_id } else { user.id });
        self.call_in_session(sparc, &caller, &seer_or_caller, user, character_id, session, rng).await
    }

    async fn create_session(
        &self,
        caller: &IdentityConnection,
        seer_id: Uuid,
        rng: &mut Rng,
    ) -> Result<Option<AcknowledgedRow>, Error> {
        let visibility = if rng.bool() { Visibility::Public } else { Visibility::Private };
        let new_session = NewSession { adventure_id: self.adventure_id, visibility, ..Default::default() };
        let row = caller.sessions().create(new_session).await?;
        let created_session = CreatedSession { id: row.id, seer_id, code: row.code.parse().unwrap() };
        self.sessions.lock().unwrap().push(created_session);
        Ok(Some(AcknowledgedRow::Session(row.id)))
    }

    #[allow(clippy::too_many_arguments)]
    async fn call_in_session(
        &self,
        sparc: &Sparc,
        caller: &IdentityConnection,
        seer_or_caller: &IdentityConnection,
        user: &User,
        character_id: Uuid,
        session: CreatedSession,
        rng: &mut Rng,
    ) -> Result<Option<AcknowledgedRow>, Error> {
        let session_id = session.id;
        match rng.u8(..42) {
            0..=3 => {
                caller.sessions().join(&session.code, character_id).await?;
            }
            4..=5 => {
                caller.sessions().join_by_id(session_id, character_id).await?;
            }
            6 => {
                caller.sessions().leave(session_id).await?;
            }
            7 => {
                caller.sessions().rejoin(session_id, character_id).await?;
            }
            8 => {
                caller.sessions().change_character(session_id, character_id).await?;
            }
            9..=10 => {
                seer_or_caller.sessions().seat_player(session_id, user.id, character_id).await?;
            }
            11 => {
                seer_or_caller.sessions().remove_player(session_id, user.id).await?;
            }
            12 => {
                seer_or_caller.sessions().announce_start(session_id).await?;
            }
            13 => {
                seer_or_caller.sessions().withdraw_announcement(session_id).await?;
            }
            14..=15 => {
                seer_or_caller.sessions().start(session_id).await?;
            }
            16 => {
                seer_or_caller.sessions().pause(session_id).await?;
            }
            17 => {
                seer_or_caller.sessions().resume(session_id).await?;
            }
            18 => {
                seer_or_caller.sessions().complete(session_id).await?;
            }
            19 if rng.u8(..3) == 0 => {
                seer_or_caller.sessions().cancel(session_id).await?;
            }
            20 => {
                seer_or_caller.sessions().set_scene(session_id, Some(&rng.u8(..).to_string())).await?;
            }
            21 => {
                seer_or_caller.sessions().set_encounter(session_id, Some(&rng.u8(..).to_string())).await?;
            }
            22 => {
                let state = serde_json::json!({ "round": rng.u8(..) });
                seer_or_caller.sessions().set_game_state(session_id, state, ExpectedVersion::Any).await?;
            }
            23..=25 => {
                let roll = NewRoll::new(
                    RollType::Attack,
                    session_id,
                    Roller::Character(character_id),
                    Attribute::Wit,
                    Difficulty::MAX,
                );
                return Ok(Some(AcknowledgedRow::Roll(seer_or_caller.dice().roll(roll).await?.id)));
            }
            26 => {
                let scope = RollScope::Session(session_id);
                let rolls = seer_or_caller.dice().history(scope, &HistoryFilter::default(), None).await?;
                let Some(failed_roll) = rolls.items.into_iter().find(|roll| !roll.success) else { return Ok(None) };
                let heroic_save = seer_or_caller.dice().use_heroic_save(failed_roll.id).await?;
                return Ok(Some(AcknowledgedRow::Roll(heroic_save.id)));
            }
            27 => {
                let creatures = vec![self.creature_id];
                seer_or_caller
                    .dice()
                    .roll_initiative(NewInitiative { id: None, session_id, creature_ids: creatures })
                    .await?;
            }
            28..=30 => {
                let new_event = NewEvent { session_id, kind: "wave".to_owned(), ..Default::default() };
                return Ok(Some(AcknowledgedRow::Event(caller.events().send(new_event).await?.id)));
            }
            31 => {
                caller.sessions().details(session_id).await?;
            }
            32 => {
                caller.sessions().lobby(&LobbyFilter::default(), None).await?;
            }
            33 => {
                caller.dice().history(RollScope::Session(session_id), &HistoryFilter::default(), None).await?;
            }
            34 => {
                caller.events().after(session_id, 0).await?;
            }
            35 => {
                caller.sessions().my_live(None).await?;
            }
            36 => {
                caller.characters().retire(character_id).await?;
            }
            37 => {
                caller.characters().unretire(character_id).await?;
            }
            38 => {
                let name = format!("Hero {}", rng.u64(..));
                let hero = caller.characters().create(NewCharacter { name, ..Default::default() }).await?;
                return Ok(Some(AcknowledgedRow::Character(hero.id)));
            }
            39 => {
                seer_or_caller.characters().damage(character_id, 1).await?;
            }
            40 => {
                let changes = SessionChanges {
                    visibility: Some(if rng.bool() { Visibility::Public } else { Visibility::Private }),
                    ..Default::default()
                };
                seer_or_caller.sessions().edit(session_id, changes).await?;
            }
            // 41, and 19 if its condition is false.
            _ => {
                let service = sparc.as_service();
                service.maintenance().delete_old_events(JobOptions::default(), |_| ()).await?;
                let bio = Some(Some(rng.u64(..).to_string()));
                caller.users().edit(ProfileChanges { bio, ..Default::default() }).await?;
            }
        }
        Ok(None)
    }
}

/// Returns a line, with the code and how often it occurred, for each error code that indicates a fault. The
/// `allowed_codes` are left out: they belong to faults that the test itself causes.
pub fn unexpected_errors(counts_by_code: &BTreeMap<&'static str, usize>, allowed_codes: &[&str]) -> Vec<String> {
    let fault_codes = [
        "account_closed",
        "bad_cursor",
        "busy",
        "column_closed",
        "commit_unknown",
        "connect_failed",
        "connection_lost",
        "creature_not_in_adventure",
        "database",
        "deadline_exceeded",
        "game_state_changed",
        "id_conflict",
        "identity_changed",
        "invalid_claims",
        "invalid_statement",
        "invalid_value",
        "misconfigured",
        "nested_transaction_open",
        "not_signed_in",
        "pool_closed",
        "pool_exhausted",
        "read_only",
        "rule_violated",
        "schema_missing",
        "schema_outdated",
        "server_exhausted",
        "too_many_rows",
        "transaction_ended",
        "transaction_failed",
        "transaction_over",
        "unknown_account",
    ];
    counts_by_code
        .iter()
        .filter(|(code, _)| fault_codes.contains(code) && !allowed_codes.contains(code))
        .map(|(code, count)| format!("{code}: {count}"))
        .collect()
}

/// Returns a line for each row that breaks an invariant of the database. Tests expect none.
pub async fn broken_invariants(world: &World) -> Vec<String> {
    let transaction = world.owner().begin().await;
    let broken = broken_invariants_in(&transaction).await;
    transaction.rollback().await.unwrap();
    broken
}

/// Does the same as [`broken_invariants`], in an open transaction of the owner.
pub async fn broken_invariants_in(transaction: &DatabaseTransaction) -> Vec<String> {
    // Compiling the query takes ten times as long as running it.
    transaction.execute_unprepared("SET LOCAL jit = off").await.unwrap();
    let invariants = sparc::migration::INVARIANTS.trim_end().trim_end_matches(';');
    let sql = format!("SELECT concat_ws(': ', invariant, row, detail) FROM ({invariants}) AS broken");
    let rows = transaction.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap();
    rows.into_iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}
