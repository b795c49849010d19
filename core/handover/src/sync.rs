//! The primitives that this crate is built on. `model/` replaces them by loom's.

pub(crate) use std::sync::atomic::AtomicBool;
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
pub(crate) use std::thread::{Thread, current, park};
pub(crate) use std::thread_local;
