//! The demo game: a Seer and three players play at human speed, and the lobby has three more sessions. Each scene of
//! the adventure lists the actions of the Seer and the players.

use std::{collections::BTreeMap, time::Duration};

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
    characters::{Item, NewCharacter, SpecialAbility, primary_attribute},
    creatures::{NewCreature, Stats},
    dice::{Modifier, NewInitiative, NewRoll, Roller},
    events::NewEvent,
    sessions::{LobbyFilter, NewSession, Visibility},
    users::NewAccount,
};
use tokio::{sync::watch, time::sleep};
use uuid::Uuid;

use crate::game_state::{change_game_state, write_hit_points_to_game_state};

/// An action in a scene: an element of `beats`, a list that `the_lantern_road.json` adds as a field to each scene (a
/// node of the adventure's content). The data layer stores such additional fields unchanged.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Action {
    /// Key of the player who acts, for example `ada`.
    #[serde(rename = "by")]
    player_key: String,
    /// What the player says.
    say: Option<String>,
    /// Attribute of the player's check.
    roll: Option<Attribute>,
    /// Attribute of the player's attack on the foe.
    attack: Option<Attribute>,
    /// Attribute of the foe's attack.
    #[serde(rename = "foe")]
    foe_attack: Option<Attribute>,
    difficulty: Option<Difficulty>,
    /// Description of the roll.
    #[serde(rename = "does")]
    description: Option<String>,
    /// Source of a +1 modifier.
    #[serde(rename = "bonus")]
    bonus_source: Option<String>,
    /// Key of the player whom the foe's attack damages if it hits.
    #[serde(rename = "hurts")]
    damaged_player_key: Option<String>,
    /// Key of the player whom the action heals if the roll succeeds.
    #[serde(rename = "heal")]
    healed_player_key: Option<String>,
    /// Whether this action rolls for the initiative of all players and the foe.
    #[serde(rename = "initiative")]
    is_initiative_roll: bool,
}

/// A player of the demo, with the id of their character.
struct Player {
    user: IdentityConnection,
    hero_id: Uuid,
    primary_attribute: Attribute,
}

struct Demo {
    sparc: Sparc,
    seer: IdentityConnection,
    /// The players, by their keys.
    party: BTreeMap<&'static str, Player>,
    adventure: adventures::Model,
    content: AdventureContent,
    /// The creature that the players fight.
    foe: creatures::Model,
    /// The time between two actions.
    action_interval: Duration,
}

/// The hit points that a successful attack takes away, and that a successful healing roll restores.
const HIT_POINTS_PER_SUCCESS: u8 = 2;

/// Returns one of the demo's ids. They are fixed, so that after a restart the same requests return the existing rows.
///
/// Numbers 1 to 4 are the Seer and the players, 102 to 104 the players' characters, 10 the adventure and 11 the foe.
/// Each of the three other sessions in the lobby has three consecutive numbers from 20 on: its Seer's, its adventure's
/// and its own.
fn fixed_id(number: u128) -> Uuid {
    Uuid::from_u128(0x5ba2_c000_0000_4000_8000_0000_0000_0000 + number)
}

