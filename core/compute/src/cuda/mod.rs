//! The [`Backend`] of NVIDIA's GPUs, from Ampere (compute capability 8.0) on.
//!
//! Reading order: `kernels/format.cuh` defines the layout of weights, `kernels/activations.cuh` that of
//! activations, `kernels/chunk.cuh` multiplies them, and `kernels/attention.cu` sums up attention. On the
//! host side, `driver` is the GPU; `matrix`, `lora`, `buffer` and `cache` hold its memory; `plan` cuts a
//! batch into pieces; `graph` records passes and `pass` runs them; `products`, `decode` (products of a single
//! row, which norms and activations join), `experts`, `norms`, `rope`, `attention` and `elementwise` start
//! the kernels of their names, and this file starts the few others.
//!
//! **The same answer in any company.** Products of quantized weights are sums of integers, which are exact in
//! any order. The floats made from those sums are added chunk by chunk (256 columns), from the first on.
//! Attention is a tree of fixed shape over a row's own context. Kernels for one row and for many rows do the
//! same float operations for a row, so a row's result depends neither on the kernel that ran nor on the other
//! rows.

mod across;
mod attention;
mod buffer;
mod cache;
mod crew;
mod decode;
mod driver;
mod elementwise;
mod experts;
mod graph;
mod kernels;
mod lora;
mod matrix;
mod norms;
mod pass;
mod plan;
mod products;
mod rope;
mod state;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use realm_gguf::Tensor;

use crate::checks::{self, expect};
use crate::cpu::pool::Parts;
use crate::{
    Activation, Attention, Backend, Batch, CacheSpec, Columns, Error, Feature, MatMul, Mixture, Norm,
    PageFormat,
};
pub use buffer::Buffer;
pub use cache::Cache;
use crew::Crew;
use driver::{Device, Event, Function, Geometry, Memory, Pinned, arguments};
pub use experts::Experts;
use kernels::Kernels;
pub use lora::LowRank;
pub use matrix::Matrix;
use matrix::{CHUNK, Kind, Uploader};
use state::State;

/// Numbers that a host thread copies at a time.
const COPIED_AT_ONCE: usize = 1 << 16;
/// Most host threads.
const HOST_THREADS: usize = 8;

/// The [`Backend`] of one NVIDIA GPU.
pub struct CudaBackend {
    device: Arc<Device>,
    kernels: Kernels,
    state: Mutex<State>,
    /// Allows one recording at a time.
    recorder: Mutex<()>,
    /// Host threads, for work between passes.
    crew: Crew,
}

/// A vector of parameters on the GPU.
pub struct Vector {
    memory: Memory,
    len: usize,
}

impl CudaBackend {
    /// Opens GPU number `ordinal`, in the driver's order.
    ///
    /// # Errors
    /// `Unsupported` without a driver, with one that is too old, or if there is no such GPU; `Device` if the
    /// GPU does not start.
    pub fn new(ordinal: usize) -> Result<Self, Error> {
        let device = Device::open(ordinal)?;
        let kernels = Kernels::load(&device)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let crew = Crew::new(cores.min(HOST_THREADS))
            .map_err(|e| Error::InvalidArgument(format!("cannot start threads: {e}")))?;
        Ok(Self { device, kernels, state: Mutex::default(), recorder: Mutex::default(), crew })
    }

    /// Number of GPUs, including those that [`new`](Self::new) refuses.
    pub fn count() -> usize {
        Device::count()
    }

    /// Bytes of free memory on the GPU, and of all its memory.
    ///
    /// # Errors
    /// `Device` if the driver cannot tell.
    pub fn memory(&self) -> Result<(u64, u64), Error> {
        self.device.memory()
    }

    /// Milliseconds that the GPU takes for the operations that `work` starts.
    ///
    /// # Errors
    /// Errors of `work`, and errors on the GPU.
    pub fn time(&self, work: impl FnOnce() -> Result<(), Error>) -> Result<f32, Error> {
        let (start, end) = (Event::new(&self.device)?, Event::new(&self.device)?);
        start.record()?;
        work()?;
        end.record()?;
        end.wait()?;
        start.until(&end)
    }

