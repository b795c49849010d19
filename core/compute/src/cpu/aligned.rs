//! Memory that starts on a cache line, for vector loads that never cross one.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Bytes of alignment: a cache line and an AVX-512 register.
const ALIGN: usize = 64;

/// A fixed number of zero-initialized `T` on a 64-byte boundary.
///
/// Only for plain numbers: every bit pattern, zero among them, must be a valid `T`, which the sealed
/// [`Plain`] trait ensures.
pub(crate) struct Aligned<T: Plain> {
    data: NonNull<T>,
    len: usize,
}

/// Numbers for which all zero bytes are a value.
pub(crate) trait Plain: Copy + 'static {}
impl Plain for u8 {}
impl Plain for i8 {}
impl Plain for i16 {}
impl Plain for u16 {}
impl Plain for i32 {}
impl Plain for f32 {}

// SAFETY: `Aligned` owns its memory as a `Vec` does.
unsafe impl<T: Plain + Send> Send for Aligned<T> {}
// SAFETY: as above.
unsafe impl<T: Plain + Sync> Sync for Aligned<T> {}

impl<T: Plain> Aligned<T> {
    fn layout(len: usize) -> Layout {
        let bytes = len.checked_mul(size_of::<T>()).expect("a buffer larger than the address space");
        Layout::from_size_align(bytes.max(1), ALIGN).expect("a buffer larger than the address space")
    }

    /// `len` zeros. Large buffers are zero pages that take no memory until they are written.
    pub(crate) fn zeroed(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: the layout's size is at least 1.
        let data = unsafe { alloc_zeroed(layout) }.cast::<T>();
        let Some(data) = NonNull::new(data) else { handle_alloc_error(layout) };
        Self { data, len }
    }

    /// Makes room for at least `len` elements; what was inside is lost if it has to grow.
    pub(crate) fn reserve(&mut self, len: usize) {
        if len > self.len {
            *self = Self::zeroed(len);
        }
    }
}

impl<T: Plain> Default for Aligned<T> {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl<T: Plain> Drop for Aligned<T> {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with the same layout.
        unsafe { dealloc(self.data.as_ptr().cast(), Self::layout(self.len)) }
    }
}

impl<T: Plain> Deref for Aligned<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `len` initialized elements (zeroed, `Plain`).
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}
