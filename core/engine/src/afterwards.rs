//! Work that a step's results make possible, done before the next step is put together.
//!
//! The engine wakes the readers of a forward's results on a thread of the step. A program that then computes
//! for microseconds and asks for its next forward would miss the next step if it had to wait for a thread of
//! its own. So the host of a program leaves that computation here as a [`Job`], and the step's threads run
//! all jobs once the results are out.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

/// A short piece of work. It must not wait for anything.
pub type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    static LATER: RefCell<Option<Afterwards>> = const { RefCell::new(None) };
    /// The list to which this thread adds jobs that may run during the next pass.
    static MEANWHILE: RefCell<Option<Afterwards>> = const { RefCell::new(None) };
}

/// Queues `job` to run right after the step whose results this thread is handing out.
///
/// # Errors
/// The job itself, on a thread that hands out no results: the caller runs it elsewhere.
pub fn after_results(job: Job) -> Result<(), Job> {
    LATER.with_borrow(|later| match later {
        None => Err(job),
        Some(later) => {
            later.jobs().push(job);
            Ok(())
        }
    })
}

/// Queues `job` to run while the next pass runs, on a thread that runs jobs of [`after_results`].
///
/// # Errors
/// The job itself, on other threads and where the host computes the passes: the caller runs it.
pub fn during_next_pass(job: Job) -> Result<(), Job> {
    MEANWHILE.with_borrow(|meanwhile| match meanwhile {
        None => Err(job),
        Some(meanwhile) => {
            meanwhile.jobs().push(job);
            Ok(())
        }
    })
}

/// Runs a job as part of a step. Jobs that it leaves for the next pass are added to `meanwhile`.
pub(crate) fn think(job: Job, meanwhile: Option<&Afterwards>) {
    MEANWHILE.set(meanwhile.cloned());
    // The job may end a program that holds the last handle of something, and destructors may panic.
    realm_handover::call_out(job);
    MEANWHILE.set(None);
}

/// Jobs to run after the results are out.
#[derive(Clone, Default)]
pub(crate) struct Afterwards(Arc<Mutex<Vec<Job>>>);

impl Afterwards {
    /// Adds the jobs of [`after_results`] on this thread to this list, until the guard is dropped.
    pub(crate) fn collect(&self) -> Collecting {
        Collecting(LATER.replace(Some(self.clone())))
    }

    /// Takes the jobs out.
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
