//! A busy evening: users who call random operations in the same sessions.

use std::{collections::BTreeMap, sync::Mutex};

use fastrand::Rng;
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

/// The users, and the rows that their operations pick from.
pub struct Evening {
    people: Vec<Guest>,
    adventure: Uuid,
    creature: Uuid,
    sessions: Mutex<Vec<OpenSession>>,
}

struct Guest {
    id: Uuid,
    heroes: Vec<Uuid>,
}

#[derive(Clone)]
struct OpenSession {
    id: Uuid,
    seer: Uuid,
    code: JoinCode,
}

/// A row whose creation was acknowledged, and which must still exist at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    Session(Uuid),
    Character(Uuid),
    Roll(Uuid),
    Event(Uuid),
}

impl Kept {
    /// Returns what follows `FROM` to count the row.
    pub fn there(self) -> String {
        match self {
            Self::Session(id) => format!("sessions WHERE id = '{id}'"),
            Self::Character(id) => format!("characters WHERE id = '{id}'"),
            Self::Roll(id) => format!("dice_rolls WHERE id = '{id}'"),
            Self::Event(id) => format!("session_events WHERE id = '{id}'"),
        }
    }
}

/// How many of the newest sessions are used; older ones are left alone.
const OPEN_SESSIONS: usize = 12;

