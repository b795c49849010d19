//! The [`Backend`] of this machine's processor.
//!
//! Reading order: [`format`] says how weights lie in memory; `pack` and `matrix` bring them there.
//! `activations` is the other operand, `matmul` multiplies, `experts` multiplies with a row's own matrices,
//! and `lora` adds the adapters. `cache` and `attention` are the paged KV cache and its reader; `norms` and
//! `elementwise` have the remaining operations, `inputs` observes what matrices are multiplied with. `pool`
//! is the threads, `lanes` and `wide` are the vectors.

mod activations;
mod aligned;
mod attention;
mod cache;
mod cores;
mod elementwise;
mod experts;
mod format;
mod inputs;
mod isa;
mod lanes;
mod lora;
mod matmul;
mod matrix;
mod norms;
mod pack;
mod pack_iq;
pub(crate) mod pool;
pub mod row;
mod wide;

use std::collections::BTreeMap;
use std::sync::Mutex;

use realm_gguf::Tensor;

use crate::checks::{self, Sizes, expect};
use crate::{
    Activation, Attention, Backend, Batch, CacheSpec, Columns, Error, MatMul, Mixture, Norm, PageFormat,
};
pub use cache::Cache;
pub use experts::Experts;
pub use inputs::InputSums;
pub use isa::Isa;
pub use lora::LowRank;
pub use matrix::{FloatPanels, Matrix, Packed, weight_bytes};
use pool::{Parts, Pool, Share};

/// An element-wise operation on fewer numbers than this stays on the calling thread: waking the others costs
/// about as much as the work.
const ALONE: usize = 16 * 1024;

/// The [`Backend`] of this machine's processor.
pub struct CpuBackend {
    pool: Pool,
    isa: Isa,
    workspace: Mutex<matmul::Workspace>,
    attention: Vec<Mutex<attention::Space>>,
    experts: Mutex<experts::Space>,
    /// Sums over the inputs of matrices, if this backend observes them.
    inputs: Option<inputs::Inputs>,
}

/// Activations in memory, `[rows, columns]`.
#[derive(Debug, Default)]
pub struct Buffer {
    data: Vec<f32>,
    rows: usize,
    columns: usize,
}

impl Buffer {
    /// Number of rows that hold results.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers in a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All rows, `[rows * columns]`.
    pub fn data(&self) -> &[f32] {
        &self.data[..self.rows * self.columns]
    }

    pub(crate) fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.rows * self.columns]
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.columns..][..self.columns]
    }

    /// Makes room for `rows` rows; their contents are unspecified.
    pub(crate) fn set_rows(&mut self, rows: usize) {
        if self.data.len() < rows * self.columns {
            self.data.resize(rows * self.columns, 0.0);
        }
        self.rows = rows;
    }
}

impl CpuBackend {
    /// Creates a backend of `threads` threads, the calling one included, with the best instruction set
    /// available. The variable `REALM_CPU` (`scalar`, `avx2`, `avx512`, `neon`, `neon-dotprod`) chooses
    /// another one.
    pub fn new(threads: usize) -> Result<Self, Error> {
        Self::with_isa(threads, Isa::choose()?)
    }

    /// Creates a backend with one of the instruction sets of [`Isa::available`].
    pub fn with_isa(threads: usize, isa: Isa) -> Result<Self, Error> {
        if !Isa::available().contains(&isa) {
            return Err(Error::Unsupported(format!("this processor has no {isa}")));
        }
        let threads = threads.max(1);
        let pool = Pool::new(threads)
            .map_err(|e| Error::InvalidArgument(format!("cannot start {threads} threads: {e}")))?;
        let attention = (0..threads).map(|_| Mutex::default()).collect();
        let workspace = Mutex::new(matmul::Workspace::new(threads));
        let experts = Mutex::new(experts::Space::new(threads));
        Ok(Self { pool, isa, workspace, attention, experts, inputs: None })
    }

    /// Creates a backend that adds up the squares of all inputs of matrices, by the name of their tensors:
    /// see [`take_inputs`](Self::take_inputs).
    pub fn observing(threads: usize) -> Result<Self, Error> {
        Ok(Self { inputs: Some(inputs::Inputs::default()), ..Self::new(threads)? })
    }

