//! One of the concurrent tasks of a random program (see the parent module): it makes random calls on a connection, and
//! keeps a model of what the calls have written. The model says which outcomes the next call may have.

mod ending;
mod notes;
mod steps;

use std::{collections::BTreeSet, future::poll_fn, pin::pin, task::Poll};

use fastrand::Rng;
use sparc::service::{Error, IdentityConnection, Transaction};
use uuid::Uuid;

/// Polls the future once, and then at most `extra_polls` more times. If it is still pending, drops it and returns
/// `None`. (A future that is passed by reference is not dropped.)
pub async fn poll_then_drop<T>(extra_polls: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut polls_left = extra_polls;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if polls_left == 0 => Poll::Ready(None),
        Poll::Pending => {
            polls_left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Keys of rows of the tests' table `notes`.
type Keys = BTreeSet<i64>;

/// The state of a transaction or savepoint, as far as the model knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Good,
    /// A call was dropped. If its statement had already been sent, the transaction has failed; otherwise it is good.
    Unknown,
    Failed,
    /// A statement has changed the role or the claims of the transaction, so every further call is refused.
    IdentityChanged,
}

/// A transaction or savepoint that has not ended.
#[derive(Debug)]
struct OpenTransaction {
    id: u64,
    health: Health,
    /// The keys that the transaction has written.
    keys: Keys,
    /// Sets of keys that the transaction may have written: the model does not know. Of each set, the transaction has
    /// written either all keys or none.
    uncertain_key_sets: Vec<Keys>,
}

/// A transaction value that the task holds, and its id in the model. The transaction itself may have ended already.
struct HeldTransaction {
    tx: Transaction,
    id: u64,
}

/// A task, and its model of what its calls have written.
pub struct Task {
    rng: Rng,
    /// The seed of the program.
    seed: u64,
    /// The number of the task in the program.
    number: u64,
    connection: IdentityConnection,
    /// A draft adventure of the task's user. The validation of this draft is the only operation of the crate `service`
    /// that the task calls.
    draft_adventure: Uuid,
    /// The last number that was used as a key or as the id of a savepoint (the outermost transaction has the id 0).
    /// Each task has a range of its own.
    last_id: i64,
    /// The open transactions and savepoints, from the outermost to the innermost.
    open_transactions: Vec<OpenTransaction>,
    /// The transactions that the task holds, in the order in which they were begun. The methods' parameter `index` is a
    /// position in this list.
    held_transactions: Vec<HeldTransaction>,
    /// Whether a COMMIT in raw SQL has ended the outermost transaction, and so all its savepoints, while the task still
    /// holds their values.
    has_committed_by_raw_sql: bool,
    /// The keys that must be in the table.
    committed_keys: Keys,
    /// Sets of keys that may be in the table: the model does not know. Of each set, either all keys are there or none
    /// is.
    uncertain_key_sets: Vec<Keys>,
    /// What the task has done, for the message of a failed assertion.
    log: Vec<String>,
    pub dropped_calls: u64,
}

fn outcome_code<T>(outcome: &Result<T, Error>) -> &'static str {
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

    /// Takes `steps` random steps, and then drops the transactions that the task still holds.
    pub async fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            if self.held_transactions.is_empty() {
                self.begin().await;
                continue;
            }
            // Most calls use the innermost transaction; some use any that the task still holds.
            let innermost_index = self.held_transactions.len() - 1;
            let index = if self.rng.u8(..) < 200 { innermost_index } else { self.rng.usize(..=innermost_index) };
            match self.rng.u8(0..100) {
                0..20 => self.write(index).await,
                20..27 => self.read(index).await,
                27..34 => self.run_failing_statement(index).await,
                34..40 => self.change_settings(index).await,
                40..43 => self.change_identity(index).await,
                43..45 => self.commit_by_raw_sql(index).await,
                45..57 => self.begin_nested(index).await,
                57..67 => self.commit(index).await,
                67..73 => self.rollback(index).await,
                73..77 => self.drop_transaction(index),
                77..85 => self.drop_call(index).await,
                85..91 => self.stream(index).await,
                91..97 => self.call_concurrently(index).await,
                _ => self.maybe_call_on_another_connection().await,
            }
        }
        while !self.held_transactions.is_empty() {
            self.drop_transaction(self.held_transactions.len() - 1);
        }
    }

    /// Asserts that the keys that are in the table at the end agree with the model.
    pub fn assert_stored_keys(&self, stored_keys: &Keys) {
        self.assert_keys(stored_keys, &self.committed_keys, &self.uncertain_key_sets);
    }

    /// Asserts that all required keys were found, of each uncertain set either all keys or none, and no other keys.
    fn assert_keys(&self, found_keys: &Keys, required_keys: &Keys, uncertain_key_sets: &[Keys]) {
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
    fn report(&self) -> String {
        format!("SPARC_SEED={} task {}:\n{}", self.seed, self.number, self.log.join("\n"))
    }

    fn next_id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    /// Returns the position of the held transaction in `open_transactions`, or `None` if it has ended.
    fn open_transaction_position(&self, index: usize) -> Option<usize> {
        self.open_transactions.iter().position(|transaction| transaction.id == self.held_transactions[index].id)
    }

    /// Asserts that a call had an outcome that the model allows, and logs the outcome. If the health of the transaction
    /// was unknown, the model learns it from the outcome. The call must be one that always succeeds on a good
    /// transaction. Returns whether it succeeded.
    fn assert_and_record_outcome<T>(&mut self, index: usize, context: &str, outcome: &Result<T, Error>) -> bool {
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

    fn innermost(&mut self) -> &mut OpenTransaction {
        self.open_transactions.last_mut().unwrap()
    }
}
