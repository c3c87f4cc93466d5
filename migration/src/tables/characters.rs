//! `characters`: the players' characters (section "characters" of the specification).

use sea_orm_migration::prelude::*;

use super::definition::{
    TableDefinition, counter, foreign_key, id_column, index_on, named_check, optional, required, timestamp_now,
};

pub(super) fn definition() -> TableDefinition {
    let attribute =
        |name: &'static str| required(name).integer().check(Expr::cust(format!("{name} BETWEEN 1 AND 6"))).to_owned();
    TableDefinition {
        table: Table::create()
            .table("characters")
            .col(id_column())
            .col(required("user_id").uuid())
            .col(required("name").text())
            .col(required("class").custom("character_class"))
            .col(attribute("might"))
            .col(attribute("grace"))
            .col(attribute("wit"))
            .col(attribute("heart"))
            .col(required("hit_points").integer().default(6))
            .col(required("max_hit_points").integer().default(6).check(Expr::cust("max_hit_points BETWEEN 1 AND 10")))
            .col(counter("experience"))
            .col(required("level").integer().default(1).check(Expr::cust("level BETWEEN 1 AND 10")))
            .col(required("equipment").json_binary().default("[]"))
            .col(required("special_ability").json_binary())
            .col(optional("last_played_at").timestamp_with_time_zone())
            // Set while the character is retired: its history stays, and it does not count towards the limit of ten
            // (`docs/decisions.md`, "Retiring, closing, deleting").
            .col(optional("retired_at").timestamp_with_time_zone())
            .col(timestamp_now("created_at"))
            .col(timestamp_now("updated_at"))
            // Number of seats that the character has in live sessions (which have not ended). A character with such a
            // seat cannot be retired.
            .col(counter("live_seats"))
            .check(named_check("character_not_seated", "retired_at IS NULL OR live_seats = 0"))
            .check(named_check("displayable_name", "private.is_displayable_name(name)"))
            // The specification limits `hit_points` to 6, although `max_hit_points` may be up to 10. Here
            // `max_hit_points` is the limit.
            .check(named_check("characters_hit_points_check", "hit_points BETWEEN 0 AND max_hit_points"))
            .check(named_check("valid_name", "char_length(name) BETWEEN 2 AND 50"))
            .index(Index::create().unique().name("unique_user_character_name").col("user_id").col("name"))
            .foreign_key(&mut foreign_key("characters", "user_id", "users", ForeignKeyAction::Cascade))
            .to_owned(),
        indexes: vec![
            index_on("idx_characters_user_id", "characters", &["user_id"]),
            index_on("idx_characters_class", "characters", &["class"]),
        ],
    }
}
