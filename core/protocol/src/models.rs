//! The models that a service knows by name.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Poll;
use std::time::{SystemTime, UNIX_EPOCH};

use realm::{LoadOptions, Model, Realm};
use realm_handover::Wakers;

use crate::ApiError;

/// A boxed future that runs on any executor.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Finds models by the names in requests.
pub trait Models: Send + Sync {
    /// Returns the model of a name.
    ///
    /// # Errors
    /// Status 404 if there is none, or the error of its load.
    fn model<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Model, ApiError>>;

    /// Returns a model with the program and the adapter that a request names.
    ///
    /// # Errors
    /// Status 404 if the caller has no such program or adapter, and 400 for an adapter of another model. By
    /// default no names are known.
    fn equipped<'a>(&'a self, model: Model, extras: &'a Extras) -> BoxFuture<'a, Result<Model, ApiError>> {
        Box::pin(std::future::ready(extras.unknown().map_or(Ok(model), Err)))
    }

    /// Lists the models that can be named. May read the disk.
    ///
    /// # Errors
    /// The error of reading the disk.
    fn list(&self) -> Result<Vec<ModelEntry>, ApiError>;

    /// Returns the entry of one model.
    ///
    /// # Errors
    /// Status 404 if no model has the name, and the errors of [`list`](Self::list).
    fn find(&self, name: &str) -> Result<ModelEntry, ApiError> {
        let found = self.list()?.into_iter().find(|entry| entry.name == name);
        found.ok_or_else(|| ApiError::no_model(name))
    }
}

/// What a request names beside its model, in its object `realm`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extras {
    /// `realm.program`: the program that answers.
    pub program: Option<String>,
    /// `realm.adapter` and `realm.adapter_scale`: the LoRA adapter, and the factor on what it adds.
    pub adapter: Option<(String, f32)>,
}

impl Extras {
    /// The error for a program of this name, or a failure to find it.
    pub fn no_program(name: &str) -> ApiError {
        ApiError::no_extra("program", name)
    }

    /// The error for an adapter of this name, or a failure to find it.
    pub fn no_adapter(name: &str) -> ApiError {
        ApiError::no_extra("adapter", name)
    }

    /// Returns the error for services that know no names.
    fn unknown(&self) -> Option<ApiError> {
        let program = self.program.as_deref().map(Self::no_program);
        program.or_else(|| self.adapter.as_ref().map(|(name, _)| Self::no_adapter(name)))
    }
}

/// A model in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelEntry {
    /// The name that requests use.
    pub name: String,
    /// The time when the model was added, in seconds since 1970.
    pub created: u64,
}

/// One model that answers for any name.
pub struct OneModel {
    model: Model,
    created: u64,
}

impl OneModel {
    /// Serves `model` under any name.
    pub fn new(model: Model) -> Self {
        Self { model, created: seconds(SystemTime::now()) }
    }
}

impl Models for OneModel {
    fn model<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Model, ApiError>> {
        Box::pin(std::future::ready(Ok(self.model.clone())))
    }

    fn list(&self) -> Result<Vec<ModelEntry>, ApiError> {
        Ok(vec![self.find(self.model.reference())?])
    }

    fn find(&self, name: &str) -> Result<ModelEntry, ApiError> {
        Ok(ModelEntry { name: name.to_owned(), created: self.created })
    }
}

/// Loads each model when it is first named, once, even if many requests name it at the same time. Keeps it as
/// long as one of these values of the same runtime exists.
///
/// A load continues if the request that began it is cancelled, since others may wait for it. A failed load is
/// tried again by the next request.
pub struct LoadedByName {
    loaded: Arc<Loaded>,
}

struct Loaded {
    realm: Realm,
    options: LoadOptions,
    entries: Mutex<HashMap<String, Entry>>,
}

/// Values with default options, by runtime: an application that asks in two ways needs no second copy of a
/// model.
static LOADED: Mutex<Vec<Weak<Loaded>>> = Mutex::new(Vec::new());

enum Entry {
    Loaded(Model, u64),
    Loading(Arc<Load>),
}

/// A load that requests wait for.
struct Load {
    /// Set before `ended` is, unless the load panicked.
    result: OnceLock<Result<Model, realm::Error>>,
    ended: AtomicBool,
    waiting: Wakers,
}

