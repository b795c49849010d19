//! Realm for Swift: uniffi generates `Realm.swift` from this crate. Each function converts its arguments,
//! calls `realm`, and converts the results. Swift's own additions (streams, cancellation, closures) are in
//! `Sources/Realm`.

pub mod adapter;
pub mod callback;
pub mod chat;
pub mod error;
pub mod generation;
pub mod lists;
pub mod metrics;
pub mod model;
pub mod processor;
pub mod request;
pub mod runtime;
pub mod sequence;
pub mod tenant;
pub mod tokenizer;

uniffi::setup_scaffolding!("realm");
