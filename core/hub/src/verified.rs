//! What is remembered of files that were hashed, so that a model is hashed once and not at every start.
//!
//! A stamp says which file it was: another one under the same name, or the same one written to since, has another inode
//! or other times. It counts only where nobody but this user may write it, and the file.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cache::Place;
use crate::partial::{Wanted, hexadecimal};
use crate::private;

/// A file that was hashed.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Stamp {
    sha256: String,
    file: Identity,
}

/// Which file it is, and in which state.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Identity {
    size: u64,
    /// Nanoseconds since 1970.
    modified: u128,
    /// Seconds and nanoseconds of the last change of anything, which no program can set.
    changed: (i64, i64),
    inode: u64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        #[cfg(unix)]
        let (changed, inode) = {
            use std::os::unix::fs::MetadataExt;
            ((metadata.ctime(), metadata.ctime_nsec()), metadata.ino())
        };
        #[cfg(not(unix))]
        let (changed, inode) = ((0, 0), 0);
        Self { size: metadata.len(), modified: modified.map_or(0, |time| time.as_nanos()), changed, inode }
    }
}

/// Whether the file at `place` is what is `wanted`, which is read to its end unless it was before.
///
/// Where no hash is known, a file that was fetched here has to be as it was then, and one that was put into a folder of
/// this user's alone is taken as it is.
pub(crate) fn is_good(place: &Place, wanted: &Wanted) -> io::Result<bool> {
    let mut file = match File::open(&place.model) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let metadata = file.metadata()?;
    // A file of another size lies there only if somebody put it there, and is not this model.
    if !metadata.is_file() || wanted.size.is_some_and(|size| size != metadata.len()) {
        return Ok(false);
    }
    let private = place.is_private() && private::shared(&metadata).is_none();
    let stamp = if private { read(&place.stamp) } else { None };
    let known = stamp.as_ref().map(|stamp| &stamp.sha256);
    let Some(expected) = wanted.sha256.as_ref().or(known) else { return Ok(private) };
    let identity = Identity::of(&metadata);
    if stamp.as_ref().is_some_and(|stamp| stamp.sha256 == *expected && stamp.file == identity) {
        return Ok(true);
    }
    if hash(&mut file)? != *expected {
        return Ok(false);
    }
    // Not if it was written to meanwhile.
    if private && Identity::of(&file.metadata()?) == identity {
        write(&place.stamp, &Stamp { sha256: expected.clone(), file: identity });
    }
    Ok(true)
}

/// Remembers that the file at `place` has this hash: it was computed as it was written.
pub(crate) fn remember(place: &Place, sha256: String) {
    if let Ok(metadata) = fs::metadata(&place.model) {
        write(&place.stamp, &Stamp { sha256, file: Identity::of(&metadata) });
    }
}

/// The stamp at `path`, if there is one that only this user may have written.
fn read(path: &Path) -> Option<Stamp> {
    let metadata = fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() || private::shared(&metadata).is_some() {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes a stamp, if that can be: without it the file is hashed again.
fn write(path: &Path, stamp: &Stamp) {
    let Some(folder) = path.parent() else { return };
    let written = || -> io::Result<()> {
        private::create_folder(folder)?;
        let file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&file, stamp)?;
        file.persist(path)?;
        Ok(())
    };
    let _ = written();
}

fn hash(file: &mut File) -> io::Result<String> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hexadecimal(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}
