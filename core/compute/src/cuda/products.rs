//! Chooses the kernels that multiply, and cuts their work into blocks.
//!
//! - `decode.cu` for one row, and `products.cu` for few: all matrices in one launch, whatever their formats.
//! - `hopper.cu` for many rows, for the formats that it supports, on GPUs with its instructions.
//! - `gemm.cu` for many rows of all other formats.

use super::CudaBackend;
use super::buffer::{Buffer, Forms};
use super::driver::{Geometry, arguments};
use super::kernels::{GEMM_SHAPES, HOPPER_SHAPES, HopperShape, PRODUCT_SHAPES};
use super::lora;
use super::matrix::{CHUNK, Form, Format, Kind, Stack};
use crate::checks::expect;
use crate::{Error, MatMul};

/// Most matrices of one launch of a product kernel.
pub(crate) const MOST_JOBS: usize = 4;

/// The struct `Job` of `products.cu`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Job {
    weight: u64,
    bias: u64,
    out: u64,
    tile_row_bytes: u64,
    format: i32,
    pub(super) outputs: i32,
    pub(super) first_block: i32,
    pub(super) step: i32,
    accumulate: i32,
    factor: f32,
}

/// The struct `Products` of `products.cu`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Products {
    pub(super) jobs: [Job; MOST_JOBS],
    x: Forms,
    pub(super) count: i32,
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) round: i32,
}

