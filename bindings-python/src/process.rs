//! Forks and the interpreter's end.
//!
//! A forked child has Realm's memory and none of its threads: a wait for one of them would never end. So
//! every object knows the process that created it, and refuses to work in another one ([`Process::check`]).
//!
//! When the interpreter ends, it ends every other thread that asks for the GIL, in the middle of Rust code,
//! which aborts the process. So a thread that is about to ask passes a gate; `at_exit`, which `atexit` calls,
//! closes the gate and waits a moment for the threads that have passed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// The number of forks between the first interpreter's process and this one.
static FORKS: AtomicUsize = AtomicUsize::new(0);
static CLOSED: AtomicBool = AtomicBool::new(false);
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// The thread that ends the interpreter.
static ENDING: OnceLock<ThreadId> = OnceLock::new();

/// The process that created an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process(usize);

impl Process {
    pub(crate) fn current() -> Self {
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Returns the number of forks before it.
    pub(crate) fn forks(self) -> usize {
        self.0
    }

    /// Returns whether the calling process is still that process.
    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }

    /// Checks that the calling process is that process.
    ///
    /// # Errors
    /// `RuntimeError` in a child of that process.
    pub(crate) fn check(self, what: &str) -> PyResult<()> {
        if self.is_current() {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(format!(
            "this {what} belongs to the process that was forked: its threads are not here. Make a Realm in the child \
             (multiprocessing: use the start method `spawn`); the model's file is shared all the same"
        )))
    }
}

/// Called by `os.register_at_fork` in the child.
#[pyfunction]
#[pyo3(name = "_after_fork")]
pub(crate) fn after_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    INSIDE.store(0, Ordering::Relaxed);
}

/// Called by `atexit`: from now on no thread of Realm's asks for the GIL.
#[pyfunction]
#[pyo3(name = "_at_exit")]
pub(crate) fn at_exit(py: Python<'_>) {
    ENDING.get_or_init(|| std::thread::current().id());
    CLOSED.store(true, Ordering::SeqCst);
    py.detach(|| {
        // A callback of the application's may take any time; the process's end may not.
        let patience = Instant::now() + Duration::from_secs(2);
        while INSIDE.load(Ordering::SeqCst) > 0 && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// Returns whether the calling thread ends the interpreter: only that thread may have the GIL then.
pub(crate) fn is_ending_thread() -> bool {
    ENDING.get() == Some(&std::thread::current().id())
}

/// The permission to ask for the GIL.
pub(crate) struct Pass(());

impl Pass {
    /// Returns `None` if the interpreter is about to end.
    pub(crate) fn enter() -> Option<Self> {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        let pass = Self(());
        (!CLOSED.load(Ordering::SeqCst)).then_some(pass)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs `work` with the GIL on a thread of Realm's; `None` if the interpreter is about to end.
pub(crate) fn with_gil<T>(work: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    let _pass = Pass::enter()?;
    Python::try_attach(work)
}
