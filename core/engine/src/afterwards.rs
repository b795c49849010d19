//! Work that a step's results make possible, done before the next step is put together.
//!
//! Who waits for a forward is woken on a thread of the step. A program that then thinks for microseconds and asks for its
//! next forward would miss the next step if it had to wait for a thread of its own. So whoever runs programs may leave
//! the thinking here: it is done on the step's threads, for all at once, after the results are out.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

/// Something short to do. It must not wait for anything.
pub type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    static LATER: RefCell<Option<Afterwards>> = const { RefCell::new(None) };
    /// Where this thread leaves what has time until the next pass runs.
    static MEANWHILE: RefCell<Option<Afterwards>> = const { RefCell::new(None) };
}

/// Has `job` done right after the step whose results this thread is handing out. Gives it back on a thread that hands out
/// none.
///
/// # Errors
/// The job, which the caller has to do elsewhere.
pub fn after_results(job: Job) -> Result<(), Job> {
    LATER.with_borrow(|later| match later {
        None => Err(job),
        Some(later) => {
            later.jobs().push(job);
            Ok(())
        }
    })
}

/// Has `job` done while the next pass runs, by the step that this thread thinks for. Gives it back on other threads, and where
/// the host computes the passes itself.
///
/// # Errors
/// The job, which the caller has to do.
pub fn during_next_pass(job: Job) -> Result<(), Job> {
    MEANWHILE.with_borrow(|meanwhile| match meanwhile {
        None => Err(job),
        Some(meanwhile) => {
            meanwhile.jobs().push(job);
            Ok(())
        }
    })
}

/// Does a job as part of a step.
///
/// What it leaves for the next pass goes to `meanwhile`.
pub(crate) fn think(job: Job, meanwhile: Option<&Afterwards>) {
    MEANWHILE.set(meanwhile.cloned());
    // It may end a program that holds the last handle of something.
    realm_handover::call_out(job);
    MEANWHILE.set(None);
}

/// What is to be done after the results are out.
#[derive(Clone, Default)]
pub(crate) struct Afterwards(Arc<Mutex<Vec<Job>>>);

impl Afterwards {
    /// Until the guard is dropped, [`after_results`] on this thread adds jobs to these.
    pub(crate) fn collect(&self) -> Collecting {
        Collecting(LATER.replace(Some(self.clone())))
    }

    /// Takes the jobs.
    pub(crate) fn take(&self) -> Vec<Job> {
        std::mem::take(&mut *self.jobs())
    }

    fn jobs(&self) -> std::sync::MutexGuard<'_, Vec<Job>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Collecting(Option<Afterwards>);

impl Drop for Collecting {
    fn drop(&mut self) {
        LATER.set(self.0.take());
    }
}
