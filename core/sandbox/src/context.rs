//! The circumstances of a run, which its host functions and those of the programs that it runs see.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use realm_engine::{LoadedModel, RunMeter};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::Error;
use crate::budget::Budget;
use crate::grants::Grants;
use crate::log::Room;
use crate::request::Request;

/// Finds a loaded model by its name.
pub type FindModel = Arc<dyn Fn(&str) -> Option<Arc<LoadedModel>> + Send + Sync>;

/// Runs the tenant's program of a name on an input, a number of programs deep; returns its text.
pub(crate) type RunProgram = Arc<
    dyn Fn(Arc<Context>, String, Value, usize) -> Pin<Box<dyn Future<Output = Result<String, Error>> + Send>>
        + Send
        + Sync,
>;

/// The circumstances of a run: the same, except for the input, for the program that answers and those that it
/// runs in turn.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) model: Arc<LoadedModel>,
    /// Other models that the application has loaded.
    pub(crate) models: FindModel,
    pub(crate) tenant: Arc<realm_engine::Tenant>,
    pub(crate) grants: Arc<Grants>,
    /// The free connections to granted hosts, and the free room for lines of the log: those of the tenant.
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) log: Room,
    /// Runs another program of the tenant.
    pub(crate) run_program: RunProgram,
    pub(crate) request: Request,
    pub(crate) budget: Arc<Budget>,
    pub(crate) meter: Arc<Mutex<RunMeter>>,
    pub(crate) submitted: Instant,
    pub(crate) started: Instant,
}
