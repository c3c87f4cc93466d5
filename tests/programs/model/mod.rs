//! One task: its random calls, and what must be true after each.

mod steps;

use std::{collections::BTreeSet, future::poll_fn, pin::pin, task::Poll};

use fastrand::Rng;
use sparc::service::{Error, IdentityConnection, Transaction};
use uuid::Uuid;

/// Polls the future; drops it and returns `None` if it is still pending after `times` more polls.
pub async fn polled<T>(times: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

type Keys = BTreeSet<i64>;

/// What is known about a transaction or savepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Good,
    /// A call was dropped. If it had been sent, the frame has failed; otherwise it has not.
    Unknown,
    Failed,
    IdentityChanged,
}

#[derive(Debug)]
struct Frame {
    id: u64,
    health: Health,
    keys: Keys,
    /// Keys of nested transactions whose commit was dropped: either all keys of a set are there or none.
    maybe: Vec<Keys>,
}

/// A transaction that the task holds; its frame may be gone.
struct Handle {
    tx: Transaction,
    frame: u64,
}

pub struct Task {
    rng: Rng,
    seed: u64,
    number: u64,
    who: IdentityConnection,
    draft: Uuid,
    next: i64,
    frames: Vec<Frame>,
    handles: Vec<Handle>,
    ended_by_text: bool,
    stored: Keys,
    unknown: Vec<Keys>,
    log: Vec<String>,
    pub cancelled: u64,
}

fn code<T>(outcome: &Result<T, Error>) -> &'static str {
    outcome.as_ref().map_or_else(Error::code, |_| "done")
}

impl Task {
    pub fn new(seed: u64, number: u64, who: IdentityConnection, draft: Uuid) -> Self {
        Self {
            rng: Rng::with_seed(seed * 1000 + number),
            seed,
            number,
            who,
            draft,
            next: number as i64 * 1_000_000,
            frames: Vec::new(),
            handles: Vec::new(),
            ended_by_text: false,
            stored: Keys::new(),
            unknown: Vec::new(),
            log: Vec::new(),
            cancelled: 0,
        }
    }

    pub fn user(&self) -> Uuid {
        self.who.user_id().unwrap()
    }

    pub async fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            if self.handles.is_empty() {
                self.begin().await;
                continue;
            }
            // Mostly the innermost transaction, sometimes any.
            let last = self.handles.len() - 1;
            let index = if self.rng.u8(..) < 200 { last } else { self.rng.usize(..=last) };
            match self.rng.u8(0..100) {
                0..20 => self.write(index).await,
                20..27 => self.look(index).await,
                27..34 => self.fail(index).await,
                34..40 => self.change_session(index).await,
                40..43 => self.change_identity(index).await,
                43..45 => self.end_by_text(index).await,
                45..57 => self.begin_nested(index).await,
                57..67 => self.commit(index).await,
                67..73 => self.rollback(index).await,
                73..77 => self.drop_handle(index),
                77..85 => self.cancel(index).await,
                85..91 => self.stream(index).await,
                91..97 => self.at_once(index).await,
                _ => self.call_outside().await,
            }
        }
        while !self.handles.is_empty() {
            self.drop_handle(self.handles.len() - 1);
        }
    }

    /// Compares the rows that are stored at the end.
    pub fn end(&self, stored: &Keys) {
        self.compare(stored, &self.stored, &self.unknown);
    }

    fn compare(&self, there: &Keys, must: &Keys, may: &[Keys]) {
        let missing: Vec<_> = must.difference(there).collect();
        assert!(missing.is_empty(), "{missing:?} returned Ok but is not there\n{}", self.story());
        let more: Keys = there.difference(must).copied().collect();
        let mut unexplained = more.clone();
        for group in may {
            let found = group.intersection(&more).count();
            assert!(found == 0 || found == group.len(), "only a part of {group:?} is there\n{}", self.story());
            unexplained.retain(|key| !group.contains(key));
        }
        assert!(unexplained.is_empty(), "{unexplained:?} failed but is there\n{}", self.story());
    }

    fn story(&self) -> String {
        format!("SPARC_SEED={} task {}:\n{}", self.seed, self.number, self.log.join("\n"))
    }

    fn key(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn position(&self, index: usize) -> Option<usize> {
        self.frames.iter().position(|frame| frame.id == self.handles[index].frame)
    }

    /// Asserts the outcome that a valid call on that handle must have, and updates the model.
    fn expect<T>(&mut self, index: usize, what: &str, outcome: &Result<T, Error>) -> bool {
        let found = code(outcome);
        self.log.push(format!("{what} on {index} of {}: {found}", self.handles.len()));
        let position = self.position(index);
        let expected = match position {
            _ if self.ended_by_text => "transaction_ended",
            None => "transaction_over",
            Some(at) if at + 1 < self.frames.len() => "nested_transaction_open",
            Some(at) => match self.frames[at].health {
                Health::Good => "done",
                Health::Failed => "transaction_failed",
                Health::IdentityChanged => "identity_changed",
                Health::Unknown => {
                    self.frames[at].health = if outcome.is_ok() { Health::Good } else { Health::Failed };
                    if outcome.is_ok() { "done" } else { "transaction_failed" }
                }
            },
        };
        assert_eq!(found, expected, "{what}: {:?}\n{}", outcome.as_ref().err(), self.story());
        outcome.is_ok()
    }

    fn innermost(&mut self) -> &mut Frame {
        self.frames.last_mut().unwrap()
    }
}
