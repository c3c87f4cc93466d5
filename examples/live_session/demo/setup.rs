//! The demo as it is before it plays: its users, their characters and adventures, and sessions in the lobby.

use std::{collections::BTreeMap, time::Duration};

use chrono::{TimeDelta, Utc};
use sparc::entity::{
    adventures, creatures,
    sea_orm_active_enums::{AdventureStatus, Attribute, CharacterClass},
};
use sparc::service::{
    Error, IdentityConnection, Operations, Sparc,
    adventures::{AdventureContent, NewAdventure},
    characters::{Item, NewCharacter, SpecialAbility, primary_attribute},
    creatures::{NewCreature, Stats},
    sessions::{NewSession, Visibility},
    users::NewAccount,
};
use uuid::Uuid;

use super::refusal::ignore_refusal;

/// A player of the demo, with the id of their character.
pub(super) struct Player {
    pub(super) user: IdentityConnection,
    pub(super) hero_id: Uuid,
    pub(super) primary_attribute: Attribute,
}

/// The people of the demo, and what they play.
pub(super) struct Demo {
    pub(super) sparc: Sparc,
    pub(super) seer: IdentityConnection,
    /// The players, by their keys.
    pub(super) party: BTreeMap<&'static str, Player>,
    pub(super) adventure: adventures::Model,
    pub(super) content: AdventureContent,
    /// The creature that the players fight.
    pub(super) foe: creatures::Model,
    /// The time between two actions.
    pub(super) action_interval: Duration,
}

/// Returns one of the demo's ids. They are fixed, so that after a restart the same requests return the existing rows.
///
/// Numbers 1 to 4 are the Seer and the players, 102 to 104 the players' characters, 10 the adventure and 11 the foe.
/// Each of the three other sessions in the lobby has three consecutive numbers from 20 on: its Seer's, its adventure's
/// and its own ([`lobby_session_ids`]).
fn fixed_id(number: u128) -> Uuid {
    Uuid::from_u128(0x5ba2_c000_0000_4000_8000_0000_0000_0000 + number)
}

/// Returns the ids of the sessions that the demo itself has created in the lobby. Nobody plays in them.
pub(super) fn lobby_session_ids() -> [Uuid; 3] {
    [22, 25, 28].map(fixed_id)
}

impl Demo {
    /// Signs up the users; creates their characters and adventures, the foe, and three sessions in the lobby; and seats
    /// the players in these sessions. What exists already is kept.
    pub(super) async fn prepare(sparc: &Sparc, action_interval: Duration) -> Result<Self, Error> {
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
        let content: AdventureContent = serde_json::from_str(include_str!("../the_lantern_road.json"))
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
                // `IdConflict`: an earlier run of the program created the session, with another start time.
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