/// Plays one session after another until `sparc` is closed, and sends the id of each to `current_session_id`. After a
/// failure, the demo continues the session that is active in the database. `action_interval` is the time between two
/// actions.
pub async fn play(sparc: Sparc, current_session_id: watch::Sender<Option<Uuid>>, action_interval: Duration) {
    loop {
        let demo_run = async {
            let demo = Demo::prepare(&sparc, action_interval).await?;
            tokio::try_join!(demo.play_sessions(&current_session_id), demo.join_sessions_of_visitors())
        };
        match demo_run.await {
            Ok(_) | Err(Error::PoolClosed) => return,
            Err(error) => eprintln!("the demo restarts after an error: {error}"),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

impl Demo {
    /// Signs up the users; creates their characters and adventures, the foe, and three sessions in the lobby; and seats
    /// the players in these sessions. What exists already is kept.
    async fn prepare(sparc: &Sparc, action_interval: Duration) -> Result<Self, Error> {
        let seer = sign_up(sparc, 1, "Morgan").await?;
        let mut party = BTreeMap::new();
        for (number, key, user_name, hero_name, class, item, ability) in [
            (2, "ada", "Ada", "Brunhild", CharacterClass::Warrior, "Her mother's axe", "Stand fast"),
            (3, "ben", "Ben", "Quick Nim", CharacterClass::Rogue, "Two knives, one lost", "Slip away"),
            (4, "cleo", "Cleo", "Sister Maud", CharacterClass::Cleric, "The silver bell", "Warm hands"),
        ] {
            let user = sign_up(sparc, number, user_name).await?;
            let new = NewCharacter {
                id: Some(fixed_id(number + 100)),
                name: hero_name.into(),
                class,
                equipment: vec![Item { name: item.into(), ..Default::default() }],
                special_ability: SpecialAbility { name: ability.into(), ..Default::default() },
                ..Default::default()
            };
            let hero_id = user.characters().create(new).await?.id;
            party.insert(key, Player { user, hero_id, primary_attribute: primary_attribute(class) });
        }
        let content: AdventureContent = serde_json::from_str(include_str!("the_lantern_road.json"))
            .map_err(|_| Error::InvalidValue { field: "the_lantern_road.json", rule: "must be an adventure" })?;
        let description = "A lantern nobody holds, and the way home";
        let adventure = create_and_publish(&seer, 10, "The Lantern Road", description, content.clone()).await?;
        let stats = Stats { might: 4, grace: 2, ..Default::default() };
        let foe = NewCreature { id: Some(fixed_id(11)), name: "Reed Horror".into(), stats, ..Default::default() };
        let foe = seer.creatures().add(adventure.id, foe).await?;
        // One player joins the first of these sessions, two the second, three the third.
        for (player_count, (first_number, seer_name, title, description, looking_for, hours_until_start)) in
            (1..).zip([
                (20, "Idris", "The Salt Choir", "Somebody sings under the mine", "one more voice, any class", 3),
                (
                    23,
                    "Petra",
                    "Nine Doors Down",
                    "A staircase that was eight yesterday",
                    "patient people and a light",
                    26,
                ),
                (26, "Oswin", "The Bees of Saint Orrin", "They know who did it", "beginners, very welcome", 74),
            ])
        {
            let other_seer = sign_up(sparc, first_number, seer_name).await?;
            let content = AdventureContent::single_scene(description);
            let other_adventure =
                create_and_publish(&other_seer, first_number + 1, title, description, content).await?;
            let new_session = NewSession {
                id: Some(fixed_id(first_number + 2)),
                adventure_id: other_adventure.id,
                visibility: Visibility::Public,
                looking_for: Some(looking_for.into()),
                scheduled_start: Some(Utc::now() + TimeDelta::hours(hours_until_start)),
                ..Default::default()
            };
            let session = match other_seer.sessions().create(new_session).await {
                // An earlier run of the program created it, with another start time.
                Err(Error::IdConflict { .. }) => other_seer.sessions().get(fixed_id(first_number + 2)).await?,
                outcome => outcome?,
            };
            for player in party.values().take(player_count) {
                player.user.sessions().join_by_id(session.id, player.hero_id).await?;
            }
        }
        Ok(Self { sparc: sparc.clone(), seer, party, adventure, content, foe, action_interval })
    }

    /// Plays one session after another. If a session is active already, continues it from the beginning of its current
    /// scene.
    async fn play_sessions(&self, current_session_id: &watch::Sender<Option<Uuid>>) -> Result<(), Error> {
        loop {
            let session = self.active_or_new_session().await?;
            current_session_id.send_replace(Some(session.id));
            let scene_id = session.current_scene_id.as_ref();
            let first_index = self.content.nodes.iter().position(|node| Some(&node.id) == scene_id).unwrap_or(0);
            for node in &self.content.nodes[first_index..] {
                self.seer.sessions().set_scene(session.id, Some(&node.id)).await?;
                let actions = node.extra.get("beats").cloned().unwrap_or_default();
                let actions: Vec<Action> = serde_json::from_value(actions).unwrap_or_default();
                if node.enemies.is_empty() {
                    self.play_scene(session.id, &actions).await?;
                } else {
                    self.play_combat(session.id, &node.id, &actions).await?;
                }
            }
            self.seer.sessions().complete(session.id).await?;
            for player in self.party.values() {
                player.user.characters().rest(player.hero_id).await?;
            }
            sleep(self.action_interval * 2).await;
        }
    }

    /// Returns the Seer's active session if there is one. Otherwise creates and starts a session, in which all players
    /// of the demo have seats.
    async fn active_or_new_session(&self) -> Result<sessions::Model, Error> {
        // Live sessions are those that have not ended.
        let live_sessions = self.seer.sessions().my_live(None).await?.items;
        if let Some(active) = live_sessions.iter().find(|session| session.status == SessionStatus::Active) {
            return self.seer.sessions().get(active.id).await;
        }
        let new = NewSession {
            adventure_id: self.adventure.id,
            visibility: Visibility::Public,
            max_players: MaxPlayers::MAX,
            looking_for: Some("whoever opened this page".into()),
            ..Default::default()
        };
        let session = self.seer.sessions().create(new).await?;
        for player in self.party.values() {
            player.user.sessions().join_by_id(session.id, player.hero_id).await?;
            let hit_points = player.user.characters().rest(player.hero_id).await?;
            write_hit_points_to_game_state(&self.seer, session.id, hit_points).await?;
        }
        self.seer.sessions().start(session.id).await
    }

    async fn play_combat(&self, session_id: Uuid, encounter_id: &str, actions: &[Action]) -> Result<(), Error> {
        self.seer.sessions().set_encounter(session_id, Some(encounter_id)).await?;
        let current_and_maximum = json!([self.foe.hit_points, self.foe.hit_points]);
        let foe = json!({ "name": self.foe.name, "hit_points": current_and_maximum });
        change_game_state(&self.seer, session_id, |state| state["foe"] = foe).await?;
        self.play_scene(session_id, actions).await?;
        change_game_state(&self.seer, session_id, |state| state["foe"] = Value::Null).await?;
        self.seer.sessions().set_encounter(session_id, None).await?;
        Ok(())
    }

    async fn play_scene(&self, session_id: Uuid, actions: &[Action]) -> Result<(), Error> {
        sleep(self.action_interval).await;
        for action in actions {
            self.perform(session_id, action).await?;
            sleep(self.action_interval).await;
        }
        Ok(())
    }

    /// Performs an action: the roll for initiative, an attack by the foe, or what a player says or rolls. Applies the
    /// damage or the healing.
    async fn perform(&self, session_id: Uuid, action: &Action) -> Result<(), Error> {
        if action.is_initiative_roll {
            let creature_ids = vec![self.foe.id];
            self.seer.dice().roll_initiative(NewInitiative { id: None, session_id, creature_ids }).await?;
            return Ok(());
        }
        let difficulty = action.difficulty.unwrap_or(Difficulty::MIN);
        let damaged_player = action.damaged_player_key.as_deref().and_then(|key| self.party.get(key));
        if let (Some(attribute), Some(damaged_player)) = (action.foe_attack, damaged_player) {
            let mut attack = NewRoll::attack(session_id, Roller::Creature(self.foe.id), attribute, difficulty);
            attack.description = action.description.clone();
            if self.seer.dice().roll(attack).await?.success {
                sleep(self.action_interval / 2).await;
                let hit_points = self.seer.characters().damage(damaged_player.hero_id, HIT_POINTS_PER_SUCCESS).await?;
                write_hit_points_to_game_state(&self.seer, session_id, hit_points).await?;
            }
            return Ok(());
        }
        let Some(player) = self.party.get(action.player_key.as_str()) else { return Ok(()) };
        if let Some(text) = &action.say {
            return say(&player.user, session_id, text).await;
        }
        let roller = Roller::Character(player.hero_id);
        let mut new_roll = match (action.attack, action.roll) {
            (Some(attribute), _) => NewRoll::attack(session_id, roller, attribute, difficulty),
            (None, attribute) => {
                NewRoll::attribute_check(session_id, roller, attribute.unwrap_or(player.primary_attribute), difficulty)
            }
        };
        new_roll.description = action.description.clone();
        new_roll.modifiers.extend(action.bonus_source.iter().map(|source| Modifier::flat(1, source)));
        let mut roll = player.user.dice().roll(new_roll).await?;
        if !roll.success && action.attack.is_some() {
            sleep(self.action_interval).await;
            match player.user.dice().use_heroic_save(roll.id).await {
                Ok(repeated_roll) => roll = repeated_roll,
                // 409: the roll cannot be saved, for example because the player has already used the save of this
                // encounter.
                Err(error) if error.http_status() == 409 => {}
                Err(error) => return Err(error),
            }
        }
        if !roll.success {
            return Ok(());
        }
        sleep(self.action_interval / 2).await;
        if action.attack.is_some() {
            change_game_state(&self.seer, session_id, |state| {
                let hit_points = state["foe"]["hit_points"][0].as_i64().unwrap_or(0);
                state["foe"]["hit_points"][0] = (hit_points - i64::from(HIT_POINTS_PER_SUCCESS)).max(0).into();
            })
            .await?;
        }
        if let Some(healed_player) = action.healed_player_key.as_deref().and_then(|key| self.party.get(key)) {
            let hit_points = self.seer.characters().heal(healed_player.hero_id, HIT_POINTS_PER_SUCCESS).await?;
            write_hit_points_to_game_state(&self.seer, session_id, hit_points).await?;
        }
        Ok(())
    }

    /// Ada and Ben join every session that a visitor of the page creates in the lobby, unless they are refused, and
    /// roll once in each of its scenes.
    async fn join_sessions_of_visitors(&self) -> Result<(), Error> {
        // The three sessions that the demo itself has created in the lobby count as seen, because nobody plays in them.
        let mut seen_session_ids = vec![fixed_id(22), fixed_id(25), fixed_id(28)];
        loop {
            for session in self.sparc.as_anon().sessions().lobby(&LobbyFilter::default(), None).await?.items {
                if seen_session_ids.contains(&session.id) || Some(session.seer_id) == self.seer.user_id() {
                    continue;
                }
                seen_session_ids.push(session.id);
                for (delay_seconds, player) in [(3, &self.party["ada"]), (6, &self.party["ben"])] {
                    match player.user.sessions().join_by_id(session.id, player.hero_id).await {
                        Ok(_) => {}
                        // Refused: the session has started, is full, or has ended.
                        Err(error) if error.http_status() < 500 => break,
                        Err(error) => return Err(error),
                    }
                    let delay = Duration::from_secs(delay_seconds);
                    let (user, hero_id, attribute) = (player.user.clone(), player.hero_id, player.primary_attribute);
                    tokio::spawn(roll_in_each_scene(user, session.id, hero_id, attribute, delay));
                    sleep(Duration::from_secs(2)).await;
                }
            }
            sleep(Duration::from_secs(5)).await;
        }
    }
}

/// Rolls once in each scene, when `delay` has passed since the event of the scene arrived. Ends when the session ends,
/// or when a roll or the stream of events fails.
async fn roll_in_each_scene(
    user: IdentityConnection,
    session_id: Uuid,
    hero_id: Uuid,
    attribute: Attribute,
    delay: Duration,
) -> Result<(), Error> {
    // After event 0 means from the oldest event on, so that no scene is missed.
    let mut events = user.events().subscribe(session_id, Some(0)).await?;
    while let Some(event) = events.try_next().await? {
        match (event.event_type.as_str(), event.payload["to"].as_str()) {
            ("scene_changed", Some(_)) => {
                sleep(delay).await;
                let roller = Roller::Character(hero_id);
                let roll = NewRoll::attribute_check(session_id, roller, attribute, Difficulty::new(12)?);
                user.dice().roll(roll).await?;
            }
            ("session_status", Some("completed" | "cancelled")) => break,
            _ => {}
        }
    }
    Ok(())
}

/// Signs a user up with the id `fixed_id(number)`, unless that account exists, and returns the user's connection.
async fn sign_up(sparc: &Sparc, number: u128, name: &str) -> Result<IdentityConnection, Error> {
    let account = NewAccount { id: Some(fixed_id(number)), display_name: Some(name.into()), ..Default::default() };
    let profile = sparc.as_service().users().sign_up(account).await?;
    Ok(sparc.as_user(profile.id))
}

/// Creates an adventure with the id `fixed_id(number)` and publishes it, unless an earlier run has done so.
async fn create_and_publish(
    author: &IdentityConnection,
    number: u128,
    name: &str,
    description: &str,
    content: AdventureContent,
) -> Result<adventures::Model, Error> {
    let (name, description) = (name.to_owned(), Some(description.to_owned()));
    let new =
        NewAdventure { id: Some(fixed_id(number)), name, description, content, max_players: 6, ..Default::default() };
    // An adventure of an earlier run is returned as it is, and so may be published already.
    let adventure = author.adventures().create(new).await?;
    if adventure.status == AdventureStatus::Published {
        return Ok(adventure);
    }
    author.adventures().publish(adventure.id).await
}

async fn say(user: &IdentityConnection, session_id: Uuid, text: &str) -> Result<(), Error> {
    let payload = json!({ "text": text });
    user.events().send(NewEvent { session_id, kind: "say".into(), payload, ..Default::default() }).await?;
    Ok(())
}
