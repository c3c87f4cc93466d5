//! Lists that may be filtered by what no index of theirs knows. A page looks through a thousand rows of the list at most, however
//! long the list is and however few match; one that is not full tells where it goes on.

use sea_orm::{DbErr, Statement, sqlx::postgres::PgRow};
use serde::Serialize;
use uuid::Uuid;

use crate::{Error, Page, connection::UncheckedTransaction, page::List, rows, sql::Binds};

/// Rows that a page looks through.
pub(crate) const SCAN_LIMIT: usize = 1000;

/// A page of a list as it is asked for: one statement.
pub(crate) struct PageQuery {
    statement: Statement,
    /// Whether the answer tells where the walk ended.
    is_bounded: bool,
}

impl PageQuery {
    /// A page of which an index knows every row.
    pub(crate) fn exact(binds: Binds, page: String) -> Self {
        Self { statement: binds.statement(page), is_bounded: false }
    }

    /// The page of at most so many rows, and one, that `page` makes of those that were walked. `walked` tells of them, in the
    /// list's order, the `nth` and where it stands in the list, in columns that no row of the page has; the id is its `last`.
    /// `with` is a query by name that both use, or nothing.
    ///
    /// Where the walk ended is looked for only where the page is not full (materialized: pulled into the join, newer versions
    /// would look first); in the same statement, so that what leaves the list meanwhile hides nothing that stays.
    pub(crate) fn bounded(binds: Binds, with: &str, page: &str, walked: &str, limit: usize, order: &str) -> Self {
        let statement = binds.statement(format!(
            "WITH {with}page AS MATERIALIZED ({page}),
              last AS MATERIALIZED (
                SELECT *
                FROM ({walked}) AS walked
                WHERE nth = {SCAN_LIMIT}
                  AND (SELECT count(*) FROM page) <= {limit}
              )
            SELECT page.*, last.*
            FROM (VALUES (true)) AS always
            LEFT JOIN page ON true
            LEFT JOIN last ON true
            {order}"
        ));
        Self { statement, is_bounded: true }
    }

    /// Asks for it. `place` is where a row stands in the list, `end` where the walk of an answer ended, if its id is there.
    pub(crate) async fn page<T, K: Serialize>(
        &self,
        tx: &UncheckedTransaction,
        list: List,
        limit: usize,
        read: impl Fn(&[PgRow]) -> Result<Vec<T>, DbErr>,
        place: impl Fn(&T) -> K,
        end: impl Fn(&PgRow, Uuid) -> Result<K, DbErr>,
    ) -> Result<Page<T>, Error> {
        let answer = tx.fetch_all(self.statement.clone()).await?;
        let Some(first) = answer.first().filter(|_| self.is_bounded) else {
            return list.page(read(&answer)?, limit, place);
        };
        let ended = rows::cell::<Option<Uuid>>(first, "last")?.map(|id| end(first, id)).transpose()?;
        // Where none matches, the answer is where the walk ended and nothing else.
        let is_empty = rows::cell::<Option<Uuid>>(first, "id")?.is_none();
        let mut page = list.page(read(if is_empty { &[] } else { &answer })?, limit, place)?;
        if let (None, Some(key)) = (&page.next, ended) {
            page.next = Some(list.cursor(&key)?);
        }
        Ok(page)
    }
}
