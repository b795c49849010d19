//! What a tenant's programs may do beside asking models.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use realm_engine::MemoryLedger;

use crate::log::{Line, LogQueue};
use crate::store::Store;

/// How bad a line of a program's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is odd.
    Warn,
    /// Something happened.
    Info,
    /// For who looks for a fault.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// All of them, the worst first.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The name in lower case, the same in every language.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Takes the lines of programs' logs.
pub(crate) type Log = Arc<dyn Fn(Line) + Send + Sync>;

/// What a tool answers: JSON, or a complaint.
pub type Answer = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// A function of the application that programs may call with JSON.
pub type Tool = Arc<dyn Fn(String) -> Answer + Send + Sync>;

/// Where a program's random numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Random {
    /// The operating system.
    System,
    /// The same numbers in each run.
    Seed(u64),
}

/// What a tenant's programs may do beside asking models. By default nothing.
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
    /// Nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Programs may write to the log: `tracing` events with the tenant's name.
    pub fn log(self) -> Self {
        self.log_to(|tenant, level, message| match level {
            Level::Error => tracing::error!(target: "realm::program", tenant, "{message}"),
            Level::Warn => tracing::warn!(target: "realm::program", tenant, "{message}"),
            Level::Info => tracing::info!(target: "realm::program", tenant, "{message}"),
            Level::Debug => tracing::debug!(target: "realm::program", tenant, "{message}"),
            Level::Trace => tracing::trace!(target: "realm::program", tenant, "{message}"),
        })
    }

    /// Programs may write to a log: it is called with the tenant's name, a level and the message. The program waits for it, and so
    /// may others: one that takes long or asks a model belongs behind a [`log_queue`](Self::log_queue).
    pub fn log_to(self, log: impl Fn(&str, Level, &str) + Send + Sync + 'static) -> Self {
        self.log_lines(move |line| log(&line.from, line.level, &line.message))
    }

    /// Programs may write to a log that takes their lines later, on a thread of its own. Until then they count as their tenant's
    /// memory, and while 1 MiB of them wait the tenant's programs do.
    pub fn log_queue(self, queue: LogQueue) -> Self {
        self.log_lines(move |line| queue.push(line))
    }

    fn log_lines(mut self, log: impl Fn(Line) + Send + Sync + 'static) -> Self {
        self.log = Some(Arc::new(log));
        self
    }

    /// Says whose memory the store takes from now on.
    pub fn belong_to(&self, ledger: &MemoryLedger) {
        if let Some(store) = &self.store {
            store.belongs_to(ledger);
        }
    }

    /// Programs may read the time.
    pub fn clock(mut self) -> Self {
        self.clock = true;
        self
    }

    /// Programs may have random numbers.
    pub fn random(mut self, random: Random) -> Self {
        self.random = Some(random);
        self
    }

    /// Programs may keep things between runs.
    pub fn store(mut self, store: Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Programs may send HTTP requests to a host, such as `api.example.com` or, for another port than the scheme's own,
    /// `localhost:8080`; `*.example.com` allows all its subdomains. Through `wasi:http`; redirections are
    /// answers like any other, and a tenant's programs have 16 requests under way at once, of which more wait for their turn.
    pub fn http(mut self, host: impl Into<String>) -> Self {
        self.http.push(host.into().to_ascii_lowercase());
        self
    }

    /// Programs may call a function of the application's: it gets a JSON text and answers with one. It runs on threads that
    /// other programs wait for, so what takes long belongs into [`tool_async`](Self::tool_async).
    pub fn tool(
        self,
        name: impl Into<String>,
        tool: impl Fn(String) -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        self.tool_async(name, move |arguments| std::future::ready(tool(arguments)))
    }

    /// As [`tool`](Self::tool), for a function that waits.
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
