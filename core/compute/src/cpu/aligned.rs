//! Memory that starts on a cache line, for vector loads that never cross one.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Bytes of alignment: a cache line and an AVX-512 register.
const ALIGN: usize = 64;
/// Alignment that is asked of the allocator. For more than 16 bytes the system allocator has no zeroed
/// variant and would write zeros over all the memory, so `Aligned` finds the cache line in a somewhat larger
/// allocation by itself.
const ALLOCATED_ALIGN: usize = 16;
/// Weights of at least this many bytes ask for huge pages.
#[cfg(target_os = "linux")]
const HUGE: usize = 4 << 20;

/// A fixed number of zero-initialized `T` on a 64-byte boundary.
///
/// Only for plain numbers: every bit pattern, including zero, must be a valid `T`, which the sealed [`Plain`]
/// trait ensures.
pub(crate) struct Aligned<T: Plain> {
    /// The pointer that the allocator returned.
    allocation: NonNull<u8>,
    /// The first cache line in the allocation.
    data: NonNull<T>,
    len: usize,
}

/// Numbers for which all-zero bytes are a valid value.
pub(crate) trait Plain: Copy + 'static {}
impl Plain for u8 {}
impl Plain for i8 {}
impl Plain for i16 {}
impl Plain for u16 {}
impl Plain for i32 {}
impl Plain for f32 {}

// SAFETY: `Aligned` owns its memory as a `Vec` does.
unsafe impl<T: Plain + Send> Send for Aligned<T> {}
// SAFETY: `Aligned` owns its memory as a `Vec` does.
unsafe impl<T: Plain + Sync> Sync for Aligned<T> {}

impl<T: Plain> Aligned<T> {
    fn layout(len: usize) -> Layout {
        let bytes = len.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(ALIGN));
        let bytes = bytes.expect("a buffer larger than the address space");
        Layout::from_size_align(bytes, ALLOCATED_ALIGN).expect("a buffer larger than the address space")
    }

    /// Returns `len` zeros. Large buffers are zero pages that take no memory until they are written.
    pub(crate) fn zeroed(len: usize) -> Self {
        Self::try_zeroed(len).unwrap_or_else(|| handle_alloc_error(Self::layout(len)))
    }

    /// Same as [`Self::zeroed`], for a length that comes from outside: `None` if the system does not give
    /// that much memory.
    fn try_zeroed(len: usize) -> Option<Self> {
        let layout = Self::layout(len);
        // SAFETY: the layout's size is at least `ALIGN`.
        let allocation = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let offset = allocation.as_ptr().align_offset(ALIGN);
        // SAFETY: the layout has `ALIGN` bytes more than `len` elements, and the offset is smaller.
        let data = unsafe { allocation.add(offset) }.cast();
        Some(Self { allocation, data, len })
    }

    /// Same as [`Self::try_zeroed_huge`], for a length that this crate chose: aborts if the system does not
    /// give the memory.
    pub(crate) fn zeroed_huge(len: usize) -> Self {
        Self::try_zeroed_huge(len).unwrap_or_else(|| handle_alloc_error(Self::layout(len)))
    }

    /// Same as [`Self::try_zeroed`], for memory that is written once and read repeatedly: asks the system for
    /// huge pages, because prefetching stops at the end of each 4 KiB page.
    pub(crate) fn try_zeroed_huge(len: usize) -> Option<Self> {
        let all = Self::try_zeroed(len)?;
        #[cfg(target_os = "linux")]
        if len * size_of::<T>() >= HUGE {
            const PAGE: usize = 4096;
            let start = (all.allocation.as_ptr() as usize).next_multiple_of(PAGE);
            let end = (all.data.as_ptr() as usize + len * size_of::<T>()) / PAGE * PAGE;
            // SAFETY: advice about whole pages inside the allocation; it changes no contents. If the call
            // fails, pages stay small.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
        }
        Some(all)
    }

    /// Makes room for at least `len` elements; growing discards the contents.
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
        unsafe { dealloc(self.allocation.as_ptr(), Self::layout(self.len)) }
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
        // SAFETY: `len` initialized elements (zeroed, `Plain`), borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

/// Views bytes, which start aligned and hold whole numbers, as numbers.
pub(crate) fn cast<T: Plain>(bytes: &[u8]) -> &[T] {
    // SAFETY: every bit pattern is a `T`.
    let (before, all, after) = unsafe { bytes.align_to() };
    assert!(before.is_empty() && after.is_empty());
    all
}

/// Mutable variant of [`cast`].
pub(crate) fn cast_mut<T: Plain>(bytes: &mut [u8]) -> &mut [T] {
    // SAFETY: every bit pattern is a `T`, and every `T` leaves bytes.
    let (before, all, after) = unsafe { bytes.align_to_mut() };
    assert!(before.is_empty() && after.is_empty());
    all
}
