//! Reports of a running pull.

use crate::catalog::Source;
use crate::error::Reason;

/// Reports of a pull while it runs, on the thread that called [`Hub::pull`](crate::Hub::pull).
///
/// Every method has an empty default, and `()` ignores all reports. `advanced` is called at most about ten
/// times a second, so an implementation may draw.
pub trait Progress {
    /// Reports that another process fetches `file`, and this one waits for it.
    fn waiting(&mut self, file: &str) {
        let _ = file;
    }

    /// Reports that `source` is tried now.
    fn started(&mut self, file: &str, source: &Source) {
        let _ = (file, source);
    }

    /// Reports that `done` of `total` bytes are here. `done` may start above 0 (an earlier pull's bytes) and
    /// stay a little below `total` (wheels are compressed). `total` is `None` if the source has not said.
    fn advanced(&mut self, source: &Source, done: u64, total: Option<u64>) {
        let _ = (source, done, total);
    }

    /// Reports that `source` failed to give the file. The next source is tried, if there is one.
    fn failed(&mut self, source: &Source, reason: &Reason) {
        let _ = (source, reason);
    }

    /// Reports that the file is in place, `bytes` long.
    fn finished(&mut self, file: &str, bytes: u64) {
        let _ = (file, bytes);
    }
}

impl Progress for () {}
