//! Models, adapters and programs in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use realm::{Adapter, Model};
use serde::Serialize;

use crate::config::{AdapterConfig, ModelConfig};
use crate::keys::{Version, now};

/// The party that an entry belongs to, and that alone changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// The application that made the server.
    Application,
    /// The configuration's file, or the command's arguments.
    Configuration,
    Administration,
}

/// Held by a call that has found a model: it stays loaded until then.
pub(crate) type Lease = Arc<()>;

/// A model that clients can name.
pub(crate) struct Served {
    pub(crate) model: Model,
    /// Tells one load from another.
    pub(crate) id: u64,
    pub(crate) config: ModelConfig,
    pub(crate) origin: Origin,
    /// The time of its loading, in seconds since 1970.
    pub(crate) created: u64,
    lease: Lease,
}

impl Served {
    pub(crate) fn new(model: Model, config: ModelConfig, origin: Origin) -> Arc<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        Arc::new(Self { model, id, config, origin, created: now(), lease: Arc::default() })
    }

    pub(crate) fn lease(&self) -> Lease {
        Arc::clone(&self.lease)
    }

    /// The number of calls that have found the model and have not ended.
    pub(crate) fn running(&self) -> usize {
        Arc::strong_count(&self.lease) - 1
    }

    pub(super) fn is_in_use(&self) -> bool {
        self.running() > 0
    }
}

/// A tenant's adapter.
pub(crate) struct HeldAdapter {
    pub(crate) config: AdapterConfig,
    pub(crate) origin: Origin,
    /// The id of the model that it was loaded for.
    pub(crate) model: u64,
    /// The adapter, or why it could not be loaded when the server started.
    pub(crate) adapter: Result<Adapter, String>,
}

/// A tenant's program.
pub(crate) struct HeldProgram {
    pub(crate) origin: Origin,
    /// The version that runs.
    pub(crate) version: Version,
    /// The program, or why it could not be compiled when the server started.
    pub(crate) program: Result<Compiled, String>,
}

#[cfg(feature = "sandbox")]
pub(crate) type Compiled = realm::Program;

/// Builds without the sandbox have no programs.
#[cfg(not(feature = "sandbox"))]
pub(crate) enum Compiled {}
