//! Realm's own log.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use crate::callback::{Drop, OnLog, UserData};
use crate::choice::chosen;
use crate::error::{Error, attempt};
use crate::memory::text_of;

/// The severity of a line in a log.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Level {
    /// A failure.
    Error = 0,
    /// Something unusual.
    Warn = 1,
    /// An event.
    Info = 2,
    /// A detail for debugging.
    Debug = 3,
    /// Every detail.
    Trace = 4,
}

impl From<realm::Level> for Level {
    fn from(level: realm::Level) -> Self {
        match level {
            realm::Level::Error => Self::Error,
            realm::Level::Warn => Self::Warn,
            realm::Level::Info => Self::Info,
            realm::Level::Debug => Self::Debug,
            realm::Level::Trace => Self::Trace,
        }
    }
}

impl From<Level> for realm::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::Error,
            Level::Warn => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

/// Returns a function that passes lines to a callback. The callback has a thread of its own, since it may
/// sleep and call Realm.
pub(crate) fn sink(
    on_log: unsafe extern "C" fn(*mut c_void, Level, *const std::ffi::c_char, *const std::ffi::c_char),
    data: UserData,
) -> realm::LogQueue {
    realm::LogQueue::new(move |from, level, message| {
        let (from, message) = (text_of(from), text_of(message));
        // SAFETY: the caller's function with the caller's data; the texts live until it returns.
        unsafe { on_log(data.get(), level.into(), from.as_ptr(), message.as_ptr()) }
    })
}

/// Sends every line of Realm's log up to a level to `on_log`, for the whole process; NULL ends that. Realm
/// itself prints nothing. `on_log` is called soon after, on a thread of its own that no other thread waits
/// for: it may take long and call Realm. If it is slower than the lines, some are dropped, and a line says
/// how many. If another callback replaces it, it still gets the waiting lines before `drop`. Takes ownership
/// of `user_data`, even if it fails. Errors: `invalid-argument` if Rust code in this process has set up a log
/// of its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_set_log(
    most: MaybeUninit<Level>,
    on_log: OnLog,
    user_data: *mut c_void,
    drop: Drop,
    error: *mut *mut Error,
) -> bool {
    let data = UserData::new(user_data, drop);
    let work = || {
        let sink = on_log.map(|on_log| {
            let sink = sink(on_log, data);
            move |level: realm::Level, from: &str, message: &str| sink.write(from, level, message)
        });
        Ok(realm::log_to(chosen(most)?.into(), sink).map(|()| true)?)
    };
    // SAFETY: the caller's place for an error.
    unsafe { attempt(error, false, work) }
}
