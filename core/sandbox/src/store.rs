//! The key-value store of a tenant.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use realm_engine::{MemoryCharge, MemoryKind, MemoryLedger};

use crate::{Error, ErrorKind};

/// The most bytes of a key: on disk it is a file's name, in hexadecimal.
const MAX_KEY: usize = 100;

/// The most keys that one call lists.
const MAX_KEYS: usize = 1000;

/// The bytes of memory of an entry besides its key and value: its place in a tree, and the allocator's
/// overhead.
const ENTRY: usize = 128;

/// The block size of files on most systems, in bytes. An empty file, with its name and its entry, counts as
/// one block.
const BLOCK: usize = 4096;

/// Keeps data for a tenant's programs, in memory or in a folder.
#[derive(Debug)]
pub struct Store {
    entries: Mutex<Entries>,
    folder: Option<PathBuf>,
    /// The most bytes of entries: see [`cost`](Self::cost).
    quota: usize,
}

#[derive(Debug, Default)]
struct Entries {
    values: BTreeMap<String, Vec<u8>>,
    /// The bytes that count against the quota.
    bytes: usize,
    /// The bytes of memory.
    memory: usize,
    /// The account that the memory is charged to.
    charge: Option<MemoryCharge>,
}

impl Store {
    /// Creates an empty store that ends with the process. Its entries may take `quota` bytes together: each
    /// counts its key, its value, and 128 bytes for their place.
    pub fn in_memory(quota: usize) -> Self {
        Self { entries: Mutex::default(), folder: None, quota }
    }

    /// Opens a store in a folder of its own, creating the folder if needed: one file for each key. The folder
    /// is read once, here. Files may take `quota` bytes together: each counts its value in blocks of 4 KiB,
    /// at least one, and its name.
    ///
    /// # Errors
    /// `Io` if the folder cannot be created or read.
    pub fn on_disk(folder: impl AsRef<Path>, quota: usize) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let mut this = Self { entries: Mutex::default(), folder: Some(folder.to_owned()), quota };
        let mut entries = Entries::default();
        let io = |error: std::io::Error| {
            Error::new(ErrorKind::Io, format!("the store in `{}`: {error}", folder.display()))
        };
        std::fs::create_dir_all(folder).map_err(io)?;
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            // Files with other names are not ours, unfinished ones among them.
            let Some(key) = entry.file_name().to_str().and_then(key_of) else { continue };
            let value = std::fs::read(entry.path()).map_err(io)?;
            entries.bytes += this.cost(&key, &value);
            entries.memory += memory(&key, &value);
            entries.values.insert(key, value);
        }
        this.entries = Mutex::new(entries);
        Ok(this)
    }

    /// Charges all of its memory to this account from now on.
    pub fn belongs_to(&self, ledger: &MemoryLedger) {
        let mut entries = self.entries();
        let mut charge = ledger.open(MemoryKind::Stores);
        charge.set(entries.memory);
        entries.charge = Some(charge);
    }

    /// Returns the part of the quota that an entry takes.
    fn cost(&self, key: &str, value: &[u8]) -> usize {
        match self.folder {
            None => memory(key, value),
            Some(_) => name_of(key).len() + value.len().div_ceil(BLOCK).max(1) * BLOCK,
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.entries().values.get(key).cloned()
    }

    pub(crate) fn set(&self, key: String, value: Vec<u8>) -> Result<(), Error> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(Error::invalid(format!("a key has from 1 to {MAX_KEY} bytes, not {}", key.len())));
        }
        let mut entries = self.entries();
        let of = |old: Option<&Vec<u8>>| old.map_or((0, 0), |old| (self.cost(&key, old), memory(&key, old)));
        let (old_cost, old_memory) = of(entries.values.get(&key));
        let bytes = entries.bytes - old_cost + self.cost(&key, &value);
        let held = entries.memory - old_memory + memory(&key, &value);
        if bytes > self.quota {
            let why = format!(
                "the store's entries would take {bytes} bytes and may take {}; delete some",
                self.quota
            );
            return Err(Error::limit(why));
        }
        let more = held.saturating_sub(entries.memory);
        if let Some(charge) = &mut entries.charge {
            charge.grow(more)?;
        }
        if let Some(folder) = &self.folder {
            let written = write(folder, &key, &value);
            if let Err(error) = written {
                entries.count();
                return Err(Error::new(ErrorKind::Failed, format!("the store: {error}")));
            }
        }
        (entries.bytes, entries.memory) = (bytes, held);
        entries.count();
        entries.values.insert(key, value.into_boxed_slice().into_vec());
        Ok(())
    }

    pub(crate) fn delete(&self, key: &str) -> Result<bool, Error> {
        let mut entries = self.entries();
        let Some(value) = entries.values.get(key) else { return Ok(false) };
        let (bytes, held) = (self.cost(key, value), memory(key, value));
        if let Some(folder) = &self.folder {
            std::fs::remove_file(folder.join(name_of(key)))
                .map_err(|error| Error::new(ErrorKind::Failed, format!("the store: {error}")))?;
        }
        entries.bytes -= bytes;
        entries.memory -= held;
        entries.count();
        entries.values.remove(key);
        Ok(true)
    }

    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let entries = self.entries();
        let from =
            entries.values.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        from.map(|(key, _)| key).take_while(|key| key.starts_with(prefix)).take(MAX_KEYS).cloned().collect()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Sets the charge to the entries' memory.
    fn count(&mut self) {
        if let Some(charge) = &mut self.charge {
            charge.set(self.memory);
        }
    }
}

