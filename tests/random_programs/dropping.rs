//! Drops a call before it has finished, as a caller does who does not wait any longer.

use std::{future::poll_fn, pin::pin, task::Poll};

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
