//! API keys: who may call, what, and how much.
//!
//! - [`Key`]: what is known of a key; its secret is not.
//! - [`Secret`]: a key as its user writes it, made once and shown once.
//! - [`Store`]: where keys and their usage are kept; [`Sqlite`] is the one that comes with Realm.
//! - [`Entry`] and [`Version`]: what administration changed, which a store keeps too.
//! - `ring`: the keys in memory, which is where requests find them.

mod entries;
mod ring;
mod secret;
mod sqlite;
mod sqlite_entries;
mod store;

pub use entries::{Entry, Kind, Version};
pub(crate) use ring::{Keyring, LiveKey};
pub use secret::Secret;
pub use sqlite::Sqlite;
pub use store::{Store, StoreError, Used};

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::limits::Rates;

/// A kind of call that a key may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Everything that asks models: completions, embeddings, tokens, and the list of models.
    Inference,
    /// `/metrics`, which shows what all tenants were served.
    Metrics,
    /// Administration of the key's own tenant: its programs and keys.
    TenantAdministration,
    /// Administration of everything.
    Administration,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 4] =
        [Self::Inference, Self::Metrics, Self::TenantAdministration, Self::Administration];

    /// Returns the name, such as `inference`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Metrics => "metrics",
            Self::TenantAdministration => "tenant-administration",
            Self::Administration => "administration",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name).ok_or_else(|| {
            let all = Self::ALL.map(|scope| format!("`{scope}`")).join(", ");
            format!("there is no scope `{name}`; there are {all}")
        })
    }
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The key's public part, by which people and logs name it.
    pub id: String,
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
    /// The tenant that the key's requests belong to.
    pub tenant: String,
    /// A note of the key's owner; may be empty.
    pub note: String,
    /// The calls that the key may make.
    pub scopes: Vec<Scope>,
    /// The models that the key may name; `None` for all.
    pub models: Option<Vec<String>>,
    /// The key's own limits, beside its tenant's.
    pub rates: Rates,
    /// The time of its making, in seconds since 1970.
    pub created: u64,
    /// The time from which it is refused, in seconds since 1970.
    pub expires: Option<u64>,
}

impl Key {
    /// Creates a key of a tenant, with the scope `inference` and no limits. The secret is not kept.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn create(tenant: impl Into<String>) -> Result<(Self, Secret), getrandom::Error> {
        let secret = Secret::random()?;
        let key = Self {
            id: secret.id().to_owned(),
            hash: secret.hash(),
            tenant: tenant.into(),
            note: String::new(),
            scopes: vec![Scope::Inference],
            models: None,
            rates: Rates::default(),
            created: now(),
            expires: None,
        };
        Ok((key, secret))
    }

    /// Returns whether the key is refused at a time, in seconds since 1970.
    pub fn is_expired(&self, at: u64) -> bool {
        self.expires.is_some_and(|expires| at >= expires)
    }
}

/// Returns the time in seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
