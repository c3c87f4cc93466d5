//! Lists with filters that no index supports. To fill a page, the database scans at most a thousand rows of the list,
//! however few of them match. If the scan reaches this limit before it finds more matches than the page can hold, the
//! page has a cursor that continues the scan.

use sea_orm::{DbErr, Statement, sqlx::postgres::PgRow};
use serde::Serialize;
use uuid::Uuid;

use crate::{Error, Page, binds::Binds, connection::OperationTransaction, page::ListId, rows};

/// The maximum number of rows that are scanned for one page.
pub(crate) const SCAN_LIMIT: usize = 1000;

/// The query of one page, which is a single statement.
pub(crate) struct PageQuery {
    statement: Statement,
    /// Whether the scan is limited. If so, each row of the result also has the columns that describe the last scanned
    /// row (`scan_end` in [`with_scan_limit`](Self::with_scan_limit)). These columns are NULL if the scan ended before
    /// the limit, or found more matches than the page can hold.
    has_scan_limit: bool,
}

impl PageQuery {
    /// Returns the query of a page whose filters are all supported by an index, so that the scan needs no limit.
    pub(crate) fn without_scan_limit(binds: Binds, page_sql: String) -> Self {
        Self { statement: binds.into_statement(page_sql), has_scan_limit: false }
    }

    /// Returns the query of a page of at most `page_size` rows, whose scan is limited.
    ///
    /// - `page_sql` selects the first `page_size + 1` matching rows among the scanned ones. Their id must be in the
    ///   column `id`.
    /// - `scan_positions_sql` selects for each scanned row its number in the scan (from 1) as `scan_ordinal`, its id as
    ///   `scanned_id`, and its sort keys. `page_sql` must not have columns of these names.
    /// - `ctes` has the common table expressions that `page_sql` and `scan_positions_sql` use, each followed by a
    ///   comma; it may be empty.
    /// - `order_by` is the ORDER BY clause of the page.
    ///
    /// The end of the scan is looked up only if all matches that the scan found are on the page; otherwise the next
    /// page begins after the page's last row. `scan_end` is materialized, because PostgreSQL would otherwise inline it
    /// into the join and evaluate it before the page. One statement reads the page and the end of the scan. If two
    /// statements did, and a row left the list between them, the second would take as the end a row that the first did
    /// not scan, and that row would be on no page.
    pub(crate) fn with_scan_limit(
        binds: Binds,
        ctes: &str,
        page_sql: &str,
        scan_positions_sql: &str,
        page_size: usize,
        order_by: &str,
    ) -> Self {
        let statement = binds.into_statement(format!(
            "WITH {ctes}page AS MATERIALIZED ({page_sql}),
              scan_end AS MATERIALIZED (
                SELECT *
                FROM ({scan_positions_sql}) AS scanned
                WHERE scan_ordinal = {SCAN_LIMIT}
                  AND (SELECT count(*) FROM page) <= {page_size}
              )
            SELECT page.*, scan_end.*
            FROM (VALUES (true)) AS one_row
            LEFT JOIN page ON true
            LEFT JOIN scan_end ON true
            {order_by}"
        ));
        Self { statement, has_scan_limit: true }
    }

    /// Runs the query. `position_of` returns an item's position in the list. `scan_end_position` returns the position
    /// of the last scanned row. Its first argument is a row of the result, from which it decodes the sort keys of the
    /// last scanned row; its second argument is the last scanned row's id.
    pub(crate) async fn fetch<T, P: Serialize>(
        &self,
        tx: &OperationTransaction,
        list: ListId,
        page_size: usize,
        decode: impl Fn(&[PgRow]) -> Result<Vec<T>, DbErr>,
        position_of: impl Fn(&T) -> P,
        scan_end_position: impl Fn(&PgRow, Uuid) -> Result<P, DbErr>,
    ) -> Result<Page<T>, Error> {
        let rows = tx.fetch_all(self.statement.clone()).await?;
        let Some(first_row) = rows.first().filter(|_| self.has_scan_limit) else {
            return list.build_page(decode(&rows)?, page_size, position_of);
        };
        let last_scanned_id = rows::decode_cell::<Option<Uuid>>(first_row, "scanned_id")?;
        let scan_end = last_scanned_id.map(|id| scan_end_position(first_row, id)).transpose()?;
        // If no row matches, the result is one row, in which all columns of the page are NULL.
        let has_no_match = rows::decode_cell::<Option<Uuid>>(first_row, "id")?.is_none();
        let mut page = list.build_page(decode(if has_no_match { &[] } else { &rows })?, page_size, position_of)?;
        if let (None, Some(scan_end)) = (&page.next, scan_end) {
            page.next = Some(list.encode_cursor(&scan_end)?);
        }
        Ok(page)
    }
}
