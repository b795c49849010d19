//! NVIDIA's GPUs, from Ampere (compute capability 8.0) on.
//!
//! Reading order: `kernels/format.cuh` says how weights lie in memory, `kernels/activations.cuh` what they are multiplied
//! with, `kernels/chunk.cuh` how, and `kernels/attention.cu` how attention is summed up. On this side `driver` is the GPU,
//! `matrix`, `lora`, `buffer` and `cache` are what lies in its memory, `plan` cuts a batch into pieces, `graph` records passes, and
//! this file starts the kernels.
//!
//! **The same answer in any company.** Products of quantized weights are sums of integers, exact in any order, and the
//! floats that those become are added chunk by chunk (256 columns) from the first on; attention is a tree of fixed
//! shape over a row's own context. Kernels for one row and for many do the same float operations for a row, so which of
//! them ran, and with which other rows, cannot be told from the result.

mod buffer;
mod cache;
mod driver;
mod graph;
mod kernels;
mod lora;
mod matrix;
mod plan;

use std::sync::{Arc, Mutex, MutexGuard};

use realm_gguf::Tensor;

use crate::checks::{self, expect};
use crate::cpu::pool::{Parts, Pool};
use crate::{Activation, Attention, Backend, Batch, CacheSpec, CacheType, Error, MatMul, Rope, RopeStyle};
pub use buffer::Buffer;
use buffer::Forms;
pub use cache::Cache;
use driver::{Device, Event, Geometry, Memory, Pinned, arguments};
use graph::{Advice, Recordings, Shape};
use kernels::{GEMM_SHAPES, HEAD_DIMS, Kernels, PRODUCT_SHAPES};
pub use lora::LowRank;
pub use matrix::Matrix;
use matrix::{CHUNK, Form, Format, Kind, Uploader};
use plan::{Plan, TILE_QUERIES};

/// Matrices that one product kernel takes.
const MOST_JOBS: usize = 4;
/// Bytes of partial sums of attention at most; rows beyond go into another launch.
const MOST_PARTIAL: usize = 256 << 20;

/// Numbers that a host thread copies at a time.
const COPIED_AT_ONCE: usize = 1 << 16;
/// Host threads at most.
const HOST_THREADS: usize = 8;

/// The [`Backend`] of one NVIDIA GPU.
pub struct CudaBackend {
    device: Arc<Device>,
    kernels: Kernels,
    state: Mutex<State>,
    /// One recording at a time.
    recorder: Mutex<()>,
    /// Host threads, for work between passes.
    pool: Pool,
}

/// A vector of parameters on the GPU.
pub struct Vector {
    memory: Memory,
    len: usize,
}

/// Work memory, kept from call to call. Whoever holds it starts kernels: what belongs together is not torn apart by another
/// thread's.
#[derive(Default)]
struct State {
    tokens: Upload,
    positions: Upload,
    rows: Upload,
    plan: Upload,
    adapter_rows: Upload,
    /// Of adapters, what lies between their two matrices.
    hidden: Option<Memory>,
    partial: Option<Memory>,
    /// Zeros between launches.
    ready: Option<Memory>,
    host: Option<Pinned>,
    uploader: Option<Uploader>,
    /// Weights came since the last product: it must not start before they are there.
    uploading: bool,
    recordings: Recordings,
}

impl State {
    /// Products read weights before what was started earlier has ended: it must have ended if it brought them.
    fn wait_for_weights(&mut self, device: &Device) -> Result<(), Error> {
        if std::mem::take(&mut self.uploading) { device.synchronize() } else { Ok(()) }
    }
}

/// Numbers that the host sends along with an operation; what was sent last is not sent again.
#[derive(Default)]
struct Upload {
    memory: Option<Memory>,
    sent: Vec<u32>,
}

impl Upload {
    /// The address of `numbers` on the GPU.
    fn put(&mut self, device: &Arc<Device>, numbers: &[u32]) -> Result<u64, Error> {
        let bytes = size_of_val(numbers);
        if graph::recording() {
            // The numbers come when the recording runs.
            return match &self.memory {
                Some(memory) if memory.bytes() >= bytes => Ok(memory.pointer()),
                _ => Err(Error::Device("a recording needs memory".into())),
            };
        }
        let memory = match &mut self.memory {
            Some(memory) if memory.bytes() >= bytes => memory,
            slot => {
                self.sent.clear();
                slot.insert(Memory::new(device, bytes.next_power_of_two().max(1024), "a batch")?)
            }
        };
        if self.sent != numbers {
            memory.write(0, numbers)?;
            self.sent.clear();
            self.sent.extend_from_slice(numbers);
        }
        Ok(memory.pointer())
    }
}

