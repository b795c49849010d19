//! Passes lines of a log to a function of the application's.
//!
//! A line may be written on the engine's thread or on one that other programs wait for, and the function may
//! write to a slow terminal, take a lock of the application's or ask a model. Therefore a thread of its own
//! calls the function; the thread exists while there are lines.
//!
//! Waiting lines are bounded in two ways. A program's lines count as its tenant's memory, and when their
//! bytes fill the [`Room`], the program waits. Realm's own lines are written on threads that must not wait,
//! so surplus lines are dropped.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use realm_engine::{Level, MemoryCharge, MemoryKind, MemoryLedger};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// The most lines of Realm's own that wait for the function.
const MAX_LINES: usize = 4096;

/// The most bytes of these lines, unless one line alone has more. Also the most bytes of a tenant's waiting
/// lines, beyond which its programs wait.
const MAX_BYTES: usize = 1 << 20;

/// The time that the thread waits for another line before it ends: starting a thread takes some 20
/// microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

type Sink = Box<dyn Fn(&str, Level, &str) + Send + Sync>;

/// A line of a log.
pub(crate) struct Line {
    /// The tenant of a program's line, or the part of Realm.
    pub(crate) from: String,
    pub(crate) level: Level,
    pub(crate) message: String,
    /// The memory of a program's line, held until the line is dropped.
    pub(crate) place: Option<Place>,
}

impl Line {
    /// Returns the bytes of the line's texts.
    fn len(&self) -> usize {
        self.from.len() + self.message.len()
    }
}

/// The part of its tenant's room and memory that a line holds.
pub(crate) struct Place {
    _room: OwnedSemaphorePermit,
    _charge: MemoryCharge,
}

/// The room for waiting lines of a tenant's programs.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BYTES)))
    }
}

impl Room {
    /// Waits for room for a line, and charges for it. A line larger than the whole room waits until no other
    /// line is waiting.
    ///
    /// # Errors
    /// `LimitExceeded` if the tenant's memory is used up.
    pub(crate) async fn take(
        &self,
        ledger: &MemoryLedger,
        from: &str,
        message: &str,
    ) -> Result<Place, Error> {
        let closed = |_| Error::new(crate::ErrorKind::Internal, "the log's room is closed");
        // The allocator adds 16 bytes to each of the two texts.
        let bytes = size_of::<Line>() + from.len() + message.len() + 2 * 16;
        let permits = u32::try_from(bytes.min(MAX_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.0).acquire_many_owned(permits).await.map_err(closed)?;
        Ok(Place { _room: room, _charge: ledger.charge(MemoryKind::Logs, bytes)? })
    }
}

/// A queue of log lines for a function. Programs' lines, of [`Grants::log_queue`](crate::Grants::log_queue),
/// count as their tenant's memory: if the function is slow and 1 MiB of a tenant's lines is waiting, its
/// programs wait. [`write`](Self::write), for other lines, never waits: while 4,096 of those lines or 1 MiB
/// is waiting, further ones are dropped, and a line of Realm's says how many. Dropping the queue passes the
/// waiting lines to the function.
///
/// ```
/// use realm_sandbox::{Grants, LogQueue};
///
/// let log = LogQueue::new(|tenant, level, message| println!("{tenant} {level:?}: {message}"));
/// let grants = Grants::none().log_queue(log);
/// ```
pub struct LogQueue(Arc<Shared>);

struct Shared {
    sink: Sink,
    state: Mutex<State>,
    /// Signals a line, or the end, to the thread.
    more: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Line>,
    /// The number of waiting lines without a tenant's place, and their bytes.
    own: usize,
    bytes: usize,
    /// The number of dropped lines that no line has reported yet.
    dropped: usize,
    /// The process whose thread calls the function: after a fork, the child has no such thread.
    running: Option<u32>,
    /// True if the queue has ended.
    ended: bool,
}

impl State {
    /// Returns the line that says how many lines were dropped, to put in their place.
    fn gap(&mut self) -> Option<Line> {
        let dropped = std::mem::take(&mut self.dropped);
        let message = format!("{dropped} lines were dropped here: they came faster than this log takes them");
        (dropped > 0).then(|| Line { from: "realm::log".into(), level: Level::Warn, message, place: None })
    }

    fn push(&mut self, line: Line) {
        if line.place.is_none() {
            self.own += 1;
            self.bytes += line.len();
        }
        self.lines.push_back(line);
    }

    fn pop(&mut self) -> Option<Line> {
        let line = self.lines.pop_front()?;
        if line.place.is_none() {
            self.own -= 1;
            self.bytes -= line.len();
        }
        Some(line)
    }
}

impl LogQueue {
    /// Creates a queue that calls `sink` with a line's source, its level and its message.
    pub fn new(sink: impl Fn(&str, Level, &str) + Send + Sync + 'static) -> Self {
        let sink: Sink = Box::new(sink);
        Self(Arc::new(Shared { sink, state: Mutex::default(), more: Condvar::new() }))
    }

    /// Writes a line, or drops it if too many are waiting.
    pub fn write(&self, from: &str, level: Level, message: &str) {
        let mut state = self.0.state();
        let bytes = state.bytes + from.len() + message.len();
        if state.own > 0 && (bytes > MAX_BYTES || state.own >= MAX_LINES) {
            state.dropped += 1;
            return;
        }
        let line = Line { from: from.to_owned(), level, message: message.to_owned(), place: None };
        self.add(state, line);
    }

