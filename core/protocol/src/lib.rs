//! The protocols of OpenAI and others for Realm's models: their JSON becomes [`realm::Request`]s, and the
//! answers of models become their JSON. This crate opens no socket: a server, a transport for `httpx` or a
//! `fetch` passes a method, a path and a body, and sends the answer.
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
//! - [`Models`]: the models that a service knows; [`OneModel`] and [`LoadedByName`] implement it.
//! - [`openai`], [`responses`], [`anthropic`], [`ollama`]: the protocols' own types, and their mapping to
//!   requests and back.
//! - [`Gate`]: admits requests, for servers with limits.
//! - [`ApiError`]: a failure as clients see it, with the HTTP status; [`Dialect`] is the form of its body.
//!
//! Requests are read leniently: fields that OpenAI's specification does not have are ignored and listed in
//! [`Answer::headers`]. Fields that it has and that Realm can't honor are refused by name, so that no text is
//! generated under other conditions than requested.
#![forbid(unsafe_code)]

pub mod anthropic;
mod dialect;
mod error;
mod events;
mod fields;
mod frames;
mod gate;
mod json;
mod models;
pub mod ollama;
pub mod openai;
pub mod responses;
mod service;

pub use dialect::Dialect;
pub use error::ApiError;
pub use events::Events;
pub use frames::{Event, Framing};
pub use gate::{Gate, Permit};
pub use models::{BoxFuture, Extras, LoadedByName, ModelEntry, Models, OneModel};
pub use service::{Answer, Body, Service, start};

/// Returns the time in the form of RFC 3339, in UTC.
pub fn timestamp() -> String {
    jiff::Timestamp::now().to_string()
}
