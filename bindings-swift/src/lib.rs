//! Realm for Swift: what uniffi generates `Realm.swift` from. Nothing is decided here; arguments are converted, `realm` is
//! called, and results are converted. What Swift adds (streams, cancellation, closures) is in `Sources/Realm`.

pub mod callback;
pub mod chat;
pub mod error;
pub mod generation;
pub mod lists;
pub mod metrics;
pub mod model;
pub mod request;
pub mod runtime;
pub mod sequence;
pub mod tenant;

uniffi::setup_scaffolding!("realm");
