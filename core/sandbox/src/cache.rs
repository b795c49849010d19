//! Compiled programs on disk, so that a program is compiled once and not at every start.
//!
//! Compiled code runs outside the sandbox's checks: whoever could put a file here could run code in the process. So the
//! folder, its key and every file have to be this user's and nobody else's to write, and each file carries a message
//! authentication code (HMAC-SHA256) under the key, over what it was compiled from. A file that fails any of this is as
//! good as none.

use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use wasmtime::Engine;

/// Where compiled programs are kept.
pub(crate) struct Cache {
    folder: PathBuf,
    key: [u8; 32],
}

/// What a program was compiled from, and by what.
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

/// A hasher for the engine's settings that gives more than 64 bits.
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
    /// A cache in `folder`, which is made if it is not there. `None` with a warning where it can't be trusted or used.
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
        Ok(Self { folder: folder.to_owned(), key })
    }

    /// What was compiled from `source`, if it is here and as it was written.
    pub(crate) fn get(&self, source: &Source) -> Option<Vec<u8>> {
        let mut file = private::open(&self.path(source)).ok()?;
        let (mut code, mut compiled) = ([0; 32], Vec::new());
        file.read_exact(&mut code).ok()?;
        file.read_to_end(&mut compiled).ok()?;
        if self.mac(source, &compiled).verify_slice(&code).is_err() {
            tracing::warn!(file = %self.path(source).display(), "a compiled program was altered; it is compiled anew");
            return None;
        }
        Some(compiled)
    }

    /// Keeps what was compiled from `source`.
    pub(crate) fn put(&self, source: &Source, compiled: &[u8]) {
        let code = self.mac(source, compiled).finalize().into_bytes();
        if let Err(error) = write(&self.folder, &self.path(source), &[&code, compiled]) {
            tracing::warn!(%error, "a compiled program could not be kept");
        }
    }

    fn path(&self, source: &Source) -> PathBuf {
        self.folder.join(source.name())
    }

    fn mac(&self, source: &Source, compiled: &[u8]) -> Hmac<Sha256> {
        // A key of any length is one.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).unwrap_or_else(|_| unreachable!());
        mac.update(&source.0);
        mac.update(compiled);
        mac
    }
}

/// Writes a file at once, for this user alone.
fn write(folder: &Path, path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    let unfinished = folder.join(format!("unfinished-{:016x}", u64::from_le_bytes(random)));
    let mut file = private::create(&unfinished)?;
    let written = parts.iter().try_for_each(|part| file.write_all(part));
    let done = written.and_then(|()| std::fs::rename(&unfinished, path));
    if done.is_err() {
        // What can't be removed either is left for people.
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

    pub(super) fn make_folder(folder: &Path) -> Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let folder = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(folder)?;
        check(&folder.metadata()?)
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
        // SAFETY: `geteuid` takes nothing, touches no memory of ours and can't fail.
        let user = unsafe { libc::geteuid() };
        if metadata.uid() != user || metadata.mode() & 0o022 != 0 {
            return Err(Error::other("it is not this user's alone to write"));
        }
        Ok(())
    }
}

/// Elsewhere nothing is kept: who may write a file can't be told yet.
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
        // Another start of the same user's.
        let cache = Cache::open(&folder).unwrap();
        assert_eq!(cache.get(&a).unwrap(), b"compiled");
        // Under another name it is another program's.
        std::fs::copy(cache.path(&a), cache.path(&b)).unwrap();
        assert!(cache.get(&b).is_none());
        // One bit.
        let mut bytes = std::fs::read(cache.path(&a)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(cache.path(&a), &bytes).unwrap();
        assert!(cache.get(&a).is_none());
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(cache.path(&a), &bytes).unwrap();
        assert!(cache.get(&a).is_some());
        // A file that others may write, one that is a link, and a folder that others may write.
        std::fs::set_permissions(cache.path(&a), PermissionsExt::from_mode(0o666)).unwrap();
        assert!(cache.get(&a).is_none());
        std::fs::remove_file(cache.path(&b)).unwrap();
        std::fs::set_permissions(cache.path(&a), PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(cache.path(&a), cache.path(&b)).unwrap();
        assert!(cache.get(&b).is_none() && cache.get(&a).is_some());
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(Cache::open(&folder).is_none());
    }
}
