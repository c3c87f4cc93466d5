//! Keyset pagination: the last row of a page determines where the next page begins. So rows that are inserted or
//! deleted between two requests do not make the next page repeat or skip other rows.

use std::{
    convert::Infallible,
    fmt::{Debug, Write},
    str::FromStr,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Error;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "PageOf{T}"))]
#[non_exhaustive]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// The cursor of the next page. `None` on the last page.
    pub next: Option<Cursor>,
}

/// A position in a list: returned with a page, and passed to the request for the next one. Its text is opaque.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Cursor(String);

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Cursor {
    /// Returns the cursor's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Cursor {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Cursor {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.0
    }
}

/// Accepts any text. Each list checks the cursors that are passed to it.
impl FromStr for Cursor {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
    }
}

/// Identifies a list: a hash of its name and filter. Each cursor contains the id of its list. A cursor of another list,
/// or of the same list with another filter, is refused, because its position would have another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListId(u64);

impl ListId {
    /// Returns the id of a list with a filter. If each user has a list of their own, the filter must include the user's
    /// id.
    pub(crate) fn new(name: &str, filter: &impl Debug) -> Self {
        // FNV-1a gives the same hash in every process of a service. The standard library's hashers do not promise that.
        const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let text = format!("{name} {filter:?}");
        Self(text.bytes().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME)))
    }

    /// Returns a cursor for a position in this list.
    pub(crate) fn encode_cursor<P: Serialize>(self, position: &P) -> Result<Cursor, Error> {
        let bytes = serde_json::to_vec(&(self.0, position)).map_err(|_| Error::InvalidCursor)?;
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            write!(text, "{byte:02x}").map_err(|_| Error::InvalidCursor)?;
        }
        Ok(Cursor(text))
    }

    /// Returns the position of a cursor, which must belong to this list. `None` if there is no cursor.
    pub(crate) fn decode_cursor<P: DeserializeOwned>(self, cursor: Option<&Cursor>) -> Result<Option<P>, Error> {
        let Some(cursor) = cursor else { return Ok(None) };
        let hex_digits = cursor.0.as_bytes();
        let bytes: Option<Vec<u8>> = hex_digits
            .chunks(2)
            .map(|pair| {
                let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
                u8::from_str_radix(text, 16).ok()
            })
            .collect();
        let (list_id, position) =
            bytes.and_then(|bytes| serde_json::from_slice::<(u64, P)>(&bytes).ok()).ok_or(Error::InvalidCursor)?;
        if list_id == self.0 { Ok(Some(position)) } else { Err(Error::InvalidCursor) }
    }

    /// Returns a page of the first `page_size` rows. If the list continues after these, `rows` must have one more row;
    /// the page then has a cursor for the position of its own last row. `position_of` returns a row's position.
    pub(crate) fn build_page<T, P: Serialize>(
        self,
        mut rows: Vec<T>,
        page_size: usize,
        position_of: impl FnOnce(&T) -> P,
    ) -> Result<Page<T>, Error> {
        let has_more = rows.len() > page_size;
        rows.truncate(page_size);
        let next = match rows.last() {
            Some(last) if has_more => Some(self.encode_cursor(&position_of(last))?),
            _ => None,
        };
        Ok(Page { items: rows, next })
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, ListId};

    #[test]
    fn a_cursor_is_decoded_to_its_position() {
        let list = ListId::new("a.list", &"filter");
        let cursor = Cursor::from(list.encode_cursor(&("x", 7)).unwrap().to_string());
        assert_eq!(list.decode_cursor::<(String, i32)>(Some(&cursor)).unwrap(), Some(("x".to_owned(), 7)));
        assert_eq!(list.decode_cursor::<(String, i32)>(None).unwrap(), None);
    }

    #[test]
    fn a_cursor_of_another_list_or_filter_is_refused() {
        let cursor = ListId::new("a.list", &"filter").encode_cursor(&7).unwrap();
        for other_list in [ListId::new("a.list", &"other"), ListId::new("b.list", &"filter")] {
            assert_eq!(other_list.decode_cursor::<i32>(Some(&cursor)).unwrap_err().code(), "bad_cursor");
        }
    }

    #[test]
    fn text_that_is_not_a_cursor_is_refused() {
        let list = ListId::new("a.list", &"filter");
        let invalid_json = "5b225d"; // hexadecimal for `["]`
        // A cursor is decoded in pairs of bytes. "ä" is one pair, but not hexadecimal digits; in "1é2" the first pair
        // ends in the middle of "é".
        for text in ["", "7", "zz", "ä", "1é2", invalid_json] {
            let cursor = Cursor::from(text.to_owned());
            assert_eq!(list.decode_cursor::<(String, i32)>(Some(&cursor)).unwrap_err().code(), "bad_cursor");
        }
    }
}
