//! Errors of a backend.

/// An operation that a backend refused or failed to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backend has no kernel for the operation.
    #[error("{0}")]
    Unsupported(String),
    /// The caller broke an operation's contract, for example with shapes that do not fit.
    #[error("{0}")]
    InvalidArgument(String),
    /// The weights contradict themselves or the file they came from.
    #[error("{0}")]
    InvalidModel(String),
    /// The device has too little memory.
    #[error(
        "out of memory: {} MiB are needed for {what}, {} MiB are free on the device",
        needed.div_ceil(1 << 20), free >> 20
    )]
    OutOfMemory {
        /// The purpose of the memory.
        what: String,
        /// Bytes requested.
        needed: u64,
        /// Free bytes on the device.
        free: u64,
    },
    /// The device or its driver failed.
    #[error("{0}")]
    Device(String),
}
