//! The calls that a task makes, each with its outcome in the model.

use futures_util::StreamExt;
use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, QueryResult, Statement, StreamTrait, TransactionTrait,
    sea_query::{Alias, Query},
};
use sparc::service::{Error, Operations, Transaction};
use uuid::Uuid;

use super::{Frame, Handle, Health, Keys, Task, code, polled};

fn sql(text: String) -> Statement {
    Statement::from_string(DbBackend::Postgres, text)
}

impl Task {
    pub(super) async fn begin(&mut self) {
        let tx = self.who.begin().await.unwrap_or_else(|error| panic!("begin: {error}\n{}", self.story()));
        self.log.push("begin".into());
        self.ended_by_text = false;
        self.frames = vec![Frame { id: 0, health: Health::Good, keys: Keys::new(), maybe: Vec::new() }];
        self.handles.push(Handle { tx, frame: 0 });
    }

    /// Writes a row, by raw SQL or with a query builder, and checks as whom it was written.
    pub(super) async fn write(&mut self, index: usize) {
        let key = self.key();
        let outcome = self.writing(index, key, self.next % 2 == 0).await;
        if self.expect(index, &format!("write {key}"), &outcome) {
            self.innermost().keys.insert(key);
        }
    }

    async fn writing(&self, index: usize, key: i64, by_text: bool) -> Result<(), Error> {
        insert(&self.handles[index].tx, key, by_text, self.user()).await
    }

    /// Compares the rows that the transaction sees.
    pub(super) async fn look(&mut self, index: usize) {
        let seen = "SELECT key, current_user::text AS role, auth.uid() AS id FROM notes".to_owned();
        let outcome = self.handles[index].tx.query_all_raw(sql(seen)).await.map_err(Error::from);
        if self.expect(index, "look", &outcome) {
            let rows = outcome.unwrap();
            rows.iter().for_each(|row| assert_caller(row, self.user()));
            let there: Keys = rows.iter().map(|row| row.try_get("", "key").unwrap()).collect();
            let mut must = self.stored.clone();
            let mut may = self.unknown.clone();
            for frame in &self.frames {
                must.extend(&frame.keys);
                may.extend(frame.maybe.iter().cloned());
            }
            self.compare(&there, &must, &may);
        }
    }

    pub(super) async fn fail(&mut self, index: usize) {
        let outcome = self.handles[index].tx.execute_unprepared("SELECT 1 / 0").await.map_err(Error::from);
        self.refuses(index, "fail", outcome, "database", Health::Failed);
    }

    /// Asserts the outcome of a call that must be refused itself, if the handle could be used at all.
    fn refuses<T>(&mut self, index: usize, what: &str, outcome: Result<T, Error>, refusal: &str, then: Health) {
        if code(&outcome) == refusal {
            let sent: Result<(), Error> = Ok(());
            self.expect(index, what, &sent);
            self.innermost().health = then;
        } else {
            assert!(!self.expect(index, what, &outcome), "{what} was not refused\n{}", self.story());
        }
    }

    pub(super) async fn change_session(&mut self, index: usize) {
        let text =
            ["SET TIME ZONE 'Asia/Tokyo'", "SET search_path = public", "SET statement_timeout = 0", "LISTEN notes"];
        let text = text[self.rng.usize(..text.len())];
        let outcome = self.handles[index].tx.execute_unprepared(text).await.map_err(Error::from);
        self.expect(index, text, &outcome);
    }

    pub(super) async fn change_identity(&mut self, index: usize) {
        let text =
            ["RESET ROLE", "SET LOCAL request.jwt.claims = '{}'", "DO $$ BEGIN SET LOCAL ROLE service_role; END $$"];
        let text = text[self.rng.usize(..text.len())];
        let outcome = self.handles[index].tx.execute_unprepared(text).await.map_err(Error::from);
        // If the identity had changed before, the error is the same.
        let changed_before = self.position(index).is_some_and(|at| self.frames[at].health == Health::IdentityChanged);
        if changed_before {
            assert!(!self.expect(index, text, &outcome));
        } else {
            self.refuses(index, text, outcome, "identity_changed", Health::IdentityChanged);
        }
    }

    /// Raw SQL that commits: what was written before is stored, and is not reported as rolled back.
    pub(super) async fn end_by_text(&mut self, index: usize) {
        let outcome = self.handles[index].tx.execute_unprepared("COMMIT").await.map_err(Error::from);
        if !self.ended_by_text && code(&outcome) == "transaction_ended" {
            let sent: Result<(), Error> = Ok(());
            self.expect(index, "COMMIT", &sent);
            for frame in std::mem::take(&mut self.frames) {
                self.stored.extend(frame.keys);
                self.unknown.extend(frame.maybe);
            }
            self.ended_by_text = true;
        } else {
            assert!(!self.expect(index, "COMMIT", &outcome));
        }
    }

