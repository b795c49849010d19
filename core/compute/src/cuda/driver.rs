//! The CUDA driver: one GPU, one stream, its memory and its kernels.
//!
//! The driver's library is loaded when a [`Device`] is opened, so that a program also starts on a machine
//! without a driver. All work of a device goes into one stream, in the order of the calls.

mod memory;

use std::cell::Cell;
use std::ffi::{CString, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::{DriverError, result, sys};

use crate::Error;
pub(crate) use memory::{Event, Memory, Pinned, copy_across};

/// The CUDA version that the kernels were compiled for: older drivers cannot load them.
const NEEDED_CUDA: i32 = 13_000;

/// A GPU and the stream that runs all its work.
pub(crate) struct Device {
    context: sys::CUcontext,
    device: sys::CUdevice,
    stream: sys::CUstream,
    /// The stream for recording, used by one thread at a time.
    capture: sys::CUstream,
    /// Number of times that memory was freed.
    freed: AtomicU64,
    name: String,
    capability: (i32, i32),
    multiprocessors: u32,
    shared: [usize; 2],
}

// SAFETY: contexts and streams may be used from any thread; every call binds the context to its thread first.
unsafe impl Send for Device {}
// SAFETY: contexts and streams may be used from any thread.
unsafe impl Sync for Device {}

/// A kernel of a loaded module.
#[derive(Clone, Copy)]
pub(crate) struct Function(sys::CUfunction);

// SAFETY: a handle that any thread may use.
unsafe impl Send for Function {}
// SAFETY: a handle that any thread may use.
unsafe impl Sync for Function {}

/// The grid, block and shared memory of a launch.
#[derive(Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) grid: [usize; 3],
    pub(crate) block: usize,
    /// Bytes of shared memory.
    pub(crate) shared: usize,
}

/// Makes pointers to a kernel's arguments, in order. The arguments must have exactly the types that the
/// kernel declares.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => {
        &mut [$((&raw const $argument).cast_mut().cast::<std::ffi::c_void>()),*]
    };
}
pub(crate) use arguments;

/// Makes an error from the driver's message.
fn failed(what: &str, error: DriverError) -> Error {
    let words = error.error_string().ok().and_then(|s| s.to_str().ok()).unwrap_or("unknown error");
    let lost = if is_lost(error) {
        "; what was on the GPU is lost, and CUDA takes a new process to use it again: go on with another device"
    } else {
        ""
    };
    Error::Device(format!("{what}: {words}{lost}"))
}

/// Returns whether this error makes a context unusable.
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

/// Starts the driver; an error if there is none, or if it is too old for the kernels.
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
    /// Number of GPUs that the driver finds; 0 without a driver.
    pub(crate) fn count() -> usize {
        if driver().is_err() {
            return 0;
        }
        result::device::get_count().map_or(0, |count| count.max(0) as usize)
    }

    /// Opens GPU `ordinal`. Refused without a driver, with one that is too old, or if there is no such GPU.
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
        let shared = [
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
        ]
        .map(|bytes| bytes.max(0) as usize);
        // SAFETY: `device` came from the driver; the context is released when this is dropped.
        let context =
            unsafe { result::primary_ctx::retain(device) }.map_err(|e| failed("starting a context", e))?;
        let (stream, capture) = (std::ptr::null_mut(), std::ptr::null_mut());
        let freed = AtomicU64::new(0);
        let mut this =
            Self { context, device, stream, capture, freed, name, capability, multiprocessors, shared };
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

    /// Bytes of shared memory that a block may have, and that a multiprocessor has.
    pub(crate) fn shared(&self) -> [usize; 2] {
        self.shared
    }

    /// Makes the context current on this thread; needed on every thread before any other call.
    pub(crate) fn bind(&self) -> Result<(), Error> {
        // SAFETY: the context is alive as long as `self`.
        unsafe { result::ctx::set_current(self.context) }.map_err(|e| failed("binding a context", e))
    }

    /// Bytes of free memory, and of all memory.
    pub(crate) fn memory(&self) -> Result<(u64, u64), Error> {
        self.bind()?;
        let (free, total) = result::mem_get_info().map_err(|e| failed("asking for free memory", e))?;
        Ok((free as u64, total as u64))
    }

    /// Waits until all started work is done.
    pub(crate) fn synchronize(&self) -> Result<(), Error> {
        // SAFETY: the stream is alive as long as `self`.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|e| failed("the GPU", e))
    }

    /// Number of times that memory was freed: while it does not change, addresses stay valid.
    pub(crate) fn freed(&self) -> u64 {
        self.freed.load(Ordering::Relaxed)
    }

    /// Records the kernels that this thread starts from now on, instead of running them.
    pub(crate) fn begin_capture(self: &Arc<Self>) -> Result<Capture<'_>, Error> {
        self.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive as long as `self`; the recording thread holds the backend's lock on
        // recordings.
        unsafe { result::stream::begin_capture(self.capture, mode) }.map_err(|e| failed("recording", e))?;
        CAPTURING.set(Some(self.capture));
        Ok(Capture(self))
    }

    /// Loads a module of kernels.
    pub(crate) fn load(&self, image: &'static [u8]) -> Result<Module, Error> {
        self.bind()?;
        // SAFETY: a fatbin contains its own length, and `ci/build-kernels` made these.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) }
            .map_err(|e| failed("loading kernels", e))?;
        Ok(Module(module))
    }

    /// Starts a kernel.
    ///
    /// # Safety
    /// `arguments` point to values of the types that the kernel declares, and every address among them is
    /// valid for the kernel's accesses.
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
        // On Hopper and later, a kernel may start before the previous one has ended; the kernel itself waits
        // for it.
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
        // SAFETY: memory and modules hold the device, so nothing of the context is in use. There is nowhere
        // to report errors. A lost context is released too.
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
    /// The stream that takes this thread's kernels while it records.
    static CAPTURING: Cell<Option<sys::CUstream>> = const { Cell::new(None) };
}

/// A running recording on this thread.
pub(crate) struct Capture<'a>(&'a Arc<Device>);

impl Capture<'_> {
    /// Ends the recording and makes a graph of the started kernels.
    pub(crate) fn end(self) -> Result<Graph, Error> {
        CAPTURING.set(None);
        let broken = |e| failed("recording", e);
        // SAFETY: the stream is recording.
        let graph = unsafe { result::stream::end_capture(self.0.capture) }.map_err(broken)?;
        if graph.is_null() {
            return Err(Error::Device("recording: nothing was recorded".into()));
        }
        let mut exec = std::ptr::null_mut();
        // SAFETY: the graph is valid, and not needed after it was instantiated.
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
    /// Starts all recorded kernels.
    pub(crate) fn launch(&self) -> Result<(), Error> {
        // SAFETY: both are alive.
        unsafe { result::graph::launch(self.exec, self.device.stream) }
            .map_err(|e| failed("starting a graph", e))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: instantiated by `Capture::end`, and not used after this; the driver waits for launches
            // that still run.
            let _ = unsafe { result::graph::exec_destroy(self.exec) };
        }
    }
}

/// Loaded kernels. They stay loaded as long as the context, which is the process's own.
pub(crate) struct Module(sys::CUmodule);

impl Module {
    /// Returns the kernel named `name`, which may use `shared` bytes of shared memory beyond its declaration.
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
