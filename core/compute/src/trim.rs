//! Memory that was freed, given back to the operating system.

/// Has the allocator give back what it keeps for later. After a large model is freed glibc keeps much of what was allocated while it
/// was loaded, by several threads in arenas of their own; elsewhere this does nothing. Takes milliseconds.
pub fn trim_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
