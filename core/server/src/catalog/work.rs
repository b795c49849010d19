//! Models that are being loaded or unloaded, and loads that failed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Served;
use crate::config::ModelConfig;

/// The most loads at once: each reads a disk and fills memory.
const LOADS: usize = 4;

/// The most failed loads that are remembered.
const FAILED: usize = 64;

/// A load or an unload.
pub(crate) struct Work {
    pub(crate) config: ModelConfig,
    stage: Mutex<Stage>,
    done: AtomicU64,
    /// 0 while it is not known.
    total: AtomicU64,
}

/// The stage of a work.
#[derive(Clone)]
pub(crate) enum Stage {
    Fetching,
    Loading,
    Unloading(Arc<Served>),
    /// The reason of a failed load.
    Failed(String),
}

impl Work {
    fn new(config: ModelConfig, stage: Stage) -> Arc<Self> {
        let stage = Mutex::new(stage);
        Arc::new(Self { config, stage, done: AtomicU64::new(0), total: AtomicU64::new(0) })
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn fail(&self, why: String) {
        self.enter(Stage::Failed(why));
    }

    fn enter(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// The bytes that are done, and all of them if that is known.
    pub(crate) fn progress(&self) -> (u64, Option<u64>) {
        let total = self.total.load(Ordering::Relaxed);
        (self.done.load(Ordering::Relaxed), (total > 0).then_some(total))
    }

    /// Records an event of a load.
    pub(crate) fn advanced(&self, event: &realm::ProgressEvent) {
        match event.stage {
            realm::Stage::Loading => self.enter(Stage::Loading),
            realm::Stage::Fetching => self.enter(Stage::Fetching),
            _ => {}
        }
        self.done.store(event.done, Ordering::Relaxed);
        self.total.store(event.total.unwrap_or(0), Ordering::Relaxed);
    }

    fn has_failed(&self) -> bool {
        matches!(self.stage(), Stage::Failed(_))
    }

    fn is_load(&self) -> bool {
        matches!(self.stage(), Stage::Fetching | Stage::Loading)
    }
}

/// The works of a server, by the names of their models.
#[derive(Default)]
pub(crate) struct Works(Mutex<BTreeMap<String, Vec<Arc<Work>>>>);

impl Works {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Arc<Work>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a load.
    ///
    /// # Errors
    /// A sentence, if the model is being loaded already or too many others are.
    pub(crate) fn load(&self, name: &str, config: ModelConfig) -> Result<Arc<Work>, String> {
        let mut all = self.lock();
        if all.get(name).is_some_and(|works| works.iter().any(|work| work.is_load())) {
            return Err(format!("`{name}` is being loaded already; wait for its end"));
        }
        let loads = all.values().flatten().filter(|work| work.is_load()).count();
        if loads >= LOADS {
            return Err(format!("{loads} models are being loaded, as many as may be at once; wait for one"));
        }
        let failed = all.values().flatten().filter(|work| work.has_failed()).count();
        if failed >= FAILED {
            all.retain(|_, works| works.iter().any(|work| !work.has_failed()));
        }
        let work = Work::new(config, Stage::Fetching);
        let works = all.entry(name.to_owned()).or_default();
        works.retain(|work| !work.has_failed());
        works.push(Arc::clone(&work));
        Ok(work)
    }

    pub(super) fn unloading(&self, name: &str, served: &Arc<Served>) -> Arc<Work> {
        let work = Work::new(served.config.clone(), Stage::Unloading(Arc::clone(served)));
        self.lock().entry(name.to_owned()).or_default().push(Arc::clone(&work));
        work
    }

    /// Forgets a work.
    pub(crate) fn end(&self, name: &str, work: &Arc<Work>) {
        let mut all = self.lock();
        if let Some(works) = all.get_mut(name) {
            works.retain(|other| !Arc::ptr_eq(other, work));
            if works.is_empty() {
                all.remove(name);
            }
        }
    }

    /// Forgets a failed load; returns whether there was one.
    pub(crate) fn forget_failed(&self, name: &str) -> bool {
        let mut all = self.lock();
        let Some(works) = all.get_mut(name) else { return false };
        let before = works.len();
        works.retain(|work| !work.has_failed());
        let found = works.len() < before;
        if works.is_empty() {
            all.remove(name);
        }
        found
    }

    /// Returns all works, by their models' names.
    pub(crate) fn all(&self) -> Vec<(String, Arc<Work>)> {
        let all = self.lock();
        all.iter()
            .flat_map(|(name, works)| works.iter().map(|work| (name.clone(), Arc::clone(work))))
            .collect()
    }
}
