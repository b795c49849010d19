//! Ticks while programs run, so that one that computes for long is interrupted.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The time that a program may compute before the next check whether it may continue.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// The interval between checks whether a program computes. A tick takes a core from the threads of a model's
/// pass, which wait for each other: one each millisecond made passes a twentieth longer.
const LOOK: Duration = Duration::from_millis(5);

/// A thread that ticks while there are runs, and sleeps otherwise.
pub(crate) struct Clock {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    runs: Mutex<Runs>,
    changed: Condvar,
}

#[derive(Default)]
struct Runs {
    count: usize,
    stop: bool,
}

/// A run for which the clock ticks.
pub(crate) struct Ticking(Arc<Shared>);

impl Clock {
    /// Calls `tick` every [`TICK`] while `computing` returns true, which is checked every [`LOOK`].
    pub(crate) fn new(
        computing: impl Fn() -> bool + Send + 'static,
        tick: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let clock = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("realm-clock".into()).spawn(move || {
            let mut runs = clock.runs();
            while !runs.stop {
                if runs.count == 0 {
                    runs = clock.changed.wait(runs).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                drop(runs);
                if computing() {
                    std::thread::sleep(TICK);
                    tick();
                } else {
                    std::thread::sleep(LOOK);
                }
                runs = clock.runs();
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn run(&self) -> Ticking {
        let mut runs = self.shared.runs();
        runs.count += 1;
        if runs.count == 1 {
            self.shared.changed.notify_one();
        }
        Ticking(Arc::clone(&self.shared))
    }
}

impl Shared {
    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.runs().count -= 1;
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.shared.runs().stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is on stderr already.
            let _ = thread.join();
        }
    }
}
