//! The roll that the measurements make: as the argument of the service's operation, and as the values of its statement.

use entity::sea_orm_active_enums::Attribute;
use service::{
    Difficulty,
    dice::{NewRoll, Roller},
};

use crate::{
    argument_sets::ArgumentSet,
    failure::Failure,
    sql_values::{NEW_UUID, quote_literal},
};

/// The payload of a roll's event, with made-up values.
pub const ROLL_EVENT_PAYLOAD: &str = r#"{"roll_id": "0", "character_name": "Hero", "roll_type": "attribute_check",
    "attribute": "might", "difficulty": 9, "results": [4, 2, 6], "total": 12, "outcome": "success", "success": true}"#;

/// Returns the roll that the player of an argument set makes.
pub fn new_roll(argument_set: &ArgumentSet) -> Result<NewRoll, Failure> {
    Ok(NewRoll::attribute_check(
        argument_set.session,
        Roller::Character(argument_set.character),
        Attribute::Might,
        Difficulty::new(9)?,
    ))
}

/// Returns the values of the service's INSERT of a roll as SQL expressions, in the order of its parameters: the ids of
/// the roll, the session and the character, no creature, the attribute, the difficulty, the type, no modifiers and no
/// description.
pub fn roll_values(argument_set: &ArgumentSet) -> Vec<String> {
    let [session, character] = [argument_set.session, argument_set.character].map(quote_literal);
    [NEW_UUID, &session, &character, "NULL", "'might'", "9", "'attribute_check'", "'[]'", "NULL"]
        .map(str::to_owned)
        .to_vec()
}