    /// Locks the state that starting kernels needs, after starting what waits for the next operation.
    fn state(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.locked()?;
        self.start_all()?;
        Ok(state)
    }

    /// Locks the state for an operation that what waits may join.
    fn locked(&self) -> Result<MutexGuard<'_, State>, Error> {
        self.device.bind()?;
        Ok(self.state.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Uploads weights to the GPU.
    fn upload<T>(&self, work: impl FnOnce(&mut Uploader) -> Result<T, Error>) -> Result<T, Error> {
        let mut state = self.state()?;
        state.uploading = true;
        let uploader = match &mut state.uploader {
            Some(uploader) => uploader,
            slot => slot.insert(Uploader::new(&self.device)?),
        };
        work(uploader)
    }
}

impl Backend for CudaBackend {
    type Buffer = Buffer;
    type Vector = Vector;
    type Matrix = Matrix;
    type Experts = Experts;
    type LowRank = LowRank;
    type Cache = Cache;

    fn memory_bandwidth(&self) -> Option<u64> {
        self.device.memory_bandwidth()
    }

    fn description(&self) -> String {
        let (name, (major, minor), multiprocessors) = self.device.describe();
        let total = self.device.memory().map_or(0, |(_, total)| total >> 30);
        format!(
            "cuda ({name}, {total} GiB, compute capability {major}.{minor}, {multiprocessors} multiprocessors)"
        )
    }

    fn supports(&self, feature: Feature) -> bool {
        match feature {
            Feature::HeadDim(dim) => dim <= kernels::MOST_HEAD_DIM,
            _ => true,
        }
    }

    fn matrix(&self, tensor: &Tensor<'_>) -> Result<Matrix, Error> {
        self.upload(|uploader| uploader.matrix(&self.device, &self.kernels, tensor))
    }

    fn experts(&self, tensor: &Tensor<'_>) -> Result<Experts, Error> {
        self.upload(|uploader| uploader.stack(&self.device, &self.kernels, tensor).map(Experts::new))
    }

    fn low_rank(&self, a: &Tensor<'_>, b: &Tensor<'_>) -> Result<LowRank, Error> {
        self.upload(|uploader| LowRank::new(uploader, &self.device, &self.kernels, a, b))
    }

    fn vector(&self, values: &[f32]) -> Result<Vector, Error> {
        self.device.bind()?;
        let mut memory = Memory::new(&self.device, size_of_val(values), "a vector")?;
        memory.write(0, values)?;
        Ok(Vector { memory, len: values.len() })
    }

    fn buffer(&self, rows: usize, columns: usize) -> Result<Buffer, Error> {
        Buffer::new(&self.device, rows, columns)
    }

    fn cache(&self, spec: &CacheSpec) -> Result<Cache, Error> {
        Cache::new(&self.device, spec)
    }

    fn copy_page(&self, cache: &mut Cache, from: u32, to: u32) -> Result<(), Error> {
        checks::page(from.max(to), cache.pages())?;
        let _state = self.state()?;
        let len = (cache.part_bytes() / 16) as u64;
        let geometry = Geometry { grid: [(len as usize).div_ceil(256), 2, 1], block: 256, shared: 0 };
        for [keys, values] in cache.all() {
            let arguments = arguments![keys, values, len, from, to];
            // SAFETY: both pages are in the cache.
            unsafe { self.device.launch(self.kernels.copy_page, geometry, arguments)? };
        }
        Ok(())
    }

    fn export_page(&self, cache: &Cache, page: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        checks::page(page, cache.pages())?;
        let _state = self.state()?;
        cache.export(page, out)
    }

    fn page_format(&self, cache: &Cache) -> PageFormat {
        cache.page_format()
    }

