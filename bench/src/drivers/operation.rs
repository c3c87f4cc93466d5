//! The measured operations, and what a program does with their results.

use std::hint::black_box;

use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;

/// A measured operation; [`name`](Self::name) says what it reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Profile,
    Lobby,
    Details,
    History,
    Roll,
}

impl Operation {
    /// All operations. The one that writes is measured last, so that its rolls do not change what the others read. (A
    /// few rolls are made before, by the check that all programs return the same.)
    pub(super) const ALL: [Self; 5] = [Self::Profile, Self::Lobby, Self::Details, Self::History, Self::Roll];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Profile => "own profile",
            Self::Lobby => "lobby",
            Self::Details => "session details",
            Self::History => "a session's rolls",
            Self::Roll => "a roll",
        }
    }
}

/// What a program does with the result of an operation after decoding it.
#[derive(Clone, Copy, Debug)]
pub(super) enum ResultUse {
    /// Discards it. The measurements do this.
    Discard,
    /// Converts it to JSON, so that the programs' results can be compared.
    Json,
}

/// An operation's result as JSON, or `None` with [`ResultUse::Discard`].
pub(super) type OptionalJson = Option<Value>;

impl ResultUse {
    /// Returns the result as JSON, or `None` after discarding it.
    pub(super) fn discard_or_convert(self, result: impl Serialize) -> Result<OptionalJson, Failure> {
        match self {
            Self::Discard => {
                // Keeps the compiler from leaving out the decoding of a result that nobody uses.
                black_box(result);
                Ok(None)
            }
            Self::Json => Ok(Some(serde_json::to_value(result)?)),
        }
    }
}