    pub(super) async fn begin_nested(&mut self, index: usize) {
        let id = self.key() as u64;
        let drops = self.rng.bool().then(|| self.rng.u32(0..4));
        let begun = match drops {
            Some(polls) => polled(polls, self.handles[index].tx.begin()).await,
            None => Some(self.handles[index].tx.begin().await),
        };
        let Some(outcome) = begun else {
            // It is rolled back, and the outer transaction continues.
            self.log.push(format!("begin on {index} dropped"));
            self.cancelled += 1;
            return;
        };
        let outcome = outcome.map_err(Error::from);
        if self.expect(index, "begin", &outcome) {
            self.frames.push(Frame { id, health: Health::Good, keys: Keys::new(), maybe: Vec::new() });
            self.handles.push(Handle { tx: outcome.unwrap(), frame: id });
        }
    }

    /// Removes the handle, its frame and the frames nested in it.
    fn take(&mut self, index: usize) -> (Transaction, Option<Frame>) {
        let position = self.position(index);
        let taken = position.and_then(|at| self.frames.drain(at..).next());
        (self.handles.remove(index).tx, taken)
    }

    pub(super) async fn commit(&mut self, index: usize) {
        let drops = (self.rng.u8(..) < 60).then(|| self.rng.u32(0..4));
        let is_over = self.ended_by_text;
        let innermost = self.position(index).is_some_and(|at| at + 1 == self.frames.len());
        let position = self.position(index);
        let before = position.map(|at| self.frames[at].health);
        let (tx, frame) = {
            let length = self.handles.len();
            self.log.push(format!("commit on {index} of {length}, dropped {drops:?}"));
            self.take(index)
        };
        let outcome = match drops {
            Some(polls) => polled(polls, tx.commit()).await,
            None => Some(tx.commit().await),
        };
        let Some(outcome) = outcome else {
            self.cancelled += 1;
            let Some(frame) = frame.filter(|_| innermost && matches!(before, Some(Health::Good | Health::Unknown)))
            else {
                return;
            };
            self.record_unknown(frame);
            return;
        };
        let outcome = outcome.map_err(Error::from);
        let found = code(&outcome);
        let expected = match before {
            _ if is_over => "transaction_ended",
            None => "transaction_over",
            Some(_) if !innermost => "nested_transaction_open",
            Some(Health::Failed) => "transaction_failed",
            Some(Health::IdentityChanged) => "identity_changed",
            Some(Health::Unknown) if outcome.is_err() => "transaction_failed",
            Some(Health::Good | Health::Unknown) => "done",
        };
        assert_eq!(found, expected, "commit\n{}", self.story());
        if let (Some(frame), true) = (frame, outcome.is_ok()) {
            match self.frames.last_mut() {
                Some(around) => {
                    around.keys.extend(frame.keys);
                    around.maybe.extend(frame.maybe);
                }
                None => {
                    self.stored.extend(frame.keys);
                    self.unknown.extend(frame.maybe);
                }
            }
        }
    }

    /// Records a dropped commit: either all of the frame is committed or nothing.
    fn record_unknown(&mut self, frame: Frame) {
        let groups = [frame.keys].into_iter().chain(frame.maybe).filter(|keys| !keys.is_empty());
        match self.frames.last_mut() {
            Some(around) => around.maybe.extend(groups),
            None => self.unknown.extend(groups),
        }
    }

    pub(super) async fn rollback(&mut self, index: usize) {
        let is_over = self.ended_by_text;
        let was_there = self.position(index).is_some();
        let drops = (self.rng.u8(..) < 60).then(|| self.rng.u32(0..4));
        self.log.push(format!("rollback on {index}, dropped {drops:?}"));
        let (tx, _) = self.take(index);
        let outcome = match drops {
            Some(polls) => polled(polls, tx.rollback()).await,
            None => Some(tx.rollback().await),
        };
        let Some(outcome) = outcome else {
            self.cancelled += 1;
            return;
        };
        let found = code(&outcome.map_err(Error::from));
        let expected = match (is_over, was_there) {
            (true, _) => "transaction_ended",
            (false, true) => "done",
            (false, false) => "transaction_over",
        };
        assert_eq!(found, expected, "rollback\n{}", self.story());
    }

    pub(super) fn drop_handle(&mut self, index: usize) {
        self.log.push(format!("drop {index}"));
        drop(self.take(index));
    }

    /// Makes a call and drops it after some polls.
    pub(super) async fn cancel(&mut self, index: usize) {
        let (key, polls) = (self.key(), self.rng.u32(0..5));
        let outcome = match self.rng.u8(0..3) {
            0 => polled(polls, self.writing(index, key, true)).await,
            1 => polled(polls, self.writing(index, key, false)).await,
            _ => {
                let draft = self.draft;
                polled(polls, self.handles[index].tx.adventures().validate(draft)).await.map(|faults| faults.map(drop))
            }
        };
        match outcome {
            Some(outcome) => {
                if self.expect(index, &format!("call {key}, not dropped"), &outcome) {
                    // The call may have been a validation, which writes no note.
                    self.innermost().maybe.push([key].into());
                }
            }
            None => {
                self.cancelled += 1;
                self.log.push(format!("call {key} dropped after {polls} polls"));
                if let Some(frame) =
                    self.position(index).filter(|at| at + 1 == self.frames.len()).map(|at| &mut self.frames[at])
                    && frame.health == Health::Good
                {
                    frame.health = Health::Unknown;
                }
            }
        }
    }

