//! The demo game: a Seer and three players play at human speed, and the lobby has three more sessions. Each scene of
//! the adventure lists the actions of the Seer and the players.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use chrono::{DateTime, FixedOffset, TimeDelta, Utc};
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
    dice::{HistoryFilter, Modifier, NewInitiative, NewRoll, RollScope, Roller},
    events::NewEvent,
    sessions::{LobbyFilter, NewSession, Visibility},
    users::NewAccount,
};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::sleep,
};
use uuid::Uuid;

use crate::game_state::{change_game_state, change_hit_points, set_hit_points};

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
const HIT_POINTS_PER_SUCCESS: i8 = 2;

/// How long a player of the demo stays in a visitor's session, counted from its creation. Many visitors leave without
/// ending their session.
const MAX_VISIT: TimeDelta = TimeDelta::hours(2);

/// The number of visitors' sessions in which a player of the demo plays at a time. An account may have twenty seats: up
/// to three are in the demo's sessions in the lobby, and one stays free for the session that the demo plays.
const MAX_VISITS: usize = 16;

/// Returns one of the demo's ids. They are fixed, so that after a restart the same requests return the existing rows.
///
/// Numbers 1 to 4 are the Seer and the players, 102 to 104 the players' characters, 10 the adventure and 11 the foe.
/// Each of the three other sessions in the lobby has three consecutive numbers from 20 on: its Seer's, its adventure's
/// and its own ([`LOBBY_SESSION_NUMBERS`]).
fn fixed_id(number: u128) -> Uuid {
    Uuid::from_u128(0x5ba2_c000_0000_4000_8000_0000_0000_0000 + number)
}

/// The numbers of the sessions that the demo itself has created in the lobby. Nobody plays in them.
const LOBBY_SESSION_NUMBERS: [u128; 3] = [22, 25, 28];

/// Plays one session after another until `sparc` is closed, and sends the id of each to `current_session_id`. After a
/// failure, the demo continues the session that is active in the database; after a refusal, it plays another.
/// `action_interval` is the time between two actions.
pub async fn play(sparc: Sparc, current_session_id: watch::Sender<Option<Uuid>>, action_interval: Duration) {
    loop {
        let demo_run = async {
            let demo = Demo::prepare(&sparc, action_interval).await?;
            // The delays differ, so that the players do not sit down and roll at the same moment.
            tokio::try_join!(
                demo.play_sessions(&current_session_id),
                demo.join_sessions_of_visitors("ada", Duration::from_secs(3)),
                demo.join_sessions_of_visitors("ben", Duration::from_secs(6)),
            )
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
            let session_id = fixed_id(first_number + 2);
            let new_session = NewSession {
                id: Some(session_id),
                adventure_id: other_adventure.id,
                visibility: Visibility::Public,
                looking_for: Some(looking_for.into()),
                scheduled_start: Some(Utc::now() + TimeDelta::hours(hours_until_start)),
                ..Default::default()
            };
            match other_seer.sessions().create(new_session).await {
                // An earlier run of the program created it, with another start time.
                Ok(_) | Err(Error::IdConflict { .. }) => {}
                Err(error) => return Err(error),
            }
            for player in party.values().take(player_count) {
                // In an old database, the session may have been cancelled as abandoned.
                ignore_refusal(player.user.sessions().join_by_id(session_id, player.hero_id).await)?;
            }
        }
        Ok(Self { sparc: sparc.clone(), seer, party, adventure, content, foe, action_interval })
    }

    /// Plays one session after another.
    async fn play_sessions(&self, current_session_id: &watch::Sender<Option<Uuid>>) -> Result<(), Error> {
        loop {
            let session = self.active_or_new_session().await?;
            current_session_id.send_replace(Some(session.id));
            let outcome = self.play_session(&session).await;
            if outcome.as_ref().is_err_and(is_refusal) {
                // Another attempt to continue this session would be refused too.
                ignore_refusal(self.seer.sessions().cancel(session.id).await)?;
            }
            outcome?;
            sleep(self.action_interval * 2).await;
        }
    }

    /// Plays a session from the beginning of its current scene to the end.
    async fn play_session(&self, session: &sessions::Model) -> Result<(), Error> {
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
        Ok(())
    }

    /// Returns the Seer's active session if there is one. Otherwise creates and starts a session, in which all players
    /// of the demo have seats.
    async fn active_or_new_session(&self) -> Result<sessions::Model, Error> {
        // Live sessions are those that have not ended.
        for session in self.seer.sessions().my_live(None).await?.items {
            if session.status == SessionStatus::Active {
                return self.seer.sessions().get(session.id).await;
            }
            // An attempt that failed before the start left this session over, with the seats in it.
            self.seer.sessions().cancel(session.id).await?;
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
            self.end_long_visits(player).await?;
            player.user.sessions().join_by_id(session.id, player.hero_id).await?;
            let hit_points = player.user.characters().rest(player.hero_id).await?;
            change_game_state(&self.seer, session.id, |state| set_hit_points(state, hit_points)).await?;
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
                change_hit_points(&self.seer, session_id, damaged_player.hero_id, HIT_POINTS_PER_SUCCESS).await?;
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
            change_hit_points(&self.seer, session_id, healed_player.hero_id, -HIT_POINTS_PER_SUCCESS).await?;
        }
        Ok(())
    }

    /// A player joins every session of a visitor on the first page of the lobby, unless refused, rolls once in each of
    /// its scenes, and leaves it after [`MAX_VISIT`]. `delay` is the time before each of these actions.
    async fn join_sessions_of_visitors(&self, player_key: &str, delay: Duration) -> Result<(), Error> {
        let player = &self.party[player_key];
        // The set ends its tasks when it is dropped, so that none goes on when the demo restarts.
        let mut tasks = JoinSet::new();
        let mut tasks_by_session = HashMap::<Uuid, AbortHandle>::new();
        loop {
            sleep(delay).await;
            let mut session_ids = self.end_long_visits(player).await?;
            for session in self.sparc.as_anon().sessions().lobby(&LobbyFilter::default(), None).await?.items {
                if self.is_visit(session.seer_id, session.id)
                    && is_visit_short(session.created_at)
                    && !session_ids.contains(&session.id)
                    && session_ids.len() < MAX_VISITS
                    // Refused, for example because the session has started, is full, or has ended.
                    && ignore_refusal(player.user.sessions().join_by_id(session.id, player.hero_id).await)?.is_some()
                {
                    session_ids.push(session.id);
                }
            }
            // A task that has failed is started again.
            tasks_by_session.retain(|_, task| !task.is_finished());
            while tasks.try_join_next().is_some() {}
            for session_id in session_ids {
                let Player { user, hero_id, primary_attribute } = player;
                tasks_by_session.entry(session_id).or_insert_with(|| {
                    tasks.spawn(roll_in_each_scene(user.clone(), session_id, *hero_id, *primary_attribute, delay))
                });
            }
        }
    }

    /// A player leaves the visitors' sessions that are older than [`MAX_VISIT`], and the oldest of more than
    /// [`MAX_VISITS`]. Returns the ids of the others in which the player has a seat.
    async fn end_long_visits(&self, player: &Player) -> Result<Vec<Uuid>, Error> {
        let mut session_ids = Vec::new();
        // The newest sessions come first.
        for session in player.user.sessions().my_live(None).await?.items {
            if !self.is_visit(session.seer_id, session.id) {
                continue;
            }
            if is_visit_short(session.created_at) && session_ids.len() < MAX_VISITS {
                session_ids.push(session.id);
            } else {
                ignore_refusal(player.user.sessions().leave(session.id).await)?;
            }
        }
        Ok(session_ids)
    }

    /// Returns whether a session is a visitor's, and not one that the demo itself has created.
    fn is_visit(&self, seer_id: Uuid, session_id: Uuid) -> bool {
        Some(seer_id) != self.seer.user_id() && !LOBBY_SESSION_NUMBERS.map(fixed_id).contains(&session_id)
    }
}

