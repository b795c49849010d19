//! Bodies of answers.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use realm_protocol::{Events, Framing};
use tokio::time::{Instant, Sleep};

use crate::call::Call;

/// The size from which what is ready of a stream is sent, in bytes. Below it, all that is ready goes out
/// together.
const FULL: usize = 16 << 10;

/// The longest time to a stream's first byte.
const FIRST: Duration = Duration::from_secs(1);

/// The events of a stream. Dropping it, as the client leaves, ends the request.
pub(crate) struct EventBody {
    events: Events,
    framing: Framing,
    every: Duration,
    /// The time of the last bytes, or of the beginning.
    sent: Instant,
    /// True after the first bytes.
    begun: bool,
    /// Ends when an idle stream needs a comment, or before: it is set anew only then, not for each event.
    timer: Pin<Box<Sleep>>,
    ended: bool,
}

impl EventBody {
    pub(crate) fn new(events: Events, every: Duration) -> Self {
        let sent = Instant::now();
        let timer = Box::pin(tokio::time::sleep_until(sent + FIRST.min(every)));
        let framing = events.framing();
        Self { events, framing, every, sent, begun: false, timer, ended: false }
    }

    /// Returns all that is ready, up to a full buffer.
    fn ready(&mut self, context: &mut Context<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < FULL {
            match self.events.poll_event(context) {
                Poll::Pending => break,
                Poll::Ready(Some(event)) => {
                    if out.is_empty() {
                        out.reserve(event.data.len() + 64);
                    }
                    self.framing.write(&event, &mut out);
                }
                Poll::Ready(None) => {
                    self.framing.end(&mut out);
                    self.ended = true;
                    break;
                }
            }
        }
        out
    }

    /// Returns whether it is time for a comment; otherwise the timer wakes the task.
    fn is_idle(&mut self, context: &mut Context<'_>) -> bool {
        while self.timer.as_mut().poll(context).is_ready() {
            let (now, due) = (Instant::now(), self.sent + self.every);
            if now >= due || !self.begun {
                (self.sent, self.begun) = (now, true);
                self.timer.as_mut().reset(now + self.every);
                return true;
            }
            self.timer.as_mut().reset(due);
        }
        false
    }
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let out = self.ready(context);
        if !out.is_empty() {
            (self.sent, self.begun) = (Instant::now(), true);
            return Poll::Ready(Some(Ok(Frame::data(out.into()))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let comment = self.framing.keep_alive();
        if !comment.is_empty() && self.is_idle(context) {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(comment)))));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// A body that keeps its call open until it was sent or dropped.
pub(crate) struct Tracked {
    inner: axum::body::Body,
    call: Arc<Call>,
}

impl Tracked {
    pub(crate) fn new(inner: axum::body::Body, call: Arc<Call>) -> Self {
        if inner.is_end_stream() {
            call.completed();
        }
        Self { inner, call }
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        // The last frame of a whole body is followed by no further poll.
        if matches!(frame, Poll::Ready(None)) || frame.is_ready() && self.inner.is_end_stream() {
            self.call.completed();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
