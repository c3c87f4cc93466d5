//! The types on which operations are called, and the transaction in which an operation runs. The crate `rls` implements
//! the connections themselves.

use std::time::Duration;

pub use rls::{IdentityConnection, InvalidLogPosition, LogPosition, RowStream, ServerRole, ServerStatus, Transaction};
use rls::{UnguardedTransaction, supabase::SERVICE_ROLE};
use sea_orm::{DbErr, ExecResult, Statement};
use uuid::Uuid;

use crate::{Error, identity::Identity};

/// The transaction of an operation. It does not verify after each statement that the identity is unchanged, because no
/// statement of an operation leaves the identity changed.
pub(crate) type OperationTransaction = UnguardedTransaction;

/// A type on which operations are called: an [`IdentityConnection`], on which each operation runs in a transaction of
/// its own, or a [`Transaction`], in which the operations that are called on it run. The trait is sealed.
pub trait Executor: sealed::Sealed + Send + Sync {}

impl Executor for IdentityConnection {}
impl Executor for Transaction {}

/// What an operation needs from its transaction, besides the methods that run statements as the caller.
pub(crate) trait OperationTransactionExt {
    /// Returns the caller's identity.
    fn caller_identity(&self) -> Identity;

    /// Returns the id of the signed-in user.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`] for a visitor and for the service.
    fn user_id(&self) -> Result<Uuid, Error> {
        self.caller_identity().user_id().ok_or(Error::NotSignedIn)
    }

    /// Runs one statement as `service_role`, then restores the role. A comment must justify each use. Returns
    /// [`Error::Misconfigured`] if the service has a login of its own ([`Options::service_url`](crate::Options)).
    fn execute_as_service(&self, statement: Statement) -> impl Future<Output = Result<ExecResult, DbErr>> + Send;
}

impl OperationTransactionExt for OperationTransaction {
    fn caller_identity(&self) -> Identity {
        Identity::from_rls(self.identity())
    }

    async fn execute_as_service(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.execute_as_role(SERVICE_ROLE.into(), statement).await
    }
}

/// Keeps other crates from implementing [`Executor`].
pub(crate) mod sealed {
    use rls::{
        supabase,
        unguarded::{AsUnguarded, UnguardedExt},
    };
    use sea_orm::TransactionOptions;

    use super::{Duration, Error, Identity, IdentityConnection, OperationTransaction, Transaction};

    /// The transaction in which an operation runs.
    #[derive(Debug)]
    pub enum BegunOrJoinedTransaction {
        /// A new transaction, which the operation ends.
        Begun(OperationTransaction),
        /// The operation's part in the caller's transaction. The caller ends that transaction.
        Joined(JoinedOperation),
    }

    /// An operation's part in a caller's transaction. If the operation may have written something and then fails or is
    /// dropped, the transaction can only be rolled back: a commit could keep only some of the operation's changes.
    #[derive(Debug)]
    pub struct JoinedOperation {
        pub(crate) transaction: OperationTransaction,
        /// Whether the operation only reads; the caller's transaction may write all the same.
        is_read_only: bool,
        /// Whether the operation has succeeded. If this is `false` on drop, the operation has failed or was dropped.
        has_succeeded: bool,
    }

    impl JoinedOperation {
        pub(crate) fn mark_succeeded(mut self) {
            self.has_succeeded = true;
        }
    }

    impl Drop for JoinedOperation {
        fn drop(&mut self) {
            if !self.has_succeeded && !self.is_read_only && self.transaction.may_have_written() {
                self.transaction.mark_failed();
            }
        }
    }

    pub trait Sealed {
        fn identity(&self) -> Identity;

        /// Returns how long each operation may take as a whole. `None` if there is no such limit; each statement may
        /// have one all the same.
        fn deadline(&self) -> Option<Duration>;

        /// Returns a connection to the same database with the identity of the service. `None` for a caller's
        /// transaction, because that connection would not see the transaction's uncommitted rows.
        fn as_service(&self) -> Option<IdentityConnection>;

        /// Returns whether a retry of an operation may run on another server. `true` if there are replicas, except for
        /// a caller's transaction, which stays on its server.
        fn may_retry_on_another_server(&self) -> bool;

        /// Begins a transaction, or joins the caller's. `deadline` applies to each statement of a new transaction; a
        /// joined transaction keeps the deadline that it began with. A new read-only transaction may run on a replica.
        fn begin_or_join(
            &self,
            deadline: Option<Duration>,
            is_read_only: bool,
        ) -> impl Future<Output = Result<BegunOrJoinedTransaction, Error>> + Send;
    }

    impl Sealed for IdentityConnection {
        fn identity(&self) -> Identity {
            Identity::from_rls(self.identity())
        }

        fn deadline(&self) -> Option<Duration> {
            self.deadline()
        }

        fn as_service(&self) -> Option<IdentityConnection> {
            Some(self.as_identity(supabase::service()))
        }

        fn may_retry_on_another_server(&self) -> bool {
            self.has_replicas()
        }

        async fn begin_or_join(
            &self,
            deadline: Option<Duration>,
            is_read_only: bool,
        ) -> Result<BegunOrJoinedTransaction, Error> {
            if is_read_only {
                return Ok(BegunOrJoinedTransaction::Begun(UnguardedExt::begin_read(self, deadline).await?));
            }
            let tx = UnguardedExt::begin_unguarded(self, TransactionOptions::default(), deadline).await?;
            Ok(BegunOrJoinedTransaction::Begun(tx))
        }
    }

    impl Sealed for Transaction {
        fn identity(&self) -> Identity {
            Identity::from_rls(self.identity())
        }

        // The transaction already applies its deadline to each statement.
        fn deadline(&self) -> Option<Duration> {
            None
        }

        fn as_service(&self) -> Option<IdentityConnection> {
            None
        }

        fn may_retry_on_another_server(&self) -> bool {
            false
        }

        async fn begin_or_join(
            &self,
            _: Option<Duration>,
            is_read_only: bool,
        ) -> Result<BegunOrJoinedTransaction, Error> {
            let transaction = self.unguarded().operation_handle();
            Ok(BegunOrJoinedTransaction::Joined(JoinedOperation { transaction, is_read_only, has_succeeded: false }))
        }
    }
}
