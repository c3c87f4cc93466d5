//! The compared schemas.

/// One of the two compared schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// The specification's.
    Specification,
    /// This project's.
    Ours,
}
