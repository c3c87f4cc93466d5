//! The calls that a task makes, each with the outcome that the model expects.

use futures_util::StreamExt;
use sea_orm::{ConnectionTrait, DbErr, StreamTrait, TransactionTrait};
use sparc::service::{Error, Operations};

use super::{
    notes::{InsertMethod, assert_caller, insert, raw_statement},
    task::{Health, HeldTransaction, Keys, OpenTransaction, Task, outcome_code},
};
use crate::random_programs::poll_then_drop;

impl Task {
    pub(super) async fn begin(&mut self) {
        let tx = self.connection.begin().await.unwrap_or_else(|error| panic!("begin: {error}\n{}", self.report()));
        self.log.push("begin".into());
        self.has_committed_by_raw_sql = false;
        self.open_transactions =
            vec![OpenTransaction { id: 0, health: Health::Good, keys: Keys::new(), uncertain_key_sets: Vec::new() }];
        self.held_transactions.push(HeldTransaction { tx, id: 0 });
    }

    /// Writes a row, by raw SQL or with a query builder.
    pub(super) async fn write(&mut self, index: usize) {
        let key = self.next_id();
        let outcome = self.insert(index, key, InsertMethod::for_key(key)).await;
        if self.assert_and_record_outcome(index, &format!("write {key}"), &outcome) {
            self.innermost().keys.insert(key);
        }
    }

    async fn insert(&self, index: usize, key: i64, method: InsertMethod) -> Result<(), Error> {
        insert(&self.held_transactions[index].tx, key, method, self.user_id()).await
    }

    /// Reads all rows and compares them with the model.
    pub(super) async fn read(&mut self, index: usize) {
        let select = "SELECT key, current_user::text AS role, auth.uid() AS id FROM notes".to_owned();
        let outcome = self.held_transactions[index].tx.query_all_raw(raw_statement(select)).await.map_err(Error::from);
        if self.assert_and_record_outcome(index, "read", &outcome) {
            let rows = outcome.unwrap();
            rows.iter().for_each(|row| assert_caller(row, self.user_id()));
            let found_keys: Keys = rows.iter().map(|row| row.try_get("", "key").unwrap()).collect();
            let mut required_keys = self.committed_keys.clone();
            let mut uncertain_key_sets = self.uncertain_key_sets.clone();
            for transaction in &self.open_transactions {
                required_keys.extend(&transaction.keys);
                uncertain_key_sets.extend(transaction.uncertain_key_sets.iter().cloned());
            }
            self.assert_keys(&found_keys, &required_keys, &uncertain_key_sets);
        }
    }

    pub(super) async fn run_failing_statement(&mut self, index: usize) {
        let outcome = self.held_transactions[index].tx.execute_unprepared("SELECT 1 / 0").await.map_err(Error::from);
        self.expect_refusal(index, "a failing statement", outcome, "database", Health::Failed);
    }

    /// Asserts that a call is refused with the code `refusal`, and sets the transaction's health to `health_after`. If
    /// the transaction cannot be used, the call must instead get the error that any other call on it would get.
    fn expect_refusal<T>(
        &mut self,
        index: usize,
        context: &str,
        outcome: Result<T, Error>,
        refusal: &str,
        health_after: Health,
    ) {
        if outcome_code(&outcome) == refusal {
            // The statement itself was refused, so the transaction was still usable. The model must agree, that is, it
            // must expect that a permitted statement would have succeeded.
            let outcome_of_permitted_statement: Result<(), Error> = Ok(());
            self.assert_and_record_outcome(index, context, &outcome_of_permitted_statement);
            self.innermost().health = health_after;
        } else {
            assert!(
                !self.assert_and_record_outcome(index, context, &outcome),
                "{context} was not refused\n{}",
                self.report()
            );
        }
    }

    pub(super) async fn change_settings(&mut self, index: usize) {
        let statements =
            ["SET TIME ZONE 'Asia/Tokyo'", "SET search_path = public", "SET statement_timeout = 0", "LISTEN notes"];
        let statement = statements[self.rng.usize(..statements.len())];
        let outcome = self.held_transactions[index].tx.execute_unprepared(statement).await.map_err(Error::from);
        self.assert_and_record_outcome(index, statement, &outcome);
    }

