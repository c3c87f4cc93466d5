//! `users`: the public profile of an account (section "users" of the specification).

use sea_orm_migration::prelude::*;

use super::definition::{
    TableDefinition, counter, foreign_key, index, index_on, named_check, optional, required, timestamp_now,
};

pub(super) fn definition() -> TableDefinition {
    TableDefinition {
        table: Table::create()
            .table("users")
            // The account's id. It is not a foreign key to `auth.users`, because the profile of a deleted account stays
            // if the history of others refers to it (`docs/decisions.md`, "Retiring, closing, deleting").
            .col(required("id").uuid().primary_key())
            .col(required("email").text().unique_key())
            .col(required("display_name").text())
            .col(optional("avatar_url").text())
            .col(optional("bio").text())
            .col(required("is_verified").boolean().default(false))
            .col(counter("games_played"))
            .col(counter("games_run"))
            .col(timestamp_now("created_at"))
            .col(timestamp_now("updated_at"))
            // Equal to `id` while the account exists; NULL afterwards.
            .col(optional("account_id").uuid().unique_key().to_owned())
            // Set when the account is closed: its personal data is removed, the history of its games stays, and it
            // cannot write any more.
            .col(optional("closed_at").timestamp_with_time_zone())
            // Counters of the account's rows. A *living* character is not retired. A *live* session has not ended, and
            // a live seat is one that its player holds in such a session. Triggers maintain the counters, and the
            // checks below enforce the limits.
            .col(counter("living_characters"))
            .col(counter("retired_characters"))
            .col(counter("live_seats"))
            .col(counter("live_sessions"))
            .col(counter("adventure_count"))
            .check(named_check("account_is_own", "account_id = id"))
            .check(named_check("character_limit", "living_characters <= 10"))
            .check(named_check("retired_character_limit", "retired_characters <= 100"))
            .check(named_check("live_seat_limit", "live_seats <= 20"))
            .check(named_check("live_session_limit", "live_sessions <= 20"))
            .check(named_check("adventure_limit", "adventure_count <= 200"))
            // If an account has no e-mail address of its own, `email` is `ID@no-email.invalid`; once the account is
            // closed, `ID@deleted.invalid`. Both domains are reserved: this check refuses an address in them that does
            // not contain the account's own id.
            .check(named_check(
                "reserved_email_is_own",
                "lower(email) !~ '@(no-email|deleted)\\.invalid$' \
                 OR email IN (id || '@no-email.invalid', id || '@deleted.invalid')",
            ))
            .check(named_check("displayable_name", "private.is_displayable_name(display_name)"))
            .foreign_key(&mut foreign_key("users", "account_id", ("auth", "users"), ForeignKeyAction::SetNull))
            .to_owned(),
        indexes: vec![
            index_on("idx_users_display_name", "users", &["display_name"]),
            index("idx_users_created_at", "users").col(("created_at", IndexOrder::Desc)).to_owned(),
        ],
    }
}