/// Returns whether a player of the demo may stay in a session that was created at that time.
fn is_visit_short(created_at: DateTime<FixedOffset>) -> bool {
    Utc::now() - created_at.to_utc() < MAX_VISIT
}

/// Rolls once in each scene, when `delay` has passed since the scene was opened or, if the session was not active then,
/// since it became active. Ends when the session ends, or when a roll or the stream of events fails.
async fn roll_in_each_scene(
    user: IdentityConnection,
    session_id: Uuid,
    hero_id: Uuid,
    attribute: Attribute,
    delay: Duration,
) -> Result<(), Error> {
    let mut scene_opened_at = None;
    // After event 0 means from the oldest event on, so that no scene is missed.
    let mut events = user.events().subscribe(session_id, Some(0)).await?;
    while let Some(event) = events.try_next().await? {
        match (event.event_type.as_str(), event.payload["to"].as_str()) {
            ("scene_changed", scene_id) => scene_opened_at = scene_id.map(|_| event.created_at.to_utc()),
            ("session_status", Some("active")) => {}
            ("session_status", Some("completed" | "cancelled")) => break,
            _ => continue,
        }
        if scene_opened_at.is_none() {
            continue;
        }
        // The roll may have been made before a restart of the demo or a pause of the session.
        let filter = HistoryFilter { character_id: Some(hero_id), from: scene_opened_at, ..Default::default() };
        if !user.dice().history(RollScope::Session(session_id), &filter, None).await?.items.is_empty() {
            continue;
        }
        sleep(delay).await;
        let roller = Roller::Character(hero_id);
        let roll = NewRoll::attribute_check(session_id, roller, attribute, Difficulty::new(12)?);
        match user.dice().roll(roll).await {
            // The event that says that the session is active follows.
            Ok(_) | Err(Error::SessionNotActive) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns whether the request was refused, so that repeating it would not help.
fn is_refusal(error: &Error) -> bool {
    error.http_status() < 500
}

/// Returns `None` for a request that was refused. A failure, such as a lost connection, stays an error.
fn ignore_refusal<T>(outcome: Result<T, Error>) -> Result<Option<T>, Error> {
    match outcome {
        Err(error) if is_refusal(&error) => Ok(None),
        outcome => outcome.map(Some),
    }
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
