//! Realm's own log, for applications that have no subscriber of `tracing`'s.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once, PoisonError, RwLock};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::error::ErrorCode;
use crate::{Error, Level};

type Sink = Arc<dyn Fn(Level, &str, &str) + Send + Sync>;

static SINK: RwLock<Option<Sink>> = RwLock::new(None);
/// The most verbose level that is logged: 0 for nothing, 1 for errors alone, and so on.
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Sends Realm's log to `sink`: calls it, on the thread that logs, with every line up to the level `most`.
/// Its arguments are the line's level, its source and its message. Another call replaces the sink, and `None`
/// removes it. Programs' lines are included if their tenant was granted [`Grants::log`](crate::Grants::log).
///
/// The thread may be an engine's, and every request waits for that: put a function that takes long or that
/// asks a model behind a [`LogQueue`](crate::LogQueue). Rust applications may use a subscriber of `tracing`'s
/// instead.
///
/// # Errors
/// `invalid-argument` if the process has another subscriber of `tracing`'s.
pub fn log_to<F>(most: Level, sink: Option<F>) -> Result<(), Error>
where
    F: Fn(Level, &str, &str) + Send + Sync + 'static,
{
    static ONCE: Once = Once::new();
    static OURS: RwLock<bool> = RwLock::new(false);
    ONCE.call_once(|| {
        let ours = tracing::subscriber::set_global_default(ToSink).is_ok();
        *OURS.write().unwrap_or_else(PoisonError::into_inner) = ours;
    });
    if !*OURS.read().unwrap_or_else(PoisonError::into_inner) {
        let why = "the process has a subscriber of `tracing` already; it gets Realm's log";
        return Err(Error::new(ErrorCode::InvalidArgument, why));
    }
    let most = if sink.is_some() { most as usize + 1 } else { 0 };
    let sink = sink.map(|sink| Arc::new(sink) as Sink);
    let old = std::mem::replace(&mut *SINK.write().unwrap_or_else(PoisonError::into_inner), sink);
    MOST.store(most, Ordering::Release);
    // Dropped outside the lock: the drop may run code of the application's.
    drop(old);
    Ok(())
}

fn level_of(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

struct ToSink;

impl Subscriber for ToSink {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        // The level may change, so `tracing` may not cache an answer, except for targets that are never ours.
        match metadata.target().starts_with("realm") && metadata.is_event() {
            true => tracing::subscriber::Interest::sometimes(),
            false => tracing::subscriber::Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        (level_of(metadata) as usize) < MOST.load(Ordering::Acquire)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        // The lock is not held while the sink runs, so the sink may set another one.
        let sink = SINK.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(sink) = sink {
            let mut line = Line::default();
            event.record(&mut line);
            let (level, target) = (level_of(event.metadata()), event.metadata().target());
            let message = line.message + &line.fields;
            // This may be the engine's thread, and the sink may be dropped here if it was replaced meanwhile.
            realm_handover::call_out(|| {
                sink(level, target, &message);
                drop(sink);
            });
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A log line: the message, and the other fields as ` name=value`.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string never fails.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
