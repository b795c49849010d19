//! What can go wrong in a backend.

/// An operation that a backend refused or could not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backend has no kernel for this.
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
        /// What the memory was for.
        what: String,
        /// Bytes asked for.
        needed: u64,
        /// Bytes that the device has left.
        free: u64,
    },
    /// The device or its driver failed.
    #[error("{0}")]
    Device(String),
}
