//! Runs tenants' WebAssembly programs on shared models.
//!
//! A program is a component that exports one of the contract's levels (see `wit/`): it answers requests
//! itself, or it is called at each token. For every request it gets a sandbox of its own, which contains only
//! the contract's imports: models, and the grants of the tenant.
//!
//! - [`Sandbox`]: compiles and runs programs; one for each process.
//! - [`Program`]: a compiled component.
//! - [`Grants`]: the things that a tenant's programs may do besides asking models; nothing by default.
//! - [`LogQueue`]: calls a function with the lines of a log on a thread of its own.
//! - [`Model`]: a loaded model as programs see it.
//! - [`Job`] and [`Reply`]: a request to a program, and its answer as it arrives.
//!
//! Inside, `executor` decides on which thread a program computes, `run` and `policy` serve a request, `host`
//! has the functions that programs call, `state` is the data of these functions, `bounds` and `compiler`
//! bound the cost of compiling, and `budget`, `pace` and `clock` hold every program to its limits.

mod bindings;
mod bomb;
mod bounds;
mod budget;
mod cache;
mod clock;
mod compiler;
mod componentize;
mod error;
mod executor;
mod grants;
mod host;
mod http;
mod log;
mod model;
mod pace;
mod passed;
mod policy;
mod priority;
mod program;
mod raw;
mod reader;
mod run;
mod sandbox;
mod seats;
mod state;
mod store;
mod thread_time;
mod timers;
mod turn;
mod wasi;
mod written;

pub use error::{Error, ErrorKind};
pub use grants::{Answer, Grants, Level, Random, Tool};
pub use log::LogQueue;
pub use model::{Model, Prompt, Request, prompt_too_long};
pub use program::{Contract, Program, ProgramInfo, Programs};
pub use reader::Chunks;
pub use run::{FindModel, Job, Reply};
pub use sandbox::{Sandbox, SandboxConfig};
pub use store::Store;
