//! Starts the grouped products: each segment of rows with a matrix of its own.

use std::sync::Arc;

use super::super::CudaBackend;
use super::super::buffer::Forms;
use super::super::driver::{Device, Geometry, Memory, arguments};
use super::super::matrix::{Form, Kind};
use super::super::state::at_least;
use super::Experts;
use super::kernels::{SEGMENT_ROWS, Shape, few_ahead, few_blocks, few_round};
use crate::Error;

/// The table of segments and places, `Table` of `experts.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Table {
    pub(super) count: u64,
    pub(super) segments: u64,
    pub(super) row_of: u64,
    pub(super) weight_of: u64,
    pub(super) place_of: u64,
    pub(super) chosen: u64,
    pub(super) weights: u64,
}

impl Table {
    /// Makes room for so many places and segments.
    pub(super) fn new(
        slot: &mut Option<Memory>,
        device: &Arc<Device>,
        places: usize,
        segments: usize,
    ) -> Result<Self, Error> {
        let each = (4 * places).next_multiple_of(16);
        let at = at_least(slot, device, 16 + 16 * segments + 5 * each, false)?.pointer();
        let array = |i: usize| at + (16 + 16 * segments + i * each) as u64;
        Ok(Self {
            count: at,
            segments: at + 16,
            row_of: array(0),
            weight_of: array(1),
            place_of: array(2),
            chosen: array(3),
            weights: array(4),
        })
    }
}

/// What a grouped product does with its sums; `Mode` of `experts.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Plain = 0,
    Ungated = 1,
    Gated = 2,
}

/// The struct `Grouped` of `grouped.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Grouped {
    weight: [u64; 2],
    bias: [u64; 2],
    out: u64,
    expert_bytes: u64,
    tile_row_bytes: u64,
    x: Forms,
    count: u64,
    segments: u64,
    rows_of: u64,
    outs_of: u64,
    weights: u64,
    factor: [f32; 2],
    alpha: f32,
    limit: f32,
    most: i32,
    share: i32,
    outputs: i32,
    units: i32,
    mode: i32,
    gate: i32,
    round: i32,
}

/// The segments of a grouped product.
#[derive(Clone, Copy)]
pub(super) struct Segments {
    pub(super) table: Table,
    pub(super) shape: Shape,
    /// Segments at most.
    pub(super) most: usize,
    /// There are `most`.
    pub(super) known: bool,
}

/// A grouped product of all places. Matrices are one, or gates and ups of the same layout.
pub(super) struct Product<'a> {
    pub(super) weights: [&'a Experts; 2],
    /// Addresses, or 0.
    pub(super) bias: [u64; 2],
    pub(super) mode: Mode,
    /// Kind, alpha and limit of the activation.
    pub(super) activation: (i32, f32, f32),
    /// What the sums are multiplied with, by place, or 0.
    pub(super) factors: u64,
    /// Rows of input and output by place; 0 where they are in the order of places, `share` of them on each
    /// row of the input.
    pub(super) rows_of: u64,
    pub(super) outs_of: u64,
    pub(super) share: usize,
    pub(super) out: u64,
}

impl CudaBackend {
    /// Multiplies all segments. The input is `floats`, and `forms` holds the form that the matrices need.
    pub(super) fn grouped(
        &self,
        product: &Product<'_>,
        at: &Segments,
        floats: u64,
        forms: Forms,
    ) -> Result<(), Error> {
        let kernels = &self.kernels.experts;
        let [first, second] = product.weights;
        let [_, outputs, columns] = first.shape();
        let (tile_row_bytes, factor) = match first.0.kind {
            Kind::Tiles { tile_row_bytes, factor, .. } => (tile_row_bytes, factor),
            Kind::Floats => (0, 1.0),
        };
        let second_factor = match second.0.kind {
            Kind::Tiles { factor, .. } => factor,
            Kind::Floats => 1.0,
        };
        let units = outputs.div_ceil(if product.mode == Mode::Gated { 16 } else { 32 });
        let (gate, alpha, limit) = product.activation;
        let mut p = Grouped {
            weight: [first.0.memory.pointer(), second.0.memory.pointer()],
            bias: product.bias,
            out: product.out,
            expert_bytes: first.0.bytes() as u64,
            tile_row_bytes: tile_row_bytes as u64,
            x: forms,
            count: if at.known { 0 } else { at.table.count },
            segments: at.table.segments,
            rows_of: product.rows_of,
            outs_of: product.outs_of,
            weights: product.factors,
            factor: [factor, second_factor],
            alpha,
            limit,
            most: at.most as i32,
            share: product.share as i32,
            outputs: outputs as i32,
            units: units as i32,
            mode: product.mode as i32,
            gate,
            round: 0,
        };
        let Kind::Tiles { format, .. } = first.0.kind else {
            let geometry = Geometry { grid: [outputs.div_ceil(8), at.most, 1], block: 256, shared: 0 };
            let columns = columns as i32;
            // SAFETY: shapes were checked, and the table's places are rows of input and output.
            return unsafe {
                self.device.launch(kernels.experts_f32, geometry, arguments![p, floats, columns])
            };
        };
        let (.., multiprocessors) = self.device.describe();
        let few = |index: usize, p: &mut Grouped| {
            let (round, sums) = few_round(format, at.shape.rows(), columns);
            p.round = round as i32;
            let resident = multiprocessors as usize * few_blocks(format, at.shape.rows());
            let grid = [(at.most * units).min(resident), 1, 1];
            let geometry = Geometry { grid, block: 128, shared: sums + few_ahead(format) };
            (kernels.few[format.index as usize][index], geometry)
        };
        let (kernel, geometry) = match at.shape {
            Shape::One => few(0, &mut p),
            Shape::Few(index) => few(1 + index, &mut p),
            Shape::Many | Shape::Wide => {
                let stride = if format.form == Form::F16 { 576 } else { 320 };
                let grid = [units.div_ceil(8), at.most, 1];
                let shared = 2 * SEGMENT_ROWS[3] * stride;
                (kernels.many[format.index as usize], Geometry { grid, block: 256, shared })
            }
        };
        // SAFETY: shapes were checked, the forms are there, and the table's places are rows of input and
        // output.
        unsafe { self.device.launch(kernel, geometry, arguments![p]) }
    }

    /// Makes the forms of all places' rows.
    pub(super) fn quantize_places(
        &self,
        floats: u64,
        places: usize,
        columns: usize,
        forms: Forms,
    ) -> Result<(), Error> {
        let grid = [places, columns.div_ceil(256).div_ceil(4), 1];
        let geometry = Geometry { grid, block: 128, shared: 0 };
        let columns = columns as i32;
        // SAFETY: the forms have room for the places.
        unsafe {
            self.device.launch(
                self.kernels.experts.quantize_places,
                geometry,
                arguments![floats, columns, forms],
            )
        }
    }
}
