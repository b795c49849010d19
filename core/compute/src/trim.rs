//! Gives freed memory back to the operating system.

/// Makes the allocator give back the memory that it holds for later use. After a large model is freed, glibc
/// keeps much of the memory that several threads allocated in their own arenas during loading. Does nothing
/// with other allocators. Takes milliseconds.
pub fn trim_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
