//! A persistent pool of threads for kernels.
//!
//! A forward pass is hundreds of short parallel regions (5 to 500 µs each), so handing out work must cost
//! about a microsecond. Workers therefore spin for a short while after a region before they sleep, and a
//! region is one epoch of a shared counter: no queue, no allocation, no work stealing. Inside a region the
//! threads share out the work themselves through [`Share`], one atomic addition per piece, so a core that is
//! slow or busy with another process does not hold up the others.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use super::cores::Cores;

/// Number of checks before a waiting thread gives way to others, and before an idle one sleeps. About 100 µs:
/// longer than the gap between two regions of a pass, and too short to show up as load.
const SPINS: u32 = 4_000;
const SPINS_BEFORE_SLEEP: u32 = 8_000;

type Region<'a> = dyn Fn(usize) + Sync + 'a;

struct Shared {
    /// The region that is running; valid from an epoch's start until `running` falls to 0.
    region: Mutex<Option<*const Region<'static>>>,
    epoch: AtomicU32,
    running: AtomicUsize,
    sleepers: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
    cores: Cores,
}

// SAFETY: the only field that is not Send and Sync by itself is the pointer to the region, a `Sync` closure
// that `Pool::run` keeps alive until every worker has left it.
unsafe impl Send for Shared {}
// SAFETY: the pointer to the region is to a `Sync` closure that outlives its use, as for `Send`.
unsafe impl Sync for Shared {}

/// Threads that run a closure together. The calling thread is one of them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Regions do not nest or overlap.
    busy: Mutex<()>,
}

impl Pool {
    /// Creates a pool of `threads` threads in all, the caller included.
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            region: Mutex::new(None),
            epoch: AtomicU32::new(0),
            running: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            cores: Cores::new(threads.max(1)),
        });
        let workers = (1..threads.max(1))
            .map(|index| {
                let shared = shared.clone();
                std::thread::Builder::new()
                    .name(format!("realm-cpu-{index}"))
                    .spawn(move || work(&shared, index))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, workers, busy: Mutex::new(()) })
    }

    /// Number of threads that a region runs on.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `each(i)` for every `i < count`, on all threads if there is more than one call.
    pub(crate) fn each(&self, count: usize, each: &(dyn Fn(usize) + Sync)) {
        if count < 2 {
            return (0..count).for_each(each);
        }
        let share = Share::new(count, 1);
        self.run(&|_| {
            while let Some(piece) = share.next() {
                piece.for_each(each);
            }
        });
    }

    /// Runs `region(thread)` on every thread of the pool and returns when all have finished.
    ///
    /// # Panics
    /// Panics on the calling thread if the region panicked on any.
    pub(crate) fn run(&self, region: &Region<'_>) {
        if self.workers.is_empty() {
            return region(0);
        }
        let _alone = self.busy.lock().unwrap_or_else(|e| e.into_inner());
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The guard below waits, also when the caller's own share panics,
        // until `running` is 0: so no worker can touch the closure after that.
        let region_static: *const Region<'static> =
            unsafe { std::mem::transmute(region as *const Region<'_>) };
        shared.cores.note(0);
        *shared.region.lock().unwrap_or_else(|e| e.into_inner()) = Some(region_static);
        shared.running.store(self.workers.len(), Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = shared.sleep.lock().unwrap_or_else(|e| e.into_inner());
            shared.wake.notify_all();
        }
        let finish = Finish(shared);
        region(0);
        drop(finish);
        if shared.panicked.swap(false, Ordering::AcqRel) {
            panic!("a kernel panicked on a worker thread");
        }
    }
}

/// Waits, when dropped, until the workers have left the region.
struct Finish<'a>(&'a Shared);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let mut spins = 0;
        while self.0.running.load(Ordering::Acquire) > 0 {
            relax(&self.0.cores, 0, &mut spins);
        }
    }
}

