//! Loads and pulls, which tell how they go and can be given up.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use napi::Status;
use napi::bindgen_prelude::*;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use realm::{OnProgress, ProgressEvent};

use crate::environment::promise;
use crate::error::{failed, invalid};
use crate::model::NativeModel;

/// Stage, what, bytes done, and of how many.
type Event = FnArgs<(&'static str, String, f64, Option<f64>)>;

/// The application's function; it keeps no process alive.
pub(crate) type Callback<'a> = Function<'a, Event, ()>;
type Sink = ThreadsafeFunction<Event, (), Event, Status, false, true>;

/// Hands every event to a function, until the load is given up: then the thread that loads unwinds.
pub(crate) fn progress(
    callback: Option<Callback<'_>>,
    given_up: &Arc<AtomicBool>,
) -> Result<OnProgress<impl FnMut(ProgressEvent) + Send + 'static>> {
    let sink: Option<Sink> = callback
        .map(|callback| callback.build_threadsafe_function::<Event>().weak::<true>().build())
        .transpose()?;
    let given_up = Arc::clone(given_up);
    Ok(OnProgress(move |event: ProgressEvent| {
        if given_up.load(Ordering::Acquire) {
            // Without the panic hook's message: this is no fault of Realm's.
            std::panic::resume_unwind(Box::new("the load was given up"));
        }
        let Some(sink) = &sink else { return };
        let ProgressEvent { stage, what, done, total } = event;
        let event = (stage.as_str(), what, done as f64, total.map(|total| total as f64));
        // A process that is ending takes no more.
        let _ = sink.call(event.into(), ThreadsafeFunctionCallMode::NonBlocking);
    }))
}

/// What a load waits for.
type Running<T> = Pin<Box<dyn Future<Output = std::result::Result<T, realm::Error>> + Send>>;

/// Something that takes long.
pub(crate) struct Long<T> {
    running: Mutex<Option<Running<T>>>,
    given_up: Arc<AtomicBool>,
}

impl<T: Send> Long<T> {
    pub(crate) fn new(
        running: impl Future<Output = std::result::Result<T, realm::Error>> + Send + 'static,
        given_up: Arc<AtomicBool>,
    ) -> Self {
        Self { running: Mutex::new(Some(Box::pin(running))), given_up }
    }

    fn done(&self) -> Result<Running<T>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        running.ok_or_else(|| invalid("this has been waited for already"))
    }

    fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }
}

impl<T> Drop for Long<T> {
    fn drop(&mut self) {
        // Whoever would get it is gone, with a worker above all; once it is done this does nothing.
        self.given_up.store(true, Ordering::Release);
    }
}

/// A model on its way.
#[napi]
pub struct NativeLoad(pub(crate) Long<realm::Model>);

#[napi]
impl NativeLoad {
    /// Waits for the model.
    #[napi(ts_return_type = "Promise<NativeModel>")]
    pub fn done<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, NativeModel>> {
        let running = self.0.done()?;
        promise(env, async move { Ok(NativeModel::new(running.await.map_err(failed)?)) })
    }

    /// Ends the load at its next sign of progress.
    #[napi]
    pub fn give_up(&self) {
        self.0.give_up();
    }
}

/// A file on its way.
#[napi]
pub struct NativePull(pub(crate) Long<String>);

#[napi]
impl NativePull {
    /// Waits for the file's path.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn done<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, String>> {
        let running = self.0.done()?;
        promise(env, async move { running.await.map_err(failed) })
    }

    /// Ends the pull at its next sign of progress.
    #[napi]
    pub fn give_up(&self) {
        self.0.give_up();
    }
}
