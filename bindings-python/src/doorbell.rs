//! How a task is woken without a thread in between: whoever wakes it writes to a socket that its event loop watches.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;

/// One for each event loop. The loop calls it when the socket `fileno` is readable.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Doorbell {
    pub(crate) bell: Arc<Bell>,
    listen: UnixStream,
}

/// What wakers hold.
pub(crate) struct Bell {
    /// Futures to resolve.
    futures: Mutex<Vec<Py<PyAny>>>,
    ring: UnixStream,
}

impl Bell {
    /// Has the loop resolve a future. Waits for nobody, least of all for the GIL.
    pub(crate) fn ring(&self, future: Py<PyAny>) {
        let mut futures = self.futures.lock().unwrap_or_else(PoisonError::into_inner);
        futures.push(future);
        // Where more than one waits, the loop has been told.
        if futures.len() == 1 {
            // It is full only if the loop has not read for long, and empty of readers only if the loop is gone.
            let _ = (&self.ring).write(&[0]);
        }
    }
}

#[pymethods]
impl Doorbell {
    #[new]
    fn new() -> PyResult<Self> {
        let (ring, listen) = UnixStream::pair()?;
        ring.set_nonblocking(true)?;
        listen.set_nonblocking(true)?;
        Ok(Self { bell: Arc::new(Bell { futures: Mutex::default(), ring }), listen })
    }

    /// The socket to watch.
    fn fileno(&self) -> i32 {
        self.listen.as_raw_fd()
    }

    /// Lets tasks go on.
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        // Read before the futures are taken: what comes later rings again.
        let _ = (&self.listen).read(&mut [0; 64]);
        let futures = std::mem::take(&mut *self.bell.futures.lock().unwrap_or_else(PoisonError::into_inner));
        futures.iter().try_for_each(|future| crate::wait::resolve_one(future.bind(py)))
    }
}
