//! A tenant's key-value store.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Error, ErrorKind};

/// Bytes of a key at most: on disk it is a file's name, in hexadecimal.
const MAX_KEY: usize = 100;

/// Keys that one call lists at most.
const MAX_KEYS: usize = 1000;

/// Keeps things for a tenant's programs, in memory or in a folder.
#[derive(Debug)]
pub struct Store {
    entries: Mutex<Entries>,
    folder: Option<PathBuf>,
    /// Bytes of keys and values at most.
    quota: usize,
}

#[derive(Debug, Default)]
struct Entries {
    values: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Store {
    /// An empty store that is gone with the process. Keys and values may take `quota` bytes together.
    pub fn in_memory(quota: usize) -> Self {
        Self { entries: Mutex::default(), folder: None, quota }
    }

    /// A store in a folder of its own, which is made if it is not there: one file a key. It is read once, here.
    ///
    /// # Errors
    /// `Io` where the folder can't be made or read.
    pub fn on_disk(folder: impl AsRef<Path>, quota: usize) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let mut entries = Entries::default();
        let io = |error: std::io::Error| {
            Error::new(ErrorKind::Io, format!("the store in `{}`: {error}", folder.display()))
        };
        std::fs::create_dir_all(folder).map_err(io)?;
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            // Files of other names are not ours, unfinished ones among them.
            let Some(key) = entry.file_name().to_str().and_then(key_of) else { continue };
            let value = std::fs::read(entry.path()).map_err(io)?;
            entries.bytes += key.len() + value.len();
            entries.values.insert(key, value);
        }
        Ok(Self { entries: Mutex::new(entries), folder: Some(folder.to_owned()), quota })
    }

    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.entries().values.get(key).cloned()
    }

    pub(crate) fn set(&self, key: String, value: Vec<u8>) -> Result<(), Error> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(Error::invalid(format!("a key has from 1 to {MAX_KEY} bytes, not {}", key.len())));
        }
        let mut entries = self.entries();
        let old = entries.values.get(&key).map_or(0, |old| key.len() + old.len());
        let bytes = entries.bytes - old + key.len() + value.len();
        if bytes > self.quota {
            let why = format!("the store would hold {bytes} bytes and may hold {}; delete some", self.quota);
            return Err(Error::limit(why));
        }
        if let Some(folder) = &self.folder {
            write(folder, &key, &value)
                .map_err(|error| Error::new(ErrorKind::Failed, format!("the store: {error}")))?;
        }
        entries.bytes = bytes;
        entries.values.insert(key, value);
        Ok(())
    }

    pub(crate) fn delete(&self, key: &str) -> Result<bool, Error> {
        let mut entries = self.entries();
        let Some(value) = entries.values.get(key) else { return Ok(false) };
        let bytes = key.len() + value.len();
        if let Some(folder) = &self.folder {
            std::fs::remove_file(folder.join(name_of(key)))
                .map_err(|error| Error::new(ErrorKind::Failed, format!("the store: {error}")))?;
        }
        entries.bytes -= bytes;
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
        // Writing to a string can't fail.
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
    fn the_quota_counts_keys_and_values_and_is_given_back() {
        let store = Store::in_memory(10);
        store.set("a".into(), vec![0; 9]).unwrap();
        assert_eq!(store.set("b".into(), vec![]).unwrap_err().kind(), ErrorKind::LimitExceeded);
        store.set("a".into(), vec![1; 4]).unwrap();
        store.set("b".into(), vec![2; 4]).unwrap();
        assert!(store.delete("a").unwrap() && !store.delete("a").unwrap());
        assert_eq!((store.get("a"), store.get("b")), (None, Some(vec![2; 4])));
        assert!(store.set(String::new(), vec![]).is_err() && store.set("k".repeat(101), vec![]).is_err());
    }

    #[test]
    fn what_is_on_disk_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::on_disk(folder.path(), 1000).unwrap();
        for key in ["../x", "a/b", "grüße", "a"] {
            store.set(key.into(), key.as_bytes().to_vec()).unwrap();
        }
        store.delete("a").unwrap();
        std::fs::write(folder.path().join("unfinished"), "half").unwrap();
        let store = Store::on_disk(folder.path(), 1000).unwrap();
        assert_eq!(store.keys(""), ["../x", "a/b", "grüße"]);
        assert_eq!((store.keys("a"), store.get("grüße")), (vec!["a/b".into()], Some("grüße".into())));
        // Nothing was written elsewhere.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4);
    }
}
