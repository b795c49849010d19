//! The CUDA driver: one GPU, one stream, its memory and its kernels.
//!
//! The driver's library is loaded when a [`Device`] is opened, so that a program starts where there is none. Everything a
//! device does is put into one stream, in the order of the calls.

use std::cell::Cell;
use std::ffi::{CString, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::{DriverError, result, sys};

use crate::Error;

/// What the kernels were compiled for: older drivers do not load them.
const NEEDED_CUDA: i32 = 13_000;

/// A GPU and the stream that everything runs in.
pub(crate) struct Device {
    context: sys::CUcontext,
    device: sys::CUdevice,
    stream: sys::CUstream,
    /// For recording, one thread at a time.
    capture: sys::CUstream,
    /// How often memory was freed.
    freed: AtomicU64,
    name: String,
    capability: (i32, i32),
    multiprocessors: u32,
}

// SAFETY: contexts and streams may be used from any thread; every call binds the context to its thread first.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// A kernel of a loaded module.
#[derive(Clone, Copy)]
pub(crate) struct Function(sys::CUfunction);

// SAFETY: a handle that any thread may use.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// What a launch needs beside the kernel and its arguments.
#[derive(Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) grid: [usize; 3],
    pub(crate) block: usize,
    /// Bytes of shared memory.
    pub(crate) shared: usize,
}

/// Pointers to a kernel's arguments, in order. They must be exactly of the types that the kernel declares.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => {
        &mut [$((&raw const $argument).cast_mut().cast::<std::ffi::c_void>()),*]
    };
}
pub(crate) use arguments;

/// The driver's words for an error.
fn failed(what: &str, error: DriverError) -> Error {
    let words = error.error_string().ok().and_then(|s| s.to_str().ok()).unwrap_or("unknown error");
    let lost = if is_lost(error) {
        "; what was on the GPU is lost, and CUDA takes a new process to use it again: go on with another device"
    } else {
        ""
    };
    Error::Device(format!("{what}: {words}{lost}"))
}

/// Whether nothing works any more in a context in which this went wrong.
fn is_lost(DriverError(error): DriverError) -> bool {
    use sys::CUresult as R;
    matches!(
        error,
        R::CUDA_ERROR_ILLEGAL_ADDRESS
            | R::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | R::CUDA_ERROR_MISALIGNED_ADDRESS
            | R::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | R::CUDA_ERROR_INVALID_PC
            | R::CUDA_ERROR_HARDWARE_STACK_ERROR
            | R::CUDA_ERROR_LAUNCH_FAILED
            | R::CUDA_ERROR_LAUNCH_TIMEOUT
            | R::CUDA_ERROR_ASSERT
            | R::CUDA_ERROR_ECC_UNCORRECTABLE
            | R::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | R::CUDA_ERROR_DEVICE_UNAVAILABLE
    )
}

/// Whether there is a driver that kernels can be loaded with; starts it.
fn driver() -> Result<(), Error> {
    // SAFETY: loads the driver's library, whose initializers are trusted like the driver itself.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::Unsupported("no NVIDIA driver is installed (libcuda could not be loaded)".into()));
    }
    let mut version = 0;
    // SAFETY: writes one integer; needs no initialization.
    let known = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    if known.is_err() || version < NEEDED_CUDA {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        return Err(Error::Unsupported(format!(
            "the NVIDIA driver supports CUDA {major}.{minor}; 13.0 is needed (driver 580 or newer)"
        )));
    }
    result::init().map_err(|error| Error::Unsupported(format!("the NVIDIA driver does not start: {error}")))
}

impl Device {
    /// How many GPUs the driver knows; 0 where there is none.
    pub(crate) fn count() -> usize {
        if driver().is_err() {
            return 0;
        }
        result::device::get_count().map_or(0, |count| count.max(0) as usize)
    }

