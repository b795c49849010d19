//! Wakes tasks without a thread in between: the waking thread writes to a socket that the task's event loop
//! watches.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pyo3::prelude::*;

use crate::process::Process;
use crate::wait::{Signal, resolve_all};

/// A doorbell for each event loop, which owns it. The loop calls it when the socket `fileno` is readable.
#[pyclass(frozen, weakref, module = "realm")]
pub(crate) struct Doorbell {
    pub(crate) bell: Arc<Bell>,
    listen: UnixStream,
    process: Process,
}

/// The part of the doorbell that wakers hold.
pub(crate) struct Bell {
    rung: Mutex<Rung>,
    ring: UnixStream,
}

#[derive(Default)]
struct Rung {
    /// The tasks that can go on, if they still wait.
    signals: Vec<Weak<Signal>>,
    /// True if the loop is gone.
    closed: bool,
}

impl Bell {
    fn rung(&self) -> MutexGuard<'_, Rung> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the loop resume a task. Never waits, not even for the GIL.
    pub(crate) fn ring(&self, signal: Weak<Signal>) {
        let mut rung = self.rung();
        if rung.closed {
            return;
        }
        rung.signals.push(signal);
        // If more than one is listed, the loop has been notified already.
        if rung.signals.len() > 1 {
            return;
        }
        // The socket is full only if the loop has not read for long; then the loop has something to read
        // anyway.
        while (&self.ring).write(&[0]).is_err_and(|error| error.kind() == ErrorKind::Interrupted) {}
    }
}

#[pymethods]
impl Doorbell {
    #[new]
    fn new() -> PyResult<Self> {
        let (ring, listen) = UnixStream::pair()?;
        ring.set_nonblocking(true)?;
        listen.set_nonblocking(true)?;
        let bell = Arc::new(Bell { rung: Mutex::default(), ring });
        Ok(Self { bell, listen, process: Process::current() })
    }

    /// Returns the socket to watch.
    fn fileno(&self) -> i32 {
        self.listen.as_raw_fd()
    }

    /// Resumes the listed tasks.
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        // Read before the signals are taken: a later one rings again.
        let _ = (&self.listen).read(&mut [0; 64]);
        let signals = std::mem::take(&mut self.bell.rung().signals);
        resolve_all(py, signals.iter().filter_map(|signal| signal.upgrade()?.take_future()))
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        // In a forked child, a thread that no longer exists may hold the lock.
        if self.process.is_current() {
            *self.bell.rung() = Rung { signals: Vec::new(), closed: true };
        }
    }
}
