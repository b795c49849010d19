//! Loads and pulls, which report their progress and can be cancelled.

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

/// An event: its stage, its file or source, the bytes done, and their total.
type Event = FnArgs<(&'static str, String, f64, Option<f64>)>;

/// The application's function; it keeps no process alive.
pub(crate) type Callback<'a> = Function<'a, Event, ()>;
type Sink = ThreadsafeFunction<Event, (), Event, Status, false, true>;

/// Passes every event to a function, until the load is cancelled: then the thread that loads unwinds.
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
            // Without the panic hook's message: a cancelled load is not a fault of Realm's.
            std::panic::resume_unwind(Box::new("the load was given up"));
        }
        let Some(sink) = &sink else { return };
        let ProgressEvent { stage, what, done, total } = event;
        let event = (stage.as_str(), what, done as f64, total.map(|total| total as f64));
        // A process that is ending takes no more events.
        let _ = sink.call(event.into(), ThreadsafeFunctionCallMode::NonBlocking);
    }))
}

/// The future of a load.
type Running<T> = Pin<Box<dyn Future<Output = std::result::Result<T, realm::Error>> + Send>>;

/// A load or a pull.
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
        // Its reader is gone, for example with a worker's end; after the load is done this has no effect.
        self.given_up.store(true, Ordering::Release);
    }
}

/// A model that is being loaded.
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

    /// Cancels the load, at its next progress event.
    #[napi]
    pub fn give_up(&self) {
        self.0.give_up();
    }
}

/// A file that is being pulled.
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

    /// Cancels the pull, at its next progress event.
    #[napi]
    pub fn give_up(&self) {
        self.0.give_up();
    }
}