impl Evening {
    pub async fn new(world: &World, guests: usize) -> Self {
        let host = world.new_account().await;
        let adventure = world.new_adventure(host).await;
        let sql = format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure}', 'Wolf') RETURNING id");
        let creature = world.owner().value(&sql).await.unwrap();
        let mut people = Vec::new();
        for _ in 0..guests {
            let player = world.new_player().await;
            people.push(Guest { id: player.id, heroes: vec![player.character, world.new_character(player.id).await] });
        }
        Self { people, adventure, creature, sessions: Mutex::default() }
    }

    /// Calls a random operation as a random user.
    pub async fn act(&self, sparc: &Sparc, rng: &mut Rng) -> Result<Option<Kept>, Error> {
        let guest = &self.people[rng.usize(..self.people.len())];
        let hero = guest.heroes[rng.usize(..guest.heroes.len())];
        let open = {
            let sessions = self.sessions.lock().unwrap();
            let newest = &sessions[sessions.len().saturating_sub(OPEN_SESSIONS)..];
            (!newest.is_empty()).then(|| newest[rng.usize(..newest.len())].clone())
        };
        let me = sparc.as_user(guest.id);
        let Some(open) = open.filter(|_| rng.u8(..20) > 0) else { return self.open(&me, guest.id, rng).await };
        // Half the time the Seer, because only the Seer starts sessions.
        let seer = sparc.as_user(if rng.bool() { open.seer } else { guest.id });
        self.act_in(sparc, &me, &seer, guest, hero, open, rng).await
    }

    async fn open(&self, me: &IdentityConnection, seer: Uuid, rng: &mut Rng) -> Result<Option<Kept>, Error> {
        let visibility = if rng.bool() { Visibility::Public } else { Visibility::Private };
        let new = NewSession { adventure_id: self.adventure, visibility, ..Default::default() };
        let created = me.sessions().create(new).await?;
        let open = OpenSession { id: created.id, seer, code: created.code.parse().unwrap() };
        self.sessions.lock().unwrap().push(open);
        Ok(Some(Kept::Session(created.id)))
    }

    #[allow(clippy::too_many_arguments)]
    async fn act_in(
        &self,
        sparc: &Sparc,
        me: &IdentityConnection,
        seer: &IdentityConnection,
        guest: &Guest,
        hero: Uuid,
        open: OpenSession,
        rng: &mut Rng,
    ) -> Result<Option<Kept>, Error> {
        let id = open.id;
        match rng.u8(..42) {
            0..=3 => {
                me.sessions().join(&open.code, hero).await?;
            }
            4..=5 => {
                me.sessions().join_public(id, hero).await?;
            }
            6 => {
                me.sessions().leave(id).await?;
            }
            7 => {
                me.sessions().rejoin(id, hero).await?;
            }
            8 => {
                me.sessions().change_character(id, hero).await?;
            }
            9..=10 => {
                seer.sessions().seat(id, guest.id, hero).await?;
            }
            11 => {
                seer.sessions().remove(id, guest.id).await?;
            }
            12 => {
                seer.sessions().announce(id).await?;
            }
            13 => {
                seer.sessions().withdraw(id).await?;
            }
            14..=15 => {
                seer.sessions().start(id).await?;
            }
            16 => {
                seer.sessions().pause(id).await?;
            }
            17 => {
                seer.sessions().resume(id).await?;
            }
            18 => {
                seer.sessions().complete(id).await?;
            }
            19 if rng.u8(..3) == 0 => {
                seer.sessions().cancel(id).await?;
            }
            20 => {
                seer.sessions().set_scene(id, Some(&rng.u8(..).to_string())).await?;
            }
            21 => {
                seer.sessions().set_encounter(id, Some(&rng.u8(..).to_string())).await?;
            }
            22 => {
                let state = serde_json::json!({ "round": rng.u8(..) });
                seer.sessions().set_game_state(id, state, ExpectedVersion::Any).await?;
            }
            23..=26 => {
                let roll = NewRoll::new(RollType::Attack, id, Roller::Character(hero), Attribute::Wit, Difficulty::MAX);
                let rolled = seer.dice().roll(roll).await?;
                if !rolled.success {
                    let saved = seer.dice().heroic_save(rolled.id).await?;
                    return Ok(Some(Kept::Roll(saved.id)));
                }
                return Ok(Some(Kept::Roll(rolled.id)));
            }
            27 => {
                let creatures = vec![self.creature];
                seer.dice().initiative(NewInitiative { id: None, session_id: id, creatures }).await?;
            }
            28..=30 => {
                let sent = NewEvent { session_id: id, kind: "wave".to_owned(), ..Default::default() };
                return Ok(Some(Kept::Event(me.events().send(sent).await?.id)));
            }
            31 => {
                me.sessions().details(id).await?;
            }
            32 => {
                me.sessions().lobby(&LobbyFilter::default(), None).await?;
            }
            33 => {
                me.dice().history(RollScope::Session(id), &HistoryFilter::default(), None).await?;
            }
            34 => {
                me.events().after(id, 0).await?;
            }
            35 => {
                me.sessions().mine(None).await?;
            }
            36 => {
                me.characters().retire(hero).await?;
            }
            37 => {
                me.characters().unretire(hero).await?;
            }
            38 => {
                let name = format!("Hero {}", rng.u64(..));
                let created = me.characters().create(NewCharacter { name, ..Default::default() }).await?;
                return Ok(Some(Kept::Character(created.id)));
            }
            39 => {
                seer.characters().damage(hero, 1).await?;
            }
            40 => {
                let changes = SessionChanges {
                    visibility: Some(if rng.bool() { Visibility::Public } else { Visibility::Private }),
                    ..Default::default()
                };
                seer.sessions().edit(id, changes).await?;
            }
            _ => {
                let service = sparc.as_service();
                service.maintenance().clean_events(JobOptions::default(), |_| ()).await?;
                let bio = Some(Some(rng.u64(..).to_string()));
                me.users().edit(ProfileChanges { bio, ..Default::default() }).await?;
            }
        }
        Ok(None)
    }
}

/// Returns the outcomes that are neither refusals a person can act on nor in `allowed`.
pub fn unexpected(outcomes: &BTreeMap<&'static str, usize>, allowed: &[&str]) -> Vec<String> {
    let ours = [
        "busy",
        "database",
        "connection_lost",
        "pool_exhausted",
        "deadline_exceeded",
        "transaction_failed",
        "id_conflict",
        "internal",
        "invalid_value",
        "not_signed_in",
    ];
    outcomes
        .iter()
        .filter(|(code, _)| ours.contains(code) && !allowed.contains(code))
        .map(|(code, times)| format!("{code}: {times}"))
        .collect()
}

/// Returns every invariant that is broken; there must be none.
pub async fn broken(world: &World) -> Vec<String> {
    let sql = format!(
        "SELECT concat_ws(': ', invariant, row, detail) FROM ({}) AS broken",
        sparc::migration::INVARIANTS.trim_end().trim_end_matches(';')
    );
    world.owner().values(&sql).await.unwrap()
}
