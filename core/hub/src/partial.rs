//! A file that is not complete yet.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::Reason;
use crate::private;

/// The size and hash that a file must have to be accepted. `None` where they are not known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// The size in bytes.
    pub(crate) size: Option<u64>,
    /// The hash in lowercase hexadecimal.
    pub(crate) sha256: Option<String>,
}

/// `FILE.partial` with the hash of its content, so that a verified file is read only once.
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Partial {
    /// Creates an empty file.
    pub(crate) fn create(path: &Path) -> io::Result<Partial> {
        let mut partial = Partial::open(path)?;
        partial.restart()?;
        Ok(partial)
    }

    /// Resumes after the bytes that an earlier pull left.
    pub(crate) fn resume(path: &Path) -> io::Result<Partial> {
        let mut partial = Partial::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match partial.file.read(&mut buffer)? {
                0 => return Ok(partial),
                n => {
                    partial.hash.update(&buffer[..n]);
                    partial.bytes += n as u64;
                }
            }
        }
    }

    fn open(path: &Path) -> io::Result<Partial> {
        if let Some(parent) = path.parent() {
            private::create_folder(parent)?;
        }
        Ok(Partial {
            path: path.to_owned(),
            file: private::open_to_write(path)?,
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    /// Discards all bytes written so far.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.hash = Sha256::new();
        self.bytes = 0;
        Ok(())
    }

    /// The number of bytes in the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends `data`. Refuses at once data that would make the file longer than `wanted`.
    pub(crate) fn append(&mut self, data: &[u8], wanted: &Wanted) -> Result<(), Reason> {
        let actual = self.bytes + data.len() as u64;
        if let Some(expected) = wanted.size.filter(|&size| actual > size) {
            return Err(Reason::WrongSize { expected, actual });
        }
        self.file.write_all(data)?;
        self.hash.update(data);
        self.bytes = actual;
        Ok(())
    }

    /// Gives the file its final name, atomically and only if it matches `wanted`; returns its hash.
    pub(crate) fn finish(self, destination: &Path, wanted: &Wanted) -> Result<String, Reason> {
        let actual = self.bytes;
        if let Some(expected) = wanted.size.filter(|&size| size != actual) {
            return Err(Reason::WrongSize { expected, actual });
        }
        let actual = hexadecimal(&self.hash.finalize());
        if let Some(expected) = wanted.sha256.clone().filter(|hash| *hash != actual) {
            return Err(Reason::WrongHash { expected, actual });
        }
        // Without this a power cut could leave the final name on a file whose bytes never reached the disk.
        self.file.sync_all()?;
        drop(self.file);
        fs::rename(&self.path, destination)?;
        Ok(actual)
    }
}

/// Returns whether `text` is a SHA-256 as this crate writes it.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns bytes in the form in which this crate writes hashes.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of "abc", from FIPS 180-2.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn wanted(sha256: &str) -> Wanted {
        Wanted { size: Some(3), sha256: Some(sha256.to_owned()) }
    }

    #[test]
    fn a_resumed_file_is_verified_as_a_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let (part, whole) = (folder.path().join("a.partial"), folder.path().join("a"));
        let mut first = Partial::create(&part).expect("a file");
        first.append(b"ab", &wanted(ABC)).expect("room");
        drop(first);
        let mut second = Partial::resume(&part).expect("the file");
        assert_eq!(second.bytes(), 2);
        second.append(b"c", &wanted(ABC)).expect("room");
        second.finish(&whole, &wanted(ABC)).expect("the right hash");
        assert_eq!(fs::read(&whole).expect("the whole file"), b"abc");
        assert!(!part.exists());
    }

    #[test]
    fn wrong_content_never_gets_the_final_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let (part, whole) = (folder.path().join("a.partial"), folder.path().join("a"));
        let written = |data: &[u8]| {
            let mut partial = Partial::create(&part).expect("a file");
            partial.append(data, &wanted(ABC))?;
            partial.finish(&whole, &wanted(ABC))
        };
        assert!(matches!(written(b"abd"), Err(Reason::WrongHash { .. })));
        assert!(matches!(written(b"ab"), Err(Reason::WrongSize { expected: 3, actual: 2 })));
        assert!(matches!(written(b"abcd"), Err(Reason::WrongSize { expected: 3, actual: 4 })));
        assert!(!whole.exists());
    }
}