/// Room for at least `bytes` in `slot`.
fn at_least<'a>(
    slot: &'a mut Option<Memory>,
    device: &Arc<Device>,
    bytes: usize,
    zeroed: bool,
) -> Result<&'a mut Memory, Error> {
    if slot.as_ref().is_none_or(|memory| memory.bytes() < bytes) {
        *slot = None;
        let bytes = bytes.next_power_of_two();
        let new = if zeroed { Memory::zeroed } else { Memory::new };
        *slot = Some(new(device, bytes, "work memory")?);
    }
    Ok(slot.as_mut().expect("just filled"))
}

/// `Job` of `products.cu`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Job {
    weight: u64,
    bias: u64,
    out: u64,
    tile_row_bytes: u64,
    format: i32,
    outputs: i32,
    first_block: i32,
    step: i32,
    accumulate: i32,
    factor: f32,
}

/// `Products` of `products.cu`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Products {
    jobs: [Job; MOST_JOBS],
    x: Forms,
    count: i32,
    rows: i32,
    columns: i32,
    round: i32,
}

impl Products {
    /// At most [`MOST_JOBS`] jobs, whose blocks have so many outputs each; and how many blocks they are.
    fn new(
        x: &Buffer,
        forms: Forms,
        jobs: &[&MatMul<'_, CudaBackend>],
        block_outputs: usize,
    ) -> (Self, usize) {
        let (count, rows, columns) = (jobs.len() as i32, x.rows() as i32, x.columns() as i32);
        let mut p = Self { x: forms, count, rows, columns, ..Self::default() };
        let mut blocks = 0;
        for (slot, job) in p.jobs.iter_mut().zip(jobs) {
            let Kind::Tiles { format, tile_row_bytes, factor } = job.weight.kind else { continue };
            *slot = Job {
                weight: job.weight.memory.pointer(),
                bias: job.bias.map_or(0, |b| b.memory.pointer()),
                out: job.out.pointer(),
                tile_row_bytes: tile_row_bytes as u64,
                format: format.index,
                outputs: job.weight.rows as i32,
                first_block: blocks as i32,
                step: 0,
                accumulate: job.accumulate as i32,
                factor,
            };
            blocks += job.weight.rows.div_ceil(block_outputs);
        }
        (p, blocks)
    }

    /// Gives each matrix its share of at most about `resident` blocks of threads, which then go through its `blocks`
    /// of outputs in turns. Returns how many they are.
    fn share_out(&mut self, blocks: usize, resident: usize) -> usize {
        let count = self.count as usize;
        let starts: Vec<usize> = self.jobs[..count].iter().map(|job| job.first_block as usize).collect();
        let mut next = 0;
        for (i, job) in self.jobs[..count].iter_mut().enumerate() {
            let own = starts.get(i + 1).copied().unwrap_or(blocks) - starts[i];
            let share = if blocks <= resident { own } else { (own * resident / blocks).max(1) };
            // The fewest that need no more turns than that.
            let step = own.div_ceil(own.div_ceil(share));
            (job.first_block, job.step) = (next as i32, step as i32);
            next += step;
        }
        next
    }
}

/// `RopeStore` of `elementwise.cu`.
#[repr(C)]
struct RopeStore {
    q: u64,
    k: u64,
    v: u64,
    q_norm: u64,
    k_norm: u64,
    rotations: u64,
    keys: u64,
    values: u64,
    positions: u64,
    tables: u64,
    pages: u64,
    eps: f32,
    heads: i32,
    kv_heads: i32,
    dim: i32,
    padded: i32,
    rotated: i32,
    interleaved: i32,
    wide: i32,
}

/// `Attention` of `attention.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Attend {
    q: u64,
    out: u64,
    keys: u64,
    values: u64,
    positions: u64,
    tables: u64,
    pages: u64,
    rows: u64,
    partial: u64,
    ready: u64,
    tiles: u64,
    heads: i32,
    kv_heads: i32,
    group: i32,
    dim: i32,
    spans: i32,
    scale: f32,
    cap: f32,
    window: i32,
}

