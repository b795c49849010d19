//! Function types of the caller's, and the data that they are called with.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

/// Releases `user_data`.
pub type Drop = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// Receives the progress of a load or a pull, which waits for it to return.
pub type OnProgress = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        stage: *const c_char,
        what: *const c_char,
        done: u64,
        total: u64,
    ),
>;

/// Changes logits; returns NULL, or an error message.
pub type LogitsProcessor = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        tokens: *const u32,
        tokens_len: usize,
        logits: *mut f32,
        logits_len: usize,
    ) -> *const c_char,
>;

/// The data of a callback; released when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct UserData(Arc<Owned>);

struct Owned {
    data: *mut c_void,
    drop: Drop,
}

// SAFETY: the header says that callbacks and `drop` are called from any thread.
unsafe impl Send for Owned {}
// SAFETY: the header says that callbacks are called from any thread, several at the same time.
unsafe impl Sync for Owned {}

impl UserData {
    pub(crate) fn new(data: *mut c_void, drop: Drop) -> Self {
        Self(Arc::new(Owned { data, drop }))
    }

    pub(crate) fn get(&self) -> *mut c_void {
        self.0.data
    }
}

impl std::ops::Drop for Owned {
    fn drop(&mut self) {
        if let Some(drop) = self.drop {
            // SAFETY: the caller's function with the caller's data, once.
            unsafe { drop(self.data) };
        }
    }
}
