//! The bytes of an open file, or of one in memory.
//!
//! Files are read and never mapped. Anyone who may write to the file could cut it, which ends a process that
//! maps it with a signal, or rewrite it, which changes bytes after they were checked. The backends keep
//! weights in layouts of their own anyway, so a map would save no copy.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::Error;

/// Opens a regular file for reading and returns it with its length in bytes.
///
/// # Errors
/// Errors of the operating system, and `InvalidInput` for a folder, pipe, socket or device: reading one could
/// wait forever, or never end.
///
/// ```
/// assert!(realm_gguf::open_file(std::env::temp_dir()).is_err());
/// ```
pub fn open_file(path: impl AsRef<Path>) -> io::Result<(File, u64)> {
    let path = path.as_ref();
    let mut options = File::options();
    options.read(true);
    // Without this flag, opening a pipe would wait for its writer.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_NOCTTY);
    // Opening some devices has effects, so check the kind of file before opening it.
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
/// Those of [`open_file`], and `FileTooLarge` for a file of more than `most` bytes.
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

/// Makes the tensors of a model that is no GGUF file, one at a time, when they are read.
pub trait Tensors: Send + Sync {
    /// Replaces the contents of `buffer` with the blocks of tensor `index`, whose size its index entry has.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, and [`Error::Tensor`] for numbers that cannot be converted.
    fn read(&self, index: usize, buffer: &mut Vec<u8>) -> Result<(), Error>;

    /// Size in bytes of the files that tensors are made from.
    fn file_bytes(&self) -> u64;
}

/// An open file of numbers, of which ranges are read.
pub struct OpenFile {
    file: File,
    path: PathBuf,
    len: u64,
}

impl OpenFile {
    /// Opens a regular file.
    ///
    /// # Errors
    /// [`Error::Io`], also for what [`open_file`] refuses.
    pub fn open(path: &Path) -> Result<Self, Error> {
        match open_file(path) {
            Ok((file, len)) => Ok(Self { file, path: path.to_owned(), len }),
            Err(source) => Err(Error::Io { path: path.to_owned(), source }),
        }
    }

    /// Length in bytes when the file was opened.
    #[allow(clippy::len_without_is_empty, reason = "an empty file is no file of numbers")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The path that the file was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `bytes` from byte `at` on; long ranges on several threads, because reading from the system's
    /// cache is copying.
    ///
    /// # Errors
    /// [`Error::Incomplete`] if the file ends before, [`Error::Io`] if the disk fails.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), Error> {
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
            // If no other thread can be started, this one reads everything.
            let start = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
            let others: Vec<_> = (1..threads).filter_map(start).collect();
            let read = work();
            others.into_iter().fold(read, |read, other| {
                read.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            })
        })
    }

    fn fill(&self, at: u64, bytes: &mut [u8]) -> Result<(), Error> {
        read_exact_at(&self.file, bytes, at).map_err(|source| match source.kind() {
            // The file had these bytes when it was opened.
            io::ErrorKind::UnexpectedEof => {
                let len = self.file.metadata().map_or(0, |metadata| metadata.len());
                Error::Incomplete { len, needed: at + bytes.len() as u64 }
            }
            _ => Error::Io { path: self.path.clone(), source },
        })
    }

    /// Tells the operating system that the whole file is about to be read.
    pub fn will_need(&self) {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            // SAFETY: the descriptor is open. The call is a hint and reads no memory of this process; if it
            // fails, reading is only slower.
            let _ = unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_WILLNEED) };
        }
    }
}

/// The source of a model's bytes.
pub(crate) enum Source {
    File(OpenFile),
    Memory(Vec<u8>),
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        OpenFile::open(path).map(Self::File)
    }

    /// Length in bytes when the source was opened.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::File(file) => file.len,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Returns the first `most` bytes, or all bytes if there are fewer or if they are in memory anyway.
    pub(crate) fn head(&self, most: usize) -> Result<Cow<'_, [u8]>, Error> {
        match self {
            Self::Memory(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File(file) => {
                let mut bytes = vec![0; usize::try_from(file.len).unwrap_or(most).min(most)];
                file.fill(0, &mut bytes)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Returns the bytes `start .. start + len`. A file's bytes are read into `buffer`, which grows and never
    /// shrinks.
    pub(crate) fn range<'b>(
        &'b self,
        start: usize,
        len: usize,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], Error> {
        match self {
            Self::Memory(bytes) => Ok(&bytes[start..start + len]),
            Self::File(file) => {
                if buffer.len() < len {
                    // Clear it first, so that growing does not copy the old contents.
                    buffer.clear();
                    buffer.resize(len, 0);
                }
                let bytes = &mut buffer[..len];
                file.read(start as u64, bytes)?;
                Ok(bytes)
            }
        }
    }

    pub(crate) fn will_need(&self) {
        if let Self::File(file) = self {
            file.will_need();
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
        // Reading a file that was opened for writing fails like reading from a broken disk.
        let file = File::create(&path).unwrap();
        let source = Source::File(OpenFile { file, path: path.clone(), len: 100 });
        let errors = [source.head(10).err(), source.range(0, 10, &mut Vec::new()).err()];
        std::fs::remove_file(&path).unwrap();
        for error in errors {
            assert!(matches!(&error, Some(Error::Io { path: named, .. }) if *named == path), "{error:?}");
        }
    }
}
