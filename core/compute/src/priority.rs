//! Scheduling priority of threads whose work gives way to the forward pass.

/// Lowers the calling thread's priority: it gets about a tenth of a core that a thread of normal priority
/// wants too. If the system refuses, the priority stays.
pub fn low() {
    nice(10);
}

/// Lowers the calling thread's priority further: it gets about a thirtieth of a core that a thread of normal
/// priority wants too. If the system refuses, the priority stays.
pub fn lower() {
    nice(15);
}

/// Sets the calling thread's niceness. Each level weighs four fifths of the one before, as Linux defines it.
#[cfg(target_os = "linux")]
fn nice(niceness: libc::c_int) {
    // SAFETY: the call takes numbers; on Linux 0 is the calling thread, not its process.
    let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
    if refused != 0 {
        tracing::debug!("background work runs at normal priority: a lower one was refused");
    }
}

#[cfg(not(target_os = "linux"))]
fn nice(_: i32) {}

/// Gives the calling thread only time that no other thread wants. If the system refuses, the priority stays.
#[cfg(target_os = "linux")]
pub fn lowest() {
    // SAFETY: an all-zero `sched_param` is valid, and the call reads it and nothing else; 0 is the calling
    // thread.
    let refused = unsafe {
        let parameters: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters)
    };
    if refused != 0 {
        tracing::debug!("long background work is not at the lowest priority: SCHED_IDLE was refused");
    }
}

/// Gives the calling thread only time that no other thread wants. If the system refuses, the priority stays.
#[cfg(not(target_os = "linux"))]
pub fn lowest() {}
