//! The primitives on which the interleaving of tasks depends: tasks, deadlines, atomics and the blocking mutex. In unit
//! tests, the crate `shuttle` decides which task runs next and when a deadline is exceeded. (Tokio's locks and channels
//! need no runtime, so they are used under `shuttle` too.)

#[cfg(test)]
pub(crate) use under_shuttle::*;
#[cfg(not(test))]
pub(crate) use under_tokio::*;

#[cfg(not(test))]
mod under_tokio {
    pub(crate) use std::sync::{
        Mutex as BlockingMutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    };

    use tokio::runtime::Handle;
    pub(crate) use tokio::{spawn, time::timeout};

    /// Spawns a task. If there is no runtime, drops the task instead.
    pub(crate) fn spawn_or_drop(task: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(task);
        }
    }
}

#[cfg(test)]
mod under_shuttle {
    use std::{cell::Cell, pin::pin, task::Poll, time::Duration};

    use shuttle::rand::Rng;
    pub(crate) use shuttle::{
        future::spawn,
        sync::{
            Mutex as BlockingMutex,
            atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        },
    };

    thread_local! {
        /// Whether deadlines may be exceeded. Shuttle runs all tasks of a test in one thread.
        static DEADLINES_MAY_BE_EXCEEDED: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) fn set_deadlines_may_be_exceeded(value: bool) {
        DEADLINES_MAY_BE_EXCEEDED.set(value);
    }

    /// Polls the future. If deadlines may be exceeded, one poll in twelve, chosen at random, reports that the deadline
    /// is exceeded. The length of the deadline is ignored.
    pub(crate) async fn timeout<T>(_limit: Duration, future: impl Future<Output = T>) -> Result<T, ()> {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            if DEADLINES_MAY_BE_EXCEEDED.get() && shuttle::rand::thread_rng().gen_ratio(1, 12) {
                return Poll::Ready(Err(()));
            }
            future.as_mut().poll(context).map(Ok)
        })
        .await
    }

    /// Spawns a task.
    pub(crate) fn spawn_or_drop(task: impl Future<Output = ()> + Send + 'static) {
        drop(spawn(task));
    }
}
