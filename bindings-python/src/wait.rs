//! Waiting for calls.
//!
//! A thread waits without the GIL and checks every 50 ms for signals, so that Ctrl-C ends the call.
//!
//! A task awaits an [`Awaitable`], which polls a Rust future and, while that is pending, yields a future of
//! the running event loop. The waking thread is often the engine's, which must not wait for the GIL: it
//! writes to a socket that the loop watches ([`crate::doorbell`]). If a loop cannot watch sockets (on
//! Windows), the waking thread notifies one thread, the notifier, which resolves all futures that are ready.
//!
//! Only the [`Awaitable`] owns the loop's future: wakers refer to it weakly, so no Python object is ever
//! moved or dropped on a thread of Realm's, and a task whose loop is gone is garbage like any other.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;

use crate::callbacks::Callbacks;
use crate::process::{Pass, Process, with_gil};

/// The time that a thread waits before it checks for signals.
const PATIENCE: Duration = Duration::from_millis(50);

struct Thread(std::thread::Thread);

impl Wake for Thread {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future.
///
/// # Errors
/// The exception of a signal handler, usually `KeyboardInterrupt`; the future is then dropped.
pub(crate) fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = T> + Send) -> PyResult<T> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Thread(std::thread::current())));
    // A value that is ready needs no release of the GIL.
    if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
        return Ok(value);
    }
    loop {
        let future = &mut future;
        let waker = &waker;
        let (value, _pass) = py.detach(move || {
            let deadline = Instant::now() + PATIENCE;
            let mut value = Poll::Pending;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                if value.is_ready() || left.is_zero() {
                    break;
                }
                std::thread::park_timeout(left);
                value = future.as_mut().poll(&mut Context::from_waker(waker));
            }
            (value, may_return())
        });
        if let Poll::Ready(value) = value {
            return Ok(value);
        }
        py.check_signals()?;
    }
}

/// Returns a pass if a thread may return to Python. At the interpreter's end only the thread that ends it
/// may.
fn may_return() -> Option<Pass> {
    let pass = Pass::enter();
    if pass.is_none() && !crate::process::is_ending_thread() {
        loop {
            std::thread::park();
        }
    }
    pass
}

/// Converts a result to a Python object, with the GIL.
pub(crate) type Convert = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

type Pending = Pin<Box<dyn Future<Output = PyResult<Convert>> + Send>>;

/// An object to `await`, in a task of any event loop that works like asyncio's. It is a coroutine:
/// `asyncio.create_task` and `asyncio.wait_for` take it. Its work starts when it is first awaited; cancelling
/// it cancels the work.
#[pyclass(module = "realm")]
pub(crate) struct Awaitable {
    /// `None` once it has a result. The lock is never contended: the polling thread borrows it, and the type
    /// has to be `Sync`.
    future: Mutex<Option<Pending>>,
    /// The signal that resolves the event loop's future, while there is one.
    signal: Mutex<Option<Arc<Signal>>>,
    process: Process,
    /// The application's functions that it may call.
    callbacks: Vec<Py<Callbacks>>,
}

impl Awaitable {
    /// Keeps functions until it is dropped.
    pub(crate) fn holding(mut self, callbacks: impl IntoIterator<Item = Py<Callbacks>>) -> Self {
        self.callbacks.extend(callbacks);
        self
    }

    pub(crate) fn new<T, E>(
        future: impl Future<Output = Result<T, E>> + Send + 'static,
        convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> Self
    where
        T: Send + 'static,
        E: Into<crate::errors::Failed>,
    {
        let future = async move {
            match future.await {
                Ok(value) => Ok(Box::new(move |py: Python<'_>| convert(py, value)) as Convert),
                Err(error) => Err(PyErr::from(error.into())),
            }
        };
        Self {
            future: Mutex::new(Some(Box::pin(future))),
            signal: Mutex::default(),
            process: Process::current(),
            callbacks: Vec::new(),
        }
    }

    /// Continues; after an exception it has ended.
    fn step(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let yielded = self.advance(py);
        if yielded.is_err() {
            self.close(py);
        }
        yielded
    }

    fn advance(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.process.check("coroutine")?;
        let slot = self.future.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(future) = slot else {
            return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine"));
        };
        loop {
            let signal = Arc::new(Signal::default());
            let waker = Waker::from(Arc::new(Ring(Arc::downgrade(&signal))));
            if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                *slot = None;
                let value = result?(py)?;
                return Err(PyStopIteration::new_err((value,)));
            }
            let (event_loop, later) = pending_future(py)?;
            let waiting = Waiting::new(py, event_loop, later.clone_ref(py))?;
            if signal.wait_with(waiting) {
                *self.signal.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(signal);
                return Ok(later);
            }
        }
    }
}

#[pymethods]
impl Awaitable {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.step(py)
    }

    /// Continues; event loops call this.
    fn send(&mut self, py: Python<'_>, value: Py<PyAny>) -> PyResult<Py<PyAny>> {
        drop(value);
        self.step(py)
    }

    /// Ends with an exception; event loops call this to cancel.
    #[pyo3(signature = (typ, val=None, tb=None))]
    fn throw(
        &mut self,
        py: Python<'_>,
        typ: Bound<'_, PyAny>,
        val: Option<Bound<'_, PyAny>>,
        tb: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        drop(tb);
        self.close(py);
        let is_class = typ.is_instance_of::<pyo3::types::PyType>();
        Err(match val {
            Some(value) if is_class && value.is_instance(&typ)? => PyErr::from_value(value),
            Some(value) if is_class && !value.is_none() => PyErr::from_value(typ.call1((value,))?),
            _ if is_class => PyErr::from_value(typ.call0()?),
            _ => PyErr::from_value(typ),
        })
    }

    /// Cancels the work.
    fn close(&mut self, py: Python<'_>) {
        let signal = self.signal.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(future) = self.future.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            crate::handle::dispose(py, self.process, future);
        }
        match signal {
            // A waker that rings at this moment holds the signal, on a thread that must not drop Python
            // objects.
            Some(signal) if self.process.is_current() => drop(signal.take()),
            signal => std::mem::forget(signal),
        }
    }

