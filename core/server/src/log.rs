//! The access log: a line of JSON about each request, written by a thread of its own.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

/// The most lines that wait to be written. Further ones are dropped: a full disk must not stop the server.
const WAITING: usize = 16 << 10;

/// The access log.
pub(crate) struct AccessLog {
    lines: SyncSender<String>,
}

impl AccessLog {
    /// Opens a file to append to; `-` is stderr.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut out: Box<dyn Write + Send> = match path.to_str() {
            Some("-") => Box::new(io::stderr()),
            _ => Box::new(BufWriter::new(OpenOptions::new().create(true).append(true).open(path)?)),
        };
        let (lines, written) = sync_channel::<String>(WAITING);
        std::thread::Builder::new().name("realm-access-log".into()).spawn(move || {
            while let Ok(line) = written.recv() {
                // Nowhere is left to report that the log can't be written.
                let _ = writeln!(out, "{line}");
                while let Ok(line) = written.try_recv() {
                    let _ = writeln!(out, "{line}");
                }
                let _ = out.flush();
            }
        })?;
        Ok(Self { lines })
    }

    pub(crate) fn write(&self, line: String) {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(line) {
            tracing::warn!("the access log is not written fast enough: a line is dropped");
        }
    }
}

/// Returns the time in the form of RFC 3339.
pub(crate) fn timestamp() -> String {
    realm_protocol::timestamp()
}
