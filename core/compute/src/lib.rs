//! The Backend trait and the processors that implement it.
