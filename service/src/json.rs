//! Conversion between JSON columns and typed documents. The types of most documents have a field `extra`, which keeps
//! the fields that the game does not know.

use sea_orm::sqlx::{postgres::PgRow, types::Json};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Error, rows};

/// Serializes the document for a JSON column.
pub(crate) fn to_json<T: Serialize>(document: &T) -> Result<Value, Error> {
    serde_json::to_value(document).map_err(|_| Error::InvalidValue { field: "document", rule: "must be JSON" })
}

/// Deserializes a document from a JSON column. `field` names the document in errors.
pub(crate) fn from_json<T: DeserializeOwned>(value: Value, field: &'static str) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|_| wrong_shape_error(field))
}

/// Decodes a document from a column of a row, without building a `Value` first. `field` names the document in errors. A
/// NULL is an error.
pub(crate) fn decode_json_cell<T: DeserializeOwned + 'static>(
    row: &PgRow,
    column: &str,
    field: &'static str,
) -> Result<T, Error> {
    decode_optional_json_cell(row, column, field)?.ok_or_else(|| wrong_shape_error(field))
}

/// Decodes a document from a column of a row. `None` if the column is NULL.
pub(crate) fn decode_optional_json_cell<T: DeserializeOwned + 'static>(
    row: &PgRow,
    column: &str,
    field: &'static str,
) -> Result<Option<T>, Error> {
    let document = rows::decode_cell::<Option<Json<T>>>(row, column).map_err(|_| wrong_shape_error(field))?;
    Ok(document.map(|Json(document)| document))
}

fn wrong_shape_error(field: &'static str) -> Error {
    Error::InvalidValue { field, rule: "must have the documented shape" }
}

#[cfg(test)]
mod tests {
    use super::{from_json, to_json};

    #[test]
    fn a_document_is_converted_to_json_and_back_and_json_of_another_shape_is_refused() {
        let value = to_json(&[1, 2]).unwrap();
        assert_eq!(value, serde_json::json!([1, 2]));
        assert_eq!(from_json::<Vec<i32>>(value.clone(), "numbers").unwrap(), [1, 2]);
        assert_eq!(from_json::<bool>(value, "numbers").unwrap_err().code(), "invalid_value");
    }
}
