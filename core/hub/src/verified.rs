//! Records of hashed files, so that a model is hashed once and not at every start.
//!
//! A stamp identifies a file and its state: another file of the same name, or the same file after a write,
//! has another inode or other times. A stamp counts only if no other user may write it and the file.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cache::Place;
use crate::partial::{Wanted, hexadecimal};
use crate::private;

/// A record of a file that was hashed.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Stamp {
    sha256: String,
    file: Identity,
}

/// The identity of a file and its state.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Identity {
    size: u64,
    /// Nanoseconds since 1970.
    modified: u128,
    /// Seconds and nanoseconds of the last change of content or metadata, which no program can set.
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

/// Returns whether the file at `place` is the one that is `wanted`. The file is read to its end unless a
/// stamp shows that it was already hashed.
///
/// If no hash is known, a file that was fetched here has to be unchanged since, and a file that was put into
/// a folder that only this user may write is accepted as it is.
pub(crate) fn is_good(place: &Place, wanted: &Wanted) -> io::Result<bool> {
    let mut file = match File::open(&place.model) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let metadata = file.metadata()?;
    // A file of another size was put there by hand, and is not this model.
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
    // No stamp if the file was written to meanwhile.
    if private && Identity::of(&file.metadata()?) == identity {
        write(&place.stamp, &Stamp { sha256: expected.clone(), file: identity });
    }
    Ok(true)
}

/// Records that the file at `place` has this hash, which was computed as the file was written.
pub(crate) fn remember(place: &Place, sha256: String) {
    if let Ok(metadata) = fs::metadata(&place.model) {
        write(&place.stamp, &Stamp { sha256, file: Identity::of(&metadata) });
    }
}

/// Returns the stamp at `path`, if there is one and only this user may have written it.
fn read(path: &Path) -> Option<Stamp> {
    let metadata = fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() || private::shared(&metadata).is_some() {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes a stamp if possible. Without it the file is hashed again.
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
