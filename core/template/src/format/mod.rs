//! Python's three kinds of formatting: `%`, `str.format`, and the specifications of single values.

mod braces;
mod number;
mod percent;
mod spec;

pub(crate) use braces::{Fields, braces};
pub(crate) use percent::percent;
