//! Host threads for the moments between two passes.
//!
//! A pass takes milliseconds in which the host has nothing to do, so these threads sleep. A thread takes 50
//! µs and more to wake, longer than a task between two passes. So the caller does not wait for the threads:
//! it does the tasks itself, and each thread that wakes in time takes some of them over. Waking threads also
//! takes the caller's time, several microseconds for each. So the engine announces in advance
//! [when](Crew::wake_hint) there will be tasks, and the threads wake by alarm before that time.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cpu::pool::Share;

/// Time for which a thread looks for tasks before it sleeps: longer than it takes to hand out the results of
/// a pass, to do the tasks and to start the next pass.
const LOOKS: Duration = Duration::from_micros(400);
/// Time before the expected tasks at which a thread starts to look: alarms are late by about as much now and
/// then.
const EARLY: Duration = Duration::from_micros(150);

type Region<'a> = dyn Fn() + Sync + 'a;

/// The threads. Dropping it ends them.
pub(crate) struct Crew {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Regions do not nest or overlap.
    busy: Mutex<()>,
}

struct Shared {
    region: Mutex<Open>,
    /// Counts the events that threads look at.
    news: AtomicUsize,
    /// The time of the expected tasks, in nanoseconds since `epoch`, and the number of threads that may wake
    /// for them.
    expected: AtomicU64,
    alarms: AtomicUsize,
    epoch: Instant,
    /// Threads that are in the region.
    inside: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleepers: Mutex<usize>,
    wake: Condvar,
}

