//! The computing time of the calling thread.

use std::time::Duration;

/// Returns the time that this thread had a core, without the time that other threads had it in between.
/// `None` if the system cannot tell.
#[cfg(unix)]
pub(crate) fn computed() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes a `timespec` to the given address, and nothing else.
    let refused = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    (refused == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Returns the time that this thread had a core, without the time that other threads had it in between.
/// `None` if the system cannot tell.
#[cfg(not(unix))]
pub(crate) fn computed() -> Option<Duration> {
    None
}
