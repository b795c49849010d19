//! The `realm` command.
fn main() {}
