//! Token sequences that the caller drives.

use std::sync::{Arc, Mutex, PoisonError};

use napi::bindgen_prelude::*;
use napi_derive::napi;
use realm::{Output, unblock};

use crate::environment::promise;
use crate::error::{failed, invalid};
use crate::handle::dispose;

/// The results of a forward pass.
#[napi(object, object_from_js = false)]
pub struct NativeForwarded {
    /// The numbers, row by row.
    pub values: Float32Array,
    /// The number of values in a row.
    pub width: u32,
    /// The number of tokens that were found in the prefix cache.
    pub cached: u32,
}

/// A token sequence with its KV cache.
#[napi]
pub struct NativeSequence {
    slot: Arc<Mutex<Slot>>,
}

enum Slot {
    Here(Box<realm::Sequence>),
    /// A forward pass holds the sequence.
    Busy,
    Closed,
}

/// A borrowed sequence; it goes back on drop, unless the handle was closed meanwhile.
struct Borrowed {
    sequence: Option<Box<realm::Sequence>>,
    slot: Arc<Mutex<Slot>>,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Slot::Busy, Some(sequence)) = (&*slot, self.sequence.take()) {
            *slot = Slot::Here(sequence);
        }
    }
}

impl Borrowed {
    fn get(&mut self) -> Result<&mut realm::Sequence> {
        self.sequence.as_deref_mut().ok_or_else(|| invalid("this Sequence is closed"))
    }
}

impl NativeSequence {
    pub(crate) fn new(sequence: realm::Sequence) -> Self {
        Self { slot: Arc::new(Mutex::new(Slot::Here(Box::new(sequence)))) }
    }

    fn borrow(&self) -> Result<Borrowed> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *slot, Slot::Busy) {
            Slot::Here(sequence) => Ok(Borrowed { sequence: Some(sequence), slot: Arc::clone(&self.slot) }),
            Slot::Busy => Err(invalid("a forward of this Sequence is running; wait for it")),
            Slot::Closed => {
                *slot = Slot::Closed;
                Err(invalid("this Sequence is closed"))
            }
        }
    }
}

#[napi]
impl NativeSequence {
    /// Returns the sequence's tokens.
    #[napi]
    pub fn tokens(&self) -> Result<Vec<u32>> {
        Ok(self.borrow()?.get()?.tokens().to_vec())
    }

    /// Returns the number of tokens.
    #[napi]
    pub fn length(&self) -> Result<u32> {
        Ok(self.borrow()?.get()?.len() as u32)
    }

    /// Returns the longest length that the sequence may have, in tokens.
    #[napi]
    pub fn context_length(&self) -> Result<u32> {
        Ok(self.borrow()?.get()?.context_length() as u32)
    }

    /// Adds tokens at the end.
    #[napi]
    pub fn append(&self, tokens: Uint32Array) -> Result<()> {
        self.borrow()?.get()?.append(&tokens).map_err(failed)
    }

    /// Computes the appended tokens.
    #[napi(ts_return_type = "Promise<NativeForwarded>")]
    pub fn forward<'env>(&self, env: &'env Env, output: String) -> Result<PromiseRaw<'env, NativeForwarded>> {
        let output = match output.as_str() {
            "nothing" => Output::Nothing,
            "lastLogits" => Output::LastLogits,
            "logits" => Output::Logits,
            "hidden" => Output::Hidden,
            other => {
                let why = "output is 'lastLogits', 'logits', 'hidden' or 'nothing'";
                return Err(invalid(format!("{why}, not '{other}'")));
            }
        };
        let mut borrowed = self.borrow()?;
        promise(env, async move {
            let forwarded = borrowed.get()?.forward_async(output).await.map_err(failed)?;
            let (width, cached) = (forwarded.width as u32, forwarded.cached as u32);
            Ok(NativeForwarded { values: Float32Array::new(forwarded.values), width, cached })
        })
    }

    /// Creates another sequence with the same tokens.
    #[napi]
    pub fn fork(&self) -> Result<Self> {
        Ok(Self::new(self.borrow()?.get()?.fork().map_err(failed)?))
    }

    /// Drops the tokens from a length on.
    #[napi]
    pub fn truncate(&self, length: u32) -> Result<()> {
        self.borrow()?.get()?.truncate(length as usize).map_err(failed)
    }

    /// Returns tokens, keys and values as bytes.
    #[napi(ts_return_type = "Promise<Buffer>")]
    pub fn save<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, Buffer>> {
        let mut borrowed = self.borrow()?;
        promise(env, async move {
            let saved = unblock(move || match borrowed.sequence.as_deref_mut() {
                Some(sequence) => sequence.save(),
                // `borrow` has checked this.
                None => Ok(Vec::new()),
            });
            Ok(Buffer::from(saved.await.map_err(failed)?))
        })
    }

    /// Releases the sequence.
    #[napi]
    pub fn close(&self) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        dispose(std::mem::replace(&mut *slot, Slot::Closed));
    }
}
