//! The cache of compiled programs on disk, so that a program is compiled once and not at every start.
//!
//! Compiled code runs without the sandbox's checks, so anyone who can put a file here can run code in the
//! process. Therefore only this user may be able to write the folder, its key and every file, and each file
//! carries a message authentication code (HMAC-SHA256) under the key, over the source that it was compiled
//! from. A file that fails any of these checks is ignored.
//!
//! The folder grows to [`MOST_BYTES`] and [`MOST_FILES`]; then the least recently used files are removed.
//! Several processes may do so at once: a file that is being read stays readable, and a removed program is
//! compiled again.

use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use wasmtime::Engine;

/// The most bytes and the most files of compiled programs.
const MOST_BYTES: u64 = 1 << 30;
const MOST_FILES: usize = 2000;

/// The percentage that is kept when the oldest files are removed, so that the next program does not need
/// another removal.
const LEFT: u64 = 80;

/// The age at which an unfinished file must be from a process that was killed while it wrote.
const UNFINISHED: Duration = Duration::from_secs(60 * 60);

/// The cache of compiled programs.
pub(crate) struct Cache {
    folder: PathBuf,
    key: [u8; 32],
    most_bytes: u64,
}

/// A hash of the program and of the compiler that compiled it.
pub(crate) struct Source([u8; 32]);

impl Source {
    pub(crate) fn new(engine: &Engine, wasm: &[u8]) -> Self {
        let mut hasher = Fold(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.0.update(wasm);
        Self(hasher.0.finalize().into())
    }

    fn name(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A hasher for the engine's settings that returns more than 64 bits.
struct Fold(Sha256);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

impl Cache {
    /// Opens a cache in `folder`, creating it if needed. `None`, with a warning, if the folder cannot be
    /// trusted or used.
    pub(crate) fn open(folder: &Path) -> Option<Self> {
        match Self::try_open(folder) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::warn!(%error, folder = %folder.display(), "compiled programs are not kept");
                None
            }
        }
    }

    fn try_open(folder: &Path) -> std::io::Result<Self> {
        private::make_folder(folder)?;
        let path = folder.join("key");
        if !path.exists() {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(std::io::Error::other)?;
            write(folder, &path, &[&key])?;
        }
        let mut key = [0; 32];
        private::open(&path)?.read_exact(&mut key)?;
        Ok(Self { folder: folder.to_owned(), key, most_bytes: MOST_BYTES })
    }

    /// Returns the program compiled from `source`, if its file exists and is intact.
    pub(crate) fn get(&self, source: &Source) -> Option<Vec<u8>> {
        let mut file = private::open(&self.path(source)).ok()?;
        if file.metadata().ok()?.len() > self.most_bytes {
            return None;
        }
        // This time says which file was used last; if it cannot be set, the time of writing does.
        let _ = file.set_modified(SystemTime::now());
        let (mut code, mut compiled) = ([0; 32], Vec::new());
        file.read_exact(&mut code).ok()?;
        file.read_to_end(&mut compiled).ok()?;
        if self.mac(source, &compiled).verify_slice(&code).is_err() {
            tracing::warn!(file = %self.path(source).display(), "a compiled program was altered; it is compiled anew");
            return None;
        }
        Some(compiled)
    }

    /// Stores the program compiled from `source`.
    pub(crate) fn put(&self, source: &Source, compiled: &[u8]) {
        if compiled.len() as u64 > self.most_bytes * LEFT / 100 {
            return;
        }
        self.prune(compiled.len() as u64);
        let code = self.mac(source, compiled).finalize().into_bytes();
        if let Err(error) = write(&self.folder, &self.path(source), &[&code, compiled]) {
            tracing::warn!(%error, "a compiled program could not be kept");
        }
    }

    /// Removes the least recently used files, if there are too many with `more` bytes, and the unfinished
    /// files of killed processes.
    fn prune(&self, more: u64) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        let now = SystemTime::now();
        let mut kept: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let Some(metadata) = entry.metadata().ok().filter(|metadata| metadata.is_file()) else {
                continue;
            };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                kept.push((used, metadata.len(), entry.path()));
            } else if name.starts_with("unfinished-")
                && now.duration_since(used).is_ok_and(|age| age > UNFINISHED)
            {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        let mut bytes = kept.iter().map(|(_, bytes, _)| bytes).sum::<u64>() + more;
        let mut files = kept.len() + 1;
        if bytes <= self.most_bytes && files <= MOST_FILES {
            return;
        }
        kept.sort();
        for (_, size, path) in kept {
            if bytes <= self.most_bytes * LEFT / 100 && files <= MOST_FILES * LEFT as usize / 100 {
                break;
            }
            // Another process may have removed it first; a file that cannot be removed still counts.
            if std::fs::remove_file(path).is_ok() {
                bytes -= size;
                files -= 1;
            }
        }
    }

    fn path(&self, source: &Source) -> PathBuf {
        self.folder.join(source.name())
    }

    fn mac(&self, source: &Source, compiled: &[u8]) -> Hmac<Sha256> {
        // HMAC accepts a key of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).unwrap_or_else(|_| unreachable!());
        mac.update(&source.0);
        mac.update(compiled);
        mac
    }
}

/// Writes a file in one step, for this user alone.
fn write(folder: &Path, path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    let unfinished = folder.join(format!("unfinished-{:016x}", u64::from_le_bytes(random)));
    let mut file = private::create(&unfinished)?;
    let written = parts.iter().try_for_each(|part| file.write_all(part));
    let done = written.and_then(|()| std::fs::rename(&unfinished, path));
    if done.is_err() {
        // If the unfinished file cannot be removed either, it stays.
        let _ = std::fs::remove_file(&unfinished);
    }
    done
}

