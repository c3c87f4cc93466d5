//! Lists that may be filtered by what no index of theirs knows. A page looks through a thousand rows of the list at most, however
//! long the list is and however few match; one that is not full tells where it goes on. Most pages are full after a few: two
//! hundred are looked through first.

use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement};
use serde::Serialize;
use uuid::Uuid;

use crate::{Cursor, Error, Page, connection::Worn, rows, sql::Binds};

/// Rows that a page looks through first.
const FIRST: usize = 200;
/// Rows that it looks through where those do not fill it.
const MOST: usize = 1000;

/// A page of a list as it is asked for.
pub(crate) struct Walk {
    /// The page.
    page: Statement,
    /// The page again, with where the walk ended that looked for it: asked where it is bounded and the page is not full. Both in
    /// one statement, so that what leaves the list meanwhile hides nothing that stays.
    again: Option<Statement>,
}

impl Walk {
    /// A page of which an index knows every row.
    pub(crate) fn straight(binds: Binds, page: String) -> Self {
        Self { page: binds.statement(page), again: None }
    }

    /// The page that `page` makes of the rows that were walked: so many of the `list`, in its `order`; `long` is the same list
    /// where all of a long walk is read. `key` names the columns of a place in the list so that no row has them; the id is its
    /// `last`.
    pub(crate) fn bounded(
        binds: Binds,
        list: impl Fn(usize) -> String,
        long: impl Fn(usize) -> String,
        page: impl Fn(&str) -> String,
        order: &str,
        key: &str,
    ) -> Self {
        let again = format!(
            "WITH walked AS MATERIALIZED ({}),
              page AS ({}),
              last AS (
                SELECT *
                FROM (SELECT {key}, row_number() OVER ({order}) AS nth FROM walked) AS numbered
                WHERE nth = {MOST}
              )
            SELECT page.*, last.*
            FROM (VALUES (true)) AS always
            LEFT JOIN page ON true
            LEFT JOIN last ON true
            {order}",
            long(MOST),
            page("walked")
        );
        let page = page(&format!("({})", list(FIRST)));
        Self { page: binds.clone().statement(page), again: Some(binds.statement(again)) }
    }

    /// Asks for it. `place` is where a row stands in the list, `end` where the walk of an answer ended, if its id is there.
    pub(crate) async fn page<T, K: Serialize>(
        &self,
        tx: &Worn,
        limit: usize,
        read: impl Fn(&[QueryResult]) -> Result<Vec<T>, DbErr>,
        place: impl Fn(&T) -> K,
        end: impl Fn(&QueryResult, Uuid) -> Result<K, DbErr>,
    ) -> Result<Page<T>, Error> {
        let page = Page::of(rows::all(tx, self.page.clone(), &read).await?, limit, &place)?;
        let (None, Some(again)) = (&page.next, &self.again) else {
            return Ok(page);
        };
        let mut answer = tx.query_all_raw(again.clone()).await?;
        let ended = match answer.first() {
            Some(first) => first.try_get_by::<Option<Uuid>, _>("last")?.map(|id| end(first, id)).transpose()?,
            None => None,
        };
        // Without a row, the answer is where the walk ended.
        answer.retain(|row| !matches!(row.try_get_by("id"), Ok(None::<Uuid>)));
        let mut page = Page::of(read(&answer)?, limit, place)?;
        if let (None, Some(key)) = (&page.next, ended) {
            page.next = Some(Cursor::at(&key)?);
        }
        Ok(page)
    }
}
