//! Runs tenants' WebAssembly programs on shared models.
//!
//! ```
//! use realm_sandbox::{Sandbox, SandboxConfig};
//!
//! // The smallest program: a core module that is started for a request and writes nothing.
//! let program = r#"(module (memory (export "memory") 1) (func (export "realm_run") (result i32) i32.const 0))"#;
//! let sandbox = Sandbox::new(&SandboxConfig::default())?;
//! let program = sandbox.compile(&wat::parse_str(program)?)?;
//! println!("{:?}", program.info().contract);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A program is a component that exports one of the contract's levels (see `wit/`): it answers requests
//! itself, or it is called at each token. For every request it gets a sandbox of its own, which contains only
//! the contract's imports: models, and the grants of the tenant.
//!
//! - [`Sandbox`]: compiles and runs programs; one for each process.
//! - [`Program`]: a compiled component.
//! - [`Grants`]: the things that a tenant's programs may do besides asking models; nothing by default.
//! - [`LogQueue`]: calls a function with the lines of a log on a thread of its own.
//! - [`Job`] and [`Reply`]: a request to a program, and its answer as it arrives.
//!
//! Inside, `runtime` is the state that all programs share, `executor` decides on which thread a program
//! computes, and `run` and `policy` serve a request. `host` has the functions that programs call, `handles`
//! the values behind a program's handles, `state` the data of one instance, and `context` that of its run.
//! `convert` converts between the contract's types and Realm's. `bounds` and `compiler` bound the cost of
//! compiling, and `budget`, `pace` and `clock` hold every program to its limits.

mod bindings;
mod bomb;
mod bounds;
mod budget;
mod cache;
mod clock;
mod compiler;
mod componentize;
mod context;
mod convert;
mod error;
mod executor;
mod grants;
mod handles;
mod host;
mod http;
mod log;
mod pace;
mod passed;
mod policy;
mod program;
mod raw;
mod reader;
mod request;
mod run;
mod runtime;
mod sandbox;
mod slots;
mod state;
mod stdio;
mod store;
mod thread_time;
mod timers;
mod turn;
mod wasi;

pub use context::FindModel;
pub use error::{Error, ErrorKind};
pub use grants::{Grants, Random};
pub use log::LogQueue;
pub use program::{Contract, Program, ProgramInfo, Programs};
pub use reader::Chunks;
pub use request::Request;
pub use run::{Job, Reply};
pub use runtime::SandboxConfig;
pub use sandbox::Sandbox;
pub use store::Store;
