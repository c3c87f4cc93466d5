//! Lists that may be filtered by what no index of theirs knows. A page looks through a thousand rows of the list at most, however
//! long the list is and however few match; one that is not full tells where it goes on.

use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement};
use serde::Serialize;
use uuid::Uuid;

use crate::{Cursor, Error, Page, connection::Worn, rows, sql::Binds};

/// Rows that a page looks through.
const WALK: usize = 1000;

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

    /// The page that `page` makes of the rows that were walked: so many of the `list`, in its `order`. `key` names the columns of
    /// a place in the list so that no row has them; the id is its `last`.
    pub(crate) fn bounded(
        binds: Binds,
        list: impl Fn(usize) -> String,
        page: impl Fn(&str) -> String,
        order: &str,
        key: &str,
    ) -> Self {
        let walk = list(WALK);
        let again = format!(
            "WITH walked AS MATERIALIZED ({walk}),
              page AS ({}),
              last AS (
                SELECT {key}
                FROM (SELECT *, row_number() OVER ({order}) AS nth FROM walked) AS numbered
                WHERE nth = {WALK}
              )
            SELECT page.*, last.*
            FROM (VALUES (true)) AS always
            LEFT JOIN page ON true
            LEFT JOIN last ON true
            {order}",
            page("walked")
        );
        let page = page(&format!("({walk})"));
        Self { page: binds.clone().statement(page), again: Some(binds.statement(again)) }
    }

    /// Asks for it. `place` is where a row stands in the list, `end` where the walk of an answer ended, if its id is there.
    pub(crate) async fn page<T, K: Serialize>(
        &self,
        tx: &Worn,
        limit: usize,
        read: impl Fn(&QueryResult) -> Result<T, DbErr>,
        place: impl Fn(&T) -> K,
        end: impl Fn(&QueryResult, Uuid) -> Result<K, DbErr>,
    ) -> Result<Page<T>, Error> {
        let page = Page::of(rows::all(tx, self.page.clone(), &read).await?, limit, &place)?;
        let (None, Some(again)) = (&page.next, &self.again) else {
            return Ok(page);
        };
        let answer = tx.query_all_raw(again.clone()).await?;
        let is_row = |row: &&QueryResult| !matches!(row.try_get_by("id"), Ok(None::<Uuid>));
        let found = answer.iter().filter(is_row).map(&read).collect::<Result<_, _>>()?;
        let mut page = Page::of(found, limit, place)?;
        let Some(first) = answer.first().filter(|_| page.next.is_none()) else {
            return Ok(page);
        };
        if let Some(id) = first.try_get_by("last")? {
            page.next = Some(Cursor::at(&end(first, id)?)?);
        }
        Ok(page)
    }
}
