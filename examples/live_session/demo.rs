//! The demo game: a Seer and three players play at human speed, and the lobby has three more sessions. Each scene of
//! the adventure lists the actions of the Seer and the players.

mod refusal;
mod setup;
mod visitors_sessions;

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use sparc::entity::{
    sea_orm_active_enums::{Attribute, SessionStatus},
    sessions,
};
use sparc::service::{
    Difficulty, Error, IdentityConnection, MaxPlayers, Operations, Sparc,
    dice::{Modifier, NewInitiative, NewRoll, Roller},
    events::NewEvent,
    sessions::{NewSession, Visibility},
};
use tokio::{sync::watch, time::sleep};
use uuid::Uuid;

use refusal::{ignore_refusal, is_refusal};
use setup::Demo;

use crate::game_state::{change_game_state, damage_or_heal, set_hit_points};

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

/// The hit points that a successful attack takes away, and that a successful healing roll restores.
const HIT_POINTS_PER_SUCCESS: i8 = 2;

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
                demo.play_in_visitors_sessions("ada", Duration::from_secs(3)),
                demo.play_in_visitors_sessions("ben", Duration::from_secs(6)),
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
            // This session is left over from an attempt that failed before the start, and its seats are still taken.
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
            self.leave_old_visitors_sessions(player).await?;
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
                damage_or_heal(&self.seer, session_id, damaged_player.hero_id, HIT_POINTS_PER_SUCCESS).await?;
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
                // 409: a heroic save cannot replace this roll, for example because the player has already used the one
                // save of this encounter.
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
            damage_or_heal(&self.seer, session_id, healed_player.hero_id, -HIT_POINTS_PER_SUCCESS).await?;
        }
        Ok(())
    }
}

async fn say(user: &IdentityConnection, session_id: Uuid, text: &str) -> Result<(), Error> {
    let payload = json!({ "text": text });
    user.events().send(NewEvent { session_id, kind: "say".into(), payload, ..Default::default() }).await?;
    Ok(())
}
