//! How a task is woken without a thread in between: whoever wakes it writes to a socket that its event loop watches.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pyo3::prelude::*;

use crate::process::Process;
use crate::wait::{Signal, resolve_all};

/// One for each event loop, which owns it. The loop calls it when the socket `fileno` is readable.
#[pyclass(frozen, weakref, module = "realm")]
pub(crate) struct Doorbell {
    pub(crate) bell: Arc<Bell>,
    listen: UnixStream,
    process: Process,
}

/// What those who wake hold.
pub(crate) struct Bell {
    rung: Mutex<Rung>,
    ring: UnixStream,
}

#[derive(Default)]
struct Rung {
    /// Those that can go on, if they still wait.
    signals: Vec<Weak<Signal>>,
    /// Whether the loop is gone.
    closed: bool,
}

impl Bell {
    fn rung(&self) -> MutexGuard<'_, Rung> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the loop let a task go on. Waits for no one, least of all for the GIL.
    pub(crate) fn ring(&self, signal: Weak<Signal>) {
        let mut rung = self.rung();
        if rung.closed {
            return;
        }
        rung.signals.push(signal);
        // Where more than one waits, the loop has been told.
        if rung.signals.len() > 1 {
            return;
        }
        // It is full only if the loop has not read for long, and then it has something to read.
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

    /// The socket to watch.
    fn fileno(&self) -> i32 {
        self.listen.as_raw_fd()
    }

    /// Lets tasks go on.
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        // Read before the signals are taken: what comes later rings again.
        let _ = (&self.listen).read(&mut [0; 64]);
        let signals = std::mem::take(&mut self.bell.rung().signals);
        resolve_all(py, signals.iter().filter_map(|signal| signal.upgrade()?.take_future()))
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        // In a forked child a thread that is missing may hold the lock.
        if self.process.is_current() {
            *self.bell.rung() = Rung { signals: Vec::new(), closed: true };
        }
    }
}
