//! The callers of operations.

/// The caller of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody who has not signed in.
    Visitor,
    /// A user who has no part in any session.
    Stranger,
    /// A player who has left each session in which they had a seat.
    FormerPlayer,
    /// A user who has a seat in several sessions of [`Caller::Seer`].
    Player,
    /// The user who runs these sessions, and who created the adventure that is played in them.
    Seer,
    /// The role `service_role`.
    Service,
    /// A user whose account was closed and whose token is still valid.
    ClosedAccount,
    /// The user of [`Fixture::account_at_limits`].
    AccountAtLimits,
}

/// The callers for whom the outcomes of an operation are listed, in the order of [`Operation::outcomes`].
pub const LISTED_CALLERS: [Caller; 6] =
    [Caller::Visitor, Caller::Stranger, Caller::FormerPlayer, Caller::Player, Caller::Seer, Caller::Service];