    fn __repr__(&mut self) -> &'static str {
        let future = self.future.get_mut().unwrap_or_else(PoisonError::into_inner);
        if future.is_some() { "<realm coroutine>" } else { "<realm coroutine, done>" }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.callbacks.iter().try_for_each(|each| visit.call(each))?;
        // In a forked child, a thread that no longer exists may hold the lock.
        if !self.process.is_current() {
            return Ok(());
        }
        match &*self.signal.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(signal) => signal.traverse(&visit),
            None => Ok(()),
        }
    }

    fn __clear__(&mut self) {
        Python::try_attach(|py| self.close(py));
        self.callbacks.clear();
    }
}

impl Drop for Awaitable {
    fn drop(&mut self) {
        let is_over = |this: &mut Self| {
            this.future.get_mut().unwrap_or_else(PoisonError::into_inner).is_none()
                && this.signal.get_mut().unwrap_or_else(PoisonError::into_inner).is_none()
        };
        if is_over(self) {
            return;
        }
        if Python::try_attach(|py| self.close(py)).is_none() {
            // At the interpreter's end, the operating system frees everything.
            std::mem::forget(self.future.get_mut().unwrap_or_else(PoisonError::into_inner).take());
            std::mem::forget(self.signal.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

/// Returns the running event loop, and a future of it that a task waits for.
fn pending_future(py: Python<'_>) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
    static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let running = RUNNING.import(py, "asyncio", "get_running_loop")?;
    let event_loop = running.call0().map_err(|error| no_event_loop(py, error))?;
    let future = event_loop.call_method0("create_future")?;
    // `yield from future` would set this attribute: the task may wait for the future.
    future.setattr("_asyncio_future_blocking", true)?;
    Ok((event_loop.unbind(), future.unbind()))
}

/// Returns an error that says what to do with another library's event loop.
fn no_event_loop(py: Python<'_>, error: PyErr) -> PyErr {
    let trio = py.import("sys").and_then(|sys| sys.getattr("modules")?.get_item("trio")).is_ok();
    if !trio {
        return error;
    }
    PyRuntimeError::new_err(
        "no asyncio event loop is running here, which is what this waits on. Under trio, have a thread wait: \
         `await trio.to_thread.run_sync(lambda: model.generate(prompt))`, or run the program by anyio on asyncio",
    )
}

/// An event loop's future that a task waits for, and the way to make the loop resolve it.
struct Waiting {
    event_loop: Py<PyAny>,
    future: Py<PyAny>,
    #[cfg(unix)]
    bell: Option<Arc<crate::doorbell::Bell>>,
}

impl Waiting {
    #[cfg(unix)]
    fn new(py: Python<'_>, event_loop: Py<PyAny>, future: Py<PyAny>) -> PyResult<Self> {
        static DOORBELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let bell = DOORBELL.import(py, "realm.loops", "doorbell")?.call1((&event_loop,))?;
        let bell = bell.cast::<crate::doorbell::Doorbell>().ok().map(|bell| Arc::clone(&bell.get().bell));
        Ok(Self { event_loop, future, bell })
    }

    #[cfg(not(unix))]
    fn new(_: Python<'_>, event_loop: Py<PyAny>, future: Py<PyAny>) -> PyResult<Self> {
        Ok(Self { event_loop, future })
    }
}

/// Signals once that a task can continue.
#[derive(Default)]
pub(crate) struct Signal(Mutex<State>);

#[derive(Default)]
struct State {
    woken: bool,
    /// Only threads with the GIL set and take it.
    waiting: Option<Waiting>,
}

impl Signal {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the future to resolve; returns `false` if the wake-up has come already.
    fn wait_with(&self, waiting: Waiting) -> bool {
        let mut state = self.state();
        if state.woken {
            drop(state);
            // `waiting` has Python objects, whose destructors may run any code.
            drop(waiting);
            return false;
        }
        state.waiting = Some(waiting);
        true
    }

    /// Makes the event loop resolve the future. Never waits, not even for the GIL.
    fn ring(self: &Arc<Self>) {
        let mut state = self.state();
        if std::mem::replace(&mut state.woken, true) {
            return;
        }
        let Some(_waiting) = &state.waiting else { return };
        #[cfg(unix)]
        let bell = _waiting.bell.clone();
        drop(state);
        #[cfg(unix)]
        if let Some(bell) = bell {
            return bell.ring(Arc::downgrade(self));
        }
        notify(Arc::downgrade(self));
    }

    /// Takes the future to resolve, once, with the GIL.
    pub(crate) fn take_future(&self) -> Option<Py<PyAny>> {
        self.take().map(|waiting| waiting.future)
    }

    fn take(&self) -> Option<Waiting> {
        self.state().waiting.take()
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match &self.state().waiting {
            Some(waiting) => {
                visit.call(&waiting.event_loop)?;
                visit.call(&waiting.future)
            }
            None => Ok(()),
        }
    }
}

/// Wakes a task that still waits.
struct Ring(Weak<Signal>);

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(signal) = self.0.upgrade() {
            signal.ring();
        }
    }
}

/// The notifiers of this process and of those that it was forked from. Each process has its own, since a lock
/// that another thread held at the fork is never released in the child.
#[derive(Default)]
struct Notifier {
    /// `None` if no thread could be started.
    signals: OnceLock<Option<Sender<Weak<Signal>>>>,
    after_fork: OnceLock<Box<Notifier>>,
}

/// Makes the notifier resume a task, if it still waits. The notifier starts on first use, and again in a
/// forked child.
fn notify(signal: Weak<Signal>) {
    static FIRST: Notifier = Notifier { signals: OnceLock::new(), after_fork: OnceLock::new() };
    let mut notifier = &FIRST;
    for _ in 0..Process::current().forks() {
        notifier = notifier.after_fork.get_or_init(Box::default);
    }
    let start = || {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new().name("realm-notify".into());
        // Realm does not work without threads; waiting callers get that error elsewhere.
        thread.spawn(move || deliver(&receiver)).ok().map(|_| sender)
    };
    if let Some(signals) = notifier.signals.get_or_init(start) {
        // The notifier ends only with the interpreter.
        let _ = signals.send(signal);
    }
}

fn deliver(signals: &Receiver<Weak<Signal>>) {
    while let Ok(first) = signals.recv() {
        let delivered = with_gil(|py| {
            let mut loops: Vec<(Py<PyAny>, Vec<Py<PyAny>>)> = Vec::new();
            for signal in std::iter::once(first).chain(signals.try_iter().take(1024)) {
                let waiting = signal.upgrade().and_then(|signal| signal.take());
                let Some(Waiting { event_loop, future, .. }) = waiting else { continue };
                match loops.iter_mut().find(|(other, _)| other.is(&event_loop)) {
                    Some((_, futures)) => futures.push(future),
                    None => loops.push((event_loop, vec![future])),
                }
            }
            for (event_loop, futures) in loops {
                // A closed loop has no waiting tasks.
                let _ = schedule(py, &event_loop, futures);
            }
        });
        if delivered.is_none() {
            // All later signals hold Python objects, which may no longer be touched.
            loop {
                std::thread::park();
            }
        }
    }
}

fn schedule(py: Python<'_>, event_loop: &Py<PyAny>, futures: Vec<Py<PyAny>>) -> PyResult<()> {
    static RESOLVE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let resolve =
        RESOLVE.get_or_try_init(py, || Ok::<_, PyErr>(wrap_pyfunction!(resolve, py)?.into_any().unbind()))?;
    let futures = PyList::new(py, futures)?;
    event_loop.call_method1(py, "call_soon_threadsafe", (resolve, futures))?;
    Ok(())
}

/// Resumes tasks, on the thread of their event loop.
#[pyfunction]
fn resolve(py: Python<'_>, futures: Vec<Py<PyAny>>) -> PyResult<()> {
    resolve_all(py, futures)
}

/// Resumes tasks, on the thread of their event loop: all of them, even if one fails (Ctrl-C may interrupt).
///
/// # Errors
/// The first failure.
pub(crate) fn resolve_all(py: Python<'_>, futures: impl IntoIterator<Item = Py<PyAny>>) -> PyResult<()> {
    let mut result = Ok(());
    for future in futures {
        let resolved = resolve_one(future.bind(py));
        result = result.and(resolved);
    }
    result
}

fn resolve_one(future: &Bound<'_, PyAny>) -> PyResult<()> {
    // A cancelled task has cancelled its future.
    if !future.call_method0("done")?.is_truthy()? {
        future.call_method1("set_result", (future.py().None(),))?;
    }
    Ok(())
}
