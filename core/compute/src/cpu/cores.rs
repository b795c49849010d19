//! Keeps the threads of a pool on cores of their own.
//!
//! Threads that spin for each other never sleep, so the kernel has no occasion to move them. Once two of them
//! share a core they can stay there for hundreds of milliseconds, each waiting for the other's turn, while a
//! low-priority program occupies the next core. So each thread notes its core, and a thread that has waited
//! for long and finds another thread on its own core moves.

use std::sync::atomic::{AtomicU32, Ordering};

/// The core on which each thread of a pool was last seen.
pub(super) struct Cores {
    seen: Box<[AtomicU32]>,
    /// Set if there are more threads than cores, so that some threads have to share.
    crowded: bool,
}

/// Not seen yet, or the core is unknown.
const NOWHERE: u32 = u32::MAX;

impl Cores {
    /// Creates the notes for a pool of `threads` threads.
    pub(super) fn new(threads: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { seen: (0..threads).map(|_| AtomicU32::new(NOWHERE)).collect(), crowded: threads > cores }
    }

    /// Notes the core of the calling thread, which is number `thread` of the pool. Takes nanoseconds.
    pub(super) fn note(&self, thread: usize) {
        let here = system::core();
        // A thread rarely moves; an unconditional write would take the cache line from all other threads.
        if self.seen[thread].load(Ordering::Relaxed) != here {
            self.seen[thread].store(here, Ordering::Relaxed);
        }
    }

    /// Called by a thread that has waited for long. Moves to a free core if another thread of the pool was
    /// last seen on this one; if there are more threads than cores, yields instead.
    pub(super) fn give_way(&self, thread: usize) {
        if self.crowded {
            return std::thread::yield_now();
        }
        self.note(thread);
        let here = self.seen[thread].load(Ordering::Relaxed);
        let taken = |core: u32| self.seen.iter().any(|seen| seen.load(Ordering::Relaxed) == core);
        let shared = self.seen.iter().filter(|seen| seen.load(Ordering::Relaxed) == here).count() > 1;
        // Noted is the core that it moved to: once it may use all cores again, the kernel can move it at
        // once.
        if here != NOWHERE
            && shared
            && let Some(core) = system::leave_for(&|core| !taken(core))
        {
            self.seen[thread].store(core, Ordering::Relaxed);
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use super::NOWHERE;

    /// The core that runs the calling thread.
    pub(super) fn core() -> u32 {
        // SAFETY: takes no pointer, and returns -1 if the core is unknown.
        let core = unsafe { libc::sched_getcpu() };
        u32::try_from(core).unwrap_or(NOWHERE)
    }

    /// Moves the calling thread to the first of its allowed cores that is `free`, and then restores the set
    /// of allowed cores. Returns that core, or `None` if no core is free.
    pub(super) fn leave_for(free: &dyn Fn(u32) -> bool) -> Option<u32> {
        let size = size_of::<libc::cpu_set_t>();
        // SAFETY: a set of cores is bits, which may all be zero; the calls read or write exactly the bytes of
        // the size passed to them, and `CPU_ISSET` and `CPU_SET` get cores within the set.
        unsafe {
            let mut allowed: libc::cpu_set_t = std::mem::zeroed();
            if libc::sched_getaffinity(0, size, &mut allowed) != 0 {
                return None;
            }
            let mut cores = 0..8 * size;
            let core = cores.find(|&core| libc::CPU_ISSET(core, &allowed) && free(core as u32))?;
            let mut there: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(core, &mut there);
            let moved = libc::sched_setaffinity(0, size, &there) == 0;
            libc::sched_setaffinity(0, size, &allowed);
            moved.then_some(core as u32)
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn core() -> u32 {
        super::NOWHERE
    }

    pub(super) fn leave_for(_free: &dyn Fn(u32) -> bool) -> Option<u32> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_leaves_a_core_that_another_is_on_and_keeps_its_freedom() {
        let allowed = std::thread::available_parallelism().unwrap();
        if allowed.get() < 2 {
            return;
        }
        let cores = Cores::new(2);
        for _ in 0..100 {
            cores.note(0);
            let here = cores.seen[0].load(Ordering::Relaxed);
            cores.seen[1].store(here, Ordering::Relaxed);
            cores.give_way(0);
            assert_ne!(cores.seen[0].load(Ordering::Relaxed), here);
            assert_eq!(std::thread::available_parallelism().unwrap(), allowed);
        }
    }

    #[test]
    fn a_thread_that_is_alone_on_its_core_stays() {
        let cores = Cores::new(2);
        cores.note(0);
        cores.give_way(0);
        assert_eq!(cores.seen[1].load(Ordering::Relaxed), NOWHERE);
    }
}