    pub(super) async fn change_identity(&mut self, index: usize) {
        let statements =
            ["RESET ROLE", "SET LOCAL request.jwt.claims = '{}'", "DO $$ BEGIN SET LOCAL ROLE service_role; END $$"];
        let statement = statements[self.rng.usize(..statements.len())];
        let outcome = self.held_transactions[index].tx.execute_unprepared(statement).await.map_err(Error::from);
        // If an earlier call had already changed the identity, every further call gets the same error.
        let was_changed_before = self
            .open_transaction_position(index)
            .is_some_and(|at| self.open_transactions[at].health == Health::IdentityChanged);
        if was_changed_before {
            assert!(!self.assert_and_record_outcome(index, statement, &outcome));
        } else {
            self.expect_refusal(index, statement, outcome, "identity_changed", Health::IdentityChanged);
        }
    }

    /// Commits by raw SQL. The call fails with `transaction_ended`, but all that was written before is committed.
    pub(super) async fn commit_by_raw_sql(&mut self, index: usize) {
        let outcome = self.held_transactions[index].tx.execute_unprepared("COMMIT").await.map_err(Error::from);
        if !self.has_committed_by_raw_sql && outcome_code(&outcome) == "transaction_ended" {
            // The transaction was usable before the COMMIT. The model must agree, that is, it must expect that a
            // permitted statement would have succeeded.
            let outcome_of_permitted_statement: Result<(), Error> = Ok(());
            self.assert_and_record_outcome(index, "COMMIT", &outcome_of_permitted_statement);
            for transaction in std::mem::take(&mut self.open_transactions) {
                self.committed_keys.extend(transaction.keys);
                self.uncertain_key_sets.extend(transaction.uncertain_key_sets);
            }
            self.has_committed_by_raw_sql = true;
        } else {
            assert!(!self.assert_and_record_outcome(index, "COMMIT", &outcome));
        }
    }

    pub(super) async fn begin_nested(&mut self, index: usize) {
        let id = self.next_id() as u64;
        let extra_polls = self.rng.bool().then(|| self.rng.u32(0..4));
        let outcome = match extra_polls {
            Some(extra_polls) => poll_then_drop(extra_polls, self.held_transactions[index].tx.begin()).await,
            None => Some(self.held_transactions[index].tx.begin().await),
        };
        let Some(outcome) = outcome else {
            // If the nested transaction was begun, it is rolled back. The outer transaction continues in any case.
            self.log.push(format!("begin on {index} dropped"));
            self.dropped_calls += 1;
            return;
        };
        let outcome = outcome.map_err(Error::from);
        if self.assert_and_record_outcome(index, "begin", &outcome) {
            self.open_transactions.push(OpenTransaction {
                id,
                health: Health::Good,
                keys: Keys::new(),
                uncertain_key_sets: Vec::new(),
            });
            self.held_transactions.push(HeldTransaction { tx: outcome.unwrap(), id });
        }
    }

    /// Makes a call, and drops it if it is still pending after some polls.
    pub(super) async fn drop_call(&mut self, index: usize) {
        let (key, extra_polls) = (self.next_id(), self.rng.u32(0..5));
        let kind = self.rng.u8(0..3);
        let outcome = match kind {
            0 => poll_then_drop(extra_polls, self.insert(index, key, InsertMethod::RawSql)).await,
            1 => poll_then_drop(extra_polls, self.insert(index, key, InsertMethod::QueryBuilder)).await,
            _ => {
                let draft_adventure = self.draft_adventure;
                poll_then_drop(extra_polls, self.held_transactions[index].tx.adventures().validate(draft_adventure))
                    .await
                    .map(|outcome| outcome.map(drop))
            }
        };
        match outcome {
            Some(outcome) => {
                let is_done = self.assert_and_record_outcome(index, &format!("call {key}, not dropped"), &outcome);
                // A validation writes no row.
                if is_done && kind < 2 {
                    self.innermost().keys.insert(key);
                }
            }
            None => {
                self.dropped_calls += 1;
                self.log.push(format!("call {key} dropped after {extra_polls} extra polls"));
                if let Some(transaction) = self
                    .open_transaction_position(index)
                    .filter(|at| at + 1 == self.open_transactions.len())
                    .map(|at| &mut self.open_transactions[at])
                    && transaction.health == Health::Good
                {
                    transaction.health = Health::Unknown;
                }
            }
        }
    }

