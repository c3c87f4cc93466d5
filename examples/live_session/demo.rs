//! The demo game: a Seer, three players and a lobby, at human speed. Each scene of the adventure lists what the players
//! try in it.

use std::{collections::HashMap, time::Duration};

use chrono::{TimeDelta, Utc};
use futures_util::TryStreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use sparc::entity::{
    adventures, creatures,
    sea_orm_active_enums::{AdventureStatus, Attribute, CharacterClass, SessionStatus},
    sessions,
};
use sparc::service::{
    Difficulty, Error, IdentityConnection, MaxPlayers, Operations, Sparc,
    adventures::{AdventureContent, NewAdventure},
    characters::{HitPoints, Item, NewCharacter, SpecialAbility, primary_attribute},
    creatures::{NewCreature, Stats},
    dice::{Modifier, NewInitiative, NewRoll, Roller},
    events::NewEvent,
    sessions::{ExpectedVersion, LobbyFilter, NewSession, Visibility},
    users::NewAccount,
};
use tokio::{sync::watch, time::sleep};
use uuid::Uuid;

/// What a player tries in a scene: the field `beats` of a node, which the data layer stores unchanged.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Beat {
    by: String,
    say: Option<String>,
    roll: Option<Attribute>,
    attack: Option<Attribute>,
    foe: Option<Attribute>,
    difficulty: Option<Difficulty>,
    does: Option<String>,
    bonus: Option<String>,
    hurts: Option<String>,
    heal: Option<String>,
    initiative: bool,
}

/// A player of the demo and their character.
struct Player {
    user: IdentityConnection,
    hero: Uuid,
    best: Attribute,
}

struct Demo {
    sparc: Sparc,
    seer: IdentityConnection,
    party: HashMap<&'static str, Player>,
    story: adventures::Model,
    content: AdventureContent,
    foe: creatures::Model,
    /// The time between two actions.
    pace: Duration,
}

/// Returns one of the demo's ids, which are fixed: after a restart, the same requests return the existing rows.
fn id(number: u128) -> Uuid {
    Uuid::from_u128(0x5ba2_c000_0000_4000_8000_0000_0000_0000 + number)
}

