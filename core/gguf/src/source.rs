//! The bytes of a file that is open, or in memory.
//!
//! Files are read and never mapped: a file that is cut while it is mapped ends the process with a signal, one that is
//! rewritten changes under what has been checked, and both are in the hands of whoever may write to it. Whoever computes
//! with weights keeps them in a layout of its own anyway, so a map would save no copy.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::Error;

/// Opens a regular file for reading and returns it with its length in bytes.
///
/// # Errors
/// What the operating system says, and `InvalidInput` for a folder, pipe, socket or device: reading one could wait for
/// ever, or never end.
///
/// ```
/// assert!(realm_gguf::open_file(std::env::temp_dir()).is_err());
/// ```
pub fn open_file(path: impl AsRef<Path>) -> io::Result<(File, u64)> {
    let path = path.as_ref();
    let mut options = File::options();
    options.read(true);
    // Opening a pipe would wait for its writer.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_NOCTTY);
    // Some devices do something when they are opened, so what can be told before is.
    regular(&std::fs::metadata(path)?)?;
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    regular(&metadata)?;
    Ok((file, metadata.len()))
}

fn regular(metadata: &std::fs::Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = if metadata.is_dir() { "a folder" } else { "a pipe, socket or device" };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, and a regular file is needed")))
}

/// Reads a whole file of at most `most` bytes.
///
/// # Errors
/// As [`open_file`], and `FileTooLarge` for a longer file.
///
/// ```
/// let path = std::env::temp_dir().join("realm-gguf-read-file");
/// std::fs::write(&path, "abc")?;
/// assert_eq!(realm_gguf::read_file(&path, 3)?, b"abc");
/// assert!(realm_gguf::read_file(&path, 2).is_err());
/// # std::fs::remove_file(path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn read_file(path: impl AsRef<Path>, most: u64) -> io::Result<Vec<u8>> {
    let (file, len) = open_file(path)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(len.min(most)).unwrap_or(usize::MAX))?;
    io::Read::read_to_end(&mut io::Read::take(file, most.saturating_add(1)), &mut bytes)?;
    if bytes.len() as u64 > most {
        let why = format!("it has more than the {most} bytes that are read");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// Where a model's bytes are.
pub(crate) enum Source {
    File { file: File, path: PathBuf, len: u64 },
    Memory(Vec<u8>),
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        match open_file(path) {
            Ok((file, len)) => Ok(Self::File { file, path: path.to_owned(), len }),
            Err(source) => Err(Error::Io { path: path.to_owned(), source }),
        }
    }

    /// Bytes that it had when it was opened.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// The first `most` bytes, or all if there are fewer or they are in memory anyway.
    pub(crate) fn head(&self, most: usize) -> Result<Cow<'_, [u8]>, Error> {
        match self {
            Self::Memory(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File { len, .. } => {
                let mut bytes = vec![0; usize::try_from(*len).unwrap_or(most).min(most)];
                self.fill(0, &mut bytes)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// The bytes `start .. start + len`. Those of a file are read into `buffer`, which grows and never shrinks.
    pub(crate) fn range<'b>(
        &'b self,
        start: usize,
        len: usize,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], Error> {
        match self {
            Self::Memory(bytes) => Ok(&bytes[start..start + len]),
            Self::File { .. } => {
                if buffer.len() < len {
                    // What it held is not copied.
                    buffer.clear();
                    buffer.resize(len, 0);
                }
                let bytes = &mut buffer[..len];
                self.fill_together(start as u64, bytes)?;
                Ok(bytes)
            }
        }
    }

    /// As [`fill`](Self::fill), on several threads if it is much: from the system's cache, reading is copying.
    fn fill_together(&self, at: u64, bytes: &mut [u8]) -> Result<(), Error> {
        /// Bytes that a thread reads at a time.
        const PIECE: usize = 4 << 20;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        let threads = threads.min(bytes.len().div_ceil(PIECE));
        let parts = Mutex::new(bytes.chunks_mut(PIECE).enumerate());
        let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some((i, part)) = next() {
                self.fill(at + (i * PIECE) as u64, part)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            // Where no other thread can be started, this one reads all.
            let start = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
            let others: Vec<_> = (1..threads).filter_map(start).collect();
            let read = work();
            others.into_iter().fold(read, |read, other| {
                read.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            })
        })
    }

    /// Fills `bytes` from a file's byte `at` on.
    fn fill(&self, at: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let Self::File { file, path, .. } = self else { return Ok(()) };
        read_exact_at(file, bytes, at).map_err(|source| match source.kind() {
            // It had these bytes when it was opened.
            io::ErrorKind::UnexpectedEof => {
                let len = file.metadata().map_or(0, |metadata| metadata.len());
                Error::Incomplete { len, needed: at + bytes.len() as u64 }
            }
            _ => Error::Io { path: path.clone(), source },
        })
    }

    /// Tells the operating system that the whole file is about to be read.
    pub(crate) fn will_need(&self) {
        #[cfg(target_os = "linux")]
        if let Self::File { file, .. } = self {
            use std::os::fd::AsRawFd;
            // SAFETY: the descriptor is open. The call reads no memory of ours, and is a hint: without it reading is
            // slower and just as right.
            let _ = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_WILLNEED) };
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, bytes, at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (bytes, at) = (&mut bytes[read..], at + read as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_fails_is_an_error_with_the_files_name() {
        let path = std::env::temp_dir().join(format!("realm-gguf-{}", std::process::id()));
        // Reading what was opened for writing fails as reading from a broken disk does.
        let file = File::create(&path).unwrap();
        let source = Source::File { file, path: path.clone(), len: 100 };
        let errors = [source.head(10).err(), source.range(0, 10, &mut Vec::new()).err()];
        std::fs::remove_file(&path).unwrap();
        for error in errors {
            assert!(matches!(&error, Some(Error::Io { path: named, .. }) if *named == path), "{error:?}");
        }
    }
}