/// Files that only this user may write.
#[cfg(unix)]
mod private {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io::{Error, Result};
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
    use std::path::Path;

    pub(super) fn make_folder(path: &Path) -> Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let folder = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(path)?;
        check(&folder.metadata()?)?;
        // Anyone who may write the parent folder could put another folder in this one's place.
        let around = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let around = around.metadata()?;
        if around.mode() & 0o002 != 0 && around.mode() & 0o1000 == 0 {
            return Err(Error::other("all users may write into the folder around it"));
        }
        Ok(())
    }

    pub(super) fn open(path: &Path) -> Result<File> {
        let file =
            OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Error::other("not a file"));
        }
        check(&metadata)?;
        Ok(file)
    }

    pub(super) fn create(path: &Path) -> Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    fn check(metadata: &Metadata) -> Result<()> {
        // SAFETY: `geteuid` takes nothing, touches no memory of ours and cannot fail.
        let user = unsafe { libc::geteuid() };
        if metadata.uid() != user || metadata.mode() & 0o022 != 0 {
            return Err(Error::other("it is not this user's alone to write"));
        }
        Ok(())
    }
}

/// Other systems have no cache: the owner of a file cannot be checked there yet.
#[cfg(not(unix))]
mod private {
    use std::fs::File;
    use std::io::{Error, ErrorKind, Result};
    use std::path::Path;

    pub(super) fn make_folder(_folder: &Path) -> Result<()> {
        Err(Error::from(ErrorKind::Unsupported))
    }

    pub(super) fn open(_path: &Path) -> Result<File> {
        Err(Error::from(ErrorKind::Unsupported))
    }

    pub(super) fn create(_path: &Path) -> Result<File> {
        Err(Error::from(ErrorKind::Unsupported))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_what_was_written_here_comes_back() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("programs");
        let (cache, engine) = (Cache::open(&folder).unwrap(), Engine::default());
        let (a, b) = (Source::new(&engine, b"a"), Source::new(&engine, b"b"));
        assert!(cache.get(&a).is_none());
        cache.put(&a, b"compiled");
        assert_eq!(cache.get(&a).unwrap(), b"compiled");
        // Another start by the same user.
        let cache = Cache::open(&folder).unwrap();
        assert_eq!(cache.get(&a).unwrap(), b"compiled");
        // A copy under another name belongs to another program.
        std::fs::copy(cache.path(&a), cache.path(&b)).unwrap();
        assert!(cache.get(&b).is_none());
        // One changed bit.
        let mut bytes = std::fs::read(cache.path(&a)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(cache.path(&a), &bytes).unwrap();
        assert!(cache.get(&a).is_none());
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(cache.path(&a), &bytes).unwrap();
        assert!(cache.get(&a).is_some());
        // A file that others may write, a link, and a folder that others may write.
        std::fs::set_permissions(cache.path(&a), PermissionsExt::from_mode(0o666)).unwrap();
        assert!(cache.get(&a).is_none());
        std::fs::remove_file(cache.path(&b)).unwrap();
        std::fs::set_permissions(cache.path(&a), PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(cache.path(&a), cache.path(&b)).unwrap();
        assert!(cache.get(&b).is_none() && cache.get(&a).is_some());
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(Cache::open(&folder).is_none());
    }

    #[test]
    fn what_was_not_used_for_longest_goes_when_there_is_too_much() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("programs");
        let (mut cache, engine) = (Cache::open(&folder).unwrap(), Engine::default());
        cache.most_bytes = 10_000;
        let source = |name: u8| Source::new(&engine, &[name]);
        let used = |name: u8, seconds: u64| {
            let file = std::fs::File::open(cache.path(&source(name))).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
        };
        for name in 0..9 {
            cache.put(&source(name), &[name; 1000]);
            used(name, 1000 - u64::from(name));
        }
        // The oldest file is used again; foreign files and unfinished new ones stay; a killed process's file
        // is removed.
        assert!(cache.get(&source(0)).is_some());
        for name in ["unfinished-1", "unfinished-2", "notes.txt"] {
            std::fs::write(folder.join(name), vec![0; 20_000]).unwrap();
        }
        let old = std::fs::File::options().write(true).open(folder.join("unfinished-1")).unwrap();
        old.set_modified(SystemTime::now() - 2 * UNFINISHED).unwrap();
        std::fs::create_dir(folder.join("f".repeat(64))).unwrap();
        cache.put(&source(9), &[9; 1000]);
        let here: Vec<u8> = (0..10).filter(|&name| cache.get(&source(name)).is_some()).collect();
        assert_eq!(here, [0, 4, 5, 6, 7, 8, 9], "those used last stay");
        assert!(!folder.join("unfinished-1").exists() && folder.join("unfinished-2").exists());
        assert!(folder.join("notes.txt").exists() && folder.join("key").exists());
        // A program that would take most of the cache is not stored, and removes no other.
        cache.put(&source(10), &[0; 9000]);
        assert!(cache.get(&source(10)).is_none() && cache.get(&source(9)).is_some());
    }

    #[test]
    fn a_folder_in_one_that_all_may_write_is_not_trusted() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::set_permissions(parent.path(), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(Cache::open(&parent.path().join("programs")).is_none());
        std::fs::set_permissions(parent.path(), PermissionsExt::from_mode(0o1777)).unwrap();
        assert!(Cache::open(&parent.path().join("programs")).is_some());
    }
}
