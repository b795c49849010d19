//! The extension module `realm._realm`, which `realm` for Python is built on. It converts arguments, calls
//! the `realm` crate and converts results.
//!
//! - [`wait`]: waiting for calls: threads without the GIL and with checks for signals, tasks by futures of
//!   their event loop.
//! - [`process`]: forks and the interpreter's end.
//! - [`handle`]: objects that can be closed.
//! - [`arguments`]: keyword arguments given as a dict, whole numbers, token ids.
//! - [`text`]: texts, even with lone surrogates.
//! - [`callbacks`]: the application's functions, visible to the garbage collector.
//! - [`record`]: plain results.
//! - [`errors`]: Realm's errors as exceptions.
//! - The rest are the types of the `realm` crate.

mod adapter;
mod arguments;
mod array;
mod callbacks;
mod chat;
#[cfg(unix)]
mod doorbell;
mod errors;
mod generation;
mod grants;
mod handle;
mod hub;
mod info;
mod lists;
mod metrics;
mod model;
mod process;
mod processors;
mod progress;
mod protocol;
mod record;
mod request;
mod results;
mod runtime;
mod sequence;
mod tenant;
mod text;
mod tokenizer;
mod wait;

use pyo3::prelude::*;

/// The native module of `realm` for Python.
#[pymodule(gil_used = true)]
mod _realm {
    #[pymodule_export]
    use crate::adapter::Adapter;
    #[pymodule_export]
    use crate::array::Array;
    #[pymodule_export]
    use crate::callbacks::{Callbacks, Granted};
    #[pymodule_export]
    use crate::chat::ChatSession;
    #[cfg(unix)]
    #[pymodule_export]
    use crate::doorbell::Doorbell;
    #[pymodule_export]
    use crate::generation::Generation;
    #[pymodule_export]
    use crate::grants::{Grants, Store, log_to};
    #[pymodule_export]
    use crate::hub::{Hub, ModelStatus};
    #[pymodule_export]
    use crate::info::{FileInfo, ModelInfo, Scored, inspect};
    #[pymodule_export]
    use crate::metrics::{Histogram, KvPages, MemoryUse, Metrics, Requests, Served, TenantMetrics, Tokens};
    #[pymodule_export]
    use crate::model::Model;
    #[pymodule_export]
    use crate::process::{after_fork, at_exit};
    #[pymodule_export]
    use crate::progress::ProgressEvent;
    #[pymodule_export]
    use crate::protocol::{Answer, Events, Service};
    #[pymodule_export]
    use crate::results::{Chunk, Completion, Timings, Token, TokenLogprob, ToolCall, Usage};
    #[pymodule_export]
    use crate::runtime::{Realm, command};
    #[pymodule_export]
    use crate::sequence::{Forwarded, Sequence};
    #[pymodule_export]
    use crate::tenant::{Limits, Program, ProgramInfo, Tenant};
    #[pymodule_export]
    use crate::tokenizer::Tokenizer;
    #[pymodule_export]
    use crate::wait::Awaitable;

    /// The version of this package.
    #[allow(non_upper_case_globals)]
    #[pymodule_export]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
