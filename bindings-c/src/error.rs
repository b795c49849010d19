//! Errors, and the boundary that no panic crosses.

use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::memory::text_of;

/// The kind of failure. Codes are stable; new ones may be added.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum ErrorCode {
    /// A model's file is malformed or contradicts itself.
    InvalidModel = 1,
    /// An adapter's file is malformed, contradicts itself or does not fit the model.
    InvalidAdapter = 2,
    /// An argument is out of range or contradicts another.
    InvalidArgument = 3,
    /// A request is larger than its own limits or its tenant's allow.
    LimitExceeded = 4,
    /// Too many requests wait already. Try again later.
    Overloaded = 5,
    /// Realm does not support the file, device or option.
    Unsupported = 6,
    /// The model or file does not exist.
    NotFound = 7,
    /// Reading, writing or fetching failed.
    Io = 8,
    /// A program is not WebAssembly that Realm can run.
    InvalidProgram = 9,
    /// A program broke a rule of WebAssembly, or panicked.
    Trap = 10,
    /// A program, or a tool that it called, reported that it failed.
    Failed = 11,
    /// A program used something that its tenant was not granted.
    Denied = 12,
    /// The request was cancelled.
    Cancelled = 13,
    /// Realm itself failed.
    Internal = 14,
}

/// An error: a code, its name, and a message.
pub struct Error {
    code: ErrorCode,
    name: CString,
    message: CString,
}

impl Error {
    pub(crate) fn invalid(message: &str) -> Self {
        Self {
            code: ErrorCode::InvalidArgument,
            name: text_of("invalid-argument"),
            message: text_of(message),
        }
    }
}

impl From<realm::Error> for Error {
    fn from(error: realm::Error) -> Self {
        use realm::ErrorCode as C;
        let code = match error.code() {
            C::InvalidModel => ErrorCode::InvalidModel,
            C::InvalidAdapter => ErrorCode::InvalidAdapter,
            C::InvalidArgument => ErrorCode::InvalidArgument,
            C::LimitExceeded => ErrorCode::LimitExceeded,
            C::Overloaded => ErrorCode::Overloaded,
            C::Unsupported => ErrorCode::Unsupported,
            C::NotFound => ErrorCode::NotFound,
            C::Io => ErrorCode::Io,
            C::InvalidProgram => ErrorCode::InvalidProgram,
            C::Trap => ErrorCode::Trap,
            C::Failed => ErrorCode::Failed,
            C::Denied => ErrorCode::Denied,
            C::Cancelled => ErrorCode::Cancelled,
            _ => ErrorCode::Internal,
        };
        Self { code, name: text_of(error.code().as_str()), message: text_of(error.message()) }
    }
}

/// Runs `work`, which may fail: if it does, or panics, sets `error` and returns `failed`.
pub(crate) unsafe fn attempt<T>(
    error: *mut *mut Error,
    failed: T,
    work: impl FnOnce() -> Result<T, Error>,
) -> T {
    let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let why = panic.downcast_ref::<&str>().map(|why| (*why).to_owned());
        let why = why.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        let message = text_of(&format!("Realm panicked: {why}"));
        Err(Error { code: ErrorCode::Internal, name: text_of("internal"), message })
    });
    outcome.unwrap_or_else(|why| {
        if !error.is_null() {
            // SAFETY: the caller's place for an error.
            unsafe { *error = Box::into_raw(Box::new(why)) };
        }
        failed
    })
}

/// Runs `work`, which cannot fail; if it panics all the same, returns `otherwise`.
pub(crate) fn surely<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(otherwise)
}

/// Returns the kind of failure; `REALM_ERROR_CODE_INTERNAL` for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_error_code(error: *const Error) -> ErrorCode {
    // SAFETY: an error of ours, or NULL.
    unsafe { error.as_ref() }.map_or(ErrorCode::Internal, |error| error.code)
}

/// Returns the name of the kind of failure, the same in every language, such as `limit-exceeded`. Belongs to
/// the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_error_name(error: *const Error) -> *const c_char {
    // SAFETY: an error of ours, or NULL.
    unsafe { error.as_ref() }.map_or(c"internal".as_ptr(), |error| error.name.as_ptr())
}

/// Returns the message for people: what was wrong and what would be right. Belongs to the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_error_message(error: *const Error) -> *const c_char {
    // SAFETY: an error of ours, or NULL.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |error| error.message.as_ptr())
}

/// Frees an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_error_free(error: *mut Error) {
    // SAFETY: an error of ours that is not freed yet, or NULL.
    unsafe { crate::memory::free(error) }
}