fn relax(cores: &Cores, thread: usize, spins: &mut u32) {
    *spins += 1;
    if spins.is_multiple_of(SPINS) { cores.give_way(thread) } else { std::hint::spin_loop() }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.epoch.load(Ordering::Acquire) == seen {
            if spins < SPINS_BEFORE_SLEEP {
                relax(&shared.cores, index, &mut spins);
                continue;
            }
            let mut guard = shared.sleep.lock().unwrap_or_else(|e| e.into_inner());
            shared.sleepers.fetch_add(1, Ordering::SeqCst);
            while shared.epoch.load(Ordering::SeqCst) == seen {
                guard = shared.wake.wait(guard).unwrap_or_else(|e| e.into_inner());
            }
            shared.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
        seen = seen.wrapping_add(1);
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        shared.cores.note(index);
        let region = *shared.region.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(region) = region {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                // SAFETY: `Pool::run` keeps the closure alive until `running` is 0, which this thread
                // prevents until it has left the closure.
                unsafe { (*region)(index) }
            }));
            if result.is_err() {
                shared.panicked.store(true, Ordering::Release);
            }
        }
        shared.running.fetch_sub(1, Ordering::Release);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        {
            let _guard = self.shared.sleep.lock().unwrap_or_else(|e| e.into_inner());
            self.shared.epoch.fetch_add(1, Ordering::SeqCst);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches the panics of kernels, so joining it cannot fail.
            let _ = worker.join();
        }
    }
}

/// Shares out `0..len` in pieces among the threads of a region.
pub(crate) struct Share {
    next: AtomicUsize,
    len: usize,
    piece: usize,
}

impl Share {
    /// Shares out `len` items, `piece` at a time.
    pub(crate) fn new(len: usize, piece: usize) -> Self {
        Self { next: AtomicUsize::new(0), len, piece: piece.max(1) }
    }

    /// Returns the next piece; `None` when none is left.
    pub(crate) fn next(&self) -> Option<std::ops::Range<usize>> {
        let start = self.next.fetch_add(self.piece, Ordering::Relaxed);
        (start < self.len).then(|| start..(start + self.piece).min(self.len))
    }
}

/// A pointer into an output that the threads of a region fill, each its own part.
#[derive(Clone, Copy)]
pub(crate) struct Parts<T>(*mut T, usize);

// SAFETY: the pointer comes from an exclusive borrow; `part` makes callers promise that parts are disjoint.
unsafe impl<T: Send> Send for Parts<T> {}
// SAFETY: `part` makes callers promise that parts are disjoint.
unsafe impl<T: Send> Sync for Parts<T> {}

impl<T> Parts<T> {
    pub(crate) fn new(all: &mut [T]) -> Self {
        Self(all.as_mut_ptr(), all.len())
    }

    /// A pointer to elements `start .. start + len`, of which threads may write different ones.
    pub(crate) fn pointer(&self, start: usize, len: usize) -> *mut T {
        assert!(start <= self.1 && len <= self.1 - start);
        self.0.wrapping_add(start)
    }

    /// Elements `start .. start + len`.
    ///
    /// # Safety
    /// No two live parts overlap, and the slice that this was made from outlives the part.
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn part<'a>(&self, start: usize, len: usize) -> &'a mut [T] {
        // SAFETY: in bounds by the pointer's check; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(start, len), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_over_many_regions() {
        let pool = Pool::new(3).unwrap();
        for round in 0..2_000 {
            let done: Vec<AtomicUsize> = (0..17).map(|_| AtomicUsize::new(0)).collect();
            let share = Share::new(done.len(), 1 + round % 5);
            pool.run(&|_| {
                while let Some(piece) = share.next() {
                    for i in piece {
                        done[i].fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            assert!(done.iter().all(|d| d.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn a_sleeping_pool_wakes_up() {
        let pool = Pool::new(2).unwrap();
        let count = AtomicUsize::new(0);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            pool.run(&|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(count.load(Ordering::Relaxed), 6);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2).unwrap();
        for bad in 0..2 {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.run(&|thread| assert_ne!(thread, bad));
            }));
            assert!(result.is_err());
            pool.run(&|_| {});
        }
    }
}
