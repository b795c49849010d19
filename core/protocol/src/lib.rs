//! OpenAI's protocol, asked of Realm's models: its JSON becomes [`realm::Request`]s, and what models answer becomes its
//! JSON. Nothing here reads or writes a socket: a server, a transport for `httpx` and a `fetch` hand over a method, a path
//! and a body, and send what comes back.
//!
//! ```no_run
//! use realm_protocol::{Body, LoadedByName, Service};
//!
//! # async fn run() -> Result<(), realm::Error> {
//! let service = Service::new(LoadedByName::new(realm::Realm::builder().build()?));
//! let body = br#"{"model": "smollm2-135m", "messages": [{"role": "user", "content": "Hi"}]}"#;
//! let answer = service.handle("POST", "/v1/chat/completions", body).await;
//! match answer.body {
//!     Body::Json(text) => println!("{}: {text}", answer.status),
//!     Body::Events(events) => while let Some(event) = events.next_async().await {
//!         println!("data: {event}\n");
//!     },
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Service`]: finds the model that a request names, runs the request and returns an [`Answer`].
//! - [`Models`]: where a service finds models; [`OneModel`] and [`LoadedByName`] are two such places.
//! - [`openai`]: the protocol's own types, and their mapping to requests and back.
//! - [`ApiError`]: what OpenAI's clients are told of a failure, with the HTTP status.
//!
//! Requests are read leniently: fields that OpenAI's specification does not have are ignored and listed in
//! [`Answer::headers`]. Fields that it has and that Realm can't honour are refused by name, so that no text is made
//! under other conditions than those asked for.
#![forbid(unsafe_code)]

mod error;
mod events;
mod fields;
mod json;
mod models;
pub mod openai;
mod service;

pub use error::ApiError;
pub use events::Events;
pub use models::{BoxFuture, LoadedByName, ModelEntry, Models, OneModel};
pub use service::{Answer, Body, Service};
