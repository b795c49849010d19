//! Products of a single row, and what joins them: starts the kernel of `decode.cu`.
//!
//! While a pass is recorded, the norm of a single row waits for the operation that follows. If that is a
//! product, it computes the norm too; the product of a gate and its up waits in the same way for the
//! activation. Whatever else comes next first starts what waits.

use super::buffer::{Buffer, Forms};
use super::driver::{Device, Geometry, arguments};
use super::graph;
use super::matrix::{CHUNK, Form, Format};
use super::norms;
use super::products::{Job, Products, share_out};
use super::{CudaBackend, elementwise};
use crate::{Activation, Error, MatMul, Norm};

/// Outputs per block at a time.
const TILE: usize = 16;

/// Warps of a block: as many as norms of long rows have, which the kernel adds up as those do.
const DECODE_WARPS: usize = 16;

/// Bytes of shared memory for sums.
const SUMS: usize = 16 * 1024;

/// The struct `Decode` of `decode.cu`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Decode {
    all: Products,
    row: u64,
    norm: u64,
    normed: u64,
    eps: f32,
    gate: i32,
    alpha: f32,
    limit: f32,
    at_once: i32,
    sums_at: i32,
    weights_at: i32,
}

/// An operation on a single row that was not started yet.
pub(crate) struct Waiting {
    device: *const Device,
    what: What,
}

enum What {
    Norm {
        x: u64,
        weight: u64,
        eps: f32,
        columns: usize,
        out: u64,
        forms: Forms,
    },
    /// A product of two matrices of one shape and type, and where their results go.
    Pair {
        product: Box<Decode>,
        formats: [Format; 2],
        outs: [u64; 2],
    },
}

/// What a block has in shared memory: the row's form, sums, and weights on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// Tiles whose sums are kept at once.
    at_once: usize,
    sums_at: usize,
    weights_at: usize,
    bytes: usize,
}

impl Layout {
    /// `most` tiles are a block's, whose number is a multiple of `each`; `room` is a block's shared memory.
    /// `None` if there is not enough.
    fn new(columns: usize, formats: &[Format], (most, each): (usize, usize), room: usize) -> Option<Self> {
        let form = formats.iter().map(|format| form_bytes(format.form, columns)).max().unwrap_or(0);
        let weights = formats.iter().map(weight_bytes).max().unwrap_or(0);
        // A thread adds up one output.
        let slots = 32 * DECODE_WARPS / TILE;
        let tile = columns.div_ceil(CHUNK) * TILE * 4;
        let tiles = SUMS / tile;
        let (at_once, sums) = if most <= slots.min(tiles) {
            (most, most)
        } else {
            let at_once = (tiles / 2).min(slots).min(most).max(each) / each * each;
            (at_once, 2 * at_once)
        };
        let sums_at = form.next_multiple_of(16);
        let weights_at = sums_at + sums * tile;
        let bytes = weights_at + DECODE_WARPS * weights;
        (bytes <= room).then_some(Self { at_once, sums_at, weights_at, bytes })
    }
}

/// Gives each matrix its share of the multiprocessors, such that each has a block of threads if there are as
/// many tiles. Returns the number of blocks of threads.
fn share_out_all(jobs: &mut [Job], tiles: usize, multiprocessors: usize) -> usize {
    let threads = share_out(jobs, tiles, multiprocessors);
    let rest = tiles.min(multiprocessors).saturating_sub(threads);
    // Blocks beyond the first matrix's tiles would have nothing to do, which does no harm.
    jobs[0].step += rest as i32;
    jobs[1..].iter_mut().for_each(|job| job.first_block += rest as i32);
    threads + rest
}

/// Bytes of shared memory that a block may have besides those that its kernel declares.
pub(super) fn room(device: &Device) -> usize {
    device.shared()[0].saturating_sub(1024)
}

/// Bytes of a row's form.
fn form_bytes(form: Form, columns: usize) -> usize {
    let (padded, chunks) = (columns.next_multiple_of(64), columns.div_ceil(CHUNK));
    if form == Form::Q32 {
        padded / 4 + padded
    } else {
        (padded / 8 + 4 * chunks).next_multiple_of(16) + padded
    }
}

/// Bytes of the weights that a warp has on their way.
fn weight_bytes(format: &Format) -> usize {
    2 * format.tile_bytes(4)
}

