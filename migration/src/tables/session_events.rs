//! `session_events`: what everyone at the table is told (PRD, "session_events").

use super::*;

pub(super) fn definition() -> TableDefinition {
    TableDefinition {
        table: Table::create()
            .table("session_events")
            .col(id())
            .col(required("session_id").uuid())
            .col(required("event_type").text())
            .col(required("payload").json_binary().default("{}"))
            .col(timestamp_now("created_at"))
            // The place in the session's story: a reader that has seen one asks for what comes after it.
            .col(required("seq").big_integer().extra("GENERATED ALWAYS AS IDENTITY"))
            // Who caused it, from the token; NULL where no user did. No foreign key: events live for a day.
            .col(optional("sender_id").uuid())
            .check(named("valid_event_type", "char_length(event_type) BETWEEN 1 AND 64"))
            .foreign_key(&mut foreign_key("session_events", "session_id", "sessions", ForeignKeyAction::Cascade))
            .to_owned(),
        indexes: vec![
            // With the id, moments that are equal have an order, and it is never the shorter way to a table's events by number: the
            // planner takes both for two rows long.
            index("idx_session_events_created", "session_events")
                .col("session_id")
                .col(("created_at", IndexOrder::Desc))
                .col("id")
                .to_owned(),
            index_on("idx_session_events_seq", "session_events", &["session_id", "seq"]).unique().to_owned(),
            // The clean-up finds what is old without reading what is not.
            index_on("idx_session_events_cleanup", "session_events", &["created_at"]),
        ],
    }
}