    /// Returns the sums of the inputs since the last call; none unless this backend
    /// [observes](Self::observing) them.
    pub fn take_inputs(&self) -> BTreeMap<String, InputSums> {
        self.inputs.as_ref().map_or_else(BTreeMap::new, inputs::Inputs::take)
    }

    /// Calls `each(row, x[row])` for every row, on all threads if there is enough work: `cost` is about as
    /// much as that many element-wise steps.
    fn change(&self, x: &mut Buffer, cost: usize, each: impl Fn(usize, &mut [f32]) + Sync) {
        let (rows, columns) = (x.rows, x.columns);
        let parts = Parts::new(x.data_mut());
        self.rows(rows, cost, |row| {
            // SAFETY: every row is handed out once.
            each(row, unsafe { parts.part(row * columns, columns) });
        });
    }

    /// Calls `each(row)` for every row, on all threads if there is enough work.
    fn rows(&self, rows: usize, columns: usize, each: impl Fn(usize) + Sync) {
        if rows * columns < ALONE {
            return (0..rows).for_each(each);
        }
        let share =
            Share::new(rows, (ALONE / 4 / columns.max(1)).clamp(1, rows.div_ceil(self.pool.threads())));
        self.pool.run(&|_| {
            while let Some(piece) = share.next() {
                piece.for_each(&each);
            }
        });
    }
}

impl Backend for CpuBackend {
    type Buffer = Buffer;
    type Vector = Vec<f32>;
    type Matrix = Matrix;
    type Experts = Experts;
    type LowRank = LowRank;
    type Cache = Cache;

    fn description(&self) -> String {
        format!("cpu ({}, {} threads)", self.isa, self.pool.threads())
    }

    fn matrix(&self, tensor: &Tensor<'_>) -> Result<Matrix, Error> {
        let matrix = Matrix::new(&self.pool, tensor)?;
        if let Some(inputs) = &self.inputs {
            inputs.name(matrix.address(), &tensor.info.name);
        }
        Ok(matrix)
    }

    fn experts(&self, tensor: &Tensor<'_>) -> Result<Experts, Error> {
        let experts = Experts::new(&self.pool, tensor)?;
        if let Some(inputs) = &self.inputs {
            inputs.name(experts.address(), &tensor.info.name);
        }
        Ok(experts)
    }

    fn low_rank(&self, a: &Tensor<'_>, b: &Tensor<'_>) -> Result<LowRank, Error> {
        LowRank::new(&self.pool, a, b)
    }

    fn vector(&self, values: &[f32]) -> Result<Vec<f32>, Error> {
        Ok(values.to_vec())
    }

    fn buffer(&self, rows: usize, columns: usize) -> Result<Buffer, Error> {
        let mut buffer = Buffer { data: Vec::new(), rows: 0, columns };
        buffer.set_rows(rows);
        Ok(buffer)
    }

    fn cache(&self, spec: &CacheSpec) -> Result<Cache, Error> {
        Cache::new(spec)
    }

    fn copy_page(&self, cache: &mut Cache, from: u32, to: u32) -> Result<(), Error> {
        checks::page(from.max(to), cache.pages())?;
        cache.copy_page(from, to);
        Ok(())
    }

    fn export_page(&self, cache: &Cache, page: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        checks::page(page, cache.pages())?;
        cache.export_page(page, out);
        Ok(())
    }

    fn page_format(&self, cache: &Cache) -> PageFormat {
        cache.page_format()
    }

    fn import_page(&self, cache: &mut Cache, page: u32, bytes: &[u8]) -> Result<(), Error> {
        checks::page(page, cache.pages())?;
        cache.import_page(page, bytes)
    }

    fn embed(&self, table: &Matrix, tokens: &[u32], scale: f32, out: &mut Buffer) -> Result<(), Error> {
        expect("the width of an embedding", table.columns(), out.columns)?;
        if let Some(bad) = tokens.iter().find(|&&t| t as usize >= table.rows()) {
            return Err(Error::InvalidArgument(format!("token {bad} of a vocabulary of {}", table.rows())));
        }
        out.set_rows(tokens.len());
        // Dequantizing costs more than most element-wise work.
        self.change(out, 4 * table.columns(), |row, out| {
            table.row(tokens[row] as usize, out);
            out.iter_mut().for_each(|x| *x *= scale);
        });
        Ok(())
    }