    /// Opens GPU `ordinal`. Refused where there is no driver, none new enough, or no such GPU.
    pub(crate) fn open(ordinal: usize) -> Result<Arc<Self>, Error> {
        let no = |why: String| Err(Error::Unsupported(why));
        driver()?;
        let count = result::device::get_count().map_err(|e| failed("counting GPUs", e))?;
        let device = match i32::try_from(ordinal) {
            Ok(ordinal) if ordinal < count => {
                result::device::get(ordinal).map_err(|e| failed("opening a GPU", e))?
            }
            _ => return no(format!("there is no GPU {ordinal}; the driver knows {count}")),
        };
        use sys::CUdevice_attribute as Attribute;
        let attribute = |which| {
            // SAFETY: `device` came from the driver.
            unsafe { result::device::get_attribute(device, which) }.map_err(|e| failed("asking a GPU", e))
        };
        let name = result::device::get_name(device).map_err(|e| failed("asking a GPU", e))?;
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        if capability < (8, 0) {
            let (major, minor) = capability;
            return no(format!("{name} has compute capability {major}.{minor}; 8.0 (Ampere) is needed"));
        }
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1) as u32;
        // SAFETY: `device` came from the driver; the context is released when this is dropped.
        let context =
            unsafe { result::primary_ctx::retain(device) }.map_err(|e| failed("starting a context", e))?;
        let (stream, capture) = (std::ptr::null_mut(), std::ptr::null_mut());
        let freed = AtomicU64::new(0);
        let mut this = Self { context, device, stream, capture, freed, name, capability, multiprocessors };
        this.bind()?;
        for stream in [&mut this.stream, &mut this.capture] {
            *stream = result::stream::create(result::stream::StreamKind::NonBlocking)
                .map_err(|e| failed("creating a stream", e))?;
        }
        Ok(Arc::new(this))
    }

    /// The GPU's name, compute capability and multiprocessors.
    pub(crate) fn describe(&self) -> (&str, (i32, i32), u32) {
        (&self.name, self.capability, self.multiprocessors)
    }

    /// Makes the context this thread's own; needed before anything else, on any thread.
    pub(crate) fn bind(&self) -> Result<(), Error> {
        // SAFETY: the context is alive as long as `self`.
        unsafe { result::ctx::set_current(self.context) }.map_err(|e| failed("binding a context", e))
    }

    /// Bytes of free memory, and of all.
    pub(crate) fn memory(&self) -> Result<(u64, u64), Error> {
        self.bind()?;
        let (free, total) = result::mem_get_info().map_err(|e| failed("asking for free memory", e))?;
        Ok((free as u64, total as u64))
    }

    /// Waits until everything that was started is done.
    pub(crate) fn synchronize(&self) -> Result<(), Error> {
        // SAFETY: the stream is alive as long as `self`.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|e| failed("the GPU", e))
    }

    /// How often memory was freed: if it is as before, what lay in memory still does.
    pub(crate) fn freed(&self) -> u64 {
        self.freed.load(Ordering::Relaxed)
    }

    /// From now on kernels that this thread starts are recorded instead.
    pub(crate) fn begin_capture(self: &Arc<Self>) -> Result<Capture<'_>, Error> {
        self.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive as long as `self`; whoever records holds the backend's lock on recordings.
        unsafe { result::stream::begin_capture(self.capture, mode) }.map_err(|e| failed("recording", e))?;
        CAPTURING.set(Some(self.capture));
        Ok(Capture(self))
    }

    /// Loads a module of kernels.
    pub(crate) fn load(&self, image: &'static [u8]) -> Result<Module, Error> {
        self.bind()?;
        // SAFETY: a fatbin says its own length, and these were made by `ci/build-kernels`.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) }
            .map_err(|e| failed("loading kernels", e))?;
        Ok(Module(module))
    }

    /// Starts a kernel.
    ///
    /// # Safety
    /// `arguments` point to what the kernel declares, and what they point to is valid for what the kernel does.
    pub(crate) unsafe fn launch(
        &self,
        function: Function,
        geometry: Geometry,
        arguments: &mut [*mut c_void],
    ) -> Result<(), Error> {
        let [x, y, z] = geometry.grid.map(|n| n as u32);
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        // On Hopper and later a kernel may start before the one before it has ended; it waits for it itself.
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: geometry.block as u32,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: geometry.shared as u32,
            hStream: CAPTURING.get().unwrap_or(self.stream),
            attrs: &mut attribute,
            numAttrs: (self.capability.0 >= 9) as u32,
        };
        // SAFETY: the configuration is valid during the call, and the caller vouches for the arguments.
        unsafe { sys::cuLaunchKernelEx(&config, function.0, arguments.as_mut_ptr(), std::ptr::null_mut()) }
            .result()
            .map_err(|e| failed("starting a kernel", e))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let bound = self.bind().is_ok();
        // SAFETY: memory and modules hold the device, so nothing of the context is in use; errors cannot be told anybody. A context
        // that is lost is released too.
        unsafe {
            for stream in [self.stream, self.capture] {
                if bound && !stream.is_null() {
                    let _ = result::stream::synchronize(stream);
                    let _ = result::stream::destroy(stream);
                }
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

thread_local! {
    /// The stream that takes the kernels of this thread while it records.
    static CAPTURING: Cell<Option<sys::CUstream>> = const { Cell::new(None) };
}

/// A recording that is under way on this thread.
pub(crate) struct Capture<'a>(&'a Arc<Device>);

impl Capture<'_> {
    /// Ends it and makes a graph of what was started.
    pub(crate) fn end(self) -> Result<Graph, Error> {
        CAPTURING.set(None);
        let broken = |e| failed("recording", e);
        // SAFETY: the stream is recording.
        let graph = unsafe { result::stream::end_capture(self.0.capture) }.map_err(broken)?;
        if graph.is_null() {
            return Err(Error::Device("recording: nothing was recorded".into()));
        }
        let mut exec = std::ptr::null_mut();
        // SAFETY: the graph is valid, and not needed once it was instantiated.
        let made = unsafe {
            let made = sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0).result();
            let _ = result::graph::destroy(graph);
            made
        };
        made.map_err(broken)?;
        Ok(Graph { exec, device: Arc::clone(self.0) })
    }
}