impl Products {
    /// Takes at most [`MOST_JOBS`] jobs, with `block_outputs` outputs per block; also returns the number of
    /// blocks.
    pub(super) fn new(
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
}

impl Products {
    /// Takes at most [`MOST_JOBS`] stacks of experts of one shape, each with the addresses of a bias and of
    /// the output; also returns the number of blocks.
    pub(super) fn grouped(
        forms: Forms,
        stacks: &[(&Stack, u64, u64)],
        block_outputs: usize,
    ) -> (Self, usize) {
        let mut p = Self { x: forms, count: stacks.len() as i32, ..Self::default() };
        let mut blocks = 0;
        for (slot, &(stack, bias, out)) in p.jobs.iter_mut().zip(stacks) {
            let Kind::Tiles { format, tile_row_bytes, factor } = stack.kind else { continue };
            *slot = Job {
                weight: stack.memory.pointer(),
                bias,
                out,
                tile_row_bytes: tile_row_bytes as u64,
                format: format.index,
                outputs: stack.rows as i32,
                first_block: blocks as i32,
                factor,
                ..Job::default()
            };
            blocks += stack.rows.div_ceil(block_outputs);
        }
        (p, blocks)
    }
}

/// Gives each matrix its share of at most about `resident` blocks of threads, which then go through its
/// `blocks` of outputs in turns. Returns the number of blocks of threads.
pub(super) fn share_out(jobs: &mut [Job], blocks: usize, resident: usize) -> usize {
    let starts: Vec<usize> = jobs.iter().map(|job| job.first_block as usize).collect();
    let mut next = 0;
    for (i, job) in jobs.iter_mut().enumerate() {
        let own = starts.get(i + 1).copied().unwrap_or(blocks) - starts[i];
        let share = if blocks <= resident { own } else { (own * resident / blocks).max(1) };
        // The fewest blocks that need no more turns than `share` blocks.
        let step = own.div_ceil(own.div_ceil(share));
        (job.first_block, job.step) = (next as i32, step as i32);
        next += step;
    }
    next
}

impl CudaBackend {
    /// Implements [`Backend::matmul`](crate::Backend::matmul).
    pub(super) fn multiply(&self, x: &Buffer, jobs: &mut [MatMul<'_, Self>]) -> Result<(), Error> {
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
        // What waits may join a product of a single row, of whole matrices and without adapters.
        let formats: Vec<Format> = jobs.iter().filter_map(|job| job.weight.kind.format()).collect();
        let alone = x.rows() == 1 && self.fits_one_row(x.columns, &formats);
        let joins = alone && formats.len() == jobs.len() && jobs.len() <= MOST_JOBS;
        let joins = joins && jobs.iter().all(|job| job.lora.is_empty());
        let mut state = self.locked()?;
        let norm = if joins { self.norm_of(x, jobs)? } else { self.start_all().map(|()| None)? };
        state.wait_for_weights(&self.device)?;
        for job in &mut *jobs {
            job.out.set_rows(x.rows())?;
        }
        if x.rows() == 0 {
            return Ok(());
        }
        let (tiled, floats): (Vec<_>, Vec<_>) =
            jobs.iter().partition(|job| matches!(job.weight.kind, Kind::Tiles { .. }));
        if joins {
            return self.one_row(x, needed, &tiled, norm);
        }
        let forms = self.forms_of(x, needed)?;
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

    /// The form in which the kernels for many rows read `rows` rows of activations for a matrix of this
    /// format.
    pub(crate) fn form(&self, format: Format, rows: usize) -> Form {
        if self.takes_hopper(format, rows) { format.many_rows.unwrap_or(format.form) } else { format.form }
    }

    fn takes_hopper(&self, format: Format, rows: usize) -> bool {
        // Below this many rows, the kernels for few rows read weights as fast and activations faster.
        let least = if format.form == Form::F16 { 9 } else { 33 };
        self.kernels.hopper.is_some()
            && rows >= least
            && HOPPER_SHAPES.iter().any(|shape| shape.format == format.index)
    }

    /// Returns the forms `needed` of a buffer's rows, made now if they are missing. The caller holds the
    /// state.
    pub(crate) fn forms_of(&self, x: &Buffer, needed: u32) -> Result<Forms, Error> {
        let mut forms = x.forms();
        forms.room_for(&self.device, x.rows(), x.columns, needed)?;
        let missing = forms.claim(needed, x.rows());
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
        Ok(forms.describe(x.columns, needed))
    }

    /// Multiplies with matrices in tiles: for few rows all in one launch, for many rows one launch per
    /// format.
    pub(crate) fn tiled(&self, x: &Buffer, forms: Forms, jobs: &[&MatMul<'_, Self>]) -> Result<(), Error> {
        let format = |job: &&MatMul<'_, Self>| match job.weight.kind {
            Kind::Tiles { format, .. } => Some(format),
            Kind::Floats => None,
        };
        let hopper = |job: &&MatMul<'_, Self>| format(job).is_some_and(|f| self.takes_hopper(f, x.rows()));
        for jobs in jobs.chunk_by(|a, b| hopper(a) == hopper(b) && (!hopper(a) || format(a) == format(b))) {
            match format(&jobs[0]) {
                Some(format) if hopper(&jobs[0]) => self.hopper(x, forms, jobs, format)?,
                _ => self.portable(x, forms, jobs)?,
            }
        }
        Ok(())
    }

    /// Multiplies matrices of one format with the kernels that need Hopper.
    fn hopper(
        &self,
        x: &Buffer,
        forms: Forms,
        jobs: &[&MatMul<'_, Self>],
        format: Format,
    ) -> Result<(), Error> {
        let (.., multiprocessors) = self.device.describe();
        let outputs = jobs.iter().map(|job| job.weight.rows).sum();
        let Some((index, shape)) = hopper_shape(format, x.rows(), outputs, multiprocessors as usize) else {
            return Err(Error::Device("no kernel for a format".into()));
        };
        let Some(kernels) = &self.kernels.hopper else { return Err(Error::Device("no such kernels".into())) };
        let (p, blocks) = Products::new(x, forms, jobs, shape.outputs());
        let row_blocks = x.rows().div_ceil(shape.rows);
        let grid = [(row_blocks * blocks).min(multiprocessors as usize), 1, 1];
        let geometry = Geometry { grid, block: shape.threads(), shared: shape.shared() };
        let (row_blocks, blocks) = (row_blocks as i32, blocks as i32);
        // SAFETY: shapes were checked, and the form that the kernel reads is there, with room for whole
        // blocks of rows.
        unsafe { self.device.launch(kernels[index], geometry, arguments![p, row_blocks, blocks]) }
    }

    /// Multiplies with kernels that run on every GPU.
    fn portable(&self, x: &Buffer, forms: Forms, jobs: &[&MatMul<'_, Self>]) -> Result<(), Error> {
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
            // SAFETY: shapes were checked, and the forms that the formats read are there.
            unsafe {
                self.device.launch(self.kernels.gemm[format.index as usize][shape], geometry, arguments![p])
            }
        })
    }

    /// Multiplies matrices of any formats with the kernels for few rows.
    fn few_rows(&self, x: &Buffer, forms: Forms, jobs: &[&MatMul<'_, Self>]) -> Result<(), Error> {
        let (.., multiprocessors) = self.device.describe();
        let last = PRODUCT_SHAPES.len() - 1;
        let shape = PRODUCT_SHAPES.iter().position(|&(rows, ..)| x.rows() <= rows).unwrap_or(last);
        let (block_rows, block_outputs, resident) = PRODUCT_SHAPES[shape];
        let (mut p, blocks) = Products::new(x, forms, jobs, block_outputs);
        let (round, shared) = product_round(shape, x.columns());
        p.round = round as i32;
        let row_blocks = x.rows().div_ceil(block_rows);
        let threads = share_out(&mut p.jobs[..jobs.len()], blocks, multiprocessors as usize * resident);
        let geometry = Geometry { grid: [threads, row_blocks, 1], block: 256, shared };
        // SAFETY: shapes were checked, and the forms that the formats read are there.
        unsafe { self.device.launch(self.kernels.products[shape], geometry, arguments![p]) }
    }

    pub(crate) fn float_product(&self, x: &Buffer, job: &MatMul<'_, Self>) -> Result<(), Error> {
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
}

/// Number of chunks whose sums fit into a block's shared memory twice, and the bytes that those take.
fn product_round(shape: usize, columns: usize) -> (usize, usize) {
    const WARPS: usize = 8;
    const BUDGET: usize = 80 * 1024;
    let (rows, outputs, resident) = PRODUCT_SHAPES[shape];
    let chunk = rows.next_multiple_of(8) * (outputs + 4) * 4;
    let most = (BUDGET / resident / (2 * chunk) / WARPS * WARPS).max(WARPS);
    let round = columns.div_ceil(CHUNK).next_multiple_of(WARPS).min(most);
    (round, 2 * round * chunk)
}

/// Returns the fastest of the [`GEMM_SHAPES`]: large blocks if they occupy most multiprocessors. `None` if
/// even the small blocks are too few: the kernels for few rows, which also share out columns, are faster
/// then.
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

/// Returns the fastest of the [`HOPPER_SHAPES`] for this many rows and outputs, with its index.
fn hopper_shape(
    format: Format,
    rows: usize,
    outputs: usize,
    multiprocessors: usize,
) -> Option<(usize, HopperShape)> {
    let time = |shape: &HopperShape| {
        let blocks = rows.div_ceil(shape.rows) * outputs.div_ceil(shape.outputs());
        blocks.div_ceil(multiprocessors) * shape.time
    };
    let shapes = HOPPER_SHAPES.into_iter().enumerate().filter(|(_, shape)| shape.format == format.index);
    shapes.min_by_key(|(_, shape)| time(shape))
}

#[cfg(test)]
mod tests {
    use super::super::kernels;
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
        for shape in HOPPER_SHAPES {
            assert!(shape.shared() <= kernels::MOST_SHARED_HOPPER, "{} bytes", shape.shared());
        }
    }

    #[test]
    fn matrices_share_the_multiprocessors() {
        let mut jobs = [Job::default(); 3];
        for (job, first) in jobs.iter_mut().zip([0, 256, 288]) {
            job.first_block = first;
        }
        // The jobs have 256, 32 and 32 blocks of outputs; 100 blocks of threads are resident.
        assert_eq!(share_out(&mut jobs, 320, 100), 64 + 8 + 8);
        assert_eq!(jobs.map(|job| job.step), [64, 8, 8]);
        assert_eq!(jobs.map(|job| job.first_block), [0, 64, 72]);
        for (job, first) in jobs.iter_mut().zip([0, 256, 288]) {
            job.first_block = first;
        }
        assert_eq!(share_out(&mut jobs, 320, 400), 320);
    }

    #[test]
    fn prompts_have_large_blocks_and_batches_enough_of_them() {
        assert_eq!(gemm_shape(64, 4096, 132), None);
        assert_eq!(gemm_shape(64, 22_016, 132), Some(0));
        assert_eq!(gemm_shape(128, 22_016, 132), Some(1));
        assert_eq!(gemm_shape(512, 4096, 132), Some(1));
    }

    #[test]
    fn hopper_takes_the_rows_at_once_and_keeps_multiprocessors_busy() {
        let format = |ty| Format::of(ty).unwrap();
        let of = |ty, rows, outputs| {
            let (_, shape) = hopper_shape(format(ty), rows, outputs, 132).unwrap();
            (shape.groups, shape.rows)
        };
        use realm_gguf::TensorType::{F16, Q4_K, Q6_K, Q8_0};
        assert_eq!(of(F16, 16, 4096), (1, 16));
        assert_eq!(of(Q4_K, 64, 4096), (1, 32));
        assert_eq!(of(Q4_K, 64, 12_288), (2, 64));
        assert_eq!(of(Q6_K, 20, 4096), (1, 32));
        assert_eq!([F16, Q4_K, Q6_K, Q8_0].map(|ty| of(ty, 512, 28_672)), [(2, 128); 4]);
    }
}
