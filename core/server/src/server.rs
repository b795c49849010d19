//! Listening, and ending.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use hyper_util::server::graceful::GracefulShutdown;
use realm::{Model, Realm};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::http::{Allowed, connection};
use crate::keys::{Keyring, Sqlite, Store, now};
use crate::log::AccessLog;
use crate::metrics::HttpMetrics;
use crate::state::{Ledger, State};
use crate::tenants::{Served, Tenants};
use crate::{Config, Error, keeper, tls};

/// The most threads that read and write sockets. Models compute on other threads.
const THREADS: usize = 4;

/// The time to wait when the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(50);

/// A server with its models, before and while it listens.
pub struct Server {
    state: Arc<State>,
    store: Option<Box<dyn Store>>,
    tls: Option<TlsAcceptor>,
    stop: watch::Sender<u32>,
}

/// Stops a server, from any thread. A clone stops the same server.
#[derive(Clone)]
pub struct Stopper(watch::Sender<u32>);

impl Stopper {
    /// Has the server take no further connections and end when its requests have ended. A second call ends it
    /// at once.
    pub fn stop(&self) {
        self.0.send_modify(|calls| *calls = calls.saturating_add(1));
    }
}

impl Server {
    /// Creates a server of `models`, by the names that clients give. Keys are read from the file of
    /// [`Config::api_keys`].
    ///
    /// # Errors
    /// An option is out of range or contradicts another, or a file can't be read.
    pub fn new(
        config: Config,
        realm: Realm,
        models: impl IntoIterator<Item = (String, Model)>,
    ) -> Result<Self, Error> {
        let store = match &config.api_keys {
            None => None,
            Some(path) => Some(Box::new(Sqlite::open(path).map_err(of_store)?) as Box<dyn Store>),
        };
        Self::with_store(config, realm, models, store)
    }

    /// Creates a server whose keys are in `store`; without one, everything is allowed.
    ///
    /// # Errors
    /// Same as [`new`](Self::new).
    pub fn with_store(
        config: Config,
        realm: Realm,
        models: impl IntoIterator<Item = (String, Model)>,
        mut store: Option<Box<dyn Store>>,
    ) -> Result<Self, Error> {
        config.check()?;
        let served = |(name, model)| (name, Served { model, created: now() });
        let models = models.into_iter().map(served).collect();
        let tenants = Arc::new(Tenants::new(realm, models, config.tenants.clone())?);
        let keys = match &mut store {
            None => None,
            Some(store) => {
                let keys = Keyring::default();
                store.changed().map_err(of_store)?;
                keys.replace(store.keys().map_err(of_store)?);
                Some(keys)
            }
        };
        let log = config.access_log.as_ref().map(|path| {
            let failed = |error| Error(format!("the access log {}: {error}", path.display()));
            AccessLog::open(path).map_err(failed)
        });
        let state = Arc::new(State {
            allowed: Allowed::new(&config),
            tenants,
            keys,
            ledger: Ledger::default(),
            metrics: HttpMetrics::new(),
            log: log.transpose()?,
            draining: AtomicBool::new(false),
            config,
        });
        let tls = state.config.tls.as_ref().map(tls::acceptor).transpose()?;
        Ok(Self { state, store, tls, stop: watch::channel(0).0 })
    }

    /// The names of the models.
    pub fn models(&self) -> Vec<String> {
        self.state.tenants.names().map(str::to_owned).collect()
    }

    /// Returns a handle that stops the server.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Listens and serves until the server is stopped. `ready` is called with the address when clients can
    /// connect. Blocks.
    ///
    /// # Errors
    /// The address can't be had.
    pub fn run(self, ready: impl FnOnce(SocketAddr)) -> Result<(), Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores.min(THREADS))
            .thread_name("realm-http")
            .enable_all()
            .build()
            .map_err(|error| Error(format!("no threads for connections: {error}")))?;
        let served = runtime.block_on(self.serve(ready));
        // What still runs was given its time.
        runtime.shutdown_background();
        served
    }

    /// Same as [`run`](Self::run), for tasks of tokio with its timers and its I/O.
    ///
    /// # Errors
    /// Same as [`run`](Self::run).
    pub async fn serve(mut self, ready: impl FnOnce(SocketAddr)) -> Result<(), Error> {
        let asked = SocketAddr::new(self.state.config.host, self.state.config.port);
        let failed = |error| {
            Error(format!(
                "{asked} can't be listened at: {error}; choose another port with `--port`, 0 for any"
            ))
        };
        let listener = TcpListener::bind(asked).await.map_err(failed)?;
        ready(listener.local_addr().map_err(failed)?);
        let (keeping, kept) = mpsc::channel::<()>();
        let keeper = self.store.take().map(|store| {
            let state = Arc::clone(&self.state);
            let run = move || keeper::run(&state, store, &kept);
            std::thread::Builder::new().name("realm-keys".into()).spawn(run)
        });
        let keeper = keeper.transpose().map_err(|error| Error(format!("no thread for keys: {error}")))?;
        self.accept(listener).await;
        // Usage of the last requests is written before the process ends.
        drop(keeping);
        if let Some(keeper) = keeper {
            let _ = tokio::task::spawn_blocking(move || keeper.join()).await;
        }
        Ok(())
    }

    async fn accept(&self, listener: TcpListener) {
        let mut stopped = self.stop.subscribe();
        let places = Arc::new(Semaphore::new(self.state.config.http.max_connections));
        let (graceful, mut connections) = (GracefulShutdown::new(), JoinSet::new());
        loop {
            let next = async {
                // The semaphore is never closed.
                let place = Arc::clone(&places).acquire_owned().await.ok();
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                next = next => next,
                _ = stopped.wait_for(|&calls| calls > 0) => break,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (state, tls) = (Arc::clone(&self.state), self.tls.clone());
                    let watcher = graceful.watcher();
                    connections.spawn(async move {
                        let _place = place;
                        connection::serve(state, stream, tls, watcher).await;
                    });
                }
                Err(error) => {
                    tracing::warn!("a connection can't be accepted: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        // Clients that come now are refused at once, and may try another server.
        drop(listener);
        self.state.draining.store(true, Ordering::Relaxed);
        tokio::select! {
            () = graceful.shutdown() => {}
            () = tokio::time::sleep(self.state.config.http.drain_timeout) => {}
            _ = stopped.wait_for(|&calls| calls > 1) => {}
        }
        // Dropping a connection's task ends its requests.
        connections.shutdown().await;
    }
}

fn of_store(error: crate::keys::StoreError) -> Error {
    Error(error.to_string())
}
