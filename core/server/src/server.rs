//! Listening, and ending.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::server::graceful::GracefulShutdown;
use realm::{LoadOptions, Model, Realm};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::audit::Audit;
use crate::catalog::{Catalog, Origin, Served};
use crate::http::{Door, connection};
use crate::keeper::{Jobs, Keeper};
use crate::keys::{Keyring, Sqlite, Store};
use crate::log::AccessLog;
use crate::state::{Parts, Settings, State};
use crate::{Config, Error, keeper, reload, restore};

/// The most threads that read and write sockets. Models compute on other threads.
const THREADS: usize = 4;

/// The time to wait when the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(50);

/// The most connections of administration at once.
const ADMINISTRATORS: usize = 64;

/// A server with its models, before and while it listens.
pub struct Server {
    state: Arc<State>,
    store: Option<(Box<dyn Store>, Jobs)>,
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

/// Has a server read its configuration again, from any thread.
#[derive(Clone)]
pub struct Reloader(Arc<State>);

impl Reloader {
    /// Reads the configuration again and applies it while requests run. Blocks until new models are loaded.
    ///
    /// # Errors
    /// The configuration is faulty, changes an option that a running server can't change, or a model can't be
    /// loaded. Then nothing is changed.
    pub fn reload(&self) -> Result<(), Error> {
        reload::reload(&self.0)
    }
}

/// The addresses at which a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Addresses {
    /// Clients' address.
    pub clients: SocketAddr,
    /// The address of administration.
    pub admin: Option<SocketAddr>,
}

impl Server {
    /// Creates a server of `models`, by the names that clients give. Keys are read from the file of
    /// [`Config::api_keys`]. Loads the adapters and compiles the programs of the configuration's tenants;
    /// its models are the caller's to load.
    ///
    /// # Errors
    /// An option is out of range or contradicts another, or a file can't be read.
    pub fn new(
        config: Config,
        realm: Realm,
        models: impl IntoIterator<Item = (String, Model)>,
    ) -> Result<Self, Error> {
        // A faulty configuration creates no file.
        config.check()?;
        let store = match config.store() {
            None => None,
            Some(path) => Some(Box::new(Sqlite::open(path).map_err(of_store)?) as Box<dyn Store>),
        };
        let keys = config.api_keys.is_some();
        Self::create(config, realm, models, store, keys)
    }

    /// Creates a server whose keys are in `store`; without one, everything is allowed.
    ///
    /// # Errors
    /// Same as [`new`](Self::new).
    pub fn with_store(
        config: Config,
        realm: Realm,
        models: impl IntoIterator<Item = (String, Model)>,
        store: Option<Box<dyn Store>>,
    ) -> Result<Self, Error> {
        let keys = store.is_some();
        Self::create(config, realm, models, store, keys)
    }

    fn create(
        config: Config,
        realm: Realm,
        models: impl IntoIterator<Item = (String, Model)>,
        mut store: Option<Box<dyn Store>>,
        keys: bool,
    ) -> Result<Self, Error> {
        config.check()?;
        let catalog = Arc::new(Catalog::new(realm));
        let served = |(name, model): (String, Model)| {
            let (config, origin) = match config.models.get(&name) {
                Some(config) => (config.clone(), Origin::Configuration),
                None => (Default::default(), Origin::Application),
            };
            (name, Served::new(model, config, origin))
        };
        let models: Vec<_> = models.into_iter().map(served).collect();
        let keys = match &mut store {
            Some(store) if keys => {
                let keys = Keyring::default();
                store.changed().map_err(of_store)?;
                keys.replace(store.keys().map_err(of_store)?);
                Some(keys)
            }
            _ => None,
        };
        reload::begin(&catalog, &config, models)?;
        let log = config.access_log.as_ref().map(|path| {
            AccessLog::open(path)
                .map_err(|error| Error::new(format!("the access log {}: {error}", path.display())))
        });
        let audit = config.audit_log.as_ref().map(|path| {
            Audit::open(path)
                .map_err(|error| Error::new(format!("the audit log {}: {error}", path.display())))
        });
        let (log, audit, settings) = (log.transpose()?, audit.transpose()?, Settings::new(config)?);
        let (keeper, store) = match store {
            Some(store) => {
                let (keeper, jobs) = Keeper::new();
                (Some(keeper), Some((store, jobs)))
            }
            None => (None, None),
        };
        let state = State::new(Parts { settings, catalog, keys, log, audit, keeper });
        Ok(Self { state: Arc::new(state), store, stop: watch::channel(0).0 })
    }

    /// Sets the options of models that are loaded while the server runs, by administration or a new
    /// configuration, where their entries have none. Call it before the first handle is taken.
    #[must_use]
    pub fn load_options(mut self, options: LoadOptions) -> Self {
        if let Some(state) = Arc::get_mut(&mut self.state) {
            state.load_options = options;
        }
        self
    }

