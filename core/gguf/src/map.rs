//! The bytes of a file, mapped or owned.

use std::fs::File;
use std::path::Path;

use crate::Error;

pub(crate) enum Bytes {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
}

impl Bytes {
    pub(crate) fn map(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        if len == 0 {
            return Ok(Self::Owned(Vec::new()));
        }
        // SAFETY: the map is read-only. A file that another process shortens or rewrites while it is mapped
        // would break Rust's rules as it would any memory-mapping program; models are downloaded to a
        // temporary name and renamed, so Realm itself never does.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Ok(Self::Mapped(map))
    }

    pub(crate) fn get(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }

    /// Lets the pages that lie wholly in `start .. start + len` go; they are read from the file again if needed.
    pub(crate) fn release(&self, start: usize, len: usize) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            const PAGE: usize = 4096;
            let first = start.next_multiple_of(PAGE);
            let end = (start + len) / PAGE * PAGE;
            if first < end && end <= map.len() {
                // SAFETY: the map is a read-only shared one of a file: dropping its pages loses nothing.
                // A failure only means that pages stay resident.
                let _ = unsafe {
                    map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, first, end - first)
                };
            }
        }
        #[cfg(not(unix))]
        let _ = (start, len);
    }

    /// Tells the operating system that the whole file is about to be read in order.
    pub(crate) fn will_need(&self) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            // Only a hint: without it reading is slower and just as right.
            let _ = map.advise(memmap2::Advice::WillNeed);
        }
    }
}
