//! Input types that check their value when they are created, and conversions that inputs need.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::Error;

/// Deserializes a field of `AdventureChanges` or a similar type, for a nullable column: `null` becomes `Some(None)`,
/// which clears the column. An absent field is `None`, serde's default, which leaves the column unchanged.
pub(crate) fn nullable<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// Deserializes a field of `AdventureChanges` or a similar type, for a column that is not nullable: `null` is an error.
/// An absent field is `None`, serde's default, which leaves the column unchanged.
pub(crate) fn not_null<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// An integer that may be written as a string, as every value of a URL's query string is. A deserializer of query
/// strings converts such a value to a number, but not within a `#[serde(flatten)]` field. A web handler's query struct
/// may contain a filter of this crate as such a field (next to the cursor), so the filter's numbers arrive as strings.
struct LenientInteger(i32);

impl<'de> Deserialize<'de> for LenientInteger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = LenientInteger;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<LenientInteger, E> {
                let unexpected = de::Unexpected::Signed(number);
                i32::try_from(number).map(LenientInteger).map_err(|_| E::invalid_value(unexpected, &self))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<LenientInteger, E> {
                let unexpected = de::Unexpected::Unsigned(number);
                i32::try_from(number).map(LenientInteger).map_err(|_| E::invalid_value(unexpected, &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<LenientInteger, E> {
                text.parse().map(LenientInteger).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// Deserializes an optional number of a filter.
pub(crate) fn optional_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    Ok(Option::<LenientInteger>::deserialize(deserializer)?.map(|integer| integer.0))
}

/// Deserializes the page size of a filter of rolls.
pub(crate) fn rolls_page_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RollsPageSize, D::Error> {
    RollsPageSize::new(LenientInteger::deserialize(deserializer)?.0).map_err(de::Error::custom)
}

/// Implements conversions between an enum and its text, for paths and query strings. The text is the same as in JSON.
/// `$field` and `$rule` are those of the error for any other text.
macro_rules! impl_text_conversions {
    ($name:ident, $field:literal, { $($value:ident = $text:literal),+ $(,)? }, $rule:literal) => {
        impl $name {
            /// Returns the value's text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::Error;

            fn from_str(text: &str) -> Result<Self, $crate::Error> {
                match text {
                    $($text => Ok(Self::$value),)+
                    _ => Err($crate::Error::InvalidValue { field: $field, rule: $rule }),
                }
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $crate::Error;

            fn try_from(text: &str) -> Result<Self, $crate::Error> {
                text.parse()
            }
        }
    };
}

pub(crate) use impl_text_conversions;

/// Defines an integer type with a range, and the conversions that an input needs. `$field` and `$rule` are those of the
/// error for a number out of range, and for text that is not an integer.
macro_rules! bounded_integer {
    ($(#[$doc:meta])* $name:ident, $low:literal to $high:literal, $field:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(
            feature = "schema",
            derive(schemars::JsonSchema),
            schemars(extend("minimum" = $low, "maximum" = $high))
        )]
        #[serde(try_from = "i32", into = "i32")]
        pub struct $name(i32);

        impl $name {
            /// The minimum.
            pub const MIN: Self = Self($low);
            /// The maximum.
            pub const MAX: Self = Self($high);

            /// Returns the number.
            #[must_use]
            pub const fn get(self) -> i32 {
                self.0
            }

            /// Creates the value from a number within the range.
            ///
            /// # Errors
            ///
            /// [`Error::InvalidValue`] if the number is out of range.
            pub fn new(number: i32) -> Result<Self, Error> {
                if !($low..=$high).contains(&number) {
                    return Err(Error::InvalidValue { field: $field, rule: $rule });
                }
                Ok(Self(number))
            }

            /// Creates the value without a check of the range, for constants in this crate, such as the default of four
            /// seats.
            #[allow(dead_code, reason = "not every type has such a constant")]
            pub(crate) const fn new_unchecked(number: i32) -> Self {
                Self(number)
            }
        }

        impl TryFrom<i32> for $name {
            type Error = Error;

            fn try_from(number: i32) -> Result<Self, Error> {
                Self::new(number)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;

            fn try_from(text: &str) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl TryFrom<i64> for $name {
            type Error = Error;

            fn try_from(number: i64) -> Result<Self, Error> {
                Self::new(i32::try_from(number).map_err(|_| Error::InvalidValue { field: $field, rule: $rule })?)
            }
        }

        impl From<$name> for i32 {
            fn from(value: $name) -> i32 {
                value.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                let number = text.trim().parse().map_err(|_| Error::InvalidValue { field: $field, rule: $rule })?;
                Self::new(number)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

bounded_integer!(
    /// The number that a roll's modified total must reach: 3 to 18.
    Difficulty,
    3 to 18,
    "difficulty",
    "must be 3 to 18"
);

bounded_integer!(
    /// The value of a character's attribute: 1 to 6. It is the number of dice of a check of the attribute, to which
    /// dice modifiers are added.
    AttributeValue,
    1 to 6,
    "attribute",
    "must be 1 to 6"
);

bounded_integer!(
    /// The number of seats of a session: 2 to 6. The Seer needs none.
    MaxPlayers,
    2 to 6,
    "max_players",
    "must be 2 to 6"
);

bounded_integer!(
    /// The level of a character: 1 to 10.
    Level,
    1 to 10,
    "level",
    "must be 1 to 10"
);

bounded_integer!(
    /// The maximum hit points of a character: 1 to 10.
    MaxHitPoints,
    1 to 10,
    "max_hit_points",
    "must be 1 to 10"
);

bounded_integer!(
    /// The maximum number of rolls on a page: 1 to 200, 50 by default (`docs/decisions.md`, "Game rules").
    RollsPageSize,
    1 to 200,
    "page_size",
    "must be 1 to 200"
);

impl RollsPageSize {
    /// Returns the maximum number of rolls.
    pub(crate) const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl Default for RollsPageSize {
    fn default() -> Self {
        Self::new_unchecked(50)
    }
}

#[cfg(test)]
mod tests {
    use super::{Difficulty, RollsPageSize};
    use crate::{adventures::CatalogueOrder, dice::ModifierKind, sessions::Visibility, users::Badge};

    #[test]
    fn the_page_size_of_rolls_is_fifty_unless_another_is_requested() {
        assert_eq!((RollsPageSize::default().as_usize(), RollsPageSize::new(200).unwrap().as_usize()), (50, 200));
    }

    #[test]
    fn a_number_is_converted_from_text_and_from_other_integers_unless_it_is_out_of_range() {
        let twelve = Difficulty::new(12).unwrap();
        assert_eq!("12".parse::<Difficulty>().unwrap(), twelve);
        assert_eq!(Difficulty::try_from("12").unwrap(), twelve);
        assert_eq!(Difficulty::try_from("12".to_owned()).unwrap(), twelve);
        assert_eq!(Difficulty::try_from(12_i32).unwrap(), twelve);
        assert_eq!(Difficulty::try_from(12_i64).unwrap(), twelve);
        assert_eq!((twelve.to_string(), i32::from(twelve)), ("12".to_owned(), 12));
        assert_eq!(serde_json::to_value(twelve).unwrap(), 12);
        for text in ["", "2", "19", "12.5", "twelve", "99999999999"] {
            assert_eq!(text.parse::<Difficulty>().unwrap_err().code(), "invalid_value", "{text}");
        }
        assert_eq!(Difficulty::try_from(i64::MAX).unwrap_err().code(), "invalid_value");
    }

    #[test]
    fn the_text_of_an_enum_is_the_same_as_in_json_and_other_text_is_refused() {
        fn assert_round_trip<T>(values: &[T])
        where
            T: Copy + std::fmt::Debug + std::fmt::Display + PartialEq + serde::Serialize + std::str::FromStr,
            T::Err: std::fmt::Debug,
        {
            for value in values {
                assert_eq!(serde_json::to_value(value).unwrap(), value.to_string());
                assert_eq!(value.to_string().parse::<T>().unwrap(), *value);
            }
        }
        assert_round_trip(&[Visibility::Public, Visibility::Private]);
        assert_round_trip(&[Badge::Verified, Badge::None]);
        assert_round_trip(&[ModifierKind::Dice, ModifierKind::Flat]);
        assert_round_trip(&[CatalogueOrder::Newest, CatalogueOrder::MostPlayed, CatalogueOrder::BestRated]);
        assert_eq!("secret".parse::<Visibility>().unwrap_err().code(), "invalid_value");
    }

    #[test]
    fn json_with_a_number_out_of_range_is_refused() {
        assert!(serde_json::from_str::<Difficulty>("18").is_ok());
        assert!(serde_json::from_str::<Difficulty>("19").is_err());
    }
}
