#![doc = include_str!("../README.md")]
// The generator writes no documentation; what a table and a column mean stands in `docs/schema.md`.
#![allow(missing_docs)]

mod tables;

pub use tables::*;
