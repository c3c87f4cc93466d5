//! Initiative: the order in which characters and creatures act.

use std::collections::{BTreeSet, HashMap, HashSet};

use entity::{
    dice_rolls,
    sea_orm_active_enums::{Attribute, RollType},
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter, QuerySelect, Statement,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Dice, Roller};
use crate::{Difficulty, Error, Executor, connection::OperationTransaction, operation::operation};

/// A request to roll initiative in a session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewInitiative {
    /// Id of the request; random if absent. Repeating the request with the same id returns the existing rolls.
    pub id: Option<Uuid>,
    /// Session.
    pub session_id: Uuid,
    /// The creatures that take part, in addition to all seated characters. A creature listed twice rolls once.
    #[serde(default)]
    pub creature_ids: Vec<Uuid>,
}

/// One turn: a character or creature with its roll of one die.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Turn {
    /// The character or creature that acts.
    pub roller: Roller,
    /// Name of the character or creature.
    pub name: String,
    /// Result of the die.
    pub die: i32,
    /// The roll.
    pub roll: dice_rolls::Model,
}

/// Maximum number of rows that a user may insert with one statement ([`Error::TooManyRows`]).
const MAX_ROWS_PER_STATEMENT: usize = 100;

/// Initiative has no difficulty, but the column `difficulty` is NOT NULL.
const INITIATIVE_DIFFICULTY: Difficulty = Difficulty::MIN;

/// Takes the ids of rolls as `$1`, and returns them in the order of the turns.
const SELECT_INITIATIVE_ORDER: &str = "SELECT private.initiative_order($1) AS ids";

impl<C: Executor> Dice<'_, C> {
    /// Rolls one die for each seated character and each listed creature, and returns the turns in order: the highest
    /// roll first, among equal rolls the higher grace first, then at random. Either all rolls are made or none.
    ///
    /// Repeating the request with the same id returns the existing rolls, except those of characters that have left
    /// their seats; characters that have taken a seat since then roll now.
    ///
    /// Who may: the Seer of an active session, and the service. Six round trips, seven if the request has an id, and
    /// one more for each hundred rolls after the first hundred. Event `dice_rolled` for each roll.
    ///
    /// # Errors
    ///
    /// [`Error::SessionNotActive`], [`Error::NotSessionSeer`], [`Error::NotAllowed`] if the caller is not a
    /// participant, [`Error::CreatureNotInAdventure`], [`Error::IdConflict`], [`Error::NotFound`] if no character is
    /// seated and no creature is listed, [`Error::NotSignedIn`].
    pub async fn roll_initiative(self, initiative: NewInitiative) -> Result<Vec<Turn>, Error> {
        #[derive(FromQueryResult)]
        struct OrderRow {
            /// The ids of the rolls, in the order of the turns.
            ids: Vec<Uuid>,
        }
        let initiative_id = initiative.id.unwrap_or_else(Uuid::new_v4);
        let creature_ids: BTreeSet<Uuid> = initiative.creature_ids.into_iter().collect();
        operation!(self.executor, "dice.roll_initiative", session = initiative.session_id, |tx| {
            let seats = read_seats(tx, initiative.session_id).await?;
            let caller_id = tx.identity().user_id();
            let is_seer = seats.iter().any(|seat| Some(seat.seer_id) == caller_id);
            let characters = seats.iter().map(|seat| Roller::Character(seat.character_id));
            let rollers: Vec<Roller> = characters.chain(creature_ids.iter().copied().map(Roller::Creature)).collect();
            if rollers.is_empty() {
                return Err(Error::NotFound { what: "seat" });
            }
            let rollers_by_roll_id: HashMap<Uuid, Roller> =
                rollers.iter().map(|roller| (roll_id(initiative_id, *roller), *roller)).collect();
            // If the session is no longer active, the database refuses to insert rolls, even if they already exist. A
            // repeated request must return these all the same, so they are not inserted again.
            let existing_ids = match initiative.id {
                Some(_) => read_existing_ids(tx, rollers_by_roll_id.keys().copied()).await?,
                None => HashSet::new(),
            };
            let has_not_rolled = |roller: &&Roller| !existing_ids.contains(&roll_id(initiative_id, **roller));
            let new_rollers: Vec<Roller> = rollers.iter().filter(has_not_rolled).copied().collect();
            for chunk in new_rollers.chunks(MAX_ROWS_PER_STATEMENT) {
                let rows = chunk.iter().map(|roller| new_roll_row(initiative_id, initiative.session_id, *roller));
                dice_rolls::Entity::insert_many(rows)
                    .on_conflict_do_nothing_on([dice_rolls::Column::Id])
                    .exec_without_returning(tx)
                    .await
                    .map_err(|error| explain_initiative_error(error.into(), is_seer))?;
            }
            // The database lets a player roll for their own character. So it does not refuse a player if no other
            // character is seated and no creature is listed.
            if !is_seer && seats.iter().any(|seat| Some(seat.user_id) == caller_id) {
                return Err(Error::NotSessionSeer);
            }

            // The database function is SECURITY DEFINER, because the caller cannot see the grace of other players'
            // characters.
            let roll_ids: Vec<Uuid> = rollers_by_roll_id.keys().copied().collect();
            let values = [roll_ids.clone().into()];
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, SELECT_INITIATIVE_ORDER, values);
            let order_row = OrderRow::find_by_statement(statement).one(tx).await?;
            let ordered_ids = order_row.map(|row| row.ids).unwrap_or_default();
            let turn_positions: HashMap<Uuid, usize> =
                ordered_ids.into_iter().enumerate().map(|(index, id)| (id, index)).collect();
            let mut rolls = dice_rolls::Entity::find().filter(dice_rolls::Column::Id.is_in(roll_ids)).all(tx).await?;
            let was_made_by_request = |roll: &dice_rolls::Model| {
                roll.rolled_by == caller_id
                    && has_requested_values(roll, initiative.session_id, rollers_by_roll_id.get(&roll.id).copied())
            };
            if rolls.len() != rollers_by_roll_id.len() || !rolls.iter().all(was_made_by_request) {
                return Err(Error::IdConflict { what: "roll" });
            }
            rolls.sort_by_key(|roll| turn_positions.get(&roll.id).copied());
            Ok(rolls.into_iter().filter_map(into_turn).collect())
        })
    }
}

