//! Realm's own log.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use crate::callback::{Drop, OnLog, UserData};
use crate::choice::chosen;
use crate::error::{Error, attempt};
use crate::memory::text_of;

/// How bad a line of a log is.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Level {
    /// Something failed.
    Error = 0,
    /// Something is odd.
    Warn = 1,
    /// Something happened.
    Info = 2,
    /// For who looks for a fault.
    Debug = 3,
    /// Everything.
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

/// A callback as what takes lines. It may sleep and call Realm, so it has a thread of its own.
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

/// Has every line of Realm's log up to a level go to `on_log`, for the whole process; NULL ends that. Realm itself prints nothing.
/// `on_log` is called soon after, on a thread of its own for which nothing waits: it may take its time and call Realm. Where it is
/// slower than the lines come some are dropped, and a line says how many. What waits when another one takes its place it still gets,
/// before `drop`. Takes `user_data` over, also where it fails. Errors: `invalid-argument` if Rust code in this process has set up a log of
/// its own.
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
