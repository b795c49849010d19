//! Calls that can be aborted while their promises are pending.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use futures_util::future::{AbortHandle, AbortRegistration, Abortable};
use napi::bindgen_prelude::*;
use napi_derive::napi;

use crate::error::{invalid, of_code};

/// A call that can be aborted.
#[napi]
pub struct NativeCall {
    handle: AbortHandle,
    registration: Mutex<Option<AbortRegistration>>,
}

#[napi]
impl NativeCall {
    /// Creates a call that has not begun.
    #[napi(constructor)]
    pub fn new() -> Self {
        let (handle, registration) = AbortHandle::new_pair();
        Self { handle, registration: Mutex::new(Some(registration)) }
    }

    /// Aborts the call.
    #[napi]
    pub fn abort(&self) {
        self.handle.abort();
    }
}

impl NativeCall {
    /// Waits for the call's future; an abort drops the future, and with it the work behind it.
    pub(crate) fn until<F: Future>(
        &self,
        work: F,
    ) -> Result<impl Future<Output = Result<F::Output>> + use<F>> {
        let taken = self.registration.lock().unwrap_or_else(PoisonError::into_inner).take();
        let registration = taken.ok_or_else(|| invalid("a call is made once"))?;
        let work = Abortable::new(work, registration);
        Ok(async { work.await.map_err(|_| of_code("cancelled", "the call was aborted")) })
    }
}
