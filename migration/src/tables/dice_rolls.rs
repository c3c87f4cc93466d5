//! `dice_rolls`: every roll of the sessions that are not archived (section "dice_rolls" of the specification).

use sea_orm_migration::prelude::*;

use super::definition::{
    TableDefinition, foreign_key, id_column, index, index_on, named_check, optional, required, timestamp_now,
};

/// Adds the columns of a roll except its id. `archived_dice_rolls` has the same columns.
pub(super) fn add_columns(table: &mut TableCreateStatement) {
    table
        .col(required("session_id").uuid())
        // A roll belongs to a character or a creature. If the creature is deleted, the roll has neither.
        .col(optional("character_id").uuid())
        .col(optional("creature_id").uuid())
        .col(required("character_name").text())
        .col(required("attribute").custom("attribute"))
        .col(required("dice_count").integer())
        .col(required("difficulty").integer())
        .col(required("roll_type").custom("roll_type"))
        .col(required("modifiers").json_binary().default("[]"))
        .col(required("results").array(ColumnType::Integer))
        .col(required("total").integer())
        .col(required("modified_total").integer())
        .col(required("success").boolean())
        .col(required("outcome").custom("roll_outcome"))
        .col(required("margin").integer())
        .col(optional("description").text())
        .col(optional("animation_seed").big_integer())
        .col(optional("original_roll_id").uuid())
        // The user who rolled: the user of the request's token or, if the token names none, what the service sets. A
        // request counts as a repetition of an earlier one only if both come from the same user. Rolls have no row in
        // `private.request_digests`, so the crate `service` compares this column instead.
        .col(optional("rolled_by").uuid())
        .col(timestamp_now("created_at"));
}

pub(super) fn definition() -> TableDefinition {
    let mut table = Table::create().table("dice_rolls").col(id_column()).to_owned();
    add_columns(&mut table);
    add_checks(&mut table);
    table
        .foreign_key(&mut foreign_key("dice_rolls", "session_id", "sessions", ForeignKeyAction::Cascade))
        .foreign_key(&mut foreign_key("dice_rolls", "character_id", "characters", ForeignKeyAction::NoAction))
        .foreign_key(&mut foreign_key("dice_rolls", "creature_id", "creatures", ForeignKeyAction::SetNull))
        .foreign_key(&mut foreign_key("dice_rolls", "original_roll_id", "dice_rolls", ForeignKeyAction::NoAction));
    TableDefinition {
        table,
        indexes: vec![
            // For pages of the history: of a session, of a session's rolls of one type, and of a character.
            history_index("idx_dice_rolls_history", &["session_id"]),
            history_index("idx_dice_rolls_type", &["session_id", "roll_type"]),
            history_index("idx_dice_rolls_character", &["character_id"]),
            index_on("idx_dice_rolls_creature", "dice_rolls", &["creature_id"]),
            index("idx_dice_rolls_created", "dice_rolls").col(("created_at", IndexOrder::Desc)).to_owned(),
            // For the foreign key. The index is unique, because at most one heroic save may repeat a roll.
            index_on("idx_dice_rolls_original", "dice_rolls", &["original_roll_id"]).unique().to_owned(),
        ],
    }
}

/// Returns an index for pages of the history, newest first.
fn history_index(name: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    index_on(name, "dice_rolls", columns).col(("created_at", IndexOrder::Desc)).col("id").to_owned()
}

/// Adds the checks on a roll, which apply to every writer, including the service (`docs/decisions.md`, "Rolls").
fn add_checks(table: &mut TableCreateStatement) {
    table
        .check(named_check("dice_rolls_dice_count_check", "dice_count BETWEEN 1 AND 10"))
        .check(named_check("dice_rolls_difficulty_check", "difficulty BETWEEN 3 AND 18"))
        .check(named_check("valid_roller", "num_nonnulls(character_id, creature_id) <= 1"))
        .check(named_check("valid_modifiers", "private.are_valid_modifiers(modifiers)"))
        // The specification checks only `array_length`, which is NULL for an empty array, and a check that is NULL
        // passes.
        .check(named_check(
            "valid_results",
            "cardinality(results) = dice_count AND array_ndims(results) = 1 AND array_lower(results, 1) = 1 \
             AND array_position(results, NULL) IS NULL AND 1 <= ALL (results) AND 6 >= ALL (results)",
        ))
        .check(named_check("valid_total", "total = private.sum_of_dice(results)"))
        .check(named_check(
            "valid_modified_total",
            "modified_total = total + private.sum_of_modifiers(modifiers, 'flat')",
        ))
        .check(named_check("valid_margin", "margin = modified_total - difficulty"))
        .check(named_check(
            "valid_outcome",
            "outcome = CASE WHEN 6 = ALL (results) THEN 'critical_success'::roll_outcome \
             WHEN 1 = ALL (results) THEN 'critical_failure'::roll_outcome \
             WHEN modified_total >= difficulty THEN 'success'::roll_outcome \
             ELSE 'failure'::roll_outcome END",
        ))
        .check(named_check("valid_success", "success = (outcome IN ('critical_success', 'success'))"))
        .check(named_check("valid_heroic_save", "(roll_type = 'heroic_save') = (original_roll_id IS NOT NULL)"));
}
