//! A row in text format, as the simple query protocol returns it.

use sea_orm::sqlx::{Row, postgres::PgRow};

/// A row in text format. `None` is NULL.
#[derive(Clone, Debug)]
pub(crate) struct TextRow(pub(crate) Vec<Option<String>>);

impl TextRow {
    pub(crate) fn from_row(row: &PgRow) -> Self {
        let column_text = |column| row.try_get_raw(column).ok()?.as_str().ok().map(str::to_owned);
        Self((0..row.len()).map(column_text).collect())
    }

    /// Returns the value of an integer column.
    pub(crate) fn integer(&self, column: usize) -> Option<i64> {
        self.0.get(column)?.as_ref()?.parse().ok()
    }
}
