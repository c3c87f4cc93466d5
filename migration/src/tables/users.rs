//! `users`: the public profile of an account (PRD, "users").

use super::*;

pub(super) fn part() -> Part {
    Part {
        table: Table::create()
            .table("users")
            .col(required("id").uuid().primary_key())
            .col(required("email").text().unique_key())
            .col(required("display_name").text())
            .col(optional("avatar_url").text())
            .col(optional("bio").text())
            .col(required("is_verified").boolean().default(false))
            .col(counter("games_played"))
            .col(counter("games_run"))
            .col(stamped("created_at"))
            .col(stamped("updated_at"))
            .foreign_key(&mut foreign_key("users", "id", ("auth", "users"), ForeignKeyAction::Cascade))
            .to_owned(),
        indexes: vec![
            index_on("idx_users_display_name", "users", &["display_name"]),
            index("idx_users_created_at", "users").col(("created_at", IndexOrder::Desc)).to_owned(),
        ],
    }
}
