#![doc = include_str!("../README.md")]
// Tables and columns are documented, from their comments in the database; relations and enums are not.
#![allow(missing_docs)]

mod tables;

pub use tables::*;
