//! The eight enumerated types (section "Core Tables" of the specification).

use sea_orm_migration::prelude::{
    extension::postgres::{Type, TypeCreateStatement},
    *,
};

/// Name and values of each type, in the order of the specification.
const DEFINITIONS: [(&str, &[&str]); 8] = [
    ("character_class", &["warrior", "rogue", "wizard", "cleric", "paladin", "ranger", "necromancer"]),
    ("difficulty_level", &["easy", "medium", "hard"]),
    ("adventure_status", &["draft", "published", "archived"]),
    ("session_status", &["waiting", "starting_soon", "active", "paused", "completed", "cancelled"]),
    ("roll_outcome", &["critical_success", "success", "failure", "critical_failure"]),
    (
        "roll_type",
        &["attribute_check", "attack", "defense", "initiative", "damage", "healing", "ability", "heroic_save"],
    ),
    ("attribute", &["might", "grace", "wit", "heart"]),
    ("tutorial_path", &["player", "seer"]),
];

/// The names of the types.
pub(crate) const TYPES: [&str; 8] = [
    DEFINITIONS[0].0,
    DEFINITIONS[1].0,
    DEFINITIONS[2].0,
    DEFINITIONS[3].0,
    DEFINITIONS[4].0,
    DEFINITIONS[5].0,
    DEFINITIONS[6].0,
    DEFINITIONS[7].0,
];

/// Returns the statements that create the types.
pub(super) fn create() -> impl Iterator<Item = TypeCreateStatement> {
    DEFINITIONS.iter().map(|(name, values)| {
        Type::create().as_enum(Alias::new(*name)).values(values.iter().map(|value| Alias::new(*value))).to_owned()
    })
}
