//! Realm for C: the functions that `include/realm.h` declares. Each one converts its arguments, calls
//! `realm`, and converts the results.
//!
//! - [`error`]: errors, and the boundary that no panic crosses.
//! - [`choice`]: numbers that stand for a variant of an enum.
//! - [`memory`]: texts and arrays on their way in and out.
//! - the others: the functions of one type each.

// The comments say what each pointer must be; the rules for all functions are at the top of the header.
#![expect(clippy::missing_safety_doc, reason = "the header's beginning has the rules for all functions")]

pub mod adapter;
pub mod callback;
pub mod chat;
pub mod choice;
pub mod error;
pub mod generation;
pub mod grants;
pub mod limits;
pub mod lists;
pub mod load_options;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod program;
pub mod request;
pub mod runtime;
pub mod sequence;
pub mod tenant;
pub mod tokenizer;

/// Returns the version of the library's interface: the major version in the upper 16 bits, the minor one in
/// the lower 16. A program can use a library with the same major version and a minor version of at least
/// REALM_ABI_MINOR.
#[unsafe(no_mangle)]
pub extern "C" fn realm_abi_version() -> u32 {
    1
}

/// Returns the version of Realm, such as `0.1.0`. The text is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn realm_version() -> *const std::ffi::c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