    pub(super) async fn stream(&mut self, index: usize) {
        let (rows, read) = (self.rng.usize(0..200), self.rng.usize(0..200));
        let user = self.user();
        let statement =
            format!("SELECT i, current_user::text AS role, auth.uid() AS id FROM generate_series(1, {rows}) AS i");
        let key = self.key();
        let handle = &self.handles[index];
        let mut between = None;
        let outcome = async {
            let mut stream = handle.tx.stream_raw(sql(statement)).await?;
            let mut seen = 0;
            while let Some(row) = stream.next().await {
                assert_caller(&row?, user);
                seen += 1;
                if seen == read / 2 {
                    between = Some(insert(&handle.tx, key, true, user).await);
                }
                if seen == read {
                    return Ok(());
                }
            }
            assert_eq!(seen, rows);
            Ok::<_, DbErr>(())
        };
        let outcome = outcome.await.map_err(Error::from);
        let is_done = self.expect(index, "stream", &outcome);
        if let Some(written) = between {
            assert!(is_done && self.expect(index, &format!("write {key} between two rows"), &written));
            self.innermost().keys.insert(key);
        }
    }

    /// Makes several concurrent calls on one transaction, one of which may be dropped.
    pub(super) async fn at_once(&mut self, index: usize) {
        let keys: Vec<i64> = (0..4).map(|_| self.key()).collect();
        let drops = self.rng.bool().then(|| self.rng.u32(0..6));
        let tx = &self.handles[index].tx;
        let (draft, user) = (self.draft, self.user());
        let dropped_key = keys[3];
        let writes = keys[..3].iter().map(|key| insert(tx, *key, key % 2 == 0, user));
        let dropped = async {
            match drops {
                Some(polls) => polled(polls, insert(tx, dropped_key, true, user)).await,
                None => Some(insert(tx, dropped_key, true, user).await),
            }
        };
        let adventures = tx.adventures();
        let (written, validated, dropped) =
            tokio::join!(futures_util::future::join_all(writes), adventures.validate(draft), dropped);
        let mut outcomes: Vec<_> = keys.iter().copied().zip(written).collect();
        match dropped {
            Some(outcome) => outcomes.push((dropped_key, outcome)),
            None => {
                self.cancelled += 1;
                self.log.push("one of several concurrent calls dropped".into());
                if let Some(at) = self.position(index).filter(|at| at + 1 == self.frames.len())
                    && self.frames[at].health == Health::Good
                {
                    self.frames[at].health = Health::Unknown;
                }
            }
        }
        let is_unknown = self.position(index).is_some_and(|at| self.frames[at].health == Health::Unknown);
        // Some calls may have run before the dropped one, and some after it.
        for (key, outcome) in outcomes.into_iter().chain([(0, validated.map(drop))]) {
            if is_unknown {
                self.log.push(format!("write {key} at once: {}", code(&outcome)));
                assert!(matches!(code(&outcome), "done" | "transaction_failed"), "{outcome:?}\n{}", self.story());
                if code(&outcome) == "transaction_failed" {
                    self.innermost().health = Health::Failed;
                } else if key != 0 {
                    self.innermost().keys.insert(key);
                }
            } else if self.expect(index, &format!("write {key} concurrently"), &outcome) && key != 0 {
                self.innermost().keys.insert(key);
            }
        }
    }

    /// Makes a call outside of the transaction, on another connection.
    pub(super) async fn call_outside(&mut self) {
        if self.rng.bool() {
            return;
        }
        let key = self.key();
        let polls = self.rng.u32(0..12);
        let statement = sql(format!(
            "INSERT INTO notes (key) VALUES ({key}) RETURNING current_user::text AS role, auth.uid() AS id"
        ));
        // The other tasks may hold all connections.
        let alone = tokio::time::timeout(std::time::Duration::from_millis(200), self.who.query_one_raw(statement));
        match polled(polls, alone).await {
            Some(Ok(outcome)) => {
                assert_caller(&outcome.unwrap().unwrap(), self.user());
                self.stored.insert(key);
            }
            _ => {
                self.cancelled += 1;
                self.unknown.push([key].into());
            }
        }
    }
}

async fn insert(tx: &Transaction, key: i64, by_text: bool, user: Uuid) -> Result<(), Error> {
    if by_text {
        let text =
            format!("INSERT INTO notes (key) VALUES ({key}) RETURNING current_user::text AS role, auth.uid() AS id");
        assert_caller(&tx.query_one_raw(sql(text)).await?.unwrap(), user);
    } else {
        let mut insert = Query::insert();
        insert.into_table(Alias::new("notes")).columns([Alias::new("key")]).values_panic([key.into()]);
        assert_eq!(tx.execute(&insert).await?.rows_affected(), 1);
    }
    Ok(())
}

fn assert_caller(row: &QueryResult, user: Uuid) {
    assert_eq!(row.try_get::<String>("", "role").unwrap(), "authenticated");
    assert_eq!(row.try_get::<Uuid>("", "id").unwrap(), user);
}