    fn import_page(&self, cache: &mut Cache, page: u32, bytes: &[u8]) -> Result<(), Error> {
        checks::page(page, cache.pages())?;
        let _state = self.state()?;
        cache.import(page, bytes)
    }

    fn embed(&self, table: &Matrix, tokens: &[u32], scale: f32, out: &mut Buffer) -> Result<(), Error> {
        expect("the width of an embedding", table.columns, out.columns)?;
        if let Some(bad) = tokens.iter().find(|&&t| t as usize >= table.rows) {
            return Err(Error::InvalidArgument(format!("token {bad} of a vocabulary of {}", table.rows)));
        }
        let mut state = self.state()?;
        out.set_rows(tokens.len())?;
        let tokens = state.tokens.put(&self.device, tokens)?;
        let (weight, to, columns) = (table.memory.pointer(), out.pointer(), table.columns as i32);
        let grid = [table.columns.div_ceil(CHUNK), out.rows(), 1];
        let geometry = Geometry { grid, block: CHUNK, shared: 0 };
        // SAFETY: tokens are rows of the table, and `out` has room for them.
        unsafe {
            match table.kind {
                Kind::Tiles { format, tile_row_bytes, factor } => {
                    let (stride, scale) = (tile_row_bytes as u64, scale * factor);
                    let arguments = arguments![weight, stride, format.index, columns, scale, tokens, to];
                    self.device.launch(self.kernels.embed, geometry, arguments)
                }
                Kind::Floats => {
                    let arguments = arguments![weight, columns, scale, tokens, to];
                    self.device.launch(self.kernels.embed_f32, geometry, arguments)
                }
            }
        }
    }

    fn norm(&self, x: &Buffer, norm: &Norm<'_, Self>, out: &mut Buffer) -> Result<(), Error> {
        self.normalize(x, norm, out)
    }

    fn add_norm(&self, x: &mut Buffer, delta: &Buffer, norm: &Norm<'_, Self>) -> Result<(), Error> {
        self.add_normalized(x, delta, norm)
    }

    fn matmul(&self, x: &Buffer, jobs: &mut [MatMul<'_, Self>]) -> Result<(), Error> {
        self.multiply(x, jobs)
    }

    fn mixture(&self, x: &Buffer, spec: &Mixture<'_, Self>, out: &mut Buffer) -> Result<(), Error> {
        self.mix(x, spec, out)
    }

    fn each_head(&self, x: &Buffer, w: &Experts, out: &mut Buffer) -> Result<(), Error> {
        self.heads(x, w, out)
    }

    fn rotations(
        &self,
        frequencies: &Vector,
        magnitude: f32,
        positions: &[u32],
        out: &mut Buffer,
    ) -> Result<(), Error> {
        self.rotate_positions(frequencies, magnitude, positions, out)
    }

    fn rope_store(
        &self,
        spec: &Attention<'_, Self>,
        batch: &Batch,
        q: &mut Buffer,
        k: &mut Buffer,
        v: &Buffer,
        cache: &mut Cache,
    ) -> Result<(), Error> {
        self.store_rotated(spec, batch, q, k, v, cache)
    }

    fn attention(
        &self,
        spec: &Attention<'_, Self>,
        batch: &Batch,
        q: &Buffer,
        cache: &Cache,
        out: &mut Buffer,
    ) -> Result<(), Error> {
        self.attend(spec, batch, q, cache, out)
    }

    fn gated_activation(&self, activation: Activation, gate: &mut Buffer, up: &Buffer) -> Result<(), Error> {
        self.activate(activation, gate, Some(up))
    }

    fn activation(&self, activation: Activation, x: &mut Buffer) -> Result<(), Error> {
        self.activate(activation, x, None)
    }

    fn add(&self, x: &mut Buffer, delta: &Buffer, scale: f32) -> Result<(), Error> {
        self.add_scaled(x, delta, scale)
    }

    fn scale(&self, x: &mut Buffer, factor: f32) -> Result<(), Error> {
        self.change_all(self.kernels.scale, x, factor)
    }

    fn scale_rows(&self, gate: &Buffer, x: &mut Buffer) -> Result<(), Error> {
        self.scale_by_gates(gate, x)
    }

    fn copy_columns(&self, x: &Buffer, columns: &Columns, out: &mut Buffer) -> Result<(), Error> {
        self.copy_pieces(x, columns, out)
    }

    fn gather(&self, x: &Buffer, rows: &[u32], out: &mut Buffer) -> Result<(), Error> {
        self.gather_rows(x, rows, out)
    }

    fn soft_cap(&self, x: &mut Buffer, cap: f32) -> Result<(), Error> {
        self.change_all(self.kernels.soft_cap, x, cap)
    }

    fn top_k(&self, x: &Buffer, out: &mut Buffer) -> Result<(), Error> {
        let want = checks::top_k(out.columns)?;
        let _state = self.state()?;
        out.set_rows(x.rows())?;
        let (from, columns, want, to) = (x.pointer(), x.columns as i32, want as i32, out.pointer());
        let geometry = Geometry { grid: [x.rows(), 1, 1], block: 1024, shared: 0 };
        // SAFETY: `out` has room for as many rows as `x` has.
        unsafe { self.device.launch(self.kernels.top_k, geometry, arguments![from, columns, want, to]) }
    }

    fn host<'a>(&self, _x: &'a Buffer) -> Option<&'a [f32]> {
        None
    }

