//! One of the concurrent tasks of a random program (see the parent module): it makes random calls on a connection, and
//! keeps a model of what the calls have written. The model says which outcomes the next call may have.

mod ending;
mod notes;
mod steps;
mod task;

pub use task::Task;

impl Task {
    /// Takes `steps` random steps, and then drops the transactions that the task still holds.
    pub async fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            if self.held_transactions.is_empty() {
                self.begin().await;
                continue;
            }
            // Most calls use the innermost transaction; some use any that the task still holds.
            let innermost_index = self.held_transactions.len() - 1;
            let index = if self.rng.u8(..) < 200 { innermost_index } else { self.rng.usize(..=innermost_index) };
            match self.rng.u8(0..100) {
                0..20 => self.write(index).await,
                20..27 => self.read(index).await,
                27..34 => self.run_failing_statement(index).await,
                34..40 => self.change_settings(index).await,
                40..43 => self.change_identity(index).await,
                43..45 => self.commit_by_raw_sql(index).await,
                45..57 => self.begin_nested(index).await,
                57..67 => self.commit(index).await,
                67..73 => self.rollback(index).await,
                73..77 => self.drop_transaction(index),
                77..85 => self.drop_call(index).await,
                85..91 => self.stream(index).await,
                91..97 => self.call_concurrently(index).await,
                _ => self.maybe_call_on_another_connection().await,
            }
        }
        while !self.held_transactions.is_empty() {
            self.drop_transaction(self.held_transactions.len() - 1);
        }
    }
}
