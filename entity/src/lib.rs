#![doc = include_str!("../README.md")]
// Tables and columns are documented with their comments in the database; relations and enums are not documented.
#![allow(missing_docs)]

mod tables;

pub use tables::*;