impl CudaBackend {
    /// Multiplies a single row with matrices in tiles, and makes its form along the way if it is not there.
    /// With `waiting`, the norm that waits is computed first. A pair may then wait for an activation.
    pub(super) fn one_row(
        &self,
        x: &Buffer,
        needed: u32,
        jobs: &[&MatMul<'_, Self>],
        waiting: Option<Waiting>,
    ) -> Result<(), Error> {
        let formats: Vec<Format> = jobs.iter().filter_map(|job| job.weight.kind.format()).collect();
        let mut forms = x.forms();
        let there = forms.has(needed) && waiting.is_none();
        let described = forms.describe(x.columns(), if there { needed } else { 0 });
        let mut product = Decode::of(Products::new(x, described, jobs, TILE).0);
        if !there {
            product.row = x.pointer();
        }
        if let Some(Waiting { what: What::Norm { x: row, weight, eps, out, .. }, .. }) = waiting {
            (product.row, product.norm, product.normed, product.eps) = (row, weight, out, eps);
            // The kernel leaves the floats.
            forms.forget();
        }
        drop(forms);
        if let ([a, b], &[one, other]) = (jobs, &formats[..])
            && graph::recording()
            && one == other
            && (a.weight.rows, a.accumulate, b.accumulate) == (b.weight.rows, false, false)
        {
            let what = What::Pair {
                product: Box::new(product),
                formats: [one, other],
                outs: [a.out.pointer(), b.out.pointer()],
            };
            graph::wait_with(Waiting { device: &raw const *self.device, what });
            return Ok(());
        }
        self.start(product, &formats)
    }

    /// Starts a product. The caller vouches for the addresses, and that the forms are there or the row is.
    fn start(&self, mut product: Decode, formats: &[Format]) -> Result<(), Error> {
        let (.., multiprocessors) = self.device.describe();
        let gated = product.gate >= 0;
        let p = &mut product.all;
        if gated {
            p.count = 1;
        }
        let columns = p.columns as usize;
        let blocks = p.jobs[..p.count as usize].iter().map(|job| (job.outputs as usize).div_ceil(TILE)).sum();
        let jobs = &mut p.jobs[..p.count as usize];
        let threads = share_out_all(jobs, blocks, multiprocessors as usize);
        let each = if gated { 2 } else { 1 };
        let own = |job: &Job| (job.outputs as usize).div_ceil(TILE).div_ceil(job.step as usize);
        let most = each * p.jobs[..p.count as usize].iter().map(own).max().unwrap_or(0);
        let Some(layout) = Layout::new(columns, formats, (most, each), room(&self.device)) else {
            return Err(Error::Unsupported(format!("rows of {columns} columns")));
        };
        product.at_once = layout.at_once as i32;
        (product.sums_at, product.weights_at) = (layout.sums_at as i32, layout.weights_at as i32);
        // Two blocks on one multiprocessor, and none on another, would take twice as long. Each has a
        // kilobyte besides.
        let more_than_half = self.device.shared()[1] / 2;
        let shared = layout.bytes.max(more_than_half);
        let geometry = Geometry { grid: [threads, 1, 1], block: 32 * DECODE_WARPS, shared };
        // SAFETY: shapes were checked, and the caller vouches for the addresses.
        unsafe { self.device.launch(self.kernels.product_1, geometry, arguments![product]) }
    }

    /// Returns whether there is a kernel for a row of `columns` and matrices of these formats, and a block
    /// has room for them, as gates, too. There is none for half floats, which are faster with the kernel for
    /// few rows.
    pub(super) fn fits_one_row(&self, columns: usize, formats: &[Format]) -> bool {
        if formats.iter().any(|format| format.form == Form::F16) {
            return false;
        }
        // However many tiles a block has, their sums take no more than this.
        Layout::new(columns, formats, (64, 2), room(&self.device).saturating_sub(SUMS)).is_some()
    }

    /// Has a norm wait for the operation that follows, if that may save a launch. Returns whether it waits.
    pub(super) fn norm_may_wait(
        &self,
        x: &Buffer,
        norm: &Norm<'_, Self>,
        out: &mut Buffer,
    ) -> Result<bool, Error> {
        let Some(weight) = norms::common(norm) else { return Ok(false) };
        if !graph::recording() || x.rows() != 1 || x.pointer() == out.pointer() {
            return Ok(false);
        }
        let forms = out.fill()?;
        let (x, columns, out) = (x.pointer(), weight.len, out.pointer());
        let what = What::Norm { x, weight: weight.memory.pointer(), eps: norm.eps, columns, out, forms };
        graph::wait_with(Waiting { device: &raw const *self.device, what });
        Ok(true)
    }

    /// Takes the norm that waits, if its result is `x` and no product changes what it reads; starts whatever
    /// else waits.
    pub(super) fn norm_of(&self, x: &Buffer, jobs: &[MatMul<'_, Self>]) -> Result<Option<Waiting>, Error> {
        let waiting = graph::waiting(&raw const *self.device);
        match waiting {
            Some(Waiting { what: What::Norm { x: row, out, .. }, .. })
                if out == x.pointer() && jobs.iter().all(|job| job.out.pointer() != row) =>
            {
                Ok(waiting)
            }
            other => self.start_waiting(other).map(|()| None),
        }
    }

    /// Starts the gates and ups that wait with their activation; starts whatever else waits. Returns whether
    /// the activation is done.
    pub(super) fn activate_pair(
        &self,
        activation: Activation,
        gate: &Buffer,
        up: &Buffer,
    ) -> Result<bool, Error> {
        match graph::waiting(&raw const *self.device) {
            Some(Waiting { what: What::Pair { mut product, formats, outs }, .. })
                if outs == [gate.pointer(), up.pointer()] =>
            {
                (product.gate, [product.alpha, product.limit]) = elementwise::gate(activation);
                self.start(*product, &formats).map(|()| true)
            }
            other => self.start_waiting(other).map(|()| false),
        }
    }

    /// Starts what waits.
    pub(super) fn start_all(&self) -> Result<(), Error> {
        self.start_waiting(graph::waiting(&raw const *self.device))
    }

    fn start_waiting(&self, waiting: Option<Waiting>) -> Result<(), Error> {
        match waiting.map(|waiting| waiting.what) {
            None => Ok(()),
            Some(What::Norm { x, weight, eps, columns, out, forms }) => {
                let geometry = norms::geometry(1, columns);
                let columns = columns as i32;
                // SAFETY: shapes were checked when the norm was asked for, and nothing has changed since.
                unsafe {
                    let arguments = arguments![x, weight, eps, columns, out, forms];
                    self.device.launch(self.kernels.rms_norm, geometry, arguments)
                }
            }
            Some(What::Pair { product, formats, .. }) => self.start(*product, &formats),
        }
    }
}

impl Waiting {
    /// Returns whether it waits on this device.
    pub(super) fn is_of(&self, device: *const Device) -> bool {
        self.device == device
    }
}

impl Decode {
    /// A product without anything before or behind it.
    fn of(all: Products) -> Self {
        let gate = -1;
        Self { all, gate, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use realm_gguf::TensorType;

    use super::*;

    const H200: usize = 226 * 1024;
    const A100: usize = 162 * 1024;

    #[test]
    fn every_type_and_width_fits_into_shared_memory() {
        for format in TensorType::ALL.into_iter().filter_map(Format::of) {
            for columns in [64, 576, 4096, 11_008, 28_672] {
                for (most, each) in [(1, 1), (2, 1), (2, 2), (14, 2), (200, 1), (200, 2)] {
                    for room in [H200, A100] {
                        let layout = Layout::new(columns, &[format], (most, each), room);
                        // What does not fit takes the kernels for more rows.
                        let Some(l) = layout else {
                            assert!(room == A100, "{format:?}, {columns}");
                            continue;
                        };
                        assert!(l.bytes <= room && l.at_once % each == 0 && l.at_once >= each);
                        assert!(l.at_once <= most && TILE * l.at_once <= 32 * DECODE_WARPS);
                    }
                }
            }
        }
    }

    /// What `fits_one_row` relies on.
    #[test]
    fn sums_of_any_number_of_tiles_have_room() {
        for format in TensorType::ALL.into_iter().filter_map(Format::of) {
            for columns in (1..200).map(|n| n * 160) {
                let bytes =
                    |most, each| Layout::new(columns, &[format], (most, each), usize::MAX).unwrap().bytes;
                let gates = bytes(64, 2);
                assert!((1..40).all(|most| bytes(most, 1) <= gates + SUMS), "{format:?}, {columns}");
            }
        }
    }

    #[test]
    fn every_tile_has_one_block() {
        for tiles in [&[256][..], &[128], &[5], &[688], &[256, 64, 64], &[2, 300, 7], &[1, 1, 1, 1], &[9496]]
        {
            let mut jobs = vec![Job::default(); tiles.len()];
            let mut all = 0;
            for (job, tiles) in jobs.iter_mut().zip(tiles) {
                job.first_block = all;
                all += tiles;
            }
            let threads = share_out_all(&mut jobs, all as usize, 132);
            assert_eq!(threads, 132.min(all as usize), "{tiles:?}");
            let mut done: Vec<_> = tiles.iter().map(|&tiles| vec![0; tiles as usize]).collect();
            for block in 0..threads as i32 {
                // As the kernel does.
                let of = jobs.iter().rposition(|job| block >= job.first_block).unwrap();
                let first = block - jobs[of].first_block;
                let own = (tiles[of] - first + jobs[of].step - 1) / jobs[of].step;
                (0..own).for_each(|i| done[of][(first + i * jobs[of].step) as usize] += 1);
            }
            assert!(done.iter().flatten().all(|&times| times == 1), "{tiles:?}");
        }
    }

    #[test]
    fn warps_wait_for_each_other_only_at_the_end() {
        let at_once = |ty, columns, most, each| {
            let format = Format::of(ty).unwrap();
            Layout::new(columns, &[format], (most, each), H200).map(|layout| layout.at_once)
        };
        // Queries, keys and values; gates and ups; and downs of a 7B model.
        assert_eq!(at_once(TensorType::Q4_K, 4096, 6, 1), Some(6));
        assert_eq!(at_once(TensorType::Q4_K, 4096, 12, 2), Some(12));
        assert_eq!(at_once(TensorType::Q6_K, 11_008, 2, 1), Some(2));
    }
}