/// Recorded kernels.
pub(crate) struct Graph {
    exec: sys::CUgraphExec,
    /// A graph may not outlive its context.
    device: Arc<Device>,
}

// SAFETY: a handle that any thread may use, one at a time.
unsafe impl Send for Graph {}

impl Graph {
    /// Starts them all.
    pub(crate) fn launch(&self) -> Result<(), Error> {
        // SAFETY: both are alive.
        unsafe { result::graph::launch(self.exec, self.device.stream) }
            .map_err(|e| failed("starting a graph", e))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: instantiated by `Capture::end`, and not used after this; the driver waits for launches that still run.
            let _ = unsafe { result::graph::exec_destroy(self.exec) };
        }
    }
}

/// Loaded kernels. They stay loaded as long as the context, which is the process's own.
pub(crate) struct Module(sys::CUmodule);

impl Module {
    /// The kernel of this name, which may use `shared` bytes of shared memory beyond what it declares.
    pub(crate) fn function(&self, name: &str, shared: usize) -> Result<Function, Error> {
        let cstring = CString::new(name).map_err(|e| Error::Device(format!("kernel `{name}`: {e}")))?;
        let what = format!("kernel `{name}`");
        // SAFETY: the module is loaded.
        let function =
            unsafe { result::module::get_function(self.0, cstring) }.map_err(|e| failed(&what, e))?;
        if shared > 48 * 1024 {
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was just found.
            unsafe { result::function::set_function_attribute(function, most, shared as i32) }
                .map_err(|e| failed(&what, e))?;
        }
        Ok(Function(function))
    }
}

