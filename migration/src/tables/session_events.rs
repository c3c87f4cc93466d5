//! `session_events`: what happened in a session, for its participants (section "session_events" of the specification).

use sea_orm_migration::prelude::*;

use super::definition::{
    TableDefinition, foreign_key, id_column, index, index_on, named_check, optional, required, timestamp_now,
};

pub(super) fn definition() -> TableDefinition {
    TableDefinition {
        table: Table::create()
            .table("session_events")
            .col(id_column())
            .col(required("session_id").uuid())
            .col(required("event_type").text())
            .col(required("payload").json_binary().default("{}"))
            .col(timestamp_now("created_at"))
            // The event's number: a reader resumes after the number of the last event that it has.
            .col(required("seq").big_integer().extra("GENERATED ALWAYS AS IDENTITY"))
            // The user who caused the event, from the token; NULL if no user did. The column is not a foreign key,
            // because events are kept for only a day.
            .col(optional("sender_id").uuid())
            // Participants read events as a `text/event-stream`, in which a line break in the type would end the field.
            // Other control characters have no use in a type. The condition has no BETWEEN, because PostgreSQL would
            // print a BETWEEN that is followed by AND and another condition differently after a dump is restored.
            .check(named_check(
                "valid_event_type",
                r"char_length(event_type) >= 1 AND char_length(event_type) <= 64
                  AND event_type !~ '[\u0001-\u001f\u007f-\u009f\u2028\u2029]'",
            ))
            .foreign_key(&mut foreign_key("session_events", "session_id", "sessions", ForeignKeyAction::Cascade))
            .to_owned(),
        indexes: vec![
            // The id orders events of the same time. It has a second use: it makes this index larger, and so its scan
            // more expensive. Without it, the planner would sometimes use this index instead of
            // `idx_session_events_seq` to find a session's events by `seq`, because the estimated number of rows is the
            // same for both.
            index("idx_session_events_created", "session_events")
                .col("session_id")
                .col(("created_at", IndexOrder::Desc))
                .col("id")
                .to_owned(),
            index_on("idx_session_events_seq", "session_events", &["session_id", "seq"]).unique().to_owned(),
            // With this index, the clean-up finds old events without reading newer ones.
            index_on("idx_session_events_cleanup", "session_events", &["created_at"]),
        ],
    }
}
