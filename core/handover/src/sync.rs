//! The primitives that everything here is built on; `model/` has loom's in their place.

pub(crate) use std::sync::atomic::AtomicBool;
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
pub(crate) use std::thread::{Thread, current, park};
pub(crate) use std::thread_local;
