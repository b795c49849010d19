//! What all requests of a server share.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Config;
use crate::http::Allowed;
use crate::keys::{Keyring, Used};
use crate::log::AccessLog;
use crate::metrics::HttpMetrics;
use crate::tenants::Tenants;

pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) allowed: Allowed,
    pub(crate) tenants: Arc<Tenants>,
    /// `None` if there are no keys, and everything is allowed.
    pub(crate) keys: Option<Keyring>,
    pub(crate) ledger: Ledger,
    pub(crate) metrics: HttpMetrics,
    pub(crate) log: Option<AccessLog>,
    /// True while the server waits for its last requests.
    pub(crate) draining: AtomicBool,
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
