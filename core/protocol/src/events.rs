//! Streamed answers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use realm::SharedGeneration;
use realm_handover::Wakers;

use crate::gate::{Gate, Permit};
use crate::openai::Writer;
use crate::service::Started;
use crate::{ApiError, Event, Framing};

/// The events of a streamed answer, each a JSON text. [`framing`](Self::framing) says how they are sent, such
/// as `data: EVENT\n\n`. A failure after the beginning is the last event: `{"error": …}`.
///
/// Several threads and tasks may hold it: one may [`cancel`](Self::cancel) it while another waits. Dropping
/// it cancels the request.
pub struct Events {
    generations: Vec<SharedGeneration>,
    framing: Framing,
    gate: Arc<dyn Gate>,
    state: Mutex<State>,
    /// The readers that wait for an event. Every generation has this list as its one waker, however often it
    /// is polled.
    waiting: Arc<Wakers>,
}

struct State {
    writer: Box<dyn Writer>,
    /// Counts the tokens; `None` after the end.
    permit: Option<Box<dyn Permit>>,
    /// Events that were not read yet.
    events: VecDeque<Event>,
    /// For each generation, whether it has not ended.
    open: Vec<bool>,
    /// The generation to read next.
    next: usize,
    /// True if no more events will come.
    ended: bool,
}

impl Events {
    pub(crate) fn new(started: Started, mut writer: Box<dyn Writer>, gate: Arc<dyn Gate>) -> Self {
        let Started { generations, permit, .. } = started;
        let (mut events, framing) = (Vec::new(), writer.framing());
        writer.begin(&mut events);
        let open = vec![true; generations.len()];
        let permit = Some(permit);
        let state = State { writer, permit, events: events.into(), open, next: 0, ended: false };
        let generations = generations.into_iter().map(SharedGeneration::from).collect();
        Self { generations, framing, gate, state: Mutex::new(state), waiting: Arc::default() }
    }

    /// The form in which the protocol sends these events.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Waits for the next event's JSON text; `None` after the last one and after [`cancel`](Self::cancel).
    pub async fn next_async(&self) -> Option<String> {
        Some(self.waiting.until(|| self.ask()).await?.data)
    }

    /// Polls for the next event's JSON text like [`next_async`](Self::next_async), for callers that keep no
    /// future. If there is none yet, the waker is woken once.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<String>> {
        self.poll_event(context).map(|event| event.map(|event| event.data))
    }

    /// Polls for the next event like [`poll_next`](Self::poll_next), with its name.
    pub fn poll_event(&self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut event = self.ask();
        if event.is_pending() {
            let ticket = self.waiting.wait_once(context.waker());
            event = self.ask();
            if event.is_ready() {
                self.waiting.leave(ticket);
            }
        }
        event
    }

    /// Ends the request at once and frees its pages of the KV cache.
    pub fn cancel(&self) {
        self.generations.iter().for_each(SharedGeneration::cancel);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self) -> Poll<Option<Event>> {
        let waker = Waker::from(Arc::clone(&self.waiting));
        let context = &mut Context::from_waker(&waker);
        let mut state = self.lock();
        let event = loop {
            if let Some(event) = state.events.pop_front() {
                break Poll::Ready(Some(event));
            }
            if state.ended {
                break Poll::Ready(None);
            }
            if !self.read(&mut state, context) {
                break Poll::Pending;
            }
        };
        let ended = state.ended;
        let permit = if ended { state.permit.take() } else { None };
        drop(state);
        // It belongs to the application, so no lock may be held while it is dropped.
        drop(permit);
        if ended {
            // One failed choice ends the others. That wakes their readers, so no lock may be held.
            self.cancel();
        }
        event
    }

    /// Reads a chunk of each generation that has one; returns whether there was any.
    fn read(&self, state: &mut State, context: &mut Context<'_>) -> bool {
        let (mut any, mut events) = (false, Vec::new());
        let choices = self.generations.len();
        for index in (state.next..choices).chain(0..state.next) {
            if !state.open[index] {
                continue;
            }
            match self.generations[index].poll_next(context) {
                Poll::Pending => continue,
                Poll::Ready(Some(Ok(chunk))) => {
                    state.open[index] = chunk.finish.is_none();
                    if let Some(permit) = &mut state.permit {
                        permit.generated(chunk.tokens.len());
                        chunk.finish.iter().for_each(|finish| permit.finished(&finish.usage));
                    }
                    state.writer.chunk(index, chunk, &mut events);
                }
                Poll::Ready(Some(Err(error))) => {
                    let error = self.gate.shown(ApiError::from(error));
                    state.writer.failed(&error, &mut events);
                    state.ended = true;
                }
                // The generation was cancelled.
                Poll::Ready(None) => state.ended = true,
            }
            any = true;
            if state.ended {
                break;
            }
        }
        state.next = (state.next + 1) % choices.max(1);
        if !state.ended && !state.open.contains(&true) {
            state.writer.end(&mut events);
            state.ended = true;
            any = true;
        }
        state.events.extend(events);
        any
    }
}
