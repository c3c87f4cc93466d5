//! The game that the programs work on.

use sparc::entity::sea_orm_active_enums::{Attribute, CharacterClass};
use sparc::service::{
    Difficulty, Error, IdentityConnection, JoinCode, Operations, Sparc,
    adventures::{AdventureContent, NewAdventure},
    characters::NewCharacter,
    dice::{NewRoll, Roller},
    sessions::{NewSession, Visibility},
    users::NewAccount,
};
use uuid::Uuid;

/// The game that the programs work on: the handle to the database; connections of the Seer and of the player Ada; the
/// ids of Ada's character (`hero`), of the adventure and of the session; and the session's join code.
pub struct StartedGame {
    pub sparc: Sparc,
    pub seer: IdentityConnection,
    pub ada: IdentityConnection,
    pub hero: Uuid,
    pub adventure: Uuid,
    pub session: Uuid,
    pub code: JoinCode,
}

/// Signs up a Seer and a player, publishes an adventure, creates a session of it, seats the player, starts the session,
/// and makes one roll.
pub async fn start_demo_game(sparc: &Sparc) -> Result<StartedGame, Error> {
    let (seer, ada) = (sign_up(sparc, "Morgan").await?, sign_up(sparc, "Ada").await?);
    let content = AdventureContent::single_scene("The water is higher than it was.");
    let new_adventure = NewAdventure { name: "The Drowned Ford".into(), content, ..Default::default() };
    let adventure = seer.adventures().create(new_adventure).await?.id;
    seer.adventures().publish(adventure).await?;
    let new_session = NewSession { adventure_id: adventure, visibility: Visibility::Public, ..Default::default() };
    let session = seer.sessions().create(new_session).await?;
    let code: JoinCode = session.code.parse()?;
    let brunhild = NewCharacter { name: "Brunhild".into(), class: CharacterClass::Warrior, ..Default::default() };
    let hero = ada.characters().create(brunhild).await?.id;
    ada.sessions().join(&code, hero).await?;
    seer.sessions().start(session.id).await?;
    let check = NewRoll::attribute_check(session.id, Roller::Character(hero), Attribute::Might, Difficulty::MIN);
    println!("Brunhild rolls {}", ada.dice().roll(check).await?.total);
    Ok(StartedGame { sparc: sparc.clone(), seer, ada, hero, adventure, session: session.id, code })
}

/// Creates an account and returns a connection on which its user calls operations.
pub async fn sign_up(sparc: &Sparc, name: &str) -> Result<IdentityConnection, Error> {
    let account = NewAccount { display_name: Some(name.into()), ..Default::default() };
    Ok(sparc.as_user(sparc.as_service().users().sign_up(account).await?.id))
}
