//! LoRA adapters.

use std::ffi::{CString, c_char};

use crate::memory::{free, text_of};

/// A LoRA adapter of a model. Unloaded when the last handle and the last request that uses it are gone.
pub struct Adapter {
    pub(crate) inner: realm::Adapter,
    name: CString,
}

impl From<realm::Adapter> for Adapter {
    fn from(inner: realm::Adapter) -> Self {
        Self { name: text_of(inner.name()), inner }
    }
}

/// Returns the name that the adapter was loaded by; tenants' limits use this name. Belongs to the adapter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_adapter_name(adapter: *const Adapter) -> *const c_char {
    // SAFETY: an object of ours, or NULL.
    unsafe { adapter.as_ref() }.map_or(c"".as_ptr(), |adapter| adapter.name.as_ptr())
}

/// Returns the largest rank of the adapter's matrices.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_adapter_rank(adapter: *const Adapter) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { adapter.as_ref() }.map_or(0, |adapter| adapter.inner.rank())
}

/// Returns the size of the adapter's matrices, in bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_adapter_bytes(adapter: *const Adapter) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { adapter.as_ref() }.map_or(0, |adapter| adapter.inner.bytes())
}

/// Frees an adapter's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_adapter_free(adapter: *mut Adapter) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(adapter) }
}
