//! The maintenance operations, and who may call them. `maintenance.vacuum` cannot run in a transaction, so
//! `tests/maintenance.rs` tests it.

use sparc::service::{Operations, maintenance::JobOptions};

use super::operation::{Operation, SERVICE_MAY_CALL, operation};

pub fn operations() -> Vec<Operation> {
    vec![
        operation!("maintenance.backlog", SERVICE_MAY_CALL, |tx, fixture| tx.maintenance().backlog()),
        operation!("maintenance.delete_old_events", SERVICE_MAY_CALL, |tx, fixture| {
            tx.maintenance().delete_old_events(JobOptions::default(), |_| ())
        }),
        operation!("maintenance.cancel_abandoned_sessions", SERVICE_MAY_CALL, |tx, fixture| {
            tx.maintenance().cancel_abandoned_sessions(JobOptions::default(), |_| ())
        }),
        operation!("maintenance.archive_sessions", SERVICE_MAY_CALL, |tx, fixture| {
            tx.maintenance().archive_sessions(JobOptions::default(), |_| ())
        }),
    ]
}