    fn read(&self, x: &Buffer, out: &mut Vec<f32>) -> Result<(), Error> {
        graph::spoil();
        let mut state = self.state()?;
        let len = x.rows() * x.columns;
        // Copy through pinned memory: the driver copies several times faster to pinned memory.
        let host = match &mut state.host {
            Some(host) if host.bytes() >= 4 * len => host,
            slot => slot.insert(Pinned::new(&self.device, (4 * len).next_power_of_two())?),
        };
        let host = host.slice::<f32>(len);
        x.data().read(0, host)?;
        // Copy from pinned memory on all threads: one thread alone takes longer than the GPU's copy.
        out.resize(len, 0.0);
        let parts = Parts::new(out);
        self.crew.each(len.div_ceil(COPIED_AT_ONCE), &|i| {
            let range = i * COPIED_AT_ONCE..((i + 1) * COPIED_AT_ONCE).min(len);
            // SAFETY: every part is handed out once.
            unsafe { parts.part(range.start, range.len()) }.copy_from_slice(&host[range]);
        });
        Ok(())
    }

    fn wait(&self) -> Result<(), Error> {
        graph::spoil();
        self.device.synchronize()
    }

    fn write(&self, values: &[f32], x: &mut Buffer) -> Result<(), Error> {
        let rows = checks::whole_rows(values.len(), x.columns)?;
        let _state = self.state()?;
        x.set_rows(rows)?;
        x.changed();
        x.data_mut().write(0, values)
    }

    fn rows(&self, x: &Buffer) -> usize {
        x.rows()
    }

    fn columns(&self, x: &Buffer) -> usize {
        x.columns
    }

    fn read_row(&self, x: &Buffer, row: usize, out: &mut Vec<f32>) -> Result<(), Error> {
        checks::row(row, x.rows())?;
        graph::spoil();
        let _state = self.state()?;
        out.resize(x.columns, 0.0);
        x.data().read(row * x.columns * 4, out)
    }

    fn pass<E: From<Error>>(
        &self,
        owner: u64,
        batch: &Batch,
        run: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        self.run_pass(owner, batch, run)
    }

    fn on_host_threads(&self, count: usize, each: &(dyn Fn(usize) + Sync)) {
        self.crew.each(count, each);
    }

    fn wake_hint(&self, count: usize, at: Instant) {
        self.crew.wake_hint(count, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_the_error_says_so() {
        if let Err(error) = CudaBackend::new(0) {
            assert!(matches!(error, Error::Unsupported(_)), "{error}");
            eprintln!("SKIPPED: everything that needs a GPU ({error})");
        }
    }
}
