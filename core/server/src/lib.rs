//! Serves Realm's models over HTTP, to the clients of OpenAI and others, and over gRPC.
//!
//! ```no_run
//! use realm_server::{Config, Server};
//!
//! let realm = realm::Realm::builder().build()?;
//! let model = realm.load_model("smollm2-135m")?;
//! let server = Server::new(Config::default(), realm, [("small".to_owned(), model)])?;
//! let stop = server.stopper();
//! // Another thread calls `stop.stop()`, for example when the user presses Ctrl-C.
//! server.run(|address| println!("http://{address}/v1"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`Config`]: the options; `realm serve --config FILE` reads them from TOML.
//! - [`Server`]: listens, and answers with an application's models.
//! - [`keys`]: API keys, and the file that holds them.
//! - [`Rates`]: limits on requests and tokens, for keys and tenants.
//!
//! Each key belongs to a tenant of the library, whose weight and limits hold over the network as they do in a
//! process. The protocols themselves are the crate `realm-protocol`'s, without any I/O.
#![forbid(unsafe_code)]

mod assets;
mod audit;
mod call;
mod catalog;
mod config;
mod grpc;
mod http;
mod keeper;
pub mod keys;
mod limits;
mod log;
mod metrics;
mod openapi;
mod reload;
mod restore;
mod routes;
mod server;
mod state;
mod tls;
mod visible;

pub use config::{
    AdapterConfig, Config, GrantsConfig, Http, LimitsConfig, ModelConfig, ProgramConfig, TenantConfig, Tls,
};
pub use limits::Rates;
pub use server::{Addresses, Reloader, Server, Stopper};

/// A server can't start or go on: a sentence that says why, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Error {
    why: String,
    /// The names of the option at fault and of the tables around it, from the outside, if there is one.
    place: Vec<String>,
}

impl Error {
    /// Creates an error of a sentence, for functions that read configurations.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), place: Vec::new() }
    }

    /// Names the option at fault.
    fn at<S: AsRef<str>>(self, place: impl IntoIterator<Item = S>) -> Self {
        Self { place: place.into_iter().map(|name| name.as_ref().to_owned()).collect(), ..self }
    }
}
