//! Scheduling priority of threads.

/// From now on the calling thread gets only time that no other thread wants. Where that can't be had it stays as it is.
#[cfg(target_os = "linux")]
pub(crate) fn lowest() {
    // SAFETY: an all-zero `sched_param` is valid, and the call reads it and nothing else; 0 is the calling thread.
    let refused = unsafe {
        let parameters: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters)
    };
    if refused != 0 {
        tracing::debug!("programs that compute for long run at normal priority: SCHED_IDLE was refused");
    }
}

/// From now on the calling thread gets only time that no other thread wants. Where that can't be had it stays as it is.
#[cfg(not(target_os = "linux"))]
pub(crate) fn lowest() {}
