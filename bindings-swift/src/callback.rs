//! Protocols that the application implements.

/// The stage of a load or a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Stage {
    /// Another process fetches the file; this one waits for it.
    Waiting,
    /// Bytes of the file arrive.
    Fetching,
    /// A source failed to give the file; the next one is tried, if there is one.
    Failed,
    /// The file is in place.
    Fetched,
    /// Weights are loaded onto the device.
    Loading,
}

/// One event of a load or a pull.
#[derive(Debug, Clone, uniffi::Record)]
pub struct Progress {
    /// The current stage.
    pub stage: Stage,
    /// The file or the source; for `failed` the source and its reason; empty while loading.
    pub what: String,
    /// The number of bytes that are fetched or loaded.
    pub done: u64,
    /// The total number of bytes; nil if unknown.
    pub total: Option<u64>,
}

impl From<realm::ProgressEvent> for Progress {
    fn from(event: realm::ProgressEvent) -> Self {
        Self {
            stage: match event.stage {
                realm::Stage::Waiting => Stage::Waiting,
                realm::Stage::Fetching => Stage::Fetching,
                realm::Stage::Failed => Stage::Failed,
                realm::Stage::Fetched => Stage::Fetched,
                realm::Stage::Loading => Stage::Loading,
            },
            what: event.what,
            done: event.done,
            total: event.total,
        }
    }
}

/// Receives the progress of a load or a pull, on a thread of Realm's.
#[uniffi::export(with_foreign)]
pub trait ProgressObserver: Send + Sync {
    /// Reports an event.
    fn progressed(&self, progress: Progress);
}

/// The severity of a line in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum LogLevel {
    /// A failure.
    Error,
    /// Something unusual.
    Warn,
    /// An event.
    Info,
    /// A detail for debugging.
    Debug,
    /// Every detail.
    Trace,
}

impl From<realm::Level> for LogLevel {
    fn from(level: realm::Level) -> Self {
        match level {
            realm::Level::Error => Self::Error,
            realm::Level::Warn => Self::Warn,
            realm::Level::Info => Self::Info,
            realm::Level::Debug => Self::Debug,
            realm::Level::Trace => Self::Trace,
        }
    }
}

impl From<LogLevel> for realm::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

/// Receives the lines of a log, soon after they were written, on a thread of its own. If it is slower than
/// Realm's own lines, some are dropped, and a line says how many; while 1 MiB of a tenant's lines is waiting,
/// its programs wait.
#[uniffi::export(with_foreign)]
pub trait LogSink: Send + Sync {
    /// Receives a line. `from` is the tenant of a program's line, or the part of Realm.
    fn line(&self, level: LogLevel, from: String, message: String);
}

/// Returns a queue that passes lines to a sink.
pub(crate) fn queue(sink: std::sync::Arc<dyn LogSink>) -> realm::LogQueue {
    realm::LogQueue::new(move |from, level, message| {
        sink.line(level.into(), from.to_owned(), message.to_owned());
    })
}

/// Sends every line of Realm's own log up to a level to `sink`, for the whole process; nil ends that. Realm
/// itself prints nothing.
///
/// Throws `InvalidArgument` if Rust code in this process has set up a log of its own.
#[uniffi::export]
pub fn set_log(most: LogLevel, sink: Option<std::sync::Arc<dyn LogSink>>) -> crate::error::Result<()> {
    let sink = sink.map(|sink| {
        let lines = queue(sink);
        move |level: realm::Level, from: &str, message: &str| lines.write(from, level, message)
    });
    Ok(realm::log_to(most.into(), sink)?)
}

/// The failure of a tool; the program gets the message.
#[derive(Debug, thiserror::Error, uniffi::Error)]
pub enum ToolError {
    /// The tool failed.
    #[error("{message}")]
    Failed {
        /// The message for the program.
        message: String,
    },
}

impl From<uniffi::UnexpectedUniFFICallbackError> for ToolError {
    fn from(error: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::Failed { message: error.reason }
    }
}

/// A function of the application's that programs may call.
#[uniffi::export(with_foreign)]
#[async_trait::async_trait]
pub trait Tool: Send + Sync {
    /// Answers a program: JSON in, JSON out. A thrown error becomes the error `failed` of the program's call.
    async fn call(&self, arguments: String) -> Result<String, ToolError>;
}
