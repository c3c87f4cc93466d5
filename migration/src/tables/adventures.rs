//! `adventures`: the stories that Seers run in sessions (section "adventures" of the specification).

use sea_orm_migration::prelude::*;

use super::definition::{
    TableDefinition, counter, foreign_key, id_column, index, index_on, named_check, optional, required, timestamp_now,
};

pub(super) fn definition() -> TableDefinition {
    let player_count = |name: &'static str, default: i32| {
        required(name).integer().default(default).check(Expr::cust(format!("{name} BETWEEN 1 AND 6"))).to_owned()
    };
    TableDefinition {
        table: Table::create()
            .table("adventures")
            .col(id_column())
            .col(required("creator_id").uuid())
            .col(required("name").text())
            .col(optional("description").text())
            .col(optional("thumbnail_url").text())
            .col(optional("artwork_url").text())
            .col(required("difficulty").custom("difficulty_level").default("medium"))
            // In minutes.
            .col(required("estimated_duration").integer().default(60).check(Expr::cust("estimated_duration > 0")))
            .col(player_count("min_players", 2))
            .col(player_count("max_players", 4))
            .col(required("content").json_binary().default("{}"))
            .col(required("status").custom("adventure_status").default("draft"))
            .col(optional("published_at").timestamp_with_time_zone())
            .col(required("is_valid").boolean().default(false))
            .col(required("validation_errors").json_binary().default("[]"))
            .col(counter("times_played"))
            .col(optional("average_rating").decimal_len(3, 2))
            .col(timestamp_now("created_at"))
            .col(timestamp_now("updated_at"))
            // Number of the adventure's creatures.
            .col(counter("creature_count"))
            .check(named_check("creature_limit", "creature_count <= 200"))
            .check(named_check("displayable_name", "private.is_displayable_name(name)"))
            .check(named_check("adventures_average_rating_check", "average_rating BETWEEN 0 AND 5"))
            .check(named_check("valid_player_range", "min_players <= max_players"))
            .check(named_check("valid_name", "char_length(name) BETWEEN 3 AND 100"))
            .check(named_check(
                "published_is_valid",
                "status <> 'published' OR (is_valid AND published_at IS NOT NULL)",
            ))
            .foreign_key(&mut foreign_key("adventures", "creator_id", "users", ForeignKeyAction::Cascade))
            .to_owned(),
        indexes: vec![
            index("idx_adventures_creator_id", "adventures")
                .col("creator_id")
                .col(("created_at", IndexOrder::Desc))
                .col("id")
                .to_owned(),
            index_on("idx_adventures_status", "adventures", &["status"]),
            // Two sort orders of the published adventures: newest, and most played. The index for the third, best
            // rated, is created in `super::create_sql`, because SeaQuery cannot express its NULLS LAST.
            catalogue_index("idx_adventures_published", "published_at"),
            catalogue_index("idx_adventures_most_played", "times_played"),
            index_on("idx_adventures_difficulty", "adventures", &["difficulty"])
                .and_where(Expr::cust("status = 'published'"))
                .to_owned(),
            // For PostgreSQL, SeaQuery's "full text" index is a GIN index.
            index_on("idx_adventures_content", "adventures", &["content"]).full_text().to_owned(),
        ],
    }
}

/// Returns an index of the catalogue (the published adventures), with the highest values of the column first.
fn catalogue_index(name: &'static str, column: &'static str) -> IndexCreateStatement {
    index(name, "adventures")
        .col((column, IndexOrder::Desc))
        .col("id")
        .and_where(Expr::cust("status = 'published'"))
        .to_owned()
}
