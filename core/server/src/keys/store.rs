//! Where keys are kept, and what administration changed.

use super::{Entry, Key, Kind, Version};

/// A failure of a store, in words for the log. Callers over the network never see it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// What a key has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Requests that were admitted.
    pub requests: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Those of them that were found in the prefix cache.
    pub cached_tokens: u64,
    /// Generated tokens.
    pub generated_tokens: u64,
}

impl Used {
    /// Adds what was used meanwhile.
    pub fn add(&mut self, more: &Self) {
        self.requests += more.requests;
        self.prompt_tokens += more.prompt_tokens;
        self.cached_tokens += more.cached_tokens;
        self.generated_tokens += more.generated_tokens;
    }
}

/// Keeps keys, what they have used, and the entries that administration made. What a call has written is
/// there after a crash. Calls may block; the server makes them on a thread of its own, never
/// while a request waits.
pub trait Store: Send {
    /// Returns all keys that were not revoked, the oldest first.
    ///
    /// # Errors
    /// The store can't be read.
    fn keys(&mut self) -> Result<Vec<Key>, StoreError>;

    /// Adds a key.
    ///
    /// # Errors
    /// There is a key of this id, or the store can't be written.
    fn add(&mut self, key: &Key) -> Result<(), StoreError>;

    /// Removes a key at once; returns whether there was one. What it used stays.
    ///
    /// # Errors
    /// The store can't be written.
    fn revoke(&mut self, id: &str) -> Result<bool, StoreError>;

    /// Adds a key in the place of `old`, which expires at `expires`, in seconds since 1970, if not earlier.
    /// Both or neither; returns whether there was an old one.
    ///
    /// # Errors
    /// The store can't be written.
    fn rotate(&mut self, old: &str, key: &Key, expires: u64) -> Result<bool, StoreError>;

    /// Returns whether another process may have changed keys since the last call.
    ///
    /// # Errors
    /// The store can't be read.
    fn changed(&mut self) -> Result<bool, StoreError>;

    /// Adds what keys have used, on a day given in days since 1970.
    ///
    /// # Errors
    /// The store can't be written; then nothing was added.
    fn add_usage(&mut self, day: u64, used: &[(String, Used)]) -> Result<(), StoreError>;

    /// Returns what each key has used, over all days.
    ///
    /// # Errors
    /// The store can't be read.
    fn usage(&mut self) -> Result<Vec<(String, Used)>, StoreError>;

    /// Returns all entries.
    ///
    /// # Errors
    /// The store can't be read.
    fn entries(&mut self) -> Result<Vec<Entry>, StoreError>;

    /// Adds an entry, or replaces the one of its kind and name.
    ///
    /// # Errors
    /// The store can't be written.
    fn put(&mut self, entry: &Entry) -> Result<(), StoreError>;

    /// Removes an entry, and a program's versions; returns whether there was one.
    ///
    /// # Errors
    /// The store can't be written.
    fn remove(&mut self, kind: Kind, name: &str) -> Result<bool, StoreError>;

    /// Adds a version of a program, which runs from now on, and forgets all but the last `keep`. All or
    /// nothing.
    ///
    /// # Errors
    /// The store can't be written.
    fn add_version(
        &mut self,
        program: &str,
        version: &Version,
        wasm: &[u8],
        keep: usize,
    ) -> Result<(), StoreError>;

    /// Returns the versions of a program, the oldest first.
    ///
    /// # Errors
    /// The store can't be read.
    fn versions(&mut self, program: &str) -> Result<Vec<Version>, StoreError>;

    /// Returns the bytes of a version.
    ///
    /// # Errors
    /// The store can't be read.
    fn wasm(&mut self, program: &str, number: u64) -> Result<Option<Vec<u8>>, StoreError>;
}
