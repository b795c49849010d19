//! The audit log: a line of JSON for each act of administration and each refused key, on disk before the act
//! is answered. Lines have ids and names of entries; never texts, keys or files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use realm::ErrorCode;
use realm_protocol::ApiError;
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// The most lines that wait to be written. Acts of administration wait for a place; refusals beyond are
/// counted.
const WAITING: usize = 1024;

/// The most refusals a second that have a line each: strangers must not fill the disk. Further ones are
/// counted in one line.
const REFUSALS: u64 = 20;

struct Line {
    text: String,
    /// Told when the line is on disk.
    written: Option<oneshot::Sender<bool>>,
    is_refusal: bool,
}

/// The audit log.
pub(crate) struct Audit {
    lines: SyncSender<Line>,
    /// Refusals for which there was no place.
    dropped: std::sync::Arc<AtomicU64>,
}

impl Audit {
    /// Opens a file to append to; it is created readable by its owner alone.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        let (lines, waiting) = sync_channel(WAITING);
        let dropped = std::sync::Arc::new(AtomicU64::new(0));
        let counted = std::sync::Arc::clone(&dropped);
        let write = move || write(file, &waiting, &counted);
        std::thread::Builder::new().name("realm-audit-log".into()).spawn(write)?;
        Ok(Self { lines, dropped })
    }

    /// Records an act of administration, whether it was done or refused. Returns when the line is on disk.
    ///
    /// # Errors
    /// Status 500 if it can't be written.
    pub(crate) async fn act(&self, line: Value) -> Result<(), ApiError> {
        let (send, written) = oneshot::channel();
        let line = Line { text: line.to_string(), written: Some(send), is_refusal: false };
        let lines = self.lines.clone();
        // Waiting for a place blocks.
        let sent = match lines.try_send(line) {
            Ok(()) => true,
            Err(std::sync::mpsc::TrySendError::Full(line)) => {
                let send = tokio::task::spawn_blocking(move || lines.send(line).is_ok());
                send.await.unwrap_or(false)
            }
            Err(std::sync::mpsc::TrySendError::Disconnected(_)) => false,
        };
        if sent && written.await == Ok(true) {
            return Ok(());
        }
        let why = "the act was done, and the audit log could not be written";
        Err(ApiError::new(500, "server_error", ErrorCode::Io, why))
    }

    /// Records a refused key. Does not wait.
    pub(crate) fn refused(&self, request: &str, route: &str, key: Option<&str>, why: &str) {
        let line = json!({
            "time": crate::log::timestamp(), "act": "authenticate", "result": why,
            "request": request, "route": route, "key": key,
        });
        let line = Line { text: line.to_string(), written: None, is_refusal: true };
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(mut file: File, lines: &Receiver<Line>, dropped: &AtomicU64) {
    let (mut second, mut refusals) = (Instant::now(), 0);
    loop {
        let first = match lines.recv_timeout(Duration::from_secs(1)) {
            Ok(line) => Some(line),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => None,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
        };
        let (mut text, mut waiting) = (String::new(), Vec::new());
        for line in first.into_iter().chain(std::iter::from_fn(|| lines.try_recv().ok()).take(WAITING)) {
            if line.is_refusal {
                refusals += 1;
                if refusals > REFUSALS {
                    continue;
                }
            }
            text += &line.text;
            text.push('\n');
            waiting.extend(line.written);
        }
        if second.elapsed() >= Duration::from_secs(1) {
            let more = refusals.saturating_sub(REFUSALS) + dropped.swap(0, Ordering::Relaxed);
            if more > 0 {
                let line = json!({
                    "time": crate::log::timestamp(), "act": "authenticate", "result": "refused", "more": more,
                });
                text += &format!("{line}\n");
            }
            (second, refusals) = (Instant::now(), 0);
        }
        if text.is_empty() {
            continue;
        }
        let done = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        if let Err(error) = &done {
            tracing::error!("the audit log can't be written: {error}");
        }
        for waits in waiting {
            // The caller may have left.
            let _ = waits.send(done.is_ok());
        }
    }
}
