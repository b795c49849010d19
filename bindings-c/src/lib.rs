//! Realm for C: what `include/realm.h` declares. Nothing is decided here; arguments are converted, `realm` is called, and
//! results are converted.
//!
//! - [`error`]: errors, and the boundary that no panic crosses.
//! - [`choice`]: numbers that stand for a variant of an enum.
//! - [`memory`]: texts and arrays on their way in and out.
//! - the others: functions by what they are about.

// Each function says in the header what its pointers have to be; the rules that hold for all are at its top.
#![expect(clippy::missing_safety_doc, reason = "the header's beginning has the rules for all functions")]

pub mod callback;
pub mod chat;
pub mod choice;
pub mod error;
pub mod generation;
pub mod grants;
pub mod limits;
pub mod lists;
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

/// The version of the interface that the library has: the major version in the upper 16 bits, the minor one in the lower 16.
/// A program can use a library of the same major version and of a minor version that is not below REALM_ABI_MINOR.
#[unsafe(no_mangle)]
pub extern "C" fn realm_abi_version() -> u32 {
    1
}

/// The version of Realm, such as `0.1.0`. The text is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn realm_version() -> *const std::ffi::c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
