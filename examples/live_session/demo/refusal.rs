//! Distinguishes refused requests from failed ones.

use sparc::service::Error;

/// Returns whether the request was refused, so that repeating it would not help.
pub(super) fn is_refusal(error: &Error) -> bool {
    error.http_status() < 500
}

/// Returns `None` for a request that was refused. A failure, such as a lost connection, stays an error.
pub(super) fn ignore_refusal<T>(outcome: Result<T, Error>) -> Result<Option<T>, Error> {
    match outcome {
        Err(error) if is_refusal(&error) => Ok(None),
        outcome => outcome.map(Some),
    }
}
