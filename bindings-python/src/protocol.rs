//! OpenAI's protocol, for `realm.openai`.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyTimeoutError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use realm_protocol::{ApiError, Body, LoadedByName, OneModel};

use crate::errors::of_code;
use crate::handle::{Handle, not_picklable};
use crate::model::Model;
use crate::runtime::Realm;
use crate::wait::{Awaitable, wait};

/// Answers the calls of OpenAI's clients with the models of a `Realm`, which are loaded when they are first
/// named, or with one `Model`. With `strict`, unknown fields are refused.
#[pyclass(frozen, module = "realm._realm")]
pub(crate) struct Service {
    handle: Handle<realm_protocol::Service>,
}

#[pymethods]
impl Service {
    #[new]
    #[pyo3(signature = (source, *, strict=false))]
    fn new(source: &Bound<'_, PyAny>, strict: bool) -> PyResult<Self> {
        let service = if let Ok(realm) = source.cast::<Realm>() {
            realm_protocol::Service::new(LoadedByName::new(realm.get().handle.get()?))
        } else if let Ok(model) = source.cast::<Model>() {
            realm_protocol::Service::new(OneModel::new(model.get().handle.get()?))
        } else {
            let kind = source.get_type().name()?;
            let why = format!("a realm.Realm or a realm.Model is needed to ask, not a {kind}");
            return Err(PyTypeError::new_err(why));
        };
        let service = if strict { service.strict() } else { service };
        Ok(Self { handle: Handle::new("Service", service) })
    }

    /// Answers an HTTP call. With a `timeout` in seconds, it raises `TimeoutError` after that time.
    #[pyo3(signature = (method, path, body, *, timeout=None))]
    fn handle(
        &self,
        py: Python<'_>,
        method: &str,
        path: &str,
        body: &Bound<'_, PyBytes>,
        timeout: Option<f64>,
    ) -> PyResult<Answer> {
        let (service, body) = (self.handle.get()?, body.as_bytes());
        Ok(Answer::new(wait(py, within(timeout, service.handle(method, path, body))?)??))
    }

    /// Same as `handle`, to be awaited.
    fn handle_async(&self, method: String, path: String, body: &Bound<'_, PyBytes>) -> PyResult<Awaitable> {
        let (service, body) = (self.handle.get()?, body.as_bytes().to_vec());
        let answered = async move { Ok::<_, PyErr>(service.handle(&method, &path, &body).await) };
        Ok(Awaitable::new(answered, |py, answer| Answer::new(answer).into_py_any(py)))
    }

    /// Returns the model of a name.
    fn model(&self, py: Python<'_>, name: &str) -> PyResult<Model> {
        let service = self.handle.get()?;
        Ok(Model::new(wait(py, service.model(name))?.map_err(exception)?))
    }

    /// Same as `model`, to be awaited.
    fn model_async(&self, name: String) -> PyResult<Awaitable> {
        let service = self.handle.get()?;
        let found = async move { service.model(&name).await.map_err(exception) };
        Ok(Awaitable::new(found, |py, model| Model::new(model).into_py_any(py)))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Service"))
    }
}

fn exception(error: ApiError) -> PyErr {
    of_code(error.realm_code(), error.message())
}

/// The answer to a call.
#[pyclass(frozen, module = "realm._realm")]
pub(crate) struct Answer {
    /// The HTTP status.
    #[pyo3(get)]
    status: u16,
    /// The headers' names in lower case, and their values.
    #[pyo3(get)]
    headers: Vec<(&'static str, String)>,
    /// The body as JSON, if the answer is not a stream.
    #[pyo3(get)]
    body: Option<String>,
    /// The events, if the answer is a stream.
    events: Option<Handle<Arc<realm_protocol::Events>>>,
}

impl Answer {
    fn new(answer: realm_protocol::Answer) -> Self {
        let realm_protocol::Answer { status, headers, body } = answer;
        let (body, events) = match body {
            Body::Json(text) => (Some(text), None),
            Body::Events(events) => (None, Some(Handle::new("stream", Arc::new(events)))),
        };
        Self { status, headers, body, events }
    }
}

#[pymethods]
impl Answer {
    /// The events, if the answer is a stream.
    #[getter]
    fn events(&self) -> PyResult<Option<Events>> {
        let events = self.events.as_ref().map(Handle::get).transpose()?;
        Ok(events.map(|events| Events { handle: Handle::new("stream", events) }))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Answer"))
    }
}

/// A streamed answer's events, each a JSON text.
#[pyclass(frozen, module = "realm._realm")]
pub(crate) struct Events {
    handle: Handle<Arc<realm_protocol::Events>>,
}

#[pymethods]
impl Events {
    /// Returns the next event; `None` after the last one. With a `timeout` in seconds, it raises
    /// `TimeoutError` after that time.
    #[pyo3(signature = (*, timeout=None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<String>> {
        let events = self.handle.get()?;
        wait(py, within(timeout, events.next_async())?)?
    }

    /// Same as `next`, to be awaited.
    fn next_async(&self) -> PyResult<Awaitable> {
        let events = self.handle.get()?;
        let next = async move { Ok::<_, PyErr>(events.next_async().await) };
        Ok(Awaitable::new(next, |py, event| event.into_py_any(py)))
    }

    /// Ends the request.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        let events = self.handle.get()?;
        py.detach(|| events.cancel());
        Ok(())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("stream"))
    }
}

/// Ends a future after `timeout` seconds. [`wait`] polls it again before each check for signals, so no timer
/// is needed.
fn within<T>(
    timeout: Option<f64>,
    future: impl Future<Output = T> + Send,
) -> PyResult<impl Future<Output = PyResult<T>> + Send> {
    let patience = timeout.map(Duration::try_from_secs_f64).transpose();
    let patience = patience
        .map_err(|_| PyValueError::new_err("timeout must be a number of seconds that is not negative"))?;
    let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
    let mut future = Box::pin(future);
    Ok(std::future::poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Ok(value)),
        Poll::Pending if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
            Poll::Ready(Err(PyTimeoutError::new_err("the model did not answer in time")))
        }
        Poll::Pending => Poll::Pending,
    }))
}