impl CudaBackend {
    /// GPU number `ordinal`, as the driver counts them.
    ///
    /// # Errors
    /// `Unsupported` where there is no driver, none new enough, or no such GPU; `Device` where it does not start.
    pub fn new(ordinal: usize) -> Result<Self, Error> {
        let device = Device::open(ordinal)?;
        let kernels = Kernels::load(&device)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let pool = Pool::new(cores.min(HOST_THREADS))
            .map_err(|e| Error::InvalidArgument(format!("cannot start threads: {e}")))?;
        Ok(Self { device, kernels, state: Mutex::default(), recorder: Mutex::default(), pool })
    }

    /// Bytes of memory that are free on the GPU, and that it has.
    ///
    /// # Errors
    /// `Device` where the driver does not say.
    pub fn memory(&self) -> Result<(u64, u64), Error> {
        self.device.memory()
    }

    /// Waits until everything that was started is done.
    ///
    /// # Errors
    /// What went wrong on the GPU meanwhile.
    pub fn synchronize(&self) -> Result<(), Error> {
        self.device.synchronize()
    }

    /// Milliseconds that the GPU takes for what `work` starts.
    ///
    /// # Errors
    /// Those of `work`, and what went wrong on the GPU.
    pub fn time(&self, work: impl FnOnce() -> Result<(), Error>) -> Result<f32, Error> {
        let (start, end) = (Event::new(&self.device)?, Event::new(&self.device)?);
        start.record()?;
        work()?;
        end.record()?;
        end.wait()?;
        start.until(&end)
    }

