//! Keyset pages: where a page ended is told by the row it ended with, so that rows may come and go between two pages.

use std::fmt::Write;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Error;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Page<T> {
    /// The rows, in the order of the list.
    pub rows: Vec<T>,
    /// Where the next page begins; none after the last.
    pub next: Option<Cursor>,
}

/// A place in a list, given with a page and taken by the request for the next. Opaque: what it says is the list's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Cursor {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Cursor {
    /// A cursor at the place that `key` describes.
    pub(crate) fn at<K: Serialize>(key: &K) -> Result<Self, Error> {
        let bytes = serde_json::to_vec(key).map_err(|_| Error::BadCursor)?;
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            write!(text, "{byte:02x}").map_err(|_| Error::BadCursor)?;
        }
        Ok(Self(text))
    }

    /// The place, if this is a cursor of that list.
    pub(crate) fn key<K: DeserializeOwned>(&self) -> Result<K, Error> {
        let digits = self.0.as_bytes();
        let bytes: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| {
                let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
                u8::from_str_radix(text, 16).ok()
            })
            .collect();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or(Error::BadCursor)
    }
}

impl<T> Page<T> {
    /// A page of at most `limit` of the rows that were read, of which there is one more where a next page follows.
    pub(crate) fn of<K: Serialize>(mut rows: Vec<T>, limit: usize, key: impl FnOnce(&T) -> K) -> Result<Self, Error> {
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = match rows.last() {
            Some(last) if more => Some(Cursor::at(&key(last))?),
            _ => None,
        };
        Ok(Self { rows, next })
    }
}

#[cfg(test)]
mod tests {
    use super::Cursor;

    #[test]
    fn a_cursor_gives_back_its_place() {
        let cursor = Cursor::at(&("x", 7)).unwrap();
        let cursor = Cursor::from(cursor.to_string());
        assert_eq!(cursor.key::<(String, i32)>().unwrap(), ("x".to_owned(), 7));
    }

    #[test]
    fn a_forged_cursor_is_refused() {
        for text in ["", "7", "zz", "ä", "é1", "5b225d"] {
            let forged = Cursor::from(text.to_owned());
            assert_eq!(forged.key::<(String, i32)>().unwrap_err().code(), "bad_cursor");
        }
    }
}
