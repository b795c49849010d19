//! Work of programs that is part of a step.
//!
//! The engine wakes the readers of a forward's results on a thread of the step. A program that then computes
//! for microseconds and asks for its next forward would miss the next step if it had to wait for a thread of
//! its own. So the host of a program leaves that computation with the engine's [`StepHooks`], and the step's
//! threads run all of them once the results are out, before the next step is put together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A short piece of work. It must not wait for anything.
pub type Job = Box<dyn FnOnce() + Send>;

/// A program's turn: a short piece of work as part of a step.
pub type TurnJob = Box<dyn FnOnce(Step) + Send>;

/// The places in an engine's steps where programs compute. Clones are cheap, and do not keep the engine.
#[derive(Debug, Clone)]
pub struct StepHooks(Weak<Jobs>);

/// A step that a program's turn is part of.
#[derive(Debug)]
pub struct Step {
    hooks: StepHooks,
    /// True if a device computes the passes, and the host has time meanwhile.
    overlaps: bool,
}

impl StepHooks {
    /// Queues a turn to run right after the results that the engine is handing out.
    ///
    /// # Errors
    /// The turn itself, while the engine hands out no results: the caller runs it elsewhere.
    pub fn after_results(&self, turn: TurnJob) -> Result<(), TurnJob> {
        let Some(jobs) = self.0.upgrade() else { return Err(turn) };
        let mut turns = lock(&jobs.turns);
        if !turns.open {
            return Err(turn);
        }
        turns.queue.push(turn);
        Ok(())
    }
}

impl Step {
    /// Queues a job to run while the next pass runs.
    ///
    /// # Errors
    /// The job itself, where the host computes the passes: the caller runs it.
    pub fn during_next_pass(&self, job: Job) -> Result<(), Job> {
        match self.hooks.0.upgrade() {
            Some(jobs) if self.overlaps => {
                lock(&jobs.meanwhile).push(job);
                Ok(())
            }
            _ => Err(job),
        }
    }
}

/// The queues behind an engine's [`StepHooks`].
#[derive(Default)]
pub(crate) struct Jobs {
    turns: Mutex<Turns>,
    /// Jobs that turns left for the time of the next pass.
    meanwhile: Mutex<Vec<Job>>,
}

#[derive(Default)]
struct Turns {
    /// True while results are handed out.
    open: bool,
    queue: Vec<TurnJob>,
}

impl Jobs {
    pub(crate) fn hooks(self: &Arc<Self>) -> StepHooks {
        StepHooks(Arc::downgrade(self))
    }

    /// Takes turns from programs until the guard is dropped.
    pub(crate) fn collect(self: &Arc<Self>) -> Collecting {
        lock(&self.turns).open = true;
        Collecting(Arc::clone(self))
    }

    /// Takes out the turns that were collected.
    pub(crate) fn take_turns(&self) -> Vec<TurnJob> {
        std::mem::take(&mut lock(&self.turns).queue)
    }

    /// Runs a turn.
    pub(crate) fn run(self: &Arc<Self>, turn: TurnJob, overlaps: bool) {
        let step = Step { hooks: self.hooks(), overlaps };
        // The turn may end a program that holds the last handle of something, and destructors may panic.
        realm_handover::call_out(|| turn(step));
    }

    /// Runs the jobs that turns left.
    pub(crate) fn run_meanwhile(&self) {
        let jobs = std::mem::take(&mut *lock(&self.meanwhile));
        for job in jobs {
            realm_handover::call_out(job);
        }
    }
}

/// The time in which results are handed out.
pub(crate) struct Collecting(Arc<Jobs>);

impl Drop for Collecting {
    fn drop(&mut self) {
        lock(&self.0.turns).open = false;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_taken_while_results_are_handed_out_and_jobs_where_a_device_computes() {
        let jobs = Arc::<Jobs>::default();
        let hooks = jobs.hooks();
        let left = Arc::<Mutex<Vec<bool>>>::default();
        let turn = || -> TurnJob {
            let left = Arc::clone(&left);
            Box::new(move |step| lock(&left).push(step.during_next_pass(Box::new(|| {})).is_ok()))
        };
        assert!(hooks.after_results(turn()).is_err());
        let collecting = jobs.collect();
        assert!(hooks.after_results(turn()).is_ok() && hooks.after_results(turn()).is_ok());
        drop(collecting);
        assert!(hooks.after_results(turn()).is_err());
        for (turn, overlaps) in jobs.take_turns().into_iter().zip([false, true]) {
            jobs.run(turn, overlaps);
        }
        assert_eq!(*lock(&left), [false, true]);
        // An engine that has stopped takes nothing.
        drop(jobs);
        assert!(hooks.after_results(turn()).is_err());
    }
}