impl Load {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Waits for the end.
    async fn end(&self) {
        self.waiting.until(|| if self.has_ended() { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// Belongs to the loading thread. Records the end when dropped, even if the load panics.
struct Running(Arc<Load>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.waiting.wake_all();
    }
}

impl LoadedByName {
    /// Loads models of `realm`, with default options. All such values of one runtime share their models.
    pub fn new(realm: Realm) -> Self {
        let mut all = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|loaded| loaded.strong_count() > 0);
        let shared = all.iter().filter_map(Weak::upgrade).find(|loaded| loaded.realm.is(&realm));
        let loaded = shared.unwrap_or_else(|| {
            let this = Self::with_options(realm, LoadOptions::default()).loaded;
            all.push(Arc::downgrade(&this));
            this
        });
        Self { loaded }
    }

    /// Loads models of `realm` with other options. The value shares its models with no other.
    pub fn with_options(realm: Realm, options: LoadOptions) -> Self {
        Self { loaded: Arc::new(Loaded { realm, options, entries: Mutex::default() }) }
    }

    /// Makes a name stand for a model that is already loaded.
    pub fn insert(&self, name: impl Into<String>, model: Model) {
        let entry = Entry::Loaded(model, seconds(SystemTime::now()));
        let old = self.loaded.lock().insert(name.into(), entry);
        // Dropping a model may wait for its engine's step.
        drop(old);
    }
}

impl Loaded {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the model of a name, or the load to wait for; begins a load if there is none.
    fn entry(self: &Arc<Self>, name: &str) -> Result<Result<Model, Arc<Load>>, ApiError> {
        let mut entries = self.lock();
        match entries.get(name) {
            Some(Entry::Loaded(model, _)) => return Ok(Ok(model.clone())),
            Some(Entry::Loading(load)) if !load.has_ended() => return Ok(Err(Arc::clone(load))),
            // A load removes its entry when it ends, unless it panicked.
            _ => {}
        }
        let load = Arc::new(Load {
            result: OnceLock::new(),
            ended: AtomicBool::new(false),
            waiting: Wakers::default(),
        });
        let work = {
            let (realm, options, name) = (self.realm.clone(), self.options.clone(), name.to_owned());
            let (running, loaded) = (Running(Arc::clone(&load)), Arc::downgrade(self));
            move || {
                let Running(load) = &running;
                let result = realm.load_model_with(&name, &options, &mut ());
                if let Some(loaded) = loaded.upgrade() {
                    loaded.finish(name, &result);
                }
                // Only this thread sets the result.
                let _ = load.result.set(result);
            }
        };
        let thread = std::thread::Builder::new().name("realm-load".into()).spawn(work);
        thread.map_err(|error| ApiError::internal(format!("no thread to load a model: {error}")))?;
        entries.insert(name.to_owned(), Entry::Loading(Arc::clone(&load)));
        Ok(Err(load))
    }

    /// Keeps a loaded model for later requests, and removes a failed load.
    fn finish(&self, name: String, result: &Result<Model, realm::Error>) {
        let mut entries = self.lock();
        match result {
            Ok(model) => entries.insert(name, Entry::Loaded(model.clone(), seconds(SystemTime::now()))),
            Err(_) => entries.remove(&name),
        };
    }
}

impl Models for LoadedByName {
    fn model<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Model, ApiError>> {
        Box::pin(async move {
            let load = match self.loaded.entry(name)? {
                Ok(model) => return Ok(model),
                Err(load) => load,
            };
            load.end().await;
            match load.result.get() {
                Some(result) => Ok(result.clone()?),
                None => Err(ApiError::internal(format!("loading `{name}` stopped without a result"))),
            }
        })
    }

    fn list(&self) -> Result<Vec<ModelEntry>, ApiError> {
        let present = self.loaded.realm.hub().list().map_err(realm::Error::from)?;
        let mut found: Vec<_> = present
            .into_iter()
            .filter(|status| matches!(status.state, realm::hub::State::Present(_)))
            .map(|status| {
                let changed = std::fs::metadata(&status.path).and_then(|file| file.modified());
                ModelEntry { name: status.reference.to_string(), created: changed.map_or(0, seconds) }
            })
            .collect();
        for (name, entry) in &*self.loaded.lock() {
            if let Entry::Loaded(_, created) = entry
                && !found.iter().any(|other| other.name == *name)
            {
                found.push(ModelEntry { name: name.clone(), created: *created });
            }
        }
        Ok(found)
    }
}

/// Returns seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
