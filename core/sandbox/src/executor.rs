//! Runs programs' futures.
//!
//! A program mostly waits for forward passes and computes for microseconds in between. When a step's results
//! wake it, it computes on that step's threads, so that its next call is in the next step (see
//! [`turn`](crate::turn)). Only tenants whose programs are fast may do that (see
//! [`Pace`](crate::pace::Pace)): for a while, slow tenants' programs run on the threads of this executor
//! instead. All runs begin on them, too. These threads have a low priority, so that a step has nine tenths of
//! each core, however many tenants compute; and a run that keeps computing moves to a thread that gets only
//! time that no other thread wants.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use realm_compute::priority;
use realm_engine::Step;

use crate::budget::Budget;

/// The computing time after which a run counts as long: this much, and this part of the time since it began.
const PROMPT: Duration = Duration::from_millis(50);
const PROMPT_SHARE: u32 = 20;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The threads, and the tasks that wait for them.
pub(crate) struct Executor {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queues: Mutex<Queues>,
    prompt: Condvar,
    patient: Condvar,
    /// The runtime of tasks' timers and sockets.
    io: tokio::runtime::Handle,
    /// The number of runs that compute now.
    computing: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Queues {
    prompt: VecDeque<Arc<Task>>,
    patient: VecDeque<Arc<Task>>,
    stop: bool,
}

/// A program's run.
struct Task {
    shared: Arc<Shared>,
    work: Mutex<Option<Work>>,
    state: AtomicU8,
    begun: AtomicBool,
    abandoned: AtomicBool,
    budget: Arc<Budget>,
}

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
/// Woken while it was running.
const WOKEN: u8 = 3;

/// A run that continues until it ends or this handle is dropped.
pub(crate) struct Running(Arc<Task>);

impl Executor {
    /// Starts `prompt` threads at low priority, and one for long runs at the lowest.
    pub(crate) fn new(prompt: usize, io: tokio::runtime::Handle) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queues: Mutex::default(),
            prompt: Condvar::new(),
            patient: Condvar::new(),
            io,
            computing: Arc::default(),
        });
        let start = |name: String, patient: bool| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(name).spawn(move || {
                if patient {
                    priority::lowest()
                } else {
                    priority::low()
                }
                work(&shared, patient);
            })
        };
        let mut threads = vec![start("realm-patient".into(), true)?];
        for index in 0..prompt {
            threads.push(start(format!("realm-program-{index}"), false)?);
        }
        Ok(Self { shared, threads })
    }

    /// Returns the number of runs that compute now.
    pub(crate) fn computing(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.shared.computing)
    }

    pub(crate) fn spawn(
        &self,
        budget: Arc<Budget>,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Running {
        let task = Arc::new(Task {
            shared: Arc::clone(&self.shared),
            work: Mutex::new(Some(Box::pin(work))),
            state: AtomicU8::new(QUEUED),
            begun: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            budget,
        });
        self.shared.push(Arc::clone(&task));
        Running(task)
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.shared.queues().stop = true;
        self.shared.prompt.notify_all();
        self.shared.patient.notify_all();
        // The last program that keeps the executor may end on one of these threads, or on a step's.
        if realm_handover::is_calling_out() {
            return;
        }
        for thread in self.threads.drain(..) {
            // A panic of the thread is on stderr already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, task: Arc<Task>) {
        let time = &task.budget.time;
        let patient = time.used() > PROMPT + time.age() / PROMPT_SHARE || task.budget.pace.is_over_share();
        let mut queues = self.queues();
        if patient {
            queues.patient.push_back(task);
            self.patient.notify_one();
        } else {
            queues.prompt.push_back(task);
            self.prompt.notify_one();
        }
    }
}

fn work(shared: &Shared, patient: bool) {
    let mut queues = shared.queues();
    loop {
        if queues.stop {
            return;
        }
        let next = if patient { queues.patient.pop_front() } else { queues.prompt.pop_front() };
        if let Some(task) = next {
            drop(queues);
            // Objects that the application granted may panic when they are dropped.
            realm_handover::call_out(|| task.poll(None));
            queues = shared.queues();
            continue;
        }
        let signal = if patient { &shared.patient } else { &shared.prompt };
        queues = signal.wait(queues).unwrap_or_else(PoisonError::into_inner);
    }
}

impl Task {
    fn work(&self) -> MutexGuard<'_, Option<Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the program until it waits or ends.
    fn poll(self: Arc<Self>, step: Option<Step>) {
        let in_step = step.is_some();
        self.state.store(RUNNING, Ordering::Release);
        let waker = Waker::from(Arc::clone(&self));
        let mut context = Context::from_waker(&waker);
        {
            let mut work = self.work();
            let Some(future) = work.as_mut() else { return };
            let _io = self.shared.io.enter();
            self.shared.computing.fetch_add(1, Ordering::Relaxed);
            self.budget.time.begin();
            self.budget.turn.begin(step);
            let polled = std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
            self.budget.turn.end();
            let computed = self.budget.time.end();
            self.shared.computing.fetch_sub(1, Ordering::Relaxed);
            // A run begins by creating an instance and reading a prompt: the time for that does not predict
            // the time between two forward passes.
            if self.begun.swap(true, Ordering::Relaxed) {
                self.budget.pace.record_turn(computed);
            }
            if !in_step {
                self.budget.pace.record_time(computed);
            }
            let ended = match polled {
                Ok(polled) => polled.is_ready(),
                Err(_) => {
                    tracing::error!("a program's run panicked; its reader gets the error that it stopped");
                    true
                }
            };
            if ended || self.abandoned.load(Ordering::Acquire) {
                // Destructors may wake other tasks, and count as this run's time.
                *work = None;
                return;
            }
        }
        if self.state.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_err() {
            self.state.store(QUEUED, Ordering::Release);
            let shared = Arc::clone(&self.shared);
            shared.push(self);
        } else if self.abandoned.load(Ordering::Acquire) {
            self.abandon();
        }
    }

    /// Drops the run, unless it is being polled: then the poll drops it.
    fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.budget.time.cancelled.store(true, Ordering::Relaxed);
        if let Ok(mut work) = self.work.try_lock() {
            let _io = self.shared.io.enter();
            *work = None;
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        loop {
            match self.state.load(Ordering::Acquire) {
                IDLE => {
                    if self.state.compare_exchange(IDLE, QUEUED, Ordering::AcqRel, Ordering::Acquire).is_ok()
                    {
                        break;
                    }
                }
                RUNNING => {
                    let woken =
                        self.state.compare_exchange(RUNNING, WOKEN, Ordering::AcqRel, Ordering::Acquire);
                    if woken.is_ok() {
                        return;
                    }
                }
                _ => return,
            }
        }
        let shared = Arc::clone(&self.shared);
        if !self.budget.pace.is_quick() {
            return shared.push(self);
        }
        let task = Arc::clone(&self);
        if self.budget.turn.after_results(Box::new(move |step| task.poll(Some(step)))).is_err() {
            shared.push(self);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