    /// For starting kernels.
    fn state(&self) -> Result<MutexGuard<'_, State>, Error> {
        self.device.bind()?;
        Ok(self.state.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Brings weights onto the GPU.
    fn upload<T>(&self, work: impl FnOnce(&mut Uploader) -> Result<T, Error>) -> Result<T, Error> {
        let mut state = self.state()?;
        state.uploading = true;
        let uploader = match &mut state.uploader {
            Some(uploader) => uploader,
            slot => slot.insert(Uploader::new(&self.device)?),
        };
        work(uploader)
    }

    /// The products of matrices in tiles: for few rows all in one launch, for many one for each format.
    fn tiled(&self, x: &Buffer, forms: Forms, jobs: &[&MatMul<'_, Self>]) -> Result<(), Error> {
        if x.rows() <= PRODUCT_SHAPES[PRODUCT_SHAPES.len() - 1].0 {
            return self.few_rows(x, forms, jobs);
        }
        let (.., multiprocessors) = self.device.describe();
        let multiprocessors = multiprocessors as usize;
        let format = |job: &&MatMul<'_, Self>| match job.weight.kind {
            Kind::Tiles { format, .. } => Some(format),
            Kind::Floats => None,
        };
        jobs.chunk_by(|a, b| format(a) == format(b)).try_for_each(|jobs| {
            let Some(format) = format(&jobs[0]) else { return Ok(()) };
            let outputs = jobs.iter().map(|job| job.weight.rows).sum();
            let Some(shape) = gemm_shape(x.rows(), outputs, multiprocessors) else {
                return self.few_rows(x, forms, jobs);
            };
            let (block_rows, block_outputs) = GEMM_SHAPES[shape];
            let (p, blocks) = Products::new(x, forms, jobs, block_outputs);
            let grid = [x.rows().div_ceil(block_rows), blocks, 1];
            let geometry = Geometry { grid, block: 256, shared: gemm_shared(shape, format) };
            // SAFETY: as above.
            unsafe {
                self.device.launch(self.kernels.gemm[format.index as usize][shape], geometry, arguments![p])
            }
        })
    }

    /// Products by the kernels for few rows, of any formats.
    fn few_rows(&self, x: &Buffer, forms: Forms, jobs: &[&MatMul<'_, Self>]) -> Result<(), Error> {
        let (.., multiprocessors) = self.device.describe();
        let last = PRODUCT_SHAPES.len() - 1;
        let shape = PRODUCT_SHAPES.iter().position(|&(rows, ..)| x.rows() <= rows).unwrap_or(last);
        let (block_rows, block_outputs, resident) = PRODUCT_SHAPES[shape];
        let (mut p, blocks) = Products::new(x, forms, jobs, block_outputs);
        let (round, shared) = product_round(shape, x.columns());
        p.round = round as i32;
        let row_blocks = x.rows().div_ceil(block_rows);
        let grid = [p.share_out(blocks, multiprocessors as usize * resident), row_blocks, 1];
        let geometry = Geometry { grid, block: 256, shared };
        // SAFETY: shapes were checked, and the forms that the formats read are there.
        unsafe { self.device.launch(self.kernels.products[shape], geometry, arguments![p]) }
    }

    fn float_product(&self, x: &Buffer, job: &MatMul<'_, Self>) -> Result<(), Error> {
        let (weight, bias) = (job.weight.memory.pointer(), job.bias.map_or(0, |b| b.memory.pointer()));
        let (input, out) = (x.pointer(), job.out.pointer());
        let (outputs, columns) = (job.weight.rows as i32, x.columns() as i32);
        let accumulate = job.accumulate as i32;
        let geometry = Geometry { grid: [job.weight.rows.div_ceil(8), x.rows(), 1], block: 256, shared: 0 };
        // SAFETY: shapes were checked.
        unsafe {
            let arguments = arguments![weight, bias, input, out, outputs, columns, accumulate];
            self.device.launch(self.kernels.product_f32, geometry, arguments)
        }
    }

    /// Attention over half-float pages.
    fn attend(&self, state: &mut State, plan: &Plan, p: &mut Attend, padded: usize) -> Result<(), Error> {
        let Some(index) = HEAD_DIMS.iter().position(|&dim| dim == padded) else {
            return Err(Error::Unsupported(format!("pages of heads of {padded} numbers")));
        };
        let (kv_heads, group) = (p.kv_heads as usize, p.group as usize);
        if plan.single > 0 {
            let window = (p.window > 0).then_some(p.window as usize);
            let spans = plan.spans(window);
            let tiles = kv_heads * group.div_ceil(TILE_QUERIES);
            let queries = group.min(TILE_QUERIES);
            let row_bytes = tiles * spans * queries * (padded + 2) * 4;
            let at_once = (MOST_PARTIAL / row_bytes).clamp(1, plan.single);
            p.partial = at_least(&mut state.partial, &self.device, at_once * row_bytes, false)?.pointer();
            p.ready = at_least(&mut state.ready, &self.device, at_once * tiles * 4, true)?.pointer();
            p.spans = spans as i32;
            let shared = 4 * queries * (padded + 2) * 4;
            let rows = p.rows;
            for first in (0..plan.single).step_by(at_once) {
                p.rows = rows + 4 * first as u64;
                let grid = [spans, at_once.min(plan.single - first), tiles];
                let geometry = Geometry { grid, block: 128, shared };
                // SAFETY: rows, pages and work memory were checked or made for this batch.
                unsafe { self.device.launch(self.kernels.attend_row[index], geometry, arguments![*p])? };
            }
        }
        let tiles = plan.tiles as i32;
        let grid = [plan.tiles.div_ceil(4), kv_heads, 1];
        let geometry = Geometry { grid, block: 128, shared: 4 * TILE_QUERIES * padded * 4 };
        // SAFETY: as above.
        unsafe { self.device.launch(self.kernels.attend_tiles[index], geometry, arguments![*p, tiles]) }
    }
}

/// Chunks whose sums fit into a block's shared memory at a time, twice, and the bytes that they take.
fn product_round(shape: usize, columns: usize) -> (usize, usize) {
    const WARPS: usize = 8;
    const BUDGET: usize = 80 * 1024;
    let (rows, outputs, resident) = PRODUCT_SHAPES[shape];
    let chunk = rows.next_multiple_of(8) * (outputs + 4) * 4;
    let most = (BUDGET / resident / (2 * chunk) / WARPS * WARPS).max(WARPS);
    let round = columns.div_ceil(CHUNK).next_multiple_of(WARPS).min(most);
    (round, 2 * round * chunk)
}

/// Which of the [`GEMM_SHAPES`] is fastest: large blocks where there are enough of them for most multiprocessors. `None`
/// if there are too few even of the small ones: then the kernels for few rows are, which share out columns too.
fn gemm_shape(rows: usize, outputs: usize, multiprocessors: usize) -> Option<usize> {
    let fills = |shape: usize| {
        let (block_rows, block_outputs) = GEMM_SHAPES[shape];
        4 * rows.div_ceil(block_rows) * outputs.div_ceil(block_outputs) >= 3 * multiprocessors
    };
    [1, 0].into_iter().find(|&shape| fills(shape))
}

/// Bytes of shared memory of `gemm.cu`: two chunks of all rows of a block.
fn gemm_shared(shape: usize, format: Format) -> usize {
    let stride = if format.form == Form::F16 { 576 } else { 320 };
    2 * GEMM_SHAPES[shape].0 * stride
}

impl Backend for CudaBackend {
    type Buffer = Buffer;
    type Vector = Vector;
    type Matrix = Matrix;
    type LowRank = LowRank;
    type Cache = Cache;

    fn description(&self) -> String {
        let (name, (major, minor), multiprocessors) = self.device.describe();
        let total = self.device.memory().map_or(0, |(_, total)| total >> 30);
        format!(
            "cuda ({name}, {total} GiB, compute capability {major}.{minor}, {multiprocessors} multiprocessors)"
        )
    }

    fn matrix(&self, tensor: &Tensor<'_>) -> Result<Matrix, Error> {
        self.upload(|uploader| uploader.matrix(&self.device, &self.kernels, tensor))
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

    fn rms_norm(&self, x: &Buffer, weight: &Vector, eps: f32, out: &mut Buffer) -> Result<(), Error> {
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

    fn add_rms_norm(&self, x: &mut Buffer, delta: &Buffer, weight: &Vector, eps: f32) -> Result<(), Error> {
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
                needed |= format.form as u32;
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
        let mut forms = x.forms();
        forms.room_for(&self.device, x.rows(), x.columns, needed)?;
        let missing = forms.claim(needed);
        if missing != 0 {
            let (from, columns, to) = (x.pointer(), x.columns as i32, forms.describe(x.columns, missing));
            let geometry = Geometry {
                grid: [x.columns.div_ceil(CHUNK).div_ceil(4), x.rows(), 1],
                block: 128,
                shared: 0,
            };
            // SAFETY: the forms have room for the rows.
            unsafe { self.device.launch(self.kernels.quantize, geometry, arguments![from, columns, to])? };
        }
        let forms = forms.describe(x.columns, needed);
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

    fn rotations(&self, rope: &Rope<Self>, positions: &[u32], out: &mut Buffer) -> Result<(), Error> {
        let count = rope.frequencies.len;
        expect("the width of the rotations", out.columns, 2 * count)?;
        let mut state = self.state()?;
        out.set_rows(positions.len())?;
        let rows = positions.len();
        let positions = state.positions.put(&self.device, positions)?;
        let (frequencies, to) = (rope.frequencies.memory.pointer(), out.pointer());
        let geometry = Geometry { grid: [count.div_ceil(64), rows, 1], block: 64, shared: 0 };
        let count = count as i32;
        // SAFETY: `out` has room for a pair for each frequency and row.
        unsafe {
            let arguments = arguments![frequencies, count, rope.magnitude, positions, to];
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
        checks::attention(spec, batch, cache.layout(), cache.pages())?;
        for (what, buffer, heads) in
            [("queries", &*q, spec.heads), ("keys", &*k, spec.kv_heads), ("values", v, spec.kv_heads)]
        {
            expect(&format!("the width of the {what}"), buffer.columns, heads * spec.head_dim)?;
            expect(&format!("the rows of the {what}"), buffer.rows(), batch.rows())?;
        }
        for (what, norm) in [("query", spec.q_norm), ("key", spec.k_norm)] {
            if let Some(norm) = norm {
                expect(&format!("the length of the {what} norm"), norm.len, spec.head_dim)?;
            }
        }
        if spec.rotations.columns > spec.head_dim {
            expect("the rotated width of a head", spec.rotations.columns, spec.head_dim)?;
        }
        expect("the rows of the rotations", spec.rotations.rows(), batch.rows())?;
        let mut state = self.state()?;
        q.changed();
        k.changed();
        graph::note_attention(cache.layout(), spec.heads / spec.kv_heads);
        let plan = Plan::new(batch, cache.layout(), spec.heads / spec.kv_heads);
        let data = state.plan.put(&self.device, &plan.data)?;
        let group = cache.layout().layers[spec.layer].group;
        let [keys, values] = cache.layer(spec.layer);
        let p = RopeStore {
            q: q.pointer(),
            k: k.pointer(),
            v: v.pointer(),
            q_norm: spec.q_norm.map_or(0, |n| n.memory.pointer()),
            k_norm: spec.k_norm.map_or(0, |n| n.memory.pointer()),
            rotations: spec.rotations.pointer(),
            keys,
            values,
            positions: data,
            tables: data + 4 * (plan.tables_at + group * batch.rows()) as u64,
            pages: data + 4 * plan.pages_at as u64,
            eps: spec.eps,
            heads: spec.heads as i32,
            kv_heads: spec.kv_heads as i32,
            dim: spec.head_dim as i32,
            padded: cache.padded() as i32,
            rotated: spec.rotations.columns as i32,
            interleaved: (spec.style == RopeStyle::Interleaved) as i32,
            wide: (cache.kind() == CacheType::F32) as i32,
        };
        let heads = spec.heads + 2 * spec.kv_heads;
        let geometry = Geometry { grid: [heads.div_ceil(4), batch.rows(), 1], block: 128, shared: 0 };
        // SAFETY: shapes, positions and pages were checked.
        unsafe { self.device.launch(self.kernels.rope_store, geometry, arguments![p]) }
    }

    fn attention(
        &self,
        spec: &Attention<'_, Self>,
        batch: &Batch,
        q: &Buffer,
        cache: &Cache,
        out: &mut Buffer,
    ) -> Result<(), Error> {
        checks::attention(spec, batch, cache.layout(), cache.pages())?;
        expect("the width of the queries", q.columns, spec.heads * spec.head_dim)?;
        expect("the rows of the queries", q.rows(), batch.rows())?;
        expect("the width of the attention's output", out.columns, q.columns)?;
        let mut state = self.state()?;
        out.set_rows(q.rows())?;
        graph::note_attention(cache.layout(), spec.heads / spec.kv_heads);
        let plan = Plan::new(batch, cache.layout(), spec.heads / spec.kv_heads);
        let data = state.plan.put(&self.device, &plan.data)?;
        let group = cache.layout().layers[spec.layer].group;
        let [keys, values] = cache.layer(spec.layer);
        let mut p = Attend {
            q: q.pointer(),
            out: out.pointer(),
            keys,
            values,
            positions: data,
            tables: data + 4 * (plan.tables_at + group * batch.rows()) as u64,
            pages: data + 4 * plan.pages_at as u64,
            rows: data + 4 * plan.single_at as u64,
            partial: 0,
            ready: 0,
            tiles: data + 4 * plan.tiles_at as u64,
            heads: spec.heads as i32,
            kv_heads: spec.kv_heads as i32,
            group: (spec.heads / spec.kv_heads) as i32,
            dim: spec.head_dim as i32,
            spans: 0,
            scale: spec.scale,
            cap: spec.soft_cap.unwrap_or(0.0),
            window: spec.window.map_or(0, |w| i32::try_from(w).unwrap_or(i32::MAX)),
        };
        match cache.kind() {
            CacheType::F16 | CacheType::Q8_0 => self.attend(&mut state, &plan, &mut p, cache.padded()),
            CacheType::F32 => {
                let geometry = Geometry { grid: [spec.heads, batch.rows(), 1], block: 32, shared: 0 };
                let padded = cache.padded() as i32;
                // SAFETY: shapes, positions and pages were checked.
                unsafe { self.device.launch(self.kernels.attend_f32, geometry, arguments![p, padded]) }
            }
        }
    }

    fn gated(&self, activation: Activation, gate: &mut Buffer, up: &Buffer) -> Result<(), Error> {
        expect("the width of a gate", gate.columns, up.columns)?;
        expect("the rows of a gate", gate.rows(), up.rows())?;
        let _state = self.state()?;
        let forms = gate.fill()?;
        let (to, other, columns) = (gate.pointer(), up.pointer(), gate.columns as i32);
        let gelu = (activation == Activation::GeluTanh) as i32;
        let grid = [gate.columns.div_ceil(CHUNK).div_ceil(4), gate.rows(), 1];
        let geometry = Geometry { grid, block: 128, shared: 0 };
        // SAFETY: shapes were checked, and the forms have room.
        unsafe {
            let arguments = arguments![to, other, columns, gelu, forms];
            self.device.launch(self.kernels.gated, geometry, arguments)
        }
    }

    fn gather(&self, x: &Buffer, rows: &[u32], out: &mut Buffer) -> Result<(), Error> {
        expect("the width of gathered rows", out.columns, x.columns)?;
        if let Some(&bad) = rows.iter().find(|&&row| row as usize >= x.rows()) {
            return Err(Error::InvalidArgument(format!("row {bad} of {}", x.rows())));
        }
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
        // SAFETY: `x` has so many numbers.
        unsafe { self.device.launch(self.kernels.soft_cap, geometry, arguments![to, len, cap]) }
    }

    fn host<'a>(&self, _x: &'a Buffer) -> Option<&'a [f32]> {
        None
    }

    fn read(&self, x: &Buffer, out: &mut Vec<f32>) -> Result<(), Error> {
        graph::spoil();
        let mut state = self.state()?;
        let len = x.rows() * x.columns;
        // Through pinned memory: the driver copies several times faster to there.
        let host = match &mut state.host {
            Some(host) if host.bytes() >= 4 * len => host,
            slot => slot.insert(Pinned::new(&self.device, (4 * len).next_power_of_two())?),
        };
        let host = host.slice::<f32>(len);
        x.data().read(0, host)?;
        // From there on all threads: one alone takes longer than the GPU's copy.
        out.resize(len, 0.0);
        let parts = Parts::new(out);
        self.pool.each(len.div_ceil(COPIED_AT_ONCE), &|i| {
            let range = i * COPIED_AT_ONCE..((i + 1) * COPIED_AT_ONCE).min(len);
            // SAFETY: every part is handed out once.
            unsafe { parts.part(range.start, range.len()) }.copy_from_slice(&host[range]);
        });
        Ok(())
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
                // Operations take the lock themselves; others of this backend meanwhile run as they are.
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
        // Page tables may have outgrown their memory: then what was recorded reads the old one.
        if recordings.is_current(freed) {
            return Ok(recordings.get(at).launch(&self.device)?);
        }
        drop(state);
        run()
    }

    fn on_host_threads(&self, count: usize, each: &(dyn Fn(usize) + Sync)) {
        self.pool.each(count, each);
    }
}

/// Threads that a norm takes for a row: a warp for 256 columns, up to 16.
fn norm_block(columns: usize) -> usize {
    32 * columns.div_ceil(CHUNK).clamp(1, 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_fit_into_shared_memory_and_keep_all_warps_busy() {
        for shape in 0..PRODUCT_SHAPES.len() {
            for columns in [64, 576, 4096, 11_008, 28_672, 65_536] {
                let (round, bytes) = product_round(shape, columns);
                assert!(round >= 8 && round % 8 == 0);
                assert!(bytes <= kernels::MOST_SHARED, "{bytes} bytes for {columns} columns");
            }
        }
        for ty in realm_gguf::TensorType::ALL {
            let Some(format) = Format::of(ty) else { continue };
            for shape in 0..GEMM_SHAPES.len() {
                assert!(gemm_shared(shape, format) <= kernels::MOST_SHARED);
            }
        }
    }

    #[test]
    fn matrices_share_the_multiprocessors() {
        let mut p = Products { count: 3, ..Products::default() };
        for (job, first) in p.jobs.iter_mut().zip([0, 256, 288]) {
            job.first_block = first;
        }
        // 256, 32 and 32 blocks of outputs for 100 of threads.
        assert_eq!(p.share_out(320, 100), 64 + 8 + 8);
        assert_eq!(p.jobs.map(|job| job.step), [64, 8, 8, 0]);
        assert_eq!(p.jobs.map(|job| job.first_block), [0, 64, 72, 0]);
        for (job, first) in p.jobs.iter_mut().zip([0, 256, 288]) {
            job.first_block = first;
        }
        assert_eq!(p.share_out(320, 400), 320);
    }

    #[test]
    fn prompts_have_large_blocks_and_batches_enough_of_them() {
        assert_eq!(gemm_shape(64, 4096, 132), None);
        assert_eq!(gemm_shape(64, 22_016, 132), Some(0));
        assert_eq!(gemm_shape(128, 22_016, 132), Some(1));
        assert_eq!(gemm_shape(512, 4096, 132), Some(1));
    }

    #[test]
    fn attention_fits_into_shared_memory() {
        let padded = HEAD_DIMS[HEAD_DIMS.len() - 1];
        assert!(4 * TILE_QUERIES * (padded + 2) * 4 <= kernels::MOST_SHARED);
    }

    #[test]
    fn without_a_gpu_the_error_says_so() {
        if let Err(error) = CudaBackend::new(0) {
            assert!(matches!(error, Error::Unsupported(_)), "{error}");
            eprintln!("SKIPPED: everything that needs a GPU ({error})");
        }
    }
}
