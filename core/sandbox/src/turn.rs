//! A run's turns, the times in which its program computes, and their place in the steps of engines.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use realm_engine::{Answer, Job, Step, StepHooks, TurnJob};

/// A run's part in the steps of engines, shared by its task and its host functions.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// The engine whose answer the run waits for.
    waits_for: Mutex<Option<StepHooks>>,
    /// The step that the program computes in now; `None` on a thread of the executor.
    step: Mutex<Option<Step>>,
}

/// The most bytes that a host function works on as part of a step.
const SHORT: usize = 1 << 10;

impl Turn {
    /// Waits for an engine's answer. The step that gives it runs the program's next turn.
    pub(crate) async fn answer<T>(
        &self,
        hooks: &StepHooks,
        answer: Answer<T>,
    ) -> Result<T, realm_engine::Error> {
        *lock(&self.waits_for) = Some(hooks.clone());
        let result = answer.wait_async().await;
        *lock(&self.waits_for) = None;
        result
    }

    /// Queues a turn to run in the step whose results have woken the run.
    ///
    /// # Errors
    /// The turn itself, if no step has.
    pub(crate) fn after_results(&self, turn: TurnJob) -> Result<(), TurnJob> {
        match &*lock(&self.waits_for) {
            Some(hooks) => hooks.after_results(turn),
            None => Err(turn),
        }
    }

    /// Begins a turn, as part of a step or not.
    pub(crate) fn begin(&self, step: Option<Step>) {
        *lock(&self.step) = step;
    }

    /// Ends a turn.
    pub(crate) fn end(&self) {
        self.begin(None);
    }

    /// Queues a job to run while the next pass runs.
    ///
    /// # Errors
    /// The job itself, outside of steps and where the host computes the passes: the caller runs it.
    pub(crate) fn during_next_pass(&self, job: Job) -> Result<(), Job> {
        match &*lock(&self.step) {
            Some(step) => step.during_next_pass(job),
            None => Err(job),
        }
    }

    /// Runs the application's own future, such as a tool, which may take long or wait for a model. It never
    /// runs on the threads of a step, for which all requests wait.
    pub(crate) async fn outside_steps<F: Future>(&self, work: F) -> F::Output {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|context| {
            if lock(&self.step).is_some() {
                // Woken while it runs, the task continues on the executor's threads.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            work.as_mut().poll(context)
        })
        .await
    }

    /// For a host function that works on `bytes` bytes: if that takes long, the run continues on the
    /// executor's threads.
    pub(crate) async fn step_aside(&self, bytes: usize) {
        if bytes > SHORT {
            self.outside_steps(std::future::ready(())).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
