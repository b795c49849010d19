//! The protocol `realm.v1`: the messages of Realm's gRPC calls, a client and a server for them.
//!
//! `proto/realm/v1/realm.proto` describes the calls. `ci/rpc` writes [`v1`] and [`DESCRIPTORS`] from it; both
//! are committed, so that a build needs no compiler of protocol buffers.
#![forbid(unsafe_code)]

/// Messages, [`realm_client`](v1::realm_client) and [`realm_server`](v1::realm_server).
#[allow(
    clippy::pedantic,
    clippy::nursery,
    missing_docs,
    unreachable_pub,
    reason = "written by tonic's generator, which documents what the protocol documents"
)]
pub mod v1 {
    include!("generated/realm.v1.rs");
}

/// The protocol as an encoded `FileDescriptorSet`, which gRPC's reflection serves.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");
