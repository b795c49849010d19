//! How a pull tells what it does.

use crate::catalog::Source;
use crate::error::Reason;

/// Told about a pull while it runs, on the thread that called [`Hub::pull`](crate::Hub::pull).
///
/// Every method has an empty default, and `()` wants to know nothing. `advanced` comes at most some ten times a
/// second, so an implementation may draw.
pub trait Progress {
    /// Another process fetches `file`, and this one waits for it.
    fn waiting(&mut self, file: &str) {
        let _ = file;
    }

    /// `source` is tried now.
    fn started(&mut self, file: &str, source: &Source) {
        let _ = (file, source);
    }

    /// `done` of `total` bytes are here. `done` may start above 0 (an earlier pull's bytes) and stay a little
    /// below `total` (wheels are compressed); `total` is `None` where the source has not said.
    fn advanced(&mut self, source: &Source, done: u64, total: Option<u64>) {
        let _ = (source, done, total);
    }

    /// `source` did not give the file; the next one is tried, if there is one.
    fn failed(&mut self, source: &Source, reason: &Reason) {
        let _ = (source, reason);
    }

    /// The file is in place, `bytes` long.
    fn finished(&mut self, file: &str, bytes: u64) {
        let _ = (file, bytes);
    }
}

impl Progress for () {}
