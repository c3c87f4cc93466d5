//! `creatures`: the creatures of an adventure; the Seer plays them. The table is in the specification's diagram; its
//! columns are this project's decision.

use sea_orm_migration::prelude::*;

use super::definition::{
    TableDefinition, foreign_key, id_column, index_on, named_check, optional, required, timestamp_now,
};

pub(super) fn definition() -> TableDefinition {
    TableDefinition {
        table: Table::create()
            .table("creatures")
            .col(id_column())
            .col(required("adventure_id").uuid())
            .col(required("name").text())
            .col(optional("description").text())
            .col(required("stats").json_binary().default(r#"{"might": 1, "grace": 1, "wit": 1, "heart": 1}"#))
            .col(required("abilities").json_binary().default("[]"))
            .col(required("hit_points").integer().default(6).check(Expr::cust("hit_points BETWEEN 0 AND 1000")))
            .col(required("armor").integer().default(0).check(Expr::cust("armor BETWEEN 0 AND 100")))
            .col(timestamp_now("created_at"))
            .col(timestamp_now("updated_at"))
            .check(named_check("valid_name", "char_length(name) BETWEEN 1 AND 100"))
            .check(named_check("displayable_name", "private.is_displayable_name(name)"))
            .check(named_check("valid_stats", "private.are_valid_stats(stats)"))
            .foreign_key(&mut foreign_key("creatures", "adventure_id", "adventures", ForeignKeyAction::Cascade))
            .to_owned(),
        indexes: vec![index_on("idx_creatures_adventure_id", "creatures", &["adventure_id"])],
    }
}
