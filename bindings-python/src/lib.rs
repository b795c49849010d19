//! The extension module `realm._realm`: what `realm` for Python is made of. It converts arguments, calls the `realm`
//! crate and converts results.
//!
//! - [`wait`]: how a call waits: threads without the GIL and with an eye on signals, tasks by futures of their event loop.
//! - [`process`]: what fork and the interpreter's end would break.
//! - [`handle`]: objects that can be closed.
//! - [`arguments`]: keyword arguments that come as a dict.
//! - [`errors`]: Realm's errors as exceptions.
//! - The rest are the nouns of the `realm` crate.

mod arguments;
mod array;
#[cfg(unix)]
mod doorbell;
mod errors;
mod generation;
mod grants;
mod handle;
mod hub;
mod metrics;
mod model;
mod process;
mod progress;
mod protocol;
mod record;
mod request;
mod runtime;
mod sequence;
mod tenant;
mod tokenizer;
mod wait;

use pyo3::prelude::*;

/// What `realm` for Python is made of.
#[pymodule]
mod _realm {
    #[pymodule_export]
    use crate::array::Array;
    #[cfg(unix)]
    #[pymodule_export]
    use crate::doorbell::Doorbell;
    #[pymodule_export]
    use crate::generation::{Chunk, Completion, Generation, Timings, Token, TokenLogprob, ToolCall, Usage};
    #[pymodule_export]
    use crate::grants::{Grants, Store, log_to};
    #[pymodule_export]
    use crate::hub::{Hub, ModelStatus};
    #[pymodule_export]
    use crate::metrics::{Histogram, KvPages, Metrics, Requests, Served, TenantMetrics, Tokens};
    #[pymodule_export]
    use crate::model::{Adapter, FileInfo, Model, ModelInfo, Scored, inspect};
    #[pymodule_export]
    use crate::process::{after_fork, at_exit};
    #[pymodule_export]
    use crate::progress::ProgressEvent;
    #[pymodule_export]
    use crate::protocol::{Answer, Events, Service};
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
}
