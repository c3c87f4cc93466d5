//! The join code of a session.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Error;

/// A session's join code. The database generates six characters of `ABCDEFGHJKMNPQRSTUVWXYZ23456789`
/// (`docs/decisions.md`, "Sessions"). A code that a caller with the role `service_role` supplied can be any six
/// characters of `A-Z0-9`.
///
/// Parsing accepts lower case, spaces and hyphens, as people write them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct JoinCode(String);

impl JoinCode {
    /// Returns the six characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JoinCode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let code: String =
            text.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_uppercase()).collect();
        if code.len() == 6 && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) {
            return Ok(Self(code));
        }
        Err(Error::InvalidValue { field: "code", rule: "must have six letters or digits" })
    }
}

impl TryFrom<String> for JoinCode {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<&str> for JoinCode {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<JoinCode> for String {
    fn from(code: JoinCode) -> Self {
        code.0
    }
}

impl fmt::Display for JoinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::JoinCode;

    #[test]
    fn a_code_is_parsed_in_any_case_and_with_spaces_or_hyphens() {
        for text in ["ABC234", "abc234", " abc 234 ", "ABC-234"] {
            let code = text.parse::<JoinCode>().unwrap();
            assert_eq!((code.as_str(), code.to_string()), ("ABC234", "ABC234".to_owned()));
            assert_eq!(String::from(code), "ABC234");
        }
    }

    #[test]
    fn invalid_codes_are_refused() {
        for text in ["", "ABC23", "ABC2345", "ABC23Ä", "ABC23!"] {
            assert_eq!(text.parse::<JoinCode>().unwrap_err().code(), "invalid_value");
        }
    }
}
