//! JSON columns as typed documents: what the game reads is typed, what else a client keeps is kept.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::Error;

/// The document as the database keeps it.
pub(crate) fn to_json<T: Serialize>(document: &T) -> Result<Value, Error> {
    serde_json::to_value(document).map_err(|_| Error::InvalidValue { field: "document", rule: "must be JSON" })
}

/// The database's document, typed.
pub(crate) fn from_json<T: DeserializeOwned>(value: Value, field: &'static str) -> Result<T, Error> {
    serde_json::from_value(value)
        .map_err(|_| Error::InvalidValue { field, rule: "must have the shape that its documentation gives" })
}

#[cfg(test)]
mod tests {
    use super::{from_json, to_json};

    #[test]
    fn a_document_is_kept_and_read() {
        let kept = to_json(&[1, 2]).unwrap();
        assert_eq!(kept, serde_json::json!([1, 2]));
        assert_eq!(from_json::<Vec<i32>>(kept.clone(), "numbers").unwrap(), [1, 2]);
        assert_eq!(from_json::<bool>(kept, "numbers").unwrap_err().code(), "invalid_value");
    }
}