    /// Sets the function that reads the configuration again, for [`Reloader::reload`] and administration.
    /// Call it before the first handle is taken.
    #[must_use]
    pub fn on_reload(mut self, read: impl Fn() -> Result<Config, Error> + Send + Sync + 'static) -> Self {
        if let Some(state) = Arc::get_mut(&mut self.state) {
            state.reread = Some(Box::new(read));
        }
        self
    }

    /// The names of the models that clients can name now.
    pub fn models(&self) -> Vec<String> {
        self.state.catalog.names().models.keys().cloned().collect()
    }

    /// Returns a handle that stops the server.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Returns a handle that has the server read its configuration again.
    pub fn reloader(&self) -> Reloader {
        Reloader(Arc::clone(&self.state))
    }

    /// Listens and serves until the server is stopped. `ready` is called with the address when clients can
    /// connect. Blocks.
    ///
    /// # Errors
    /// The address can't be had.
    pub fn run(self, ready: impl FnOnce(SocketAddr)) -> Result<(), Error> {
        self.run_at(|addresses| ready(addresses.clients))
    }

    /// Same as [`run`](Self::run), with the address of administration.
    ///
    /// # Errors
    /// Same as [`run`](Self::run).
    pub fn run_at(self, ready: impl FnOnce(Addresses)) -> Result<(), Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores.min(THREADS))
            .thread_name("realm-http")
            .enable_all()
            .build()
            .map_err(|error| Error::new(format!("no threads for connections: {error}")))?;
        let served = runtime.block_on(self.serve(ready));
        // What still runs was given its time.
        runtime.shutdown_background();
        served
    }

    /// Same as [`run_at`](Self::run_at), for tasks of tokio with its timers and its I/O.
    ///
    /// # Errors
    /// Same as [`run`](Self::run).
    pub async fn serve(mut self, ready: impl FnOnce(Addresses)) -> Result<(), Error> {
        let config = self.state.settings().config.clone();
        let clients = bind(SocketAddr::new(config.host, config.port), "--port").await?;
        let admin = match config.admin {
            Some(address) => Some(bind(address, "--admin").await?),
            None => None,
        };
        if let Some((store, jobs)) = self.store.take() {
            let state = Arc::clone(&self.state);
            let restored = tokio::task::spawn_blocking(move || restore::all(&state, store)).await;
            self.store = Some((restored.map_err(|_| Error::new("the restart of the state failed"))??, jobs));
        }
        let failed = |error| Error::new(format!("the address can't be read: {error}"));
        let addresses = Addresses {
            clients: clients.local_addr().map_err(failed)?,
            admin: admin.as_ref().map(TcpListener::local_addr).transpose().map_err(failed)?,
        };
        crate::grpc::healthy(&self.state.health).await;
        ready(addresses);
        let stop = self.state.keeper.as_ref().map(Keeper::stop);
        let keeper = self.store.take().map(|(store, jobs)| {
            let state = Arc::clone(&self.state);
            let run = move || keeper::run(&state, store, &jobs);
            std::thread::Builder::new().name("realm-keys".into()).spawn(run)
        });
        let keeper =
            keeper.transpose().map_err(|error| Error::new(format!("no thread for keys: {error}")))?;
        tokio::join!(self.accept(clients, Door::Clients, config.http.max_connections), async {
            if let Some(admin) = admin {
                self.accept(admin, Door::Administration, ADMINISTRATORS).await;
            }
        });
        // Usage of the last requests is written before the process ends.
        drop(stop);
        if let Some(keeper) = keeper {
            let _ = tokio::task::spawn_blocking(move || keeper.join()).await;
        }
        Ok(())
    }

    async fn accept(&self, listener: TcpListener, door: Door, most: usize) {
        let mut stopped = self.stop.subscribe();
        let places = Arc::new(Semaphore::new(most));
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
                    let connection = self.connection(stream, door, graceful.watcher());
                    connections.spawn(async move {
                        let _place = place;
                        connection.await;
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
        self.state.draining.send_replace(true);
        crate::grpc::draining(&self.state.health).await;
        let patience = self.state.settings().config.http.drain_timeout;
        tokio::select! {
            () = graceful.shutdown() => {}
            () = tokio::time::sleep(patience) => {}
            _ = stopped.wait_for(|&calls| calls > 1) => {}
        }
        // Dropping a connection's task ends its requests.
        connections.shutdown().await;
    }

    fn connection(
        &self,
        stream: TcpStream,
        door: Door,
        watcher: hyper_util::server::graceful::Watcher,
    ) -> impl Future<Output = ()> + use<> {
        let settings = self.state.settings();
        // Administration of this machine needs no certificate.
        let local = || settings.config.admin.is_some_and(|address| address.ip().is_loopback());
        let tls = settings.tls.clone().filter(|_| door == Door::Clients || !local());
        connection::serve(Arc::clone(&self.state), door, stream, tls, watcher)
    }
}

async fn bind(address: SocketAddr, option: &str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::new(format!(
            "{address} can't be listened at: {error}; choose another port with `{option}`, 0 for any"
        ))
    })
}

fn of_store(error: crate::keys::StoreError) -> Error {
    Error::new(error.to_string())
}
