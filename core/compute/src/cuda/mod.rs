//! The [`Backend`] of NVIDIA's GPUs, from Ampere (compute capability 8.0) on.
//!
//! Reading order: `kernels/format.cuh` defines the layout of weights, `kernels/activations.cuh` that of
//! activations, `kernels/chunk.cuh` multiplies them, and `kernels/attention.cu` sums up attention. On the
//! host side, `driver` is the GPU; `matrix`, `lora`, `buffer` and `cache` hold its memory; `plan` cuts a
//! batch into pieces; `graph` records passes; `products`, `experts` and `attention` start the kernels of
//! their names, and this file starts all others.
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
mod driver;
mod experts;
mod graph;
mod kernels;
mod lora;
mod matrix;
mod plan;
mod products;
mod state;
mod unsupported;

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
use driver::{Device, Event, Geometry, Memory, Pinned, arguments};
pub use experts::Experts;
use graph::{Advice, Shape};
use kernels::Kernels;
pub use lora::LowRank;
pub use matrix::Matrix;
use matrix::{CHUNK, Kind, Uploader};
use products::MOST_JOBS;
use state::State;
use unsupported::{norm_weight, refuse};

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

    /// Locks the state that starting kernels needs.
    fn state(&self) -> Result<MutexGuard<'_, State>, Error> {
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

    fn description(&self) -> String {
        let (name, (major, minor), multiprocessors) = self.device.describe();
        let total = self.device.memory().map_or(0, |(_, total)| total >> 30);
        format!(
            "cuda ({name}, {total} GiB, compute capability {major}.{minor}, {multiprocessors} multiprocessors)"
        )
    }

    fn supports(&self, feature: Feature) -> bool {
        unsupported::supports(feature)
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
        let (weight, eps) = (norm_weight(norm)?, norm.eps);
        expect("the length of a norm", weight.len, x.columns)?;
        expect("the width of a norm's output", out.columns, x.columns)?;
        let _state = self.state()?;
        out.set_rows(x.rows())?;
        let forms = out.fill()?;
        let (from, w, to, columns) = (x.pointer(), weight.memory.pointer(), out.pointer(), x.columns as i32);
        let geometry = Geometry { grid: [x.rows(), 1, 1], block: norm_block(x.columns), shared: 0 };
        // SAFETY: shapes were checked, and the forms have room.
        unsafe {
            let arguments = arguments![from, w, eps, columns, to, forms];
            self.device.launch(self.kernels.rms_norm, geometry, arguments)
        }
    }

    fn add_norm(&self, x: &mut Buffer, delta: &Buffer, norm: &Norm<'_, Self>) -> Result<(), Error> {
        let (weight, eps) = (norm_weight(norm)?, norm.eps);
        expect("the length of a norm", weight.len, x.columns)?;
        expect("the width of a norm's input", delta.columns, x.columns)?;
        expect("the rows of a norm's input", delta.rows(), x.rows())?;
        let _state = self.state()?;
        x.changed();
        let (to, from, w, columns) =
            (x.pointer(), delta.pointer(), weight.memory.pointer(), x.columns as i32);
        let geometry = Geometry { grid: [x.rows(), 1, 1], block: norm_block(x.columns), shared: 0 };
        // SAFETY: shapes were checked.
        unsafe {
            let arguments = arguments![to, from, w, eps, columns];
            self.device.launch(self.kernels.add_rms_norm, geometry, arguments)
        }
    }

    fn matmul(&self, x: &Buffer, jobs: &mut [MatMul<'_, Self>]) -> Result<(), Error> {
        let mut needed = 0;
        for job in &mut *jobs {
            expect("the width of a product's input", x.columns, job.weight.columns)?;
            expect("the width of a product's output", job.out.columns, job.weight.rows)?;
            if let Some(bias) = job.bias {
                expect("the length of a bias", bias.len, job.weight.rows)?;
            }
            if job.accumulate {
                expect("the rows to add to", job.out.rows(), x.rows())?;
            }
            if let Kind::Tiles { format, .. } = job.weight.kind {
                needed |= self.form(format, x.rows()) as u32;
            }
            lora::check(job, x.rows())?;
        }
        let mut state = self.state()?;
        state.wait_for_weights(&self.device)?;
        for job in &mut *jobs {
            job.out.set_rows(x.rows())?;
        }
        if x.rows() == 0 {
            return Ok(());
        }
        let forms = self.forms_of(x, needed)?;
        let (tiled, floats): (Vec<_>, Vec<_>) =
            jobs.iter().partition(|job| matches!(job.weight.kind, Kind::Tiles { .. }));
        for jobs in tiled.chunks(MOST_JOBS) {
            self.tiled(x, forms, jobs)?;
        }
        floats.into_iter().try_for_each(|job| self.float_product(x, job))?;
        for job in &*jobs {
            for lora in job.lora {
                lora::add(&self.device, &self.kernels, &mut state, x, lora, job.out)?;
            }
        }
        Ok(())
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
        let count = frequencies.len;
        expect("the width of the rotations", out.columns, 2 * count)?;
        let mut state = self.state()?;
        out.set_rows(positions.len())?;
        let rows = positions.len();
        let positions = state.positions.put(&self.device, positions)?;
        let (frequencies, to) = (frequencies.memory.pointer(), out.pointer());
        let geometry = Geometry { grid: [count.div_ceil(64), rows, 1], block: 64, shared: 0 };
        let count = count as i32;
        // SAFETY: `out` has room for a pair for each frequency and row.
        unsafe {
            let arguments = arguments![frequencies, count, magnitude, positions, to];
            self.device.launch(self.kernels.rotations, geometry, arguments)
        }
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
        let gelu = match activation {
            Activation::Silu => 0,
            Activation::GeluTanh => 1,
            other => return refuse(Feature::Gated(other)),
        };
        expect("the width of a gate", gate.columns, up.columns)?;
        expect("the rows of a gate", gate.rows(), up.rows())?;
        let _state = self.state()?;
        let forms = gate.fill()?;
        let (to, other, columns) = (gate.pointer(), up.pointer(), gate.columns as i32);
        let grid = [gate.columns.div_ceil(CHUNK).div_ceil(4), gate.rows(), 1];
        let geometry = Geometry { grid, block: 128, shared: 0 };
        // SAFETY: shapes were checked, and the forms have room.
        unsafe {
            let arguments = arguments![to, other, columns, gelu, forms];
            self.device.launch(self.kernels.gated_activation, geometry, arguments)
        }
    }

    fn activation(&self, _activation: Activation, _x: &mut Buffer) -> Result<(), Error> {
        refuse(Feature::Ungated)
    }

    fn add(&self, _x: &mut Buffer, _delta: &Buffer, _scale: f32) -> Result<(), Error> {
        refuse(Feature::Multipliers)
    }

    fn scale(&self, _x: &mut Buffer, _factor: f32) -> Result<(), Error> {
        refuse(Feature::Multipliers)
    }

    fn scale_rows(&self, _gate: &Buffer, _x: &mut Buffer) -> Result<(), Error> {
        refuse(Feature::Multipliers)
    }

    fn copy_columns(&self, _x: &Buffer, _columns: &Columns, _out: &mut Buffer) -> Result<(), Error> {
        refuse(Feature::Columns)
    }

    fn gather(&self, x: &Buffer, rows: &[u32], out: &mut Buffer) -> Result<(), Error> {
        expect("the width of gathered rows", out.columns, x.columns)?;
        rows.iter().try_for_each(|&row| checks::row(row as usize, x.rows()))?;
        let mut state = self.state()?;
        out.set_rows(rows.len())?;
        let grid = [x.columns.div_ceil(256), rows.len(), 1];
        let rows = state.rows.put(&self.device, rows)?;
        let (from, to, columns) = (x.pointer(), out.pointer(), x.columns as i32);
        let geometry = Geometry { grid, block: 256, shared: 0 };
        // SAFETY: rows were checked, and `out` has room for them.
        unsafe { self.device.launch(self.kernels.gather, geometry, arguments![from, rows, columns, to]) }
    }

    fn soft_cap(&self, x: &mut Buffer, cap: f32) -> Result<(), Error> {
        let _state = self.state()?;
        x.changed();
        let (to, len) = (x.pointer(), (x.rows() * x.columns) as u64);
        let geometry = Geometry { grid: [(len as usize).div_ceil(256), 1, 1], block: 256, shared: 0 };
        // SAFETY: `x` has `len` numbers.
        unsafe { self.device.launch(self.kernels.soft_cap, geometry, arguments![to, len, cap]) }
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
        expect("the length of values", values.len(), x.rows() * x.columns)?;
        let _state = self.state()?;
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
        let Some(shape) = Shape::of(owner, batch) else { return run() };
        let mut state = self.state()?;
        state.wait_for_weights(&self.device)?;
        let at = match state.recordings.advise(&self.device, shape) {
            Advice::Launch(at) => Some(at),
            Advice::Run => None,
            Advice::Record => {
                // Release the lock, because operations take it themselves. Other threads' operations run
                // unrecorded meanwhile.
                drop(state);
                let recorder = self.recorder.lock().unwrap_or_else(|e| e.into_inner());
                let made = graph::record(&self.device, &mut || run().is_ok());
                drop(recorder);
                state = self.state()?;
                state.recordings.keep(&self.device, shape, made)
            }
        };
        let Some(at) = at else {
            drop(state);
            return run();
        };
        let State { tokens, positions, rows, plan, recordings, .. } = &mut *state;
        let recording = recordings.get(at);
        tokens.put(&self.device, &batch.tokens)?;
        positions.put(&self.device, &batch.positions)?;
        rows.put(&self.device, &batch.outputs)?;
        if let Some(of) = recording.plan(batch) {
            plan.put(&self.device, &of.data)?;
        }
        let freed = self.device.freed();
        // Page tables may have outgrown their memory: then the recording reads the old memory.
        if recordings.is_current(freed) {
            return Ok(recordings.get(at).launch()?);
        }
        drop(state);
        run()
    }

    fn on_host_threads(&self, count: usize, each: &(dyn Fn(usize) + Sync)) {
        self.crew.each(count, each);
    }

    fn wake_hint(&self, count: usize, at: Instant) {
        self.crew.wake_hint(count, at);
    }
}

/// Threads that a norm uses for a row: a warp for every 256 columns, at most 16 warps.
fn norm_block(columns: usize) -> usize {
    32 * columns.div_ceil(CHUNK).clamp(1, 16)
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
