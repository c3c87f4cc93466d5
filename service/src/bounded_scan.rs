//! Lists with filters that their index does not cover. A page scans at most a thousand rows of the list, however long
//! the list is and however few rows match. A page that is not full has a cursor from which the scan continues.

use sea_orm::{DbErr, Statement, sqlx::postgres::PgRow};
use serde::Serialize;
use uuid::Uuid;

use crate::{Error, Page, connection::UncheckedTransaction, page::List, rows, sql::Binds};

/// The maximum number of rows that a page scans.
pub(crate) const SCAN_LIMIT: usize = 1000;

/// The query of one page, which is a single statement.
pub(crate) struct PageQuery {
    statement: Statement,
    /// Whether the result contains the position at which the scan ended.
    is_bounded: bool,
}

impl PageQuery {
    /// A page whose filters are all covered by an index.
    pub(crate) fn exact(binds: Binds, page: String) -> Self {
        Self { statement: binds.statement(page), is_bounded: false }
    }

    /// A page of at most `limit` rows, and one more, that `page` selects from the scanned rows. `scanned` selects the
    /// scanned rows in the list's order, with their number `nth` and their position in the list, in columns whose names
    /// no row of the page has; the id is called `last`. `with` is a common table expression for both, or empty.
    ///
    /// The end of the scan is looked up only if the page is not full. (It is materialized, because newer PostgreSQL
    /// versions would otherwise pull it into the join and evaluate it first.) Both are in the same statement, so that
    /// rows which leave the list meanwhile do not hide rows which stay.
    pub(crate) fn bounded(binds: Binds, with: &str, page: &str, scanned: &str, limit: usize, order: &str) -> Self {
        let statement = binds.statement(format!(
            "WITH {with}page AS MATERIALIZED ({page}),
              last AS MATERIALIZED (
                SELECT *
                FROM ({scanned}) AS scanned
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

    /// Runs the query. `place` returns the position of a row in the list, and `end` the position at which the scan
    /// ended, given the id of its last row.
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
        // If no row matches, the result consists of the end of the scan only.
        let is_empty = rows::cell::<Option<Uuid>>(first, "id")?.is_none();
        let mut page = list.page(read(if is_empty { &[] } else { &answer })?, limit, place)?;
        if let (None, Some(key)) = (&page.next, ended) {
            page.next = Some(list.cursor(&key)?);
        }
        Ok(page)
    }
}
