//! A cursor over a file's bytes that never reads past the end and checks every count before it uses it.

use std::cell::Cell;
use std::rc::Rc;

use crate::Error;

/// Most bytes of header, metadata and index together. They are copied, and without this limit a damaged
/// length could take gigabytes of weights for a string or an array. The largest vocabularies take less than
/// 10 MiB, and 40 MiB with a whole `tokenizer.json` beside them.
pub(crate) const MAX_HEADER: usize = 64 << 20;

/// Most arrays inside arrays, in a whole file. An array of a few bytes in the file takes ten times as many in
/// memory, and no known model has nested arrays.
const MAX_NESTED: usize = 1 << 14;

#[derive(Clone)]
pub(crate) struct Reader<'a> {
    /// The beginning of the file, as far as it has been loaded.
    bytes: &'a [u8],
    /// Length of the file, or [`MAX_HEADER`] if that is less.
    limit: usize,
    /// Set if the file is longer than `limit`.
    cut: bool,
    /// Set if a read was refused because it ends behind `bytes` but not behind `limit`. Clones of a reader
    /// share it.
    wants_more: Rc<Cell<bool>>,
    at: usize,
    nested: usize,
}

impl<'a> Reader<'a> {
    /// Reads the beginning of a file of `len` bytes.
    pub(crate) fn new(bytes: &'a [u8], len: u64) -> Self {
        let limit = usize::try_from(len).unwrap_or(usize::MAX).min(MAX_HEADER);
        let bytes = bytes.get(..limit).unwrap_or(bytes);
        Self { bytes, limit, cut: len > limit as u64, wants_more: Rc::default(), at: 0, nested: 0 }
    }

    /// Returns whether an error may be caused only by loading too little of the file.
    pub(crate) fn wants_more(&self) -> bool {
        self.wants_more.get()
    }

    /// The loaded bytes.
    pub(crate) fn loaded(&self) -> &'a [u8] {
        self.bytes
    }

    /// Number of bytes that are left, loaded or not.
    fn left(&self) -> usize {
        self.limit - self.at
    }

    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    /// Makes an error about `field` at the current offset.
    pub(crate) fn error(&self, field: impl Into<String>, reason: impl Into<String>) -> Error {
        error_at(self.at, field, reason)
    }

    /// Describes the end of the file or of the header, for errors.
    fn end(&self) -> String {
        if self.cut {
            return "of the 64 MiB that are read of a header".to_owned();
        }
        let len = self.limit;
        format!(
            "in the file, which ends at byte {len}: the download was not finished, or the file is damaged. Fetch it again"
        )
    }

    /// Takes the next `len` bytes.
    pub(crate) fn take(&mut self, len: u64, field: &str) -> Result<&'a [u8], Error> {
        let left = self.left();
        match usize::try_from(len) {
            Ok(len) if len <= left => match self.bytes.get(self.at..self.at + len) {
                Some(bytes) => {
                    self.at += len;
                    Ok(bytes)
                }
                None => {
                    self.wants_more.set(true);
                    Err(self.error(field, "lies behind what has been loaded"))
                }
            },
            _ => Err(self.error(field, format!("{len} bytes are claimed, {left} are left {}", self.end()))),
        }
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, field)?);
        Ok(out)
    }

    pub(crate) fn u32(&mut self, field: &str) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &str) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// Reads a count of items of at least `least` bytes each; refuses a count that the file cannot hold.
    pub(crate) fn count(&mut self, least: u64, field: &str) -> Result<usize, Error> {
        let start = self.at;
        let count = self.u64(field)?;
        let left = self.left() as u64;
        match usize::try_from(count) {
            Ok(fits) if count.checked_mul(least).is_some_and(|bytes| bytes <= left) => Ok(fits),
            _ => {
                let why = format!("{count} are claimed, {left} bytes are left {}", self.end());
                Err(error_at(start, field, why))
            }
        }
    }

    /// Same as [`Reader::count`], for items that take much more memory than file: refuses more than `most`.
    pub(crate) fn count_up_to(&mut self, most: usize, least: u64, field: &str) -> Result<usize, Error> {
        let start = self.at;
        let count = self.count(least, field)?;
        if count > most {
            return Err(error_at(start, field, format!("{count} are claimed, up to {most} are read")));
        }
        Ok(count)
    }

    /// Reads the number of arrays in an array.
    pub(crate) fn nested_count(&mut self, field: &str) -> Result<usize, Error> {
        // The smallest array has a type and a count.
        let count = self.count_up_to(MAX_NESTED - self.nested, 4 + 8, field)?;
        self.nested += count;
        Ok(count)
    }

    /// Reads a length-prefixed string as bytes.
    pub(crate) fn bytes(&mut self, field: &str) -> Result<&'a [u8], Error> {
        let start = self.at;
        let len = self.u64(field)?;
        let left = self.left();
        if len > left as u64 {
            let why = format!("{len} bytes are claimed, {left} are left {}", self.end());
            return Err(error_at(start, field, why));
        }
        self.take(len, field)
    }

    /// Reads a length-prefixed UTF-8 string.
    pub(crate) fn string(&mut self, field: &str) -> Result<&'a str, Error> {
        let start = self.at;
        let bytes = self.bytes(field)?;
        std::str::from_utf8(bytes).map_err(|e| error_at(start, field, format!("not UTF-8: {e}")))
    }
}

pub(crate) fn error_at(offset: usize, field: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Malformed { offset: offset as u64, field: field.into(), reason: reason.into() }
}
