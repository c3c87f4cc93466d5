//! How a task ends a transaction, with the outcome that the model expects.

use sparc::service::{Error, Transaction};

use super::task::{Health, OpenTransaction, Task, outcome_code};
use crate::random_programs::poll_then_drop;

/// Describes, for the log, whether the next call is to be dropped, and how often it is polled after the first poll.
fn describe_drop(extra_polls: Option<u32>) -> String {
    match extra_polls {
        Some(count) => format!("to be dropped if pending after {count} extra polls"),
        None => "not to be dropped".to_owned(),
    }
}

impl Task {
    /// Removes a transaction from `held_transactions` and from `open_transactions`, and removes those nested in it from
    /// `open_transactions` too. Returns the transaction with its entry in `open_transactions`.
    fn remove(&mut self, index: usize) -> (Transaction, Option<OpenTransaction>) {
        let position = self.open_transaction_position(index);
        let removed = position.and_then(|at| self.open_transactions.drain(at..).next());
        (self.held_transactions.remove(index).tx, removed)
    }

    pub(super) async fn commit(&mut self, index: usize) {
        let extra_polls = (self.rng.u8(..) < 60).then(|| self.rng.u32(0..4));
        let was_ended_by_raw_sql = self.has_committed_by_raw_sql;
        let position = self.open_transaction_position(index);
        let is_innermost = position.is_some_and(|at| at + 1 == self.open_transactions.len());
        let health_before = position.map(|at| self.open_transactions[at].health);
        let held_count = self.held_transactions.len();
        self.log.push(format!("commit on {index} of {held_count}, {}", describe_drop(extra_polls)));
        let (tx, removed) = self.remove(index);
        let outcome = match extra_polls {
            Some(extra_polls) => poll_then_drop(extra_polls, tx.commit()).await,
            None => Some(tx.commit().await),
        };
        let Some(outcome) = outcome else {
            self.dropped_calls += 1;
            let Some(removed) =
                removed.filter(|_| is_innermost && matches!(health_before, Some(Health::Good | Health::Unknown)))
            else {
                return;
            };
            self.record_uncertain_keys(removed);
            return;
        };
        let outcome = outcome.map_err(Error::from);
        let actual = outcome_code(&outcome);
        let expected = match health_before {
            _ if was_ended_by_raw_sql => "transaction_ended",
            None => "transaction_over",
            Some(_) if !is_innermost => "nested_transaction_open",
            Some(Health::Failed) => "transaction_failed",
            Some(Health::IdentityChanged) => "identity_changed",
            Some(Health::Unknown) if outcome.is_err() => "transaction_failed",
            Some(Health::Good | Health::Unknown) => "done",
        };
        assert_eq!(actual, expected, "commit\n{}", self.report());
        if let (Some(removed), true) = (removed, outcome.is_ok()) {
            match self.open_transactions.last_mut() {
                Some(outer) => {
                    outer.keys.extend(removed.keys);
                    outer.uncertain_key_sets.extend(removed.uncertain_key_sets);
                }
                None => {
                    self.committed_keys.extend(removed.keys);
                    self.uncertain_key_sets.extend(removed.uncertain_key_sets);
                }
            }
        }
    }

    /// Records a dropped commit: the model does not know whether the transaction was committed.
    fn record_uncertain_keys(&mut self, removed: OpenTransaction) {
        let key_sets = [removed.keys].into_iter().chain(removed.uncertain_key_sets).filter(|keys| !keys.is_empty());
        match self.open_transactions.last_mut() {
            Some(outer) => outer.uncertain_key_sets.extend(key_sets),
            None => self.uncertain_key_sets.extend(key_sets),
        }
    }

    pub(super) async fn rollback(&mut self, index: usize) {
        let was_ended_by_raw_sql = self.has_committed_by_raw_sql;
        let was_open = self.open_transaction_position(index).is_some();
        let extra_polls = (self.rng.u8(..) < 60).then(|| self.rng.u32(0..4));
        self.log.push(format!("rollback on {index}, {}", describe_drop(extra_polls)));
        let (tx, _) = self.remove(index);
        let outcome = match extra_polls {
            Some(extra_polls) => poll_then_drop(extra_polls, tx.rollback()).await,
            None => Some(tx.rollback().await),
        };
        let Some(outcome) = outcome else {
            self.dropped_calls += 1;
            return;
        };
        let actual = outcome_code(&outcome.map_err(Error::from));
        let expected = match (was_ended_by_raw_sql, was_open) {
            (true, _) => "transaction_ended",
            (false, true) => "done",
            (false, false) => "transaction_over",
        };
        assert_eq!(actual, expected, "rollback\n{}", self.report());
    }

    pub(super) fn drop_transaction(&mut self, index: usize) {
        self.log.push(format!("drop {index}"));
        drop(self.remove(index));
    }
}
