#![doc = include_str!("../README.md")]
// The generator writes no documentation. `docs/schema.md` explains each table and column.
#![allow(missing_docs)]

mod tables;

pub use tables::*;
