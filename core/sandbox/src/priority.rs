//! Scheduling priority of threads.

/// A tenth of the weight of a thread at normal priority, as Linux has it.
#[cfg(target_os = "linux")]
const LOW: libc::c_int = 10;

/// From now on the calling thread gets about a tenth of a core that a thread of normal priority wants too. Where that can't
/// be had it stays as it is.
#[cfg(target_os = "linux")]
pub(crate) fn low() {
    // SAFETY: the call takes numbers; on Linux 0 is the calling thread, not its process.
    let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LOW) };
    if refused != 0 {
        tracing::debug!("programs run at normal priority: a lower one was refused");
    }
}

/// From now on the calling thread gets about a tenth of a core that a thread of normal priority wants too. Where that can't
/// be had it stays as it is.
#[cfg(not(target_os = "linux"))]
pub(crate) fn low() {}

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