    fn norm(&self, x: &Buffer, norm: &Norm<'_, Self>, out: &mut Buffer) -> Result<(), Error> {
        checks::norm(norm, x.columns)?;
        expect("the width of a norm's output", out.columns, x.columns)?;
        out.set_rows(x.rows);
        self.change(out, x.columns, |row, out| norms::norm(self.isa, x.row(row), norm, out));
        Ok(())
    }

    fn add_norm(&self, x: &mut Buffer, delta: &Buffer, norm: &Norm<'_, Self>) -> Result<(), Error> {
        checks::norm(norm, x.columns)?;
        checks::same(self, "a norm's input", delta, x)?;
        self.change(x, delta.columns, |row, x| norms::add_norm(self.isa, x, delta.row(row), norm));
        Ok(())
    }

    fn matmul(&self, x: &Buffer, jobs: &mut [MatMul<'_, Self>]) -> Result<(), Error> {
        let mut products = Vec::with_capacity(jobs.len());
        for job in jobs {
            checks::product(self, x, job)?;
            if let Some(inputs) = &self.inputs {
                let rows = (0..x.rows).map(|row| (0, x.row(row)));
                inputs.add(job.weight.address(), [1, x.columns], rows);
            }
            job.out.set_rows(x.rows);
            products.push(matmul::Product {
                matrix: job.weight,
                bias: job.bias.map(Vec::as_slice),
                out: job.out.data_mut(),
                accumulate: job.accumulate,
                lora: job.lora,
            });
        }
        let mut workspace = self.workspace.lock().unwrap_or_else(|e| e.into_inner());
        matmul::run(&self.pool, self.isa, &mut workspace, x, &mut products);
        Ok(())
    }

    fn mixture(&self, x: &Buffer, spec: &Mixture<'_, Self>, out: &mut Buffer) -> Result<(), Error> {
        checks::mixture(self, x, spec, out)?;
        out.set_rows(x.rows);
        let mut space = self.experts.lock().unwrap_or_else(|e| e.into_inner());
        experts::mixture(self, &mut space, x, spec, out);
        Ok(())
    }

    fn each_head(&self, x: &Buffer, w: &Experts, out: &mut Buffer) -> Result<(), Error> {
        checks::each_head(self, x, w, out)?;
        if let Some(inputs) = &self.inputs {
            let [heads, _, columns] = w.shape();
            let of = |row: usize| x.row(row).chunks_exact(columns).enumerate();
            inputs.add(w.address(), [heads, columns], (0..x.rows).flat_map(of));
        }
        out.set_rows(x.rows);
        let mut space = self.experts.lock().unwrap_or_else(|e| e.into_inner());
        experts::each_head(&self.pool, self.isa, &mut space, x, w, out);
        Ok(())
    }

    fn rotations(
        &self,
        frequencies: &Vec<f32>,
        magnitude: f32,
        positions: &[u32],
        out: &mut Buffer,
    ) -> Result<(), Error> {
        expect("the width of the rotations", out.columns, 2 * frequencies.len())?;
        out.set_rows(positions.len());
        // A sine costs about as much as 16 element-wise steps.
        self.change(out, 32 * frequencies.len(), |row, out| {
            for (out, &frequency) in out.chunks_exact_mut(2).zip(frequencies) {
                // In f64: at position 100,000 an f32 angle would be off by 0.004 radians.
                let (sin, cos) = (positions[row] as f64 * frequency as f64).sin_cos();
                (out[0], out[1]) = (cos as f32 * magnitude, sin as f32 * magnitude);
            }
        });
        Ok(())
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
        checks::rope_store(self, spec, batch.rows(), [q, k, v])?;
        attention::store(&self.pool, self.isa, spec, batch, [q, k], v, cache);
        Ok(())
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
        checks::attend(self, spec, batch.rows(), [q, out])?;
        out.set_rows(q.rows);
        attention::run(&self.pool, self.isa, &self.attention, spec, batch, q, cache, out);
        Ok(())
    }

    fn gated_activation(&self, activation: Activation, gate: &mut Buffer, up: &Buffer) -> Result<(), Error> {
        checks::same(self, "a gate", gate, up)?;
        self.change(gate, 4 * up.columns, |row, gate| {
            elementwise::gated_activation(self.isa, activation, gate, up.row(row));
        });
        Ok(())
    }

    fn activation(&self, activation: Activation, x: &mut Buffer) -> Result<(), Error> {
        checks::ungated(activation)?;
        self.change(x, 4 * x.columns, |_, x| elementwise::activation(self.isa, activation, x));
        Ok(())
    }

    fn add(&self, x: &mut Buffer, delta: &Buffer, scale: f32) -> Result<(), Error> {
        checks::same(self, "a summand", delta, x)?;
        self.change(x, delta.columns, |row, x| elementwise::add(self.isa, x, delta.row(row), scale));
        Ok(())
    }

    fn scale(&self, x: &mut Buffer, factor: f32) -> Result<(), Error> {
        self.change(x, x.columns, |_, x| elementwise::scale(self.isa, x, factor));
        Ok(())
    }

    fn scale_rows(&self, gate: &Buffer, x: &mut Buffer) -> Result<(), Error> {
        expect("the width of the rows' gate", gate.columns, 1)?;
        expect("the rows of the rows' gate", gate.rows, x.rows)?;
        self.change(x, x.columns, |row, x| {
            let mut factor = [gate.row(row)[0]];
            elementwise::activation(self.isa, Activation::Sigmoid, &mut factor);
            elementwise::scale(self.isa, x, factor[0]);
        });
        Ok(())
    }

    fn copy_columns(&self, x: &Buffer, columns: &Columns, out: &mut Buffer) -> Result<(), Error> {
        checks::columns(columns, x.columns, out.columns)?;
        out.set_rows(x.rows);
        let Columns { count, width, from, from_step, to, to_step } = *columns;
        self.change(out, count * width, |row, out| {
            for piece in 0..count {
                let x = &x.row(row)[from + piece * from_step..][..width];
                out[to + piece * to_step..][..width].copy_from_slice(x);
            }
        });
        Ok(())
    }

    fn gather(&self, x: &Buffer, rows: &[u32], out: &mut Buffer) -> Result<(), Error> {
        expect("the width of gathered rows", out.columns, x.columns)?;
        rows.iter().try_for_each(|&row| checks::row(row as usize, x.rows))?;
        out.set_rows(rows.len());
        for (out, &row) in out.data_mut().chunks_exact_mut(x.columns.max(1)).zip(rows) {
            out.copy_from_slice(x.row(row as usize));
        }
        Ok(())
    }

    fn soft_cap(&self, x: &mut Buffer, cap: f32) -> Result<(), Error> {
        self.change(x, x.columns, |_, x| elementwise::soft_cap(self.isa, x, cap));
        Ok(())
    }

    fn top_k(&self, x: &Buffer, out: &mut Buffer) -> Result<(), Error> {
        checks::top_k(out.columns)?;
        out.set_rows(x.rows);
        self.change(out, 8 * x.columns, |row, out| elementwise::top_k(x.row(row), out));
        Ok(())
    }

    fn host<'a>(&self, x: &'a Buffer) -> Option<&'a [f32]> {
        Some(x.data())
    }

    fn read(&self, x: &Buffer, out: &mut Vec<f32>) -> Result<(), Error> {
        out.clear();
        out.extend_from_slice(x.data());
        Ok(())
    }

    fn write(&self, values: &[f32], x: &mut Buffer) -> Result<(), Error> {
        x.set_rows(checks::whole_rows(values.len(), x.columns)?);
        x.data_mut().copy_from_slice(values);
        Ok(())
    }

    fn rows(&self, x: &Buffer) -> usize {
        x.rows
    }

    fn columns(&self, x: &Buffer) -> usize {
        x.columns
    }

    fn read_row(&self, x: &Buffer, row: usize, out: &mut Vec<f32>) -> Result<(), Error> {
        checks::row(row, x.rows)?;
        out.clear();
        out.extend_from_slice(x.row(row));
        Ok(())
    }

    fn on_host_threads(&self, count: usize, each: &(dyn Fn(usize) + Sync)) {
        self.pool.each(count, each);
    }
}

impl Sizes for CpuBackend {
    fn vector_len(vector: &Vec<f32>) -> usize {
        vector.len()
    }

    fn matrix_shape(matrix: &Matrix) -> [usize; 2] {
        [matrix.rows(), matrix.columns()]
    }

    fn experts_shape(experts: &Experts) -> [usize; 3] {
        experts.shape()
    }

    fn low_rank_shape(pair: &LowRank) -> [usize; 3] {
        pair.shape()
    }
}