/// Returns the bytes of memory that an entry takes.
fn memory(key: &str, value: &[u8]) -> usize {
    key.len() + value.len() + ENTRY
}

/// Writes a file so that a crash leaves the old value or the new one.
fn write(folder: &Path, key: &str, value: &[u8]) -> std::io::Result<()> {
    let unfinished = folder.join("unfinished");
    let mut file = std::fs::File::create(&unfinished)?;
    file.write_all(value)?;
    file.sync_all()?;
    std::fs::rename(unfinished, folder.join(name_of(key)))
}

fn name_of(key: &str) -> String {
    key.bytes().fold(String::from("k"), |mut name, byte| {
        // Writing to a string never fails.
        let _ = write!(name, "{byte:02x}");
        name
    })
}

fn key_of(name: &str) -> Option<String> {
    let digits = name.strip_prefix('k').filter(|digits| digits.is_ascii() && digits.len() % 2 == 0)?;
    let bytes: Option<Vec<u8>> =
        (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).ok()).collect();
    String::from_utf8(bytes?).ok().filter(|key| !key.is_empty() && key.len() <= MAX_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_counts_all_that_an_entry_takes_and_is_given_back() {
        let store = Store::in_memory(2 * ENTRY + 10);
        store.set("a".into(), vec![0; ENTRY + 9]).unwrap();
        assert_eq!(store.set("b".into(), vec![]).unwrap_err().kind(), ErrorKind::LimitExceeded);
        store.set("a".into(), vec![1; 4]).unwrap();
        store.set("b".into(), vec![2; 4]).unwrap();
        assert!(store.delete("a").unwrap() && !store.delete("a").unwrap());
        assert_eq!((store.get("a"), store.get("b")), (None, Some(vec![2; 4])));
        assert!(store.set(String::new(), vec![]).is_err() && store.set("k".repeat(101), vec![]).is_err());
    }

    #[test]
    fn a_store_on_disk_makes_no_more_files_than_its_quota_has_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::on_disk(folder.path(), 60_000).unwrap();
        let made = (0..1000).take_while(|i| store.set(format!("{i}"), vec![]).is_ok()).count();
        assert_eq!((made, std::fs::read_dir(folder.path()).unwrap().count()), (14, 14));
        assert_eq!(store.set("x".into(), vec![0; 5000]).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn what_a_store_holds_is_its_tenants_memory() {
        let ledger = MemoryLedger::new("acme", 1000);
        let store = Store::in_memory(10_000);
        store.set("a".into(), vec![0; 99]).unwrap();
        store.belongs_to(&ledger);
        assert_eq!(ledger.read().of(MemoryKind::Stores), ENTRY + 100);
        let refused = store.set("b".into(), vec![0; 900]).unwrap_err();
        assert!(refused.kind() == ErrorKind::LimitExceeded && refused.message().contains("`memory`"));
        store.set("a".into(), vec![0; 9]).unwrap();
        assert_eq!(ledger.read().of(MemoryKind::Stores), ENTRY + 10);
        drop(store);
        assert_eq!(ledger.read().total(), 0);
    }

    #[test]
    fn what_is_on_disk_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::on_disk(folder.path(), 50_000).unwrap();
        for key in ["../x", "a/b", "grüße", "a"] {
            store.set(key.into(), key.as_bytes().to_vec()).unwrap();
        }
        store.delete("a").unwrap();
        std::fs::write(folder.path().join("unfinished"), "half").unwrap();
        let store = Store::on_disk(folder.path(), 50_000).unwrap();
        assert_eq!(store.keys(""), ["../x", "a/b", "grüße"]);
        assert_eq!((store.keys("a"), store.get("grüße")), (vec!["a/b".into()], Some("grüße".into())));
        // Nothing was written elsewhere.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4);
    }
}
