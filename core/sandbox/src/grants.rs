//! The things that a tenant's programs may do besides asking models.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use realm_engine::{Level, MemoryLedger};

use crate::log::{Line, LogQueue};
use crate::store::Store;

/// Receives the lines of programs' logs.
pub(crate) type Log = Arc<dyn Fn(Line) + Send + Sync>;

/// The result of a tool: JSON, or an error message.
type Answer = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// A function of the application that programs may call with JSON.
pub(crate) type Tool = Arc<dyn Fn(String) -> Answer + Send + Sync>;

/// The source of a program's random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Random {
    /// The operating system's random numbers.
    System,
    /// The same numbers in each run, from this seed.
    Seed(u64),
}

/// The things that a tenant's programs may do besides asking models. The default is nothing.
#[derive(Clone, Default)]
pub struct Grants {
    pub(crate) log: Option<Log>,
    pub(crate) clock: bool,
    pub(crate) random: Option<Random>,
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) http: Vec<String>,
    pub(crate) tools: HashMap<String, Tool>,
}

impl Grants {
    /// Grants nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Lets programs write to the log: as `tracing` events with the tenant's name.
    pub fn log(self) -> Self {
        self.log_to(|tenant, level, message| match level {
            Level::Error => tracing::error!(target: "realm::program", tenant, "{message}"),
            Level::Warn => tracing::warn!(target: "realm::program", tenant, "{message}"),
            Level::Info => tracing::info!(target: "realm::program", tenant, "{message}"),
            Level::Debug => tracing::debug!(target: "realm::program", tenant, "{message}"),
            Level::Trace => tracing::trace!(target: "realm::program", tenant, "{message}"),
        })
    }

    /// Lets programs write to a log. `log` is called with the tenant's name, a level and the message. The
    /// program waits for it, and other programs may, too: put a function that takes long or that asks a model
    /// behind a [`log_queue`](Self::log_queue).
    pub fn log_to(self, log: impl Fn(&str, Level, &str) + Send + Sync + 'static) -> Self {
        self.log_lines(move |line| log(&line.from, line.level, &line.message))
    }

    /// Lets programs write to a log that a thread of its own passes on later. Until then their lines count as
    /// their tenant's memory; while 1 MiB of them is waiting, the tenant's programs wait.
    pub fn log_queue(self, queue: LogQueue) -> Self {
        self.log_lines(move |line| queue.push(line))
    }

    fn log_lines(mut self, log: impl Fn(Line) + Send + Sync + 'static) -> Self {
        self.log = Some(Arc::new(log));
        self
    }

    /// Charges the store's memory to this account from now on.
    pub fn belong_to(&self, ledger: &MemoryLedger) {
        if let Some(store) = &self.store {
            store.belongs_to(ledger);
        }
    }

    /// Lets programs read the time.
    pub fn clock(mut self) -> Self {
        self.clock = true;
        self
    }

    /// Lets programs get random numbers.
    pub fn random(mut self, random: Random) -> Self {
        self.random = Some(random);
        self
    }

    /// Lets programs keep data between runs.
    pub fn store(mut self, store: Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Lets programs send HTTP requests, through `wasi:http`, to a host such as `api.example.com` or, with a
    /// port other than the scheme's own, `localhost:8080`. `*.example.com` allows all its subdomains.
    /// Redirects are returned to the program like any other answer. A tenant's programs have at most 16
    /// requests at once; further ones wait.
    pub fn http(mut self, host: impl Into<String>) -> Self {
        self.http.push(host.into().to_ascii_lowercase());
        self
    }

    /// Lets programs call a function of the application's, which gets a JSON text and returns one. It runs on
    /// threads that other programs wait for: use [`tool_async`](Self::tool_async) for a function that takes
    /// long.
    pub fn tool(
        self,
        name: impl Into<String>,
        tool: impl Fn(String) -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        self.tool_async(name, move |arguments| std::future::ready(tool(arguments)))
    }

    /// Same as [`tool`](Self::tool), for an async function.
    pub fn tool_async<F>(
        mut self,
        name: impl Into<String>,
        tool: impl Fn(String) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<String, String>> + Send + 'static,
    {
        self.tools.insert(name.into(), Arc::new(move |arguments| Box::pin(tool(arguments))));
        self
    }
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grants")
            .field("log", &self.log.is_some())
            .field("clock", &self.clock)
            .field("random", &self.random)
            .field("store", &self.store.is_some())
            .field("http", &self.http)
            .field("tools", &self.tools.keys())
            .finish()
    }
}
