//! A cursor over a file's bytes that never reads past the end and never believes a count.

use crate::Error;

pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    /// An error about `field` at the current offset.
    pub(crate) fn error(&self, field: impl Into<String>, reason: impl Into<String>) -> Error {
        error_at(self.at, field, reason)
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: u64, field: &str) -> Result<&'a [u8], Error> {
        let left = self.bytes.len() - self.at;
        match usize::try_from(len) {
            Ok(len) if len <= left => {
                let bytes = &self.bytes[self.at..self.at + len];
                self.at += len;
                Ok(bytes)
            }
            _ => Err(self.error(field, format!("{len} bytes are claimed, {left} are left in the file"))),
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

    /// A count of things of at least `least` bytes each: refused if the file cannot hold so many.
    pub(crate) fn count(&mut self, least: u64, field: &str) -> Result<usize, Error> {
        let start = self.at;
        let count = self.u64(field)?;
        let left = (self.bytes.len() - self.at) as u64;
        match usize::try_from(count) {
            Ok(fits) if count.checked_mul(least).is_some_and(|bytes| bytes <= left) => Ok(fits),
            _ => {
                Err(error_at(start, field, format!("{count} are claimed, {left} bytes are left in the file")))
            }
        }
    }

    /// A length-prefixed string's bytes.
    pub(crate) fn bytes(&mut self, field: &str) -> Result<&'a [u8], Error> {
        let len = self.u64(field)?;
        self.take(len, field)
    }

    /// A length-prefixed UTF-8 string.
    pub(crate) fn string(&mut self, field: &str) -> Result<&'a str, Error> {
        let start = self.at;
        let bytes = self.bytes(field)?;
        std::str::from_utf8(bytes).map_err(|e| error_at(start, field, format!("not UTF-8: {e}")))
    }
}

pub(crate) fn error_at(offset: usize, field: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Malformed { offset: offset as u64, field: field.into(), reason: reason.into() }
}
