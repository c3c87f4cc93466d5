//! Initiative: who acts when.

use std::collections::{BTreeSet, HashMap};

use entity::{
    dice_rolls,
    sea_orm_active_enums::{Attribute, RollType},
    session_players,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter, QuerySelect, Statement,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Dice, Roller};
use crate::{Caller, Difficulty, Error, connection::UncheckedTransaction, operation::operation};

/// A roll of initiative to be made for a whole table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewInitiative {
    /// Id to give it; drawn where none is given. The same id again gives the first rolls.
    pub id: Option<Uuid>,
    /// Table.
    pub session_id: Uuid,
    /// The creatures that take part, besides all characters that are seated. One that is named twice rolls once.
    #[serde(default)]
    pub creatures: Vec<Uuid>,
}

/// Somebody's turn: a roll of one die.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Turn {
    /// Who acts.
    pub roller: Roller,
    /// The name of who acts.
    pub name: String,
    /// What the die showed.
    pub die: i32,
    /// The whole roll.
    pub roll: dice_rolls::Model,
}

/// What the database lets one statement of a user insert ([`Error::TooManyRows`]).
const MAX_ROWS_PER_STATEMENT: usize = 100;

const ORDER: &str = "SELECT private.initiative_order($1) AS ids";

impl<C: Caller> Dice<'_, C> {
    /// Rolls one die for every character that is seated and the creatures named, and gives the turns in their order: the
    /// highest first, ties by grace. All rolls, or none.
    ///
    /// Twice with the same id gives the first rolls; who sat down in between rolls now.
    ///
    /// Who may: the Seer of an active session, and the service. Six round trips, and one more for each hundred rolls after the
    /// first. Event `dice_rolled` for each.
    ///
    /// # Errors
    ///
    /// [`Error::SessionNotActive`], [`Error::NotSessionSeer`], [`Error::NotAllowed`] for whoever has no part in the session,
    /// [`Error::CreatureNotInAdventure`], [`Error::IdConflict`], [`Error::NotFound`] where nobody is seated and no
    /// creature named, [`Error::NotSignedIn`].
    pub async fn initiative(self, new: NewInitiative) -> Result<Vec<Turn>, Error> {
        #[derive(FromQueryResult)]
        struct Row {
            ids: Vec<Uuid>,
        }
        let id = new.id.unwrap_or_else(Uuid::new_v4);
        let creatures: BTreeSet<Uuid> = new.creatures.into_iter().collect();
        operation!(self.caller, "dice.initiative", session = new.session_id, |tx| {
            let rollers = seated(tx, new.session_id).await?.into_iter().map(Roller::Character);
            let rollers: Vec<Roller> = rollers.chain(creatures.iter().copied().map(Roller::Creature)).collect();
            if rollers.is_empty() {
                return Err(Error::NotFound { what: "seat" });
            }
            let expected: HashMap<Uuid, Roller> =
                rollers.iter().map(|roller| (roll_id(id, *roller), *roller)).collect();
            for rollers in rollers.chunks(MAX_ROWS_PER_STATEMENT) {
                let rows = rollers.iter().map(|roller| roll(id, new.session_id, *roller));
                dice_rolls::Entity::insert_many(rows)
                    .on_conflict_do_nothing_on([dice_rolls::Column::Id])
                    .exec_without_returning(tx)
                    .await
                    .map_err(|error| initiative_error(error.into()))?;
            }

            // Elevated by the database: grace stands on sheets that the others do not see.
            let ids: Vec<Uuid> = expected.keys().copied().collect();
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, ORDER, [ids.clone().into()]);
            let order = Row::find_by_statement(statement).one(tx).await?.map(|row| row.ids).unwrap_or_default();
            let place: HashMap<Uuid, usize> = order.into_iter().enumerate().map(|(place, id)| (id, place)).collect();
            let mut rolls = dice_rolls::Entity::find().filter(dice_rolls::Column::Id.is_in(ids)).all(tx).await?;
            let is_ours = |roll: &dice_rolls::Model| is_turn(roll, new.session_id, expected.get(&roll.id).copied());
            if rolls.len() != expected.len() || !rolls.iter().all(is_ours) {
                return Err(Error::IdConflict { what: "roll" });
            }
            rolls.sort_by_key(|roll| place.get(&roll.id).copied());
            Ok(rolls.into_iter().filter_map(turn).collect())
        })
    }
}

/// A player of the session is refused for the first character or creature that they may not roll for.
fn initiative_error(error: Error) -> Error {
    match error {
        Error::CharacterNotYours | Error::NotSeated => Error::NotSessionSeer,
        error => error.with_rule("only the Seer of an active session, and the service, may roll initiative"),
    }
}

/// Whether it is what this operation rolls for them, and not another roll that has the id.
fn is_turn(roll: &dice_rolls::Model, session_id: Uuid, roller: Option<Roller>) -> bool {
    roll.session_id == session_id
        && roll.roll_type == RollType::Initiative
        && roll.attribute == Attribute::Grace
        && roll.difficulty == Difficulty::MIN.get()
        && roller_of(roll) == roller
}

async fn seated(tx: &UncheckedTransaction, session_id: Uuid) -> Result<Vec<Uuid>, Error> {
    Ok(session_players::Entity::find()
        .select_only()
        .column(session_players::Column::CharacterId)
        .filter(session_players::Column::SessionId.eq(session_id))
        .filter(session_players::Column::IsActive.eq(true))
        .into_tuple()
        .all(tx)
        .await?)
}

/// An id for each roll that the same call gives it again: both are random, and so is what they make together.
fn roll_id(of: Uuid, roller: Roller) -> Uuid {
    let (Roller::Character(who) | Roller::Creature(who)) = roller;
    Uuid::from_u128(of.as_u128() ^ who.as_u128())
}

fn roll(of: Uuid, session_id: Uuid, roller: Roller) -> dice_rolls::ActiveModel {
    let (character_id, creature_id) = match roller {
        Roller::Character(id) => (Some(id), None),
        Roller::Creature(id) => (None, Some(id)),
    };
    dice_rolls::ActiveModel {
        id: Set(roll_id(of, roller)),
        session_id: Set(session_id),
        character_id: Set(character_id),
        creature_id: Set(creature_id),
        attribute: Set(Attribute::Grace),
        // There is nothing to reach: the column asks for a number.
        difficulty: Set(Difficulty::MIN.get()),
        roll_type: Set(RollType::Initiative),
        ..Default::default()
    }
}

fn turn(roll: dice_rolls::Model) -> Option<Turn> {
    let roller = roller_of(&roll)?;
    Some(Turn { roller, name: roll.character_name.clone(), die: roll.total, roll })
}

fn roller_of(roll: &dice_rolls::Model) -> Option<Roller> {
    roll.character_id.map(Roller::Character).or(roll.creature_id.map(Roller::Creature))
}
