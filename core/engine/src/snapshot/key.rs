//! The key that saved sequences are signed with.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit};
use sha2::Sha256;

use crate::Error;

/// The key that saved sequences are signed with. Engines of one key restore each other's sequences.
#[derive(Clone)]
pub struct SnapshotKey(Arc<[u8]>);

impl fmt::Debug for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SnapshotKey(..)")
    }
}

impl SnapshotKey {
    /// The least length of a key, in bytes.
    pub const LEAST: usize = 32;

    /// Creates a key from [`LEAST`](Self::LEAST) or more random bytes, which may be shared with other
    /// engines.
    ///
    /// # Errors
    /// `InvalidArgument` for fewer bytes.
    ///
    /// # Examples
    /// ```
    /// # use realm_engine::SnapshotKey;
    /// assert!(SnapshotKey::new(&[7; 32]).is_ok());
    /// assert!(SnapshotKey::new(b"secret").is_err());
    /// ```
    pub fn new(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() < Self::LEAST {
            return Err(Error::InvalidArgument(format!(
                "snapshot_key has {} bytes; it must have at least {} random ones",
                bytes.len(),
                Self::LEAST
            )));
        }
        Ok(Self(bytes.into()))
    }

    /// Creates a random key.
    ///
    /// # Errors
    /// `Model` if the system has no random bytes.
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0; Self::LEAST];
        getrandom::fill(&mut bytes).map_err(|e| Error::Model(format!("no random bytes for a key: {e}")))?;
        Self::new(&bytes)
    }

    pub(super) fn mac(&self) -> Result<Hmac<Sha256>, Error> {
        Hmac::new_from_slice(&self.0).map_err(|e| Error::InvalidArgument(format!("snapshot_key: {e}")))
    }
}