    /// Streams rows and stops after a random number of them, or at the end. Usually also writes a row on the same
    /// transaction, between two rows of the stream.
    pub(super) async fn stream(&mut self, index: usize) {
        let (row_count, read_limit) = (self.rng.usize(0..200), self.rng.usize(0..200));
        let user = self.user_id();
        let statement =
            format!("SELECT i, current_user::text AS role, auth.uid() AS id FROM generate_series(1, {row_count}) AS i");
        let key = self.next_id();
        let tx = &self.held_transactions[index].tx;
        let mut write_outcome = None;
        let outcome = async {
            let mut stream = tx.stream_raw(raw_statement(statement)).await?;
            let mut rows_seen = 0;
            while let Some(row) = stream.next().await {
                assert_caller(&row?, user);
                rows_seen += 1;
                if rows_seen == read_limit / 2 {
                    write_outcome = Some(insert(tx, key, InsertMethod::RawSql, user).await);
                }
                if rows_seen == read_limit {
                    return Ok(());
                }
            }
            assert_eq!(rows_seen, row_count);
            Ok::<_, DbErr>(())
        };
        let outcome = outcome.await.map_err(Error::from);
        let is_done = self.assert_and_record_outcome(index, "stream", &outcome);
        if let Some(write_outcome) = write_outcome {
            assert!(
                is_done
                    && self.assert_and_record_outcome(index, &format!("write {key} between two rows"), &write_outcome)
            );
            self.innermost().keys.insert(key);
        }
    }

    /// Makes several concurrent calls on one transaction, one of which may be dropped.
    pub(super) async fn call_concurrently(&mut self, index: usize) {
        let keys: Vec<i64> = (0..4).map(|_| self.next_id()).collect();
        let extra_polls = self.rng.bool().then(|| self.rng.u32(0..6));
        let tx = &self.held_transactions[index].tx;
        let (draft_adventure, user) = (self.draft_adventure, self.user_id());
        let droppable_key = keys[3];
        let writes = keys[..3].iter().map(|key| insert(tx, *key, InsertMethod::for_key(*key), user));
        let droppable_write = async {
            match extra_polls {
                Some(extra_polls) => {
                    poll_then_drop(extra_polls, insert(tx, droppable_key, InsertMethod::RawSql, user)).await
                }
                None => Some(insert(tx, droppable_key, InsertMethod::RawSql, user).await),
            }
        };
        let adventures = tx.adventures();
        let (write_outcomes, validation_outcome, droppable_outcome) =
            tokio::join!(futures_util::future::join_all(writes), adventures.validate(draft_adventure), droppable_write);
        let mut outcomes: Vec<_> = keys.iter().copied().zip(write_outcomes).collect();
        match droppable_outcome {
            Some(outcome) => outcomes.push((droppable_key, outcome)),
            None => {
                self.dropped_calls += 1;
                self.log.push("one of several concurrent calls dropped".into());
                let position = self.open_transaction_position(index);
                if let Some(at) = position.filter(|at| at + 1 == self.open_transactions.len())
                    && self.open_transactions[at].health == Health::Good
                {
                    self.open_transactions[at].health = Health::Unknown;
                }
            }
        }
        let is_unknown = self
            .open_transaction_position(index)
            .is_some_and(|at| self.open_transactions[at].health == Health::Unknown);
        // If a call was dropped, here or in an earlier step, every call that ran after it may have failed.
        // Key 0 stands for the validation, which writes no row.
        for (key, outcome) in outcomes.into_iter().chain([(0, validation_outcome.map(drop))]) {
            if is_unknown {
                let code = outcome_code(&outcome);
                self.log.push(format!("write {key} concurrently: {code}"));
                assert!(matches!(code, "done" | "transaction_failed"), "{outcome:?}\n{}", self.report());
                if code == "transaction_failed" {
                    self.innermost().health = Health::Failed;
                } else if key != 0 {
                    self.innermost().keys.insert(key);
                }
            } else if self.assert_and_record_outcome(index, &format!("write {key} concurrently"), &outcome) && key != 0
            {
                self.innermost().keys.insert(key);
            }
        }
    }

    /// Half of the time, makes a call outside of the task's transactions, and may drop it. The pool gives the call a
    /// connection that none of the transactions uses.
    pub(super) async fn maybe_call_on_another_connection(&mut self) {
        if self.rng.bool() {
            return;
        }
        let key = self.next_id();
        let extra_polls = self.rng.u32(0..12);
        let statement = raw_statement(format!(
            "INSERT INTO notes (key) VALUES ({key}) RETURNING current_user::text AS role, auth.uid() AS id"
        ));
        // The other tasks may hold all connections, so the call is dropped if it has to wait for long.
        let call =
            tokio::time::timeout(std::time::Duration::from_millis(200), self.connection.query_one_raw(statement));
        match poll_then_drop(extra_polls, call).await {
            Some(Ok(outcome)) => {
                assert_caller(&outcome.unwrap().unwrap(), self.user_id());
                self.committed_keys.insert(key);
            }
            _ => {
                self.dropped_calls += 1;
                self.uncertain_key_sets.push([key].into());
            }
        }
    }
}
