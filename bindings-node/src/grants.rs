//! The grants of programs, and logs.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use napi::Status;
use napi::bindgen_prelude::*;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use realm::{Grants, Level, LogQueue, Random, Store};
use serde::Deserialize;

use crate::error::{failed, invalid};
use crate::options::read;

/// Receives the source, the level and the text of a line.
pub(crate) type Log<'a> = Function<'a, Line, ()>;
type Line = FnArgs<(String, &'static str, String)>;
type Sink = ThreadsafeFunction<Line, (), Line, Status, false, true, MAX_CALLS>;

/// The most lines that wait for Node's thread; further ones wait in Realm's queue, which is bounded.
const MAX_CALLS: usize = 256;

/// Calls a tool by its name with JSON and answers with JSON: `{"answer": ...}` or `{"error": "..."}`.
pub(crate) type Tools<'a> = Function<'a, Call, Promise<String>>;
type Call = FnArgs<(String, String)>;
pub(crate) type Dispatch = ThreadsafeFunction<Call, Promise<String>, Call, Status, false, true>;

/// The options of `ts/types.ts`, without the functions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GrantOptions {
    clock: Option<bool>,
    random: Option<RandomOption>,
    store: Option<StoreOption>,
    http: Option<Vec<String>>,
    /// The names of the tools.
    tools: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "random is true, false or a seed")]
enum RandomOption {
    System(bool),
    Seed(u64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreOption {
    quota: usize,
    folder: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Answer(serde_json::Value),
    Error(String),
}

/// Passes lines to Node's thread, from a thread that may wait for it.
fn lines(log: &Log<'_>) -> Result<LogQueue> {
    let builder = log.build_threadsafe_function::<Line>().weak::<true>().max_queue_size::<MAX_CALLS>();
    let sink: Sink = builder.build()?;
    Ok(LogQueue::new(move |from, severity, message| {
        let line = (from.to_owned(), severity.as_str(), message.to_owned());
        // A process that is ending takes no more lines.
        let _ = sink.call(line.into(), ThreadsafeFunctionCallMode::Blocking);
    }))
}

pub(crate) fn grants(options: &str, log: Option<Log<'_>>, tools: Option<Tools<'_>>) -> Result<Grants> {
    let options: GrantOptions = read(options)?;
    let mut grants = Grants::none();
    if let Some(log) = log {
        grants = grants.log_queue(lines(&log)?);
    }
    if options.clock == Some(true) {
        grants = grants.clock();
    }
    grants = match options.random {
        Some(RandomOption::System(true)) => grants.random(Random::System),
        Some(RandomOption::Seed(seed)) => grants.random(Random::Seed(seed)),
        _ => grants,
    };
    grants = match options.store {
        None => grants,
        Some(StoreOption { quota, folder: None }) => grants.store(Store::in_memory(quota)),
        Some(StoreOption { quota, folder: Some(folder) }) => {
            grants.store(Store::on_disk(folder, quota).map_err(|error| failed(error.into()))?)
        }
    };
    for host in options.http.into_iter().flatten() {
        grants = grants.http(host);
    }
    let Some(tools) = tools else { return Ok(grants) };
    let dispatch = dispatch(&tools)?;
    for name in options.tools {
        grants = grants.tool_async(name.clone(), tool(&dispatch, name));
    }
    Ok(grants)
}

/// Returns a function that calls the application's tools on Node's thread.
pub(crate) fn dispatch(tools: &Tools<'_>) -> Result<Arc<Dispatch>> {
    Ok(Arc::new(tools.build_threadsafe_function::<Call>().weak::<true>().build()?))
}

type Said = Pin<Box<dyn Future<Output = std::result::Result<String, String>> + Send>>;

/// Returns one of the tools.
pub(crate) fn tool(
    dispatch: &Arc<Dispatch>,
    name: String,
) -> impl Fn(String) -> Said + Send + Sync + 'static {
    let dispatch = Arc::clone(dispatch);
    move |arguments| {
        let (dispatch, name) = (Arc::clone(&dispatch), name.clone());
        Box::pin(async move {
            let said = async { dispatch.call_async((name, arguments).into()).await?.await };
            let said = said.await.map_err(|error| error.to_string())?;
            match serde_json::from_str(&said).map_err(|error| error.to_string())? {
                Answer::Answer(answer) => Ok(answer.to_string()),
                Answer::Error(error) => Err(error),
            }
        })
    }
}

/// Sends Realm's own log to a function; `null` ends that.
#[napi]
pub fn log_to(
    #[napi(ts_arg_type = "((target: string, level: string, message: string) => void) | null")] log: Option<
        Log<'_>,
    >,
    most: String,
) -> Result<()> {
    let level = Level::ALL.into_iter().find(|level| level.as_str() == most);
    let most = level.ok_or_else(|| {
        invalid(format!("the level is 'error', 'warn', 'info', 'debug' or 'trace', not '{most}'"))
    })?;
    let lines = log.as_ref().map(lines).transpose()?;
    let sink = lines.map(|lines| {
        move |severity: Level, target: &str, message: &str| lines.write(target, severity, message)
    });
    realm::log_to(most, sink).map_err(failed)
}