/// Plays one game night after another until the handle is closed. After a failure, the demo continues with the session
/// in the database.
pub async fn play(sparc: Sparc, show: watch::Sender<Option<Uuid>>, pace: Duration) {
    loop {
        let night = async {
            let demo = Demo::prepare(&sparc, pace).await?;
            tokio::try_join!(demo.nights(&show), demo.join_visitors())
        };
        match night.await {
            Ok(_) | Err(Error::PoolClosed) => return,
            Err(error) => eprintln!("the demo restarts after an error: {error}"),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

impl Demo {
    async fn prepare(sparc: &Sparc, pace: Duration) -> Result<Self, Error> {
        let seer = account(sparc, 1, "Morgan").await?;
        let mut party = HashMap::new();
        for (number, key, player, name, class, item, ability) in [
            (2, "ada", "Ada", "Brunhild", CharacterClass::Warrior, "Her mother's axe", "Stand fast"),
            (3, "ben", "Ben", "Quick Nim", CharacterClass::Rogue, "Two knives, one lost", "Slip away"),
            (4, "cleo", "Cleo", "Sister Maud", CharacterClass::Cleric, "The silver bell", "Warm hands"),
        ] {
            let user = account(sparc, number, player).await?;
            let new = NewCharacter {
                id: Some(id(number + 100)),
                name: name.into(),
                class,
                equipment: vec![Item { name: item.into(), ..Default::default() }],
                special_ability: SpecialAbility { name: ability.into(), ..Default::default() },
                ..Default::default()
            };
            let hero = user.characters().create(new).await?.id;
            party.insert(key, Player { user, hero, best: primary_attribute(class) });
        }
        let content: AdventureContent = serde_json::from_str(include_str!("the_lantern_road.json"))
            .map_err(|_| Error::InvalidValue { field: "the_lantern_road.json", rule: "must be an adventure" })?;
        let about = "A lantern nobody holds, and the way home";
        let story = publish(&seer, 10, "The Lantern Road", about, content.clone()).await?;
        let stats = Stats { might: 4, grace: 2, ..Default::default() };
        let foe = NewCreature { id: Some(id(11)), name: "Reed Horror".into(), stats, ..Default::default() };
        let foe = seer.creatures().add(story.id, foe).await?;
        for (number, name, story, about, looking_for, hours) in [
            (20, "Idris", "The Salt Choir", "Somebody sings under the mine", "one more voice, any class", 3),
            (23, "Petra", "Nine Doors Down", "A staircase that was eight yesterday", "patient people and a light", 26),
            (26, "Oswin", "The Bees of Saint Orrin", "They know who did it", "beginners, very welcome", 74),
        ] {
            let other = account(sparc, number, name).await?;
            let story = publish(&other, number + 1, story, about, AdventureContent::single_scene(about)).await?;
            let session = NewSession {
                id: Some(id(number + 2)),
                adventure_id: story.id,
                visibility: Visibility::Public,
                looking_for: Some(looking_for.into()),
                scheduled_start: Some(Utc::now() + TimeDelta::hours(hours)),
                ..Default::default()
            };
            let session = match other.sessions().create(session).await {
                // An earlier run of the program created it, with another start time.
                Err(Error::IdConflict { .. }) => other.sessions().get(id(number + 2)).await?,
                outcome => outcome?,
            };
            for player in party.values().take((number as usize - 20) / 3 + 1) {
                player.user.sessions().join_public(session.id, player.hero).await?;
            }
        }
        Ok(Self { sparc: sparc.clone(), seer, party, story, content, foe, pace })
    }

    async fn nights(&self, show: &watch::Sender<Option<Uuid>>) -> Result<(), Error> {
        loop {
            let session = self.open_session().await?;
            show.send_replace(Some(session.id));
            let at = session.current_scene_id;
            let from = self.content.nodes.iter().position(|node| Some(&node.id) == at.as_ref()).unwrap_or(0);
            for node in &self.content.nodes[from..] {
                self.seer.sessions().set_scene(session.id, Some(&node.id)).await?;
                let beats = node.extra.get("beats").cloned().unwrap_or_default();
                let beats: Vec<Beat> = serde_json::from_value(beats).unwrap_or_default();
                if node.enemies.is_empty() {
                    self.scene(session.id, &beats).await?;
                } else {
                    self.fight(session.id, &node.id, &beats).await?;
                }
            }
            self.seer.sessions().complete(session.id).await?;
            for player in self.party.values() {
                player.user.characters().rest(player.hero).await?;
            }
            sleep(self.pace * 2).await;
        }
    }

    /// Returns the active session, or starts a session with all players seated.
    async fn open_session(&self) -> Result<sessions::Model, Error> {
        let mine = self.seer.sessions().mine(None).await?;
        if let Some(running) = mine.items.iter().find(|session| session.status == SessionStatus::Active) {
            return self.seer.sessions().get(running.id).await;
        }
        let new = NewSession {
            adventure_id: self.story.id,
            visibility: Visibility::Public,
            max_players: MaxPlayers::MAX,
            looking_for: Some("whoever opened this page".into()),
            ..Default::default()
        };
        let session = self.seer.sessions().create(new).await?;
        for player in self.party.values() {
            player.user.sessions().join_public(session.id, player.hero).await?;
            let hero = player.user.characters().rest(player.hero).await?;
            show_hit_points(&self.seer, session.id, hero).await?;
        }
        self.seer.sessions().start(session.id).await
    }

    async fn fight(&self, session: Uuid, encounter: &str, beats: &[Beat]) -> Result<(), Error> {
        self.seer.sessions().set_encounter(session, Some(encounter)).await?;
        let points = json!([self.foe.hit_points, self.foe.hit_points]);
        let foe = json!({ "name": self.foe.name, "hit_points": points });
        change_state(&self.seer, session, |state| state["foe"] = foe).await?;
        self.scene(session, beats).await?;
        change_state(&self.seer, session, |state| state["foe"] = Value::Null).await?;
        self.seer.sessions().set_encounter(session, None).await?;
        Ok(())
    }

    async fn scene(&self, session: Uuid, beats: &[Beat]) -> Result<(), Error> {
        sleep(self.pace).await;
        for beat in beats {
            self.beat(session, beat).await?;
            sleep(self.pace).await;
        }
        Ok(())
    }

    async fn beat(&self, session: Uuid, beat: &Beat) -> Result<(), Error> {
        if beat.initiative {
            let creatures = vec![self.foe.id];
            self.seer.dice().initiative(NewInitiative { id: None, session_id: session, creatures }).await?;
            return Ok(());
        }
        let difficulty = beat.difficulty.unwrap_or(Difficulty::MIN);
        if let (Some(attribute), Some(hurt)) = (beat.foe, beat.hurts.as_deref().and_then(|key| self.party.get(key))) {
            let mut claws = NewRoll::attack(session, Roller::Creature(self.foe.id), attribute, difficulty);
            claws.description = beat.does.clone();
            if self.seer.dice().roll(claws).await?.success {
                sleep(self.pace / 2).await;
                let left = self.seer.characters().damage(hurt.hero, 2).await?;
                show_hit_points(&self.seer, session, left).await?;
            }
            return Ok(());
        }
        let Some(player) = self.party.get(beat.by.as_str()) else { return Ok(()) };
        if let Some(text) = &beat.say {
            return say(&player.user, session, text).await;
        }
        let roller = Roller::Character(player.hero);
        let mut roll = match (beat.attack, beat.roll) {
            (Some(attribute), _) => NewRoll::attack(session, roller, attribute, difficulty),
            (None, attribute) => NewRoll::check(session, roller, attribute.unwrap_or(player.best), difficulty),
        };
        roll.description = beat.does.clone();
        roll.modifiers.extend(beat.bonus.iter().map(|source| Modifier::flat(1, source)));
        let mut rolled = player.user.dice().roll(roll).await?;
        if !rolled.success && beat.attack.is_some() {
            sleep(self.pace).await;
            match player.user.dice().heroic_save(rolled.id).await {
                Ok(saved) => rolled = saved,
                Err(error) if error.http_status() == 409 => {}
                Err(error) => return Err(error),
            }
        }
        if !rolled.success {
            return Ok(());
        }
        sleep(self.pace / 2).await;
        if beat.attack.is_some() {
            change_state(&self.seer, session, |state| {
                let left = state["foe"]["hit_points"][0].as_i64().unwrap_or(0);
                state["foe"]["hit_points"][0] = (left - 2).max(0).into();
            })
            .await?;
        }
        if let Some(healed) = beat.heal.as_deref().and_then(|key| self.party.get(key)) {
            let left = self.seer.characters().heal(healed.hero, 2).await?;
            show_hit_points(&self.seer, session, left).await?;
        }
        Ok(())
    }

    /// Ada and Ben join every session that a visitor opens, and roll in each scene.
    async fn join_visitors(&self) -> Result<(), Error> {
        let mut known = vec![id(22), id(25), id(28)];
        loop {
            for session in self.sparc.as_anon().sessions().lobby(&LobbyFilter::default(), None).await?.items {
                if known.contains(&session.id) || Some(session.seer_id) == self.seer.user_id() {
                    continue;
                }
                known.push(session.id);
                for (wait, player) in [&self.party["ada"], &self.party["ben"]].into_iter().enumerate() {
                    match player.user.sessions().join_public(session.id, player.hero).await {
                        Ok(_) => {}
                        // The session has started, is full, or has ended.
                        Err(error) if error.http_status() < 500 => break,
                        Err(error) => return Err(error),
                    }
                    tokio::spawn(follow(player.user.clone(), session.id, player.hero, player.best, wait as u32 + 1));
                    sleep(Duration::from_secs(2)).await;
                }
            }
            sleep(Duration::from_secs(5)).await;
        }
    }
}

/// Rolls in every scene of a session until it ends.
async fn follow(user: IdentityConnection, session: Uuid, hero: Uuid, best: Attribute, wait: u32) -> Result<(), Error> {
    let mut events = user.events().subscribe(session, Some(0)).await?;
    while let Some(event) = events.try_next().await? {
        match (event.event_type.as_str(), event.payload["to"].as_str()) {
            ("scene_changed", Some(_)) => {
                sleep(Duration::from_secs(3) * wait).await;
                let roll = NewRoll::check(session, Roller::Character(hero), best, Difficulty::new(12)?);
                user.dice().roll(roll).await?;
            }
            ("session_status", Some("completed" | "cancelled")) => break,
            _ => {}
        }
    }
    Ok(())
}

async fn account(sparc: &Sparc, number: u128, name: &str) -> Result<IdentityConnection, Error> {
    let account = NewAccount { id: Some(id(number)), display_name: Some(name.into()), ..Default::default() };
    let profile = sparc.as_service().users().sign_up(account).await?;
    Ok(sparc.as_user(profile.id))
}

async fn publish(
    author: &IdentityConnection,
    number: u128,
    name: &str,
    about: &str,
    content: AdventureContent,
) -> Result<adventures::Model, Error> {
    let (name, description) = (name.to_owned(), Some(about.to_owned()));
    let new = NewAdventure { id: Some(id(number)), name, description, content, max_players: 6, ..Default::default() };
    let draft = author.adventures().create(new).await?;
    if draft.status == AdventureStatus::Published { Ok(draft) } else { author.adventures().publish(draft.id).await }
}

async fn say(user: &IdentityConnection, session_id: Uuid, text: &str) -> Result<(), Error> {
    let payload = json!({ "text": text });
    user.events().send(NewEvent { session_id, kind: "say".into(), payload, ..Default::default() }).await?;
    Ok(())
}

/// Writes hit points into the shared state of the session. Only owners can read character sheets, so this is how the
/// other participants see them.
pub async fn show_hit_points(seer: &IdentityConnection, session: Uuid, left: HitPoints) -> Result<HitPoints, Error> {
    let points = json!([left.hit_points, left.max_hit_points]);
    change_state(seer, session, |state| state["hit_points"][left.character_id.to_string()] = points).await?;
    Ok(left)
}

async fn change_state(seer: &IdentityConnection, session: Uuid, change: impl FnOnce(&mut Value)) -> Result<(), Error> {
    let before = seer.sessions().get(session).await?;
    let mut state = before.game_state;
    change(&mut state);
    seer.sessions().set_game_state(session, state, ExpectedVersion::Version(before.game_state_version)).await?;
    Ok(())
}
