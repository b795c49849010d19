//! What all requests of a server share.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use realm::LoadOptions;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tonic_health::server::HealthReporter;

use crate::audit::Audit;
use crate::catalog::Catalog;
use crate::http::{Allowed, Places};
use crate::keeper::Keeper;
use crate::keys::{Keyring, Used};
use crate::log::AccessLog;
use crate::metrics::HttpMetrics;
use crate::{Config, Error, tls};

pub(crate) struct State {
    settings: RwLock<Arc<Settings>>,
    pub(crate) catalog: Arc<Catalog>,
    /// `None` if there are no keys, and everything is allowed.
    pub(crate) keys: Option<Keyring>,
    pub(crate) ledger: Ledger,
    pub(crate) metrics: HttpMetrics,
    pub(crate) log: Option<AccessLog>,
    pub(crate) audit: Option<Audit>,
    /// Makes the changes of administration; `None` if there is no store.
    pub(crate) keeper: Option<Keeper>,
    /// The options of models that are loaded while the server runs, unless their entries have others.
    pub(crate) load_options: LoadOptions,
    /// Reads the configuration again.
    pub(crate) reread: Option<Reread>,
    /// Acts of administration at once.
    pub(crate) places: Places,
    /// True while the configuration is read again.
    pub(crate) reloading: AtomicBool,
    /// The health that gRPC tells.
    pub(crate) health: HealthReporter,
    /// True while the server waits for its last requests.
    pub(crate) draining: watch::Sender<bool>,
}

pub(crate) type Reread = Box<dyn Fn() -> Result<Config, Error> + Send + Sync>;

/// The options of now, and what is made of them. A request reads them once.
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) allowed: Allowed,
    /// The pages and names that may administer.
    pub(crate) administering: Allowed,
    pub(crate) tls: Option<TlsAcceptor>,
}

impl Settings {
    /// Reads the certificates that a configuration names.
    pub(crate) fn new(config: Config) -> Result<Self, Error> {
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let (allowed, administering) = (Allowed::new(&config), Allowed::to_administer(&config));
        Ok(Self { config, allowed, administering, tls })
    }
}

/// The parts of a state that a server knows when it is made.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) keys: Option<Keyring>,
    pub(crate) log: Option<AccessLog>,
    pub(crate) audit: Option<Audit>,
    pub(crate) keeper: Option<Keeper>,
}

impl State {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { settings, catalog, keys, log, audit, keeper } = parts;
        Self {
            settings: RwLock::new(Arc::new(settings)),
            catalog,
            keys,
            ledger: Ledger::default(),
            metrics: HttpMetrics::new(),
            log,
            audit,
            keeper,
            load_options: LoadOptions::default(),
            reread: None,
            places: Places::default(),
            reloading: AtomicBool::new(false),
            health: HealthReporter::new(),
            draining: watch::Sender::new(false),
        }
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }
}

/// What keys have used since it was last written to the store.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<HashMap<String, Used>>);

impl Ledger {
    pub(crate) fn add(&self, key: &str, used: &Used) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(key) {
            Some(sum) => sum.add(used),
            None => {
                all.insert(key.to_owned(), *used);
            }
        }
    }

    pub(crate) fn take(&self) -> Vec<(String, Used)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drain().collect()
    }

    /// Puts back what could not be written.
    pub(crate) fn put_back(&self, used: &[(String, Used)]) {
        for (key, used) in used {
            self.add(key, used);
        }
    }
}
