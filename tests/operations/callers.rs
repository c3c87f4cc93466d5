//! The callers of operations.

/// The caller of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    Visitor,
    Stranger,
    /// A player who left every session.
    FormerPlayer,
    Player,
    Seer,
    Service,
    /// A user whose account was closed and whose token is still valid.
    ClosedAccount,
    /// The user of [`Fixture::account_at_limits`].
    AccountAtLimits,
}

/// The callers for whom the outcomes of an operation are listed, in the order of [`Operation::outcomes`].
pub const LISTED_CALLERS: [Caller; 6] =
    [Caller::Visitor, Caller::Stranger, Caller::FormerPlayer, Caller::Player, Caller::Seer, Caller::Service];