/// Memory of the GPU.
pub(crate) struct Memory {
    pointer: sys::CUdeviceptr,
    bytes: usize,
    device: Arc<Device>,
}

impl Memory {
    /// `bytes` of memory for `what`; its contents are unspecified.
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

    /// As [`Memory::new`], all zeros.
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

    /// Copies `from` to `at ..`, in the stream's order. Small copies return when `from` may change.
    pub(crate) fn write<T: Plain>(&mut self, at: usize, from: &[T]) -> Result<(), Error> {
        assert!(at + size_of_val(from) <= self.bytes, "a copy past the end of memory");
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: inside the memory; from pageable host memory the driver copies before it returns, and from pinned
        // memory only `Pinned` does this, which waits before it is written again.
        unsafe { result::memcpy_htod_async(self.pointer + at as u64, from, self.device.stream) }
            .map_err(|e| failed("copying to the GPU", e))
    }

    /// Copies `at ..` to `to` and waits for it.
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
            // SAFETY: allocated by `new`, and not used after this; the driver waits for kernels that still run.
            let _ = unsafe { result::free_sync(self.pointer) };
            self.device.freed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Copies `bytes` from another GPU's memory, in the order of the stream of `to`'s.
pub(crate) fn copy_across(from: &Memory, to: &mut Memory, bytes: usize) -> Result<(), Error> {
    assert!(bytes <= from.bytes.min(to.bytes), "a copy past the end of memory");
    to.device.bind()?;
    let (here, there) = (to.device.context, from.device.context);
    // SAFETY: inside both, whose contexts are alive.
    unsafe { sys::cuMemcpyPeerAsync(to.pointer, here, from.pointer, there, bytes, to.device.stream) }
        .result()
        .map_err(|e| failed("copying between GPUs", e))
}

/// Types of which any bits are a value.
///
/// # Safety
/// No padding, no invalid bits.
pub(crate) unsafe trait Plain: Copy + 'static {}
// SAFETY: any bits are a number.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}

/// Host memory that the GPU copies from and to directly.
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
            // Copies that are under way end first.
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
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    pub(crate) fn new(device: &Arc<Device>) -> Result<Self, Error> {
        device.bind()?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)
            .map_err(|e| failed("creating an event", e))?;
        Ok(Self { event, device: Arc::clone(device) })
    }

    /// As [`Event::new`], without the time.
    pub(crate) fn untimed(device: &Arc<Device>) -> Result<Self, Error> {
        device.bind()?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
            .map_err(|e| failed("creating an event", e))?;
        Ok(Self { event, device: Arc::clone(device) })
    }

    /// Has what is started on `device` from now on wait for what was marked.
    pub(crate) fn before(&self, device: &Device) -> Result<(), Error> {
        device.bind()?;
        // SAFETY: both are alive; the driver keeps what it needs of an event that is destroyed later.
        unsafe { sys::cuStreamWaitEvent(device.stream, self.event, 0) }
            .result()
            .map_err(|e| failed("an event", e))
    }

    /// Marks what was started so far.
    pub(crate) fn record(&self) -> Result<(), Error> {
        // SAFETY: both are alive.
        unsafe { result::event::record(self.event, self.device.stream) }.map_err(|e| failed("an event", e))
    }

    /// Waits until what was marked is done; at once if nothing was.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        // SAFETY: the event is alive.
        unsafe { result::event::synchronize(self.event) }.map_err(|e| failed("the GPU", e))
    }

    /// Milliseconds from this mark to a later one, both of which were waited for.
    pub(crate) fn until(&self, later: &Event) -> Result<f32, Error> {
        // SAFETY: both events are alive.
        unsafe { result::event::elapsed(self.event, later.event) }.map_err(|e| failed("an event", e))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: created by `new`, and not used after this.
            let _ = unsafe { result::event::destroy(self.event) };
        }
    }
}
