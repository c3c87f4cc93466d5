//! Maintenance. Vacuuming, which no transaction has, is tried in `tests/upkeep.rs`.

use sparc::service::{Operations, maintenance::Run};

use super::{Operation, SERVICE, operation, told};

pub fn operations() -> Vec<Operation> {
    vec![
        operation!("maintenance.due", SERVICE, |tx, scene| tx.maintenance().due()),
        operation!("maintenance.clean_events", SERVICE, |tx, scene| {
            tx.maintenance().clean_events(Run::default(), |_| ())
        }),
        operation!("maintenance.cancel_abandoned", SERVICE, |tx, scene| {
            tx.maintenance().cancel_abandoned(Run::default(), |_| ())
        }),
        operation!("maintenance.archive_sessions", SERVICE, |tx, scene| {
            tx.maintenance().archive_sessions(Run::default(), |_| ())
        }),
    ]
}
