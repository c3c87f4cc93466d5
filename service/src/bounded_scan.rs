//! Lists with filters that no index covers. A page scans at most a thousand rows of the list, however long the list is
//! and however few rows match. If the limit ends the scan before the page is full, the page has a cursor that continues
//! the scan.

use sea_orm::{DbErr, Statement, sqlx::postgres::PgRow};
use serde::Serialize;
use uuid::Uuid;

use crate::{Error, Page, connection::UncheckedTransaction, page::ListId, rows, sql::Binds};

/// The maximum number of rows that a page scans.
pub(crate) const SCAN_LIMIT: usize = 1000;

/// The query of one page, which is a single statement.
pub(crate) struct PageQuery {
    statement: Statement,
    /// Whether the scan is limited. If so, the result also has the position at which it ended, unless more rows follow
    /// the page.
    is_bounded: bool,
}

impl PageQuery {
    /// Returns the query of a page whose filters are all covered by an index.
    pub(crate) fn exact(binds: Binds, page: String) -> Self {
        Self { statement: binds.into_statement(page), is_bounded: false }
    }

    /// Returns the query of a page of at most `limit` rows. `page` selects up to `limit + 1` matching rows of the
    /// scanned ones. `scanned` selects, for each scanned row, its number as `nth`, its sort keys, and its id as `last`;
    /// the page must not have columns of these names. `ctes` has the common table expressions that both use, each
    /// followed by a comma, or is empty. `order_by` sorts the page.
    ///
    /// The end of the scan is looked up only if no row follows the page; otherwise the next page begins after this
    /// page's last row. `scan_end` is materialized, because newer PostgreSQL versions would otherwise pull it into the
    /// join and evaluate it before the page. One statement reads the page and the end: between two statements, a row
    /// that leaves the list would move the end past a row that the page did not scan.
    pub(crate) fn bounded(binds: Binds, ctes: &str, page: &str, scanned: &str, limit: usize, order_by: &str) -> Self {
        let statement = binds.into_statement(format!(
            "WITH {ctes}page AS MATERIALIZED ({page}),
              scan_end AS MATERIALIZED (
                SELECT *
                FROM ({scanned}) AS scanned
                WHERE nth = {SCAN_LIMIT}
                  AND (SELECT count(*) FROM page) <= {limit}
              )
            SELECT page.*, scan_end.*
            FROM (VALUES (true)) AS always
            LEFT JOIN page ON true
            LEFT JOIN scan_end ON true
            {order_by}"
        ));
        Self { statement, is_bounded: true }
    }

    /// Runs the query. `key` returns the position of a row in the list, and `scan_end` the position at which the scan
    /// ended, from a row of the result and the id of the last scanned row.
    pub(crate) async fn fetch<T, K: Serialize>(
        &self,
        tx: &UncheckedTransaction,
        list: ListId,
        limit: usize,
        decode: impl Fn(&[PgRow]) -> Result<Vec<T>, DbErr>,
        key: impl Fn(&T) -> K,
        scan_end: impl Fn(&PgRow, Uuid) -> Result<K, DbErr>,
    ) -> Result<Page<T>, Error> {
        let result = tx.fetch_all(self.statement.clone()).await?;
        let Some(first) = result.first().filter(|_| self.is_bounded) else {
            return list.build_page(decode(&result)?, limit, key);
        };
        let end = rows::decode_cell::<Option<Uuid>>(first, "last")?.map(|id| scan_end(first, id)).transpose()?;
        // If no row matches, the result has only the end of the scan.
        let is_empty = rows::decode_cell::<Option<Uuid>>(first, "id")?.is_none();
        let mut page = list.build_page(decode(if is_empty { &[] } else { &result })?, limit, key)?;
        if let (None, Some(end)) = (&page.next, end) {
            page.next = Some(list.encode_cursor(&end)?);
        }
        Ok(page)
    }
}
