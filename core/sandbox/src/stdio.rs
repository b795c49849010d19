//! A program's standard output and error.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

/// The most bytes that a program may write to either; one more ends it.
const MAX_WRITTEN: usize = 1 << 20;

/// The bytes of the end that are kept, for quotes in errors.
const QUOTED: usize = 2000;

/// Counts the written bytes, and keeps the last of them. Clones are the same stream.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<Mutex<Text>>);

#[derive(Default)]
struct Text {
    end: VecDeque<u8>,
    /// The bytes written so far.
    len: usize,
}

impl Output {
    fn text(&self) -> MutexGuard<'_, Text> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the end of the text.
    pub(crate) fn end(&self) -> String {
        String::from_utf8_lossy(self.text().end.make_contiguous()).into_owned()
    }
}

impl Text {
    fn room(&self) -> usize {
        MAX_WRITTEN - self.len
    }

    /// Appends bytes that fit.
    fn push(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        let kept = &bytes[bytes.len().saturating_sub(QUOTED)..];
        let old = (self.end.len() + kept.len()).saturating_sub(QUOTED);
        self.end.drain(..old);
        self.end.extend(kept);
    }
}

#[async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        let mut text = self.text();
        if bytes.len() > text.room() {
            let why = "the program wrote more than it may to its standard output or error";
            return Err(StreamError::Trap(wasmtime::Error::msg(why)));
        }
        text.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        // There will be no more room.
        Some(self.text().room()).filter(|&room| room > 0).ok_or(StreamError::Closed)
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut text = self.text();
        let len = bytes.len().min(text.room());
        text.push(&bytes[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_no_more_is_written_than_may_be() {
        let mut written = Output::default();
        let mut other = written.clone();
        for i in 0..1000 {
            let stream = if i % 2 == 0 { &mut written } else { &mut other };
            assert!(stream.write(Bytes::from(format!("{i:>1000}"))).is_ok());
        }
        let end = written.end();
        assert!(end.len() == QUOTED && end.ends_with("999") && end.contains("998"), "{end}");
        assert!(written.text().end.capacity() < 3 * QUOTED);
        assert_eq!(written.check_write().ok(), Some(MAX_WRITTEN - 1_000_000));
        assert!(written.write(Bytes::from(vec![b'x'; MAX_WRITTEN])).is_err());
        assert!(written.write(Bytes::from(vec![b'x'; MAX_WRITTEN - 1_000_000])).is_ok());
        assert!(written.check_write().is_err() && other.write(Bytes::from_static(b"x")).is_err());
        assert_eq!(written.end(), "x".repeat(QUOTED));
    }
}
