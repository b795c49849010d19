//! How long the calling thread has computed.

use std::time::Duration;

/// Time that this thread had a core for: without what others, on a busy machine, had it for in between. `None` where that
/// can't be told.
#[cfg(unix)]
pub(crate) fn computed() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes a `timespec` to where it is told to, and nothing else.
    let refused = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    (refused == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Time that this thread had a core for: without what others, on a busy machine, had it for in between. `None` where that
/// can't be told.
#[cfg(not(unix))]
pub(crate) fn computed() -> Option<Duration> {
    None
}
