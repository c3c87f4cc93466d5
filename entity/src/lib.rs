#![doc = include_str!("../README.md")]
// The documentation of tables and columns comes from their comments in the database. Relations and enums have none.
#![allow(missing_docs)]

mod tables;

pub use tables::*;
