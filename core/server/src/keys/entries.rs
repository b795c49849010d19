//! What administration changed, as a store keeps it.

use serde_json::Value;

/// A kind of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A model: its [`ModelConfig`](crate::ModelConfig).
    Model,
    /// An alias: the model's name.
    Alias,
    /// A tenant: its [`TenantConfig`](crate::TenantConfig), without adapters and programs.
    Tenant,
    /// An adapter, `OWNER/NAME`: its [`AdapterConfig`](crate::AdapterConfig).
    Adapter,
    /// A program, `OWNER/NAME`: the number of the version that runs. Its versions are kept beside it.
    Program,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Model, Self::Alias, Self::Tenant, Self::Adapter, Self::Program];

    /// Returns the name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Alias => "alias",
            Self::Tenant => "tenant",
            Self::Adapter => "adapter",
            Self::Program => "program",
        }
    }
}

/// An entry of the catalog that administration made.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The entry's kind.
    pub kind: Kind,
    /// The entry's name among those of its kind.
    pub name: String,
    /// What is known of it.
    pub value: Value,
}

/// A version of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The version's number, from 1.
    pub number: u64,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// The number of its bytes.
    pub bytes: u64,
    /// The time of its upload, in seconds since 1970.
    pub created: u64,
}
