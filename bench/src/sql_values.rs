//! Values as SQL expressions.

/// The value that stands for a new random UUID in each transaction.
pub const NEW_UUID: &str = "gen_random_uuid()";

/// Quotes a value as an SQL literal.
pub fn quote_literal(value: impl std::fmt::Display) -> String {
    format!("'{}'", value.to_string().replace('\'', "''"))
}