/// Replaces the reason of a refusal, because the database's error is about the first character or creature for which
/// the caller may not roll. For a player, the actual reason is that the player is not the Seer. For the Seer, it is
/// that a player has left since the operation read the seats, so another attempt may succeed.
fn explain_initiative_error(error: Error, is_seer: bool) -> Error {
    match error {
        Error::CharacterNotYours | Error::NotSeated if !is_seer => Error::NotSessionSeer,
        Error::CharacterNotYours => Error::Busy,
        error => {
            error.with_rule_if_not_allowed("only the Seer of an active session, and the service, may roll initiative")
        }
    }
}

/// Returns whether the roll has the values that this request asks for. If not, the id was already that of another roll.
fn has_requested_values(roll: &dice_rolls::Model, session_id: Uuid, roller: Option<Roller>) -> bool {
    roll.session_id == session_id
        && roll.roll_type == RollType::Initiative
        && roll.attribute == Attribute::Grace
        && roll.difficulty == INITIATIVE_DIFFICULTY.get()
        && roller_of(roll) == roller
}

/// An active seat of the session.
#[derive(FromQueryResult)]
struct Seat {
    user_id: Uuid,
    character_id: Uuid,
    seer_id: Uuid,
}

const SELECT_SEATS: &str = "SELECT seat.user_id, seat.character_id, session.seer_id
     FROM public.session_players AS seat
     JOIN public.sessions AS session ON session.id = seat.session_id
     WHERE seat.session_id = $1 AND seat.is_active";

async fn read_seats(tx: &OperationTransaction, session_id: Uuid) -> Result<Vec<Seat>, Error> {
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, SELECT_SEATS, [session_id.into()]);
    Ok(Seat::find_by_statement(statement).all(tx).await?)
}

/// Returns which of these ids are those of rolls that the caller can see.
async fn read_existing_ids(tx: &OperationTransaction, ids: impl Iterator<Item = Uuid>) -> Result<HashSet<Uuid>, Error> {
    let query = dice_rolls::Entity::find().select_only().column(dice_rolls::Column::Id);
    Ok(query.filter(dice_rolls::Column::Id.is_in(ids)).into_tuple().all(tx).await?.into_iter().collect())
}

/// Returns the id of a roller's roll: the XOR of the request's id and the roller's id, which is the same when the
/// request is repeated. If both ids are random, so is their XOR.
///
/// A player chooses the id of a new character, and could choose that of a creature. So that the two do not get the same
/// roll, the bits of the request's id, which the player does not know, are rotated for a creature.
fn roll_id(initiative_id: Uuid, roller: Roller) -> Uuid {
    Uuid::from_u128(match roller {
        Roller::Character(id) => initiative_id.as_u128() ^ id.as_u128(),
        Roller::Creature(id) => initiative_id.as_u128().rotate_left(1) ^ id.as_u128(),
    })
}

/// Returns the row of one roll, without the results, which the database draws.
fn new_roll_row(initiative_id: Uuid, session_id: Uuid, roller: Roller) -> dice_rolls::ActiveModel {
    let (character_id, creature_id) = match roller {
        Roller::Character(id) => (Some(id), None),
        Roller::Creature(id) => (None, Some(id)),
    };
    dice_rolls::ActiveModel {
        id: Set(roll_id(initiative_id, roller)),
        session_id: Set(session_id),
        character_id: Set(character_id),
        creature_id: Set(creature_id),
        attribute: Set(Attribute::Grace),
        difficulty: Set(INITIATIVE_DIFFICULTY.get()),
        roll_type: Set(RollType::Initiative),
        ..Default::default()
    }
}

fn into_turn(roll: dice_rolls::Model) -> Option<Turn> {
    let roller = roller_of(&roll)?;
    Some(Turn { roller, name: roll.character_name.clone(), die: roll.total, roll })
}

fn roller_of(roll: &dice_rolls::Model) -> Option<Roller> {
    roll.character_id.map(Roller::Character).or(roll.creature_id.map(Roller::Creature))
}
