//! LoRA adapters.

use crate::Error;
use crate::error::ErrorCode;

/// A LoRA adapter of a [`Model`](crate::Model), for [`Request::adapter`](crate::Request::adapter). A clone is
/// cheap. The adapter is unloaded when the last clone and the last request that uses it are gone.
#[derive(Debug, Clone)]
pub struct Adapter {
    place: Place,
    rank: usize,
    bytes: usize,
}

/// The party that holds an adapter.
#[derive(Debug, Clone)]
enum Place {
    Engine(realm_engine::Adapter),
    /// The server's name of it.
    Server(String),
}

impl Adapter {
    /// Creates an adapter of this process.
    pub(crate) fn new(adapter: realm_engine::Adapter, rank: usize, bytes: usize) -> Self {
        Self { place: Place::Engine(adapter), rank, bytes }
    }

    /// Creates an adapter of a server's.
    #[cfg_attr(not(feature = "remote"), expect(dead_code, reason = "only servers have such adapters"))]
    pub(crate) fn of_server(name: String, rank: usize, bytes: usize) -> Self {
        Self { place: Place::Server(name), rank, bytes }
    }

    /// Returns the adapter, if this process has it.
    ///
    /// # Errors
    /// `invalid-argument` for a server's.
    pub(crate) fn of_engine(&self) -> Result<&realm_engine::Adapter, Error> {
        match &self.place {
            Place::Engine(adapter) => Ok(adapter),
            Place::Server(name) => {
                let why = format!(
                    "the adapter `{name}` is a server's, and the model is one of this process; load it here"
                );
                Err(Error::new(ErrorCode::InvalidArgument, why))
            }
        }
    }

    /// Returns the name that the server has for the adapter.
    ///
    /// # Errors
    /// `invalid-argument` for an adapter of this process.
    #[cfg_attr(not(feature = "remote"), expect(dead_code, reason = "only servers have such adapters"))]
    pub(crate) fn name_at_server(&self) -> Result<&str, Error> {
        match &self.place {
            Place::Server(name) => Ok(name),
            Place::Engine(adapter) => {
                let why = format!(
                    "the adapter `{}` is one of this process, and the model is a server's; `load_adapter` of that model finds the \
                     server's adapters by name",
                    adapter.name()
                );
                Err(Error::new(ErrorCode::InvalidArgument, why))
            }
        }
    }

    /// The name that it was loaded by; tenants' limits use this name.
    pub fn name(&self) -> &str {
        match &self.place {
            Place::Engine(adapter) => adapter.name(),
            Place::Server(name) => name,
        }
    }

    /// The largest rank of its matrices.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The size of its matrices, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
