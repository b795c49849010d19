//! Objects that can be closed.

use std::sync::{Mutex, PoisonError};

use crate::error::invalid;

/// An object, until it is closed.
pub(crate) struct Handle<T> {
    value: Mutex<Option<T>>,
    kind: &'static str,
}

impl<T: Clone + Send + 'static> Handle<T> {
    pub(crate) fn new(kind: &'static str, value: T) -> Self {
        Self { value: Mutex::new(Some(value)), kind }
    }

    /// Returns the value.
    ///
    /// # Errors
    /// `invalid-argument` after [`close`](Self::close).
    pub(crate) fn get(&self) -> napi::Result<T> {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        value.clone().ok_or_else(|| invalid(format!("this {} is closed", self.kind)))
    }

    /// Releases the value. Other handles of it stay valid.
    pub(crate) fn close(&self) {
        if let Some(value) = self.value.lock().unwrap_or_else(PoisonError::into_inner).take() {
            dispose(value);
        }
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        // A finalizer runs on Node's thread. Dropping the value may wait briefly for the engine's thread.
        self.value.get_mut().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Drops a value on another thread: the last handle of a model waits for the end of its engine's step.
pub(crate) fn dispose<T: Send + 'static>(value: T) {
    // If no thread can be started, it is dropped here.
    let _ = std::thread::Builder::new().name("realm-drop".into()).spawn(move || drop(value));
}
