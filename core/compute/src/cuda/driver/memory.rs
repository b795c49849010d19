//! A GPU's memory, pinned host memory, and events in the GPU's stream.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cudarc::driver::{DriverError, result, sys};

use super::{Device, failed};
use crate::Error;

/// Memory of the GPU.
pub(crate) struct Memory {
    pointer: sys::CUdeviceptr,
    bytes: usize,
    device: Arc<Device>,
}

impl Memory {
    /// Allocates `bytes` of memory for the purpose `what`; its contents are unspecified.
    pub(crate) fn new(device: &Arc<Device>, bytes: usize, what: &str) -> Result<Self, Error> {
        if bytes == 0 {
            return Ok(Self { pointer: 0, bytes, device: Arc::clone(device) });
        }
        device.bind()?;
        // SAFETY: the memory is freed once, when this is dropped.
        match unsafe { result::malloc_sync(bytes) } {
            Ok(pointer) => Ok(Self { pointer, bytes, device: Arc::clone(device) }),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let (free, _) = device.memory()?;
                Err(Error::OutOfMemory { what: what.into(), needed: bytes as u64, free })
            }
            Err(error) => Err(failed(what, error)),
        }
    }

    /// Same as [`Memory::new`], filled with zeros.
    pub(crate) fn zeroed(device: &Arc<Device>, bytes: usize, what: &str) -> Result<Self, Error> {
        let memory = Self::new(device, bytes, what)?;
        if bytes > 0 {
            // SAFETY: exactly this memory.
            unsafe { result::memset_d8_async(memory.pointer, 0, bytes, device.stream) }
                .map_err(|e| failed("clearing memory", e))?;
        }
        Ok(memory)
    }

    /// The address on the GPU.
    pub(crate) fn pointer(&self) -> u64 {
        self.pointer
    }

    /// Length in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies `from` to `at ..`, in the stream's order. For small copies, `from` may change when the call
    /// returns.
    pub(crate) fn write<T: Plain>(&mut self, at: usize, from: &[T]) -> Result<(), Error> {
        assert!(at + size_of_val(from) <= self.bytes, "a copy past the end of memory");
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: inside the memory; from pageable host memory the driver copies before it returns; pinned
        // memory belongs to `Pinned`, which is not written again before the copy is done.
        unsafe { result::memcpy_htod_async(self.pointer + at as u64, from, self.device.stream) }
            .map_err(|e| failed("copying to the GPU", e))
    }

    /// Copies `at ..` to `to` and waits for the copy.
    pub(crate) fn read<T: Plain>(&self, at: usize, to: &mut [T]) -> Result<(), Error> {
        assert!(at + size_of_val(to) <= self.bytes, "a copy past the end of memory");
        if to.is_empty() {
            return Ok(());
        }
        // SAFETY: inside the memory, and `to` is borrowed until the copy is done.
        unsafe { result::memcpy_dtoh_async(to, self.pointer + at as u64, self.device.stream) }
            .map_err(|e| failed("copying from the GPU", e))?;
        self.device.synchronize()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.pointer != 0 && self.device.bind().is_ok() {
            // SAFETY: allocated by `new`, and not used after this; the driver waits for kernels that still
            // run.
            let _ = unsafe { result::free_sync(self.pointer) };
            self.device.freed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Copies `bytes` from another GPU's memory, in the stream of `to`'s device.
pub(crate) fn copy_across(from: &Memory, to: &mut Memory, bytes: usize) -> Result<(), Error> {
    assert!(bytes <= from.bytes.min(to.bytes), "a copy past the end of memory");
    to.device.bind()?;
    let (here, there) = (to.device.context, from.device.context);
    // SAFETY: inside both pieces of memory, whose contexts are alive.
    unsafe { sys::cuMemcpyPeerAsync(to.pointer, here, from.pointer, there, bytes, to.device.stream) }
        .result()
        .map_err(|e| failed("copying between GPUs", e))
}

/// Types for which any bits are a valid value.
///
/// # Safety
/// No padding, no invalid bits.
pub(crate) unsafe trait Plain: Copy + 'static {}
// SAFETY: any bits are a valid number.
unsafe impl Plain for u8 {}
// SAFETY: any bits are a valid number.
unsafe impl Plain for u32 {}
// SAFETY: any bits are a valid number.
unsafe impl Plain for f32 {}

/// Host memory that the GPU reads and writes directly.
pub(crate) struct Pinned {
    pointer: *mut u8,
    bytes: usize,
    device: Arc<Device>,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(crate) fn new(device: &Arc<Device>, bytes: usize) -> Result<Self, Error> {
        device.bind()?;
        // SAFETY: freed once, when this is dropped.
        let pointer =
            unsafe { result::malloc_host(bytes.max(1), 0) }.map_err(|e| failed("pinned memory", e))?;
        // SAFETY: just allocated, of this length.
        unsafe { std::ptr::write_bytes(pointer.cast::<u8>(), 0, bytes) };
        Ok(Self { pointer: pointer.cast(), bytes, device: Arc::clone(device) })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first `len` elements.
    pub(crate) fn slice<T: Plain>(&mut self, len: usize) -> &mut [T] {
        assert!(len * size_of::<T>() <= self.bytes, "past the end of pinned memory");
        // SAFETY: inside the memory, which is aligned to pages and whose bits are all valid.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.cast(), len) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // Wait for running copies first.
            let _ = self.device.synchronize();
            // SAFETY: allocated by `new`, and not used after this.
            let _ = unsafe { result::free_host(self.pointer.cast()) };
        }
    }
}

/// A point in the stream.
pub(crate) struct Event {
    event: sys::CUevent,
    device: Arc<Device>,
}

// SAFETY: a handle that any thread may use.
unsafe impl Send for Event {}
// SAFETY: a handle that any thread may use.
unsafe impl Sync for Event {}

impl Event {
    pub(crate) fn new(device: &Arc<Device>) -> Result<Self, Error> {
        Self::with(device, sys::CUevent_flags::CU_EVENT_DEFAULT)
    }

    /// Same as [`Event::new`], without a time.
    pub(crate) fn untimed(device: &Arc<Device>) -> Result<Self, Error> {
        Self::with(device, sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    fn with(device: &Arc<Device>, flags: sys::CUevent_flags) -> Result<Self, Error> {
        device.bind()?;
        let event = result::event::create(flags).map_err(|e| failed("creating an event", e))?;
        Ok(Self { event, device: Arc::clone(device) })
    }

    /// Makes work that starts on `device` from now on wait for the work marked by this event.
    pub(crate) fn before(&self, device: &Device) -> Result<(), Error> {
        device.bind()?;
        // SAFETY: both are alive; the driver keeps what it needs of an event that is destroyed later.
        unsafe { sys::cuStreamWaitEvent(device.stream, self.event, 0) }
            .result()
            .map_err(|e| failed("an event", e))
    }

    /// Marks the work started so far.
    pub(crate) fn record(&self) -> Result<(), Error> {
        // SAFETY: both are alive.
        unsafe { result::event::record(self.event, self.device.stream) }.map_err(|e| failed("an event", e))
    }

    /// Waits until the marked work is done; returns at once if none was marked.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        // SAFETY: the event is alive.
        unsafe { result::event::synchronize(self.event) }.map_err(|e| failed("the GPU", e))
    }

    /// Milliseconds from this mark to a later one. Both must have been waited for.
    pub(crate) fn until(&self, later: &Event) -> Result<f32, Error> {
        // SAFETY: both events are alive.
        unsafe { result::event::elapsed(self.event, later.event) }.map_err(|e| failed("an event", e))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: created by `with`, and not used after this.
            let _ = unsafe { result::event::destroy(self.event) };
        }
    }
}
