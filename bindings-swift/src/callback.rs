//! What the application does for Realm.

/// What a load or a pull is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Stage {
    /// Another process fetches the file, and this one waits for it.
    Waiting,
    /// Bytes of the file arrive.
    Fetching,
    /// A source did not give the file; the next one is tried, if there is one.
    Failed,
    /// The file is in place.
    Fetched,
    /// Weights are brought onto the device.
    Loading,
}

/// One event of a load or a pull.
#[derive(Debug, Clone, uniffi::Record)]
pub struct Progress {
    /// What it is at.
    pub stage: Stage,
    /// The file or the source; for `failed` the source and its reason; empty while loading.
    pub what: String,
    /// Bytes that are here, or in place.
    pub done: u64,
    /// Bytes there are; nil where that is not known.
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

/// Told how a load or a pull goes, on a thread of Realm's.
#[uniffi::export(with_foreign)]
pub trait ProgressObserver: Send + Sync {
    /// Something happened.
    fn progressed(&self, progress: Progress);
}

/// How bad a line of a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is odd.
    Warn,
    /// Something happened.
    Info,
    /// For who looks for a fault.
    Debug,
    /// Everything.
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

/// Gets the lines of a log, soon after they were written, on a thread of its own. Where it is slower than Realm's own lines come some are
/// dropped, and a line says how many; a tenant's programs wait while 1 MiB of their lines do.
#[uniffi::export(with_foreign)]
pub trait LogSink: Send + Sync {
    /// A line. `from` is the tenant of a program's line, or the part of Realm.
    fn line(&self, level: LogLevel, from: String, message: String);
}

/// What hands lines to a sink.
pub(crate) fn queue(sink: std::sync::Arc<dyn LogSink>) -> realm::LogQueue {
    realm::LogQueue::new(move |from, level, message| {
        sink.line(level.into(), from.to_owned(), message.to_owned());
    })
}

/// Has every line of Realm's own log up to a level go to `sink`, for the whole process; nil ends that. Realm itself prints
/// nothing.
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

/// A tool says that it failed; the program is told the message.
#[derive(Debug, thiserror::Error, uniffi::Error)]
pub enum ToolError {
    /// Why.
    #[error("{message}")]
    Failed {
        /// For the program.
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
    /// Answers a program: JSON in, JSON out. What it throws becomes the error `failed` of the program's call.
    async fn call(&self, arguments: String) -> Result<String, ToolError>;
}