    /// Adds a program's line, which has a place.
    pub(crate) fn push(&self, line: Line) {
        self.add(self.0.state(), line);
    }

    fn add(&self, mut state: MutexGuard<'_, State>, line: Line) {
        let gap = state.gap();
        gap.into_iter().chain([line]).for_each(|line| state.push(line));
        let process = std::process::id();
        if state.running == Some(process) {
            drop(state);
            self.0.more.notify_one();
            return;
        }
        let shared = Arc::clone(&self.0);
        let started = std::thread::Builder::new().name("realm-log".into()).spawn(move || shared.run());
        match started {
            Ok(_) => state.running = Some(process),
            // The next line tries again.
            Err(_) => {
                state.dropped += state.lines.len();
                let lost = std::mem::take(&mut state.lines);
                (state.own, state.bytes) = (0, 0);
                drop(state);
                // Dropping their places wakes programs.
                drop(lost);
            }
        }
    }
}

impl Drop for LogQueue {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.more.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs on the thread: calls the function with each line, and ends when there is none.
    fn run(&self) {
        loop {
            let idle = |state: &mut State| state.lines.is_empty() && !state.ended;
            let waited = self.more.wait_timeout_while(self.state(), PATIENCE, idle);
            let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let Some(line) = state.pop() else {
                state.running = None;
                return;
            };
            let gap = if state.lines.is_empty() { state.gap() } else { None };
            drop(state);
            for Line { from, level, message, place } in std::iter::once(line).chain(gap) {
                realm_handover::call_out(|| (self.sink)(&from, level, &message));
                // The line's text is freed before another line gets its place.
                drop((from, message));
                realm_handover::call_out(|| drop(place));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    type Received = mpsc::Receiver<(String, Level, String)>;

    /// Creates a queue whose function waits for a turn before it takes a line.
    fn queue() -> (LogQueue, mpsc::Sender<()>, Received) {
        let (turn, turns) = mpsc::channel::<()>();
        let (send, received) = mpsc::channel();
        let turns = Mutex::new(turns);
        let queue = LogQueue::new(move |from, level, message| {
            let _ = turns.lock().unwrap().recv();
            let _ = send.send((from.to_owned(), level, message.to_owned()));
        });
        (queue, turn, received)
    }

    #[test]
    fn a_function_that_sleeps_holds_no_writer_up() {
        let (queue, turn, received) = queue();
        (0..MAX_LINES + 100).for_each(|line| queue.write("a", Level::Info, &line.to_string()));
        drop(turn);
        let mut lines = received.iter().take_while(|line| line.0 != "realm::log").map(|line| line.2);
        for line in 0..MAX_LINES {
            assert_eq!(lines.next(), Some(line.to_string()), "they are in order");
        }
        // One more if the first was taken before the queue was full.
        assert!(lines.count() <= 1);
        queue.write("a", Level::Info, "the next one");
        assert_eq!(received.recv().unwrap().2, "the next one");
    }

    #[test]
    fn the_gap_is_told_with_its_length_and_where_it_is() {
        let (queue, turn, received) = queue();
        (0..MAX_LINES + 100).for_each(|line| queue.write("a", Level::Info, &line.to_string()));
        // There is room for one more, while others still wait.
        turn.send(()).unwrap();
        turn.send(()).unwrap();
        received.recv().unwrap();
        let mut last = received.recv().unwrap().2;
        while queue.0.state().lines.len() >= MAX_LINES {
            std::thread::yield_now();
        }
        queue.write("a", Level::Info, "after the gap");
        drop(turn);
        let gap = loop {
            let line = received.recv().unwrap();
            if line.0 == "realm::log" {
                break line;
            }
            last = line.2;
        };
        let missed = MAX_LINES + 100 - (last.parse::<usize>().unwrap() + 1);
        assert_eq!((gap.1, gap.2.split(' ').next()), (Level::Warn, Some(missed.to_string().as_str())));
        assert_eq!(received.recv().unwrap().2, "after the gap");
    }

    #[test]
    fn long_lines_are_bounded_by_their_bytes() {
        let (queue, turn, received) = queue();
        // Two fit, including their sources.
        let long = "x".repeat(MAX_BYTES / 2 - 1);
        for _ in 0..64 {
            queue.write("a", Level::Info, &long);
        }
        queue.0.state().lines.iter().for_each(|line| assert_eq!(line.message.len(), long.len()));
        assert!(queue.0.state().bytes <= MAX_BYTES);
        drop(turn);
        drop(queue);
        let lines: Vec<_> = received.iter().collect();
        assert!((3..=5).contains(&lines.len()), "{} lines", lines.len());
        assert!(lines.iter().any(|line| line.0 == "realm::log"));
    }

    #[test]
    fn the_end_lets_the_function_have_what_waits_and_then_drops_it() {
        let (queue, turn, received) = queue();
        queue.write("a", Level::Warn, "last words");
        drop(queue);
        turn.send(()).unwrap();
        assert_eq!(received.recv().unwrap(), ("a".to_owned(), Level::Warn, "last words".to_owned()));
        assert!(received.recv().is_err(), "the function is kept");
    }

    #[test]
    fn a_function_that_panics_gets_the_next_line() {
        let (send, received) = mpsc::channel();
        let queue = LogQueue::new(move |_, _, message| {
            assert!(message != "bad", "expected by this test");
            send.send(message.to_owned()).unwrap();
        });
        queue.write("a", Level::Info, "bad");
        queue.write("a", Level::Info, "good");
        assert_eq!(received.recv().unwrap(), "good");
    }
}
