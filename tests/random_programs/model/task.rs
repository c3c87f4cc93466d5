//! A task of a random program, with its model of what its calls have written.

use std::collections::BTreeSet;

use fastrand::Rng;
use sparc::service::{Error, IdentityConnection, Transaction};
use uuid::Uuid;

/// Keys of rows of the tests' table `notes`.
pub(super) type Keys = BTreeSet<i64>;

/// The state of a transaction or savepoint, as far as the model knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    /// A call was dropped. If its statement had already been sent, the transaction has failed; otherwise it is good.
    Unknown,
    Failed,
    /// A statement has changed the role or the claims of the transaction, so every further call is refused.
    IdentityChanged,
}

/// A transaction or savepoint that has not ended.
#[derive(Debug)]
pub(super) struct OpenTransaction {
    pub(super) id: u64,
    pub(super) health: Health,
    /// The keys that the transaction has written.
    pub(super) keys: Keys,
    /// Sets of keys that the transaction may have written: the model does not know. Of each set, the transaction has
    /// written either all keys or none.
    pub(super) uncertain_key_sets: Vec<Keys>,
}

/// A transaction value that the task holds, and its id in the model. The transaction itself may have ended already.
pub(super) struct HeldTransaction {
    pub(super) tx: Transaction,
    pub(super) id: u64,
}

/// A task, and its model of what its calls have written.
pub struct Task {
    pub(super) rng: Rng,
    /// The seed of the program.
    pub(super) seed: u64,
    /// The number of the task in the program.
    pub(super) number: u64,
    pub(super) connection: IdentityConnection,
    /// A draft adventure of the task's user. The validation of this draft is the only operation of the crate `service`
    /// that the task calls.
    pub(super) draft_adventure: Uuid,
    /// The last number that was used as a key or as the id of a savepoint (the outermost transaction has the id 0).
    /// Each task has a range of its own.
    pub(super) last_id: i64,
    /// The open transactions and savepoints, from the outermost to the innermost.
    pub(super) open_transactions: Vec<OpenTransaction>,
    /// The transactions that the task holds, in the order in which they were begun. The methods' parameter `index` is a
    /// position in this list.
    pub(super) held_transactions: Vec<HeldTransaction>,
    /// Whether a COMMIT in raw SQL has ended the outermost transaction, and so all its savepoints, while the task still
    /// holds their values.
    pub(super) has_committed_by_raw_sql: bool,
    /// The keys that must be in the table.
    pub(super) committed_keys: Keys,
    /// Sets of keys that may be in the table: the model does not know. Of each set, either all keys are there or none
    /// is.
    pub(super) uncertain_key_sets: Vec<Keys>,
    /// What the task has done, for the message of a failed assertion.
    pub(super) log: Vec<String>,
    pub dropped_calls: u64,
}

pub(super) fn outcome_code<T>(outcome: &Result<T, Error>) -> &'static str {
    outcome.as_ref().map_or_else(Error::code, |_| "done")
}

impl Task {
    pub fn new(seed: u64, number: u64, connection: IdentityConnection, draft_adventure: Uuid) -> Self {
        Self {
            rng: Rng::with_seed(seed * 1000 + number),
            seed,
            number,
            connection,
            draft_adventure,
            last_id: number as i64 * 1_000_000,
            open_transactions: Vec::new(),
            held_transactions: Vec::new(),
            has_committed_by_raw_sql: false,
            committed_keys: Keys::new(),
            uncertain_key_sets: Vec::new(),
            log: Vec::new(),
            dropped_calls: 0,
        }
    }

    pub fn user_id(&self) -> Uuid {
        self.connection.user_id().unwrap()
    }

    /// Asserts that the keys that are in the table at the end agree with the model.
    pub fn assert_stored_keys(&self, stored_keys: &Keys) {
        self.assert_keys(stored_keys, &self.committed_keys, &self.uncertain_key_sets);
    }

    /// Asserts that all required keys were found, of each uncertain set either all keys or none, and no other keys.
    pub(super) fn assert_keys(&self, found_keys: &Keys, required_keys: &Keys, uncertain_key_sets: &[Keys]) {
        let missing_keys: Vec<_> = required_keys.difference(found_keys).collect();
        assert!(
            missing_keys.is_empty(),
            "the inserts of {missing_keys:?} returned Ok, but the rows were not found\n{}",
            self.report()
        );
        let extra_keys: Keys = found_keys.difference(required_keys).copied().collect();
        let mut unexplained_keys = extra_keys.clone();
        for keys in uncertain_key_sets {
            let count = keys.intersection(&extra_keys).count();
            assert!(count == 0 || count == keys.len(), "only a part of {keys:?} was found\n{}", self.report());
            unexplained_keys.retain(|key| !keys.contains(key));
        }
        assert!(
            unexplained_keys.is_empty(),
            "the inserts of {unexplained_keys:?} failed or were rolled back, but the rows were found\n{}",
            self.report()
        );
    }

    /// Returns how to repeat the program, and what the task has done.
    pub(super) fn report(&self) -> String {
        format!("SPARC_SEED={} task {}:\n{}", self.seed, self.number, self.log.join("\n"))
    }

    pub(super) fn next_id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    /// Returns the position of the held transaction in `open_transactions`, or `None` if it has ended.
    pub(super) fn open_transaction_position(&self, index: usize) -> Option<usize> {
        self.open_transactions.iter().position(|transaction| transaction.id == self.held_transactions[index].id)
    }

    /// Asserts that a call had an outcome that the model allows, and logs the outcome. If the health of the transaction
    /// was unknown, the model learns it from the outcome. The call must be one that always succeeds on a good
    /// transaction. Returns whether it succeeded.
    pub(super) fn assert_and_record_outcome<T>(
        &mut self,
        index: usize,
        context: &str,
        outcome: &Result<T, Error>,
    ) -> bool {
        let actual = outcome_code(outcome);
        self.log.push(format!("{context} on {index} of {}: {actual}", self.held_transactions.len()));
        let position = self.open_transaction_position(index);
        let expected = match position {
            _ if self.has_committed_by_raw_sql => "transaction_ended",
            // The held transaction has ended: it, or one around it, was committed, rolled back or dropped.
            None => "transaction_over",
            Some(at) if at + 1 < self.open_transactions.len() => "nested_transaction_open",
            Some(at) => match self.open_transactions[at].health {
                Health::Good => "done",
                Health::Failed => "transaction_failed",
                Health::IdentityChanged => "identity_changed",
                Health::Unknown => {
                    self.open_transactions[at].health = if outcome.is_ok() { Health::Good } else { Health::Failed };
                    if outcome.is_ok() { "done" } else { "transaction_failed" }
                }
            },
        };
        assert_eq!(actual, expected, "{context}: {:?}\n{}", outcome.as_ref().err(), self.report());
        outcome.is_ok()
    }

    pub(super) fn innermost(&mut self) -> &mut OpenTransaction {
        self.open_transactions.last_mut().unwrap()
    }
}
