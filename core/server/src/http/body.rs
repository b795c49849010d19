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
pub(super) struct EventBody {
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
    fn new(events: Events, every: Duration) -> Self {
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

    /// Polls for the next bytes: all that is ready, or a comment.
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let out = self.ready(context);
        if !out.is_empty() {
            (self.sent, self.begun) = (Instant::now(), true);
            return Poll::Ready(Some(out.into()));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let comment = self.framing.keep_alive();
        if !comment.is_empty() && self.is_idle(context) {
            return Poll::Ready(Some(Bytes::from_static(comment)));
        }
        Poll::Pending
    }
}

/// The messages of an answer of gRPC, and then its status.
pub(crate) struct RpcBody {
    body: tonic::body::Body,
    ended: bool,
}

impl RpcBody {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        Pin::new(&mut self.body).poll_frame(context).map(|frame| {
            // A failure is a status, in the last frame. There is none outside of frames.
            let frame = frame.and_then(Result::ok);
            self.ended = frame.as_ref().is_none_or(Frame::is_trailers) || self.body.is_end_stream();
            frame
        })
    }
}

/// The body of an answer.
pub(crate) enum AnswerBody {
    /// All of it; `None` when it was sent.
    Whole(Option<Bytes>),
    Events(EventBody),
    Rpc(RpcBody),
}

impl AnswerBody {
    pub(super) fn rpc(body: tonic::body::Body) -> Self {
        Self::Rpc(RpcBody { ended: body.is_end_stream(), body })
    }

    pub(super) fn is_rpc(&self) -> bool {
        matches!(self, Self::Rpc(_))
    }

    pub(super) fn whole(text: String) -> Self {
        Self::Whole(Some(text.into()).filter(|text: &Bytes| !text.is_empty()))
    }

    pub(super) fn events(events: Events, keep_alive: Duration) -> Self {
        Self::Events(EventBody::new(events, keep_alive))
    }

    fn is_sent(&self) -> bool {
        match self {
            Self::Whole(rest) => rest.is_none(),
            Self::Events(events) => events.ended,
            Self::Rpc(rpc) => rpc.ended,
        }
    }
}

/// A body that keeps its call open until it was sent or dropped.
pub(crate) struct Tracked {
    inner: AnswerBody,
    call: Arc<Call>,
}

impl Tracked {
    pub(super) fn new(inner: AnswerBody, call: Arc<Call>) -> Self {
        if inner.is_sent() {
            call.completed();
        }
        Self { inner, call }
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match &mut self.inner {
            AnswerBody::Whole(rest) => Poll::Ready(rest.take().map(Frame::data)),
            AnswerBody::Events(events) => events.poll_bytes(context).map(|bytes| bytes.map(Frame::data)),
            AnswerBody::Rpc(rpc) => rpc.poll_frame(context),
        };
        // The last frame may be followed by no further poll.
        if self.inner.is_sent() {
            self.call.completed();
        }
        frame.map(|frame| frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_sent()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            AnswerBody::Whole(rest) => SizeHint::with_exact(rest.as_ref().map_or(0, Bytes::len) as u64),
            AnswerBody::Events(_) | AnswerBody::Rpc(_) => SizeHint::default(),
        }
    }
}