/// The region that threads may enter.
struct Open(Option<*const Region<'static>>);

// SAFETY: a pointer to a `Sync` closure, which `Crew::run` keeps alive until no thread is inside.
unsafe impl Send for Open {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crew {
    /// Creates a crew of `threads` threads in all, the caller of [`each`](Self::each) included.
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            region: Mutex::new(Open(None)),
            news: AtomicUsize::new(0),
            expected: AtomicU64::new(0),
            alarms: AtomicUsize::new(0),
            epoch: Instant::now(),
            inside: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
        });
        let threads = (1..threads.max(1))
            .map(|index| {
                let shared = Arc::clone(&shared);
                let name = format!("realm-host-{index}");
                std::thread::Builder::new().name(name).spawn(move || shared.work(index))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, threads, busy: Mutex::default() })
    }

    /// Announces `count` tasks at about the time `at`.
    pub(crate) fn wake_hint(&self, count: usize, at: Instant) {
        let at = at.saturating_duration_since(self.shared.epoch).as_nanos();
        self.shared.alarms.store(count / 2, Ordering::Relaxed);
        self.shared.expected.store(u64::try_from(at).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Calls `each(i)` for every `i < count`, on the calling thread and those that are awake.
    ///
    /// # Panics
    /// If a call panicked.
    pub(crate) fn each(&self, count: usize, each: &(dyn Fn(usize) + Sync)) {
        if count < 2 || self.threads.is_empty() {
            return (0..count).for_each(each);
        }
        let share = Share::new(count, 1);
        self.run(count / 2, &|| {
            while let Some(piece) = share.next() {
                piece.for_each(each);
            }
        });
    }

    fn run(&self, helpers: usize, region: &Region<'_>) {
        let _alone = lock(&self.busy);
        // SAFETY: only the lifetime changes. `Closing` waits, also when the caller's own share panics, until
        // no thread can touch the closure.
        let region_static: *const Region<'static> =
            unsafe { std::mem::transmute(std::ptr::from_ref::<Region<'_>>(region)) };
        lock(&self.shared.region).0 = Some(region_static);
        let closing = Closing(&self.shared);
        self.shared.tell(helpers.min(self.threads.len()));
        region();
        drop(closing);
        assert!(!self.shared.panicked.swap(false, Ordering::AcqRel), "a task panicked on a host thread");
    }
}

/// Closes the region, when dropped, and waits for the threads inside.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        // Threads enter under this lock, so none can enter from here on.
        lock(&self.0.region).0 = None;
        while self.0.inside.load(Ordering::Acquire) > 0 {
            std::hint::spin_loop();
        }
    }
}

impl Shared {
    /// Announces an event and wakes at most `most` of the sleeping threads.
    fn tell(&self, most: usize) {
        let sleepers = lock(&self.sleepers);
        self.news.fetch_add(1, Ordering::Release);
        for _ in 0..most.min(*sleepers) {
            self.wake.notify_one();
        }
    }

    fn work(&self, index: usize) {
        let mut seen = 0;
        while !self.stop.load(Ordering::Acquire) {
            self.wait(&mut seen, index);
            let region = {
                let open = lock(&self.region);
                if open.0.is_some() {
                    self.inside.fetch_add(1, Ordering::AcqRel);
                }
                open.0
            };
            let Some(region) = region else { continue };
            // SAFETY: the region was open, so its caller waits until `inside` is 0 again.
            let region = unsafe { &*region };
            if std::panic::catch_unwind(AssertUnwindSafe(region)).is_err() {
                self.panicked.store(true, Ordering::Release);
            }
            self.inside.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Returns after an event.
    fn wait(&self, seen: &mut usize, index: usize) {
        let mut is_new = || {
            let news = self.news.load(Ordering::Acquire);
            std::mem::replace(seen, news) != news
        };
        loop {
            let began = Instant::now();
            while began.elapsed() < LOOKS {
                for _ in 0..32 {
                    if is_new() {
                        return;
                    }
                    std::hint::spin_loop();
                }
                if self.alarm(index).is_some_and(|time| time > EARLY) {
                    // Tasks are expected, but not soon.
                    break;
                }
            }
            let mut sleepers = lock(&self.sleepers);
            *sleepers += 1;
            // Sleep until an event, or until it is time to look for one.
            let early = loop {
                if is_new() || self.stop.load(Ordering::Acquire) {
                    break false;
                }
                sleepers = match self.alarm(index) {
                    Some(Duration::ZERO) => break true,
                    Some(time) => {
                        self.wake.wait_timeout(sleepers, time).unwrap_or_else(PoisonError::into_inner).0
                    }
                    None => self.wake.wait(sleepers).unwrap_or_else(PoisonError::into_inner),
                };
            };
            *sleepers -= 1;
            drop(sleepers);
            if !early {
                return;
            }
        }
    }

    /// Returns how long thread number `index` may sleep before its alarm; `None` if it has no alarm. Threads
    /// look at an expected time only once.
    fn alarm(&self, index: usize) -> Option<Duration> {
        let expected = Duration::from_nanos(self.expected.load(Ordering::Acquire));
        let now = self.epoch.elapsed();
        let asked = index <= self.alarms.load(Ordering::Relaxed) && now < expected + EARLY;
        asked.then(|| (expected.saturating_sub(EARLY)).saturating_sub(now))
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        drop(lock(&self.shared.sleepers));
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // The caller of the region has already received the panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once_whichever_threads_are_awake() {
        let crew = Crew::new(4).unwrap();
        for round in 0..2000 {
            let count = round % 37;
            let done: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            if round % 3 == 0 {
                crew.wake_hint(count, Instant::now() + EARLY * 2);
            }
            crew.each(count, &|i| {
                done[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1));
            if round % 500 == 0 {
                std::thread::sleep(2 * LOOKS);
            }
        }
    }

    #[test]
    fn a_panic_comes_to_the_caller_and_the_threads_go_on() {
        let crew = Crew::new(3).unwrap();
        for _ in 0..20 {
            let panics = std::panic::catch_unwind(AssertUnwindSafe(|| {
                crew.each(16, &|i| assert_ne!(i, 7));
            }));
            assert!(panics.is_err());
            let done = AtomicUsize::new(0);
            crew.each(16, &|_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.load(Ordering::Relaxed), 16);
        }
    }
}
