//! Mixtures of many rows on Hopper: `experts_hopper.cu`.
//!
//! The rows of each segment are copied together as the form that the kernels read, so that these find them
//! one after the other; the activation is applied while the downs' inputs are made.

use super::super::CudaBackend;
use super::super::buffer::Forms;
use super::super::driver::{Geometry, arguments};
use super::super::elementwise;
use super::super::matrix::{CHUNK, Form};
use super::super::products;
use super::super::state::at_least;
use super::adapters::Products;
use super::kernels::{WIDE_ROWS, Wide};
use super::launch::Segments;
use super::mixture::{Part, address, format};
use super::{Experts, Space};
use crate::{Error, Mixture};

/// The struct `Groups` of `hopper_gemm.cuh`.
#[repr(C)]
struct Groups {
    count: u64,
    segments: u64,
    weights: u64,
    expert_bytes: u64,
    block: i32,
}

/// The struct `Slots` of `experts_hopper.cu`.
#[repr(C)]
struct Slots {
    x: u64,
    rows_of: u64,
    up: u64,
    count: u64,
    segments: u64,
    columns: i32,
    block: i32,
    gate: i32,
    alpha: f32,
    limit: f32,
}

impl CudaBackend {
    /// Returns the kernel for these matrices, if there is one.
    fn wide_kernel(&self, experts: &Experts) -> Option<&Wide> {
        let format = format(experts)?;
        self.kernels.experts.wide.iter().find(|wide| wide.format == format.index)
    }

    /// Returns whether there are kernels for all matrices of a mixture.
    pub(super) fn has_wide(&self, spec: &Mixture<'_, Self>) -> bool {
        let all = [Some(spec.up), Some(spec.down), spec.gate];
        all.into_iter().flatten().all(|experts| self.wide_kernel(experts).is_some())
    }

    /// Computes the results of all places, before they are weighted, and returns their address.
    pub(super) fn wide(&self, space: &mut Space, part: &Part<'_>, at: &Segments) -> Result<u64, Error> {
        let Part { spec, rows, x, .. } = *part;
        let ([_, inner, hidden], pairs) = (spec.up.shape(), rows * spec.routing.used);
        let bytes = pairs * inner * 4;
        let first = at_least(&mut space.gate, &self.device, bytes, false)?.pointer();
        let (kind, [alpha, limit]) = elementwise::gate(spec.activation);
        let factors = if spec.routing.weights_input { at.table.weight_of } else { 0 };
        let mut slots = Slots {
            x,
            rows_of: at.table.row_of,
            up: 0,
            count: at.table.count,
            segments: at.table.segments,
            columns: hidden as i32,
            block: WIDE_ROWS as i32,
            gate: -1,
            alpha,
            limit,
        };
        let (gate_bias, up_bias) = (address(spec.gate_bias), address(spec.up_bias));
        match spec.gate {
            None => {
                let forms = self.slots(space, &slots, spec.up, at)?;
                self.wide_products(&[(spec.up, up_bias, first)], forms, at, factors)?;
            }
            Some(gate) => {
                let second = at_least(&mut space.up, &self.device, bytes, false)?.pointer();
                let both = [(gate, gate_bias, first), (spec.up, up_bias, second)];
                let forms = self.slots(space, &slots, gate, at)?;
                if format(gate) == format(spec.up) {
                    self.wide_products(&both, forms, at, factors)?;
                } else {
                    self.wide_products(&both[..1], forms, at, factors)?;
                    let forms = self.slots(space, &slots, spec.up, at)?;
                    self.wide_products(&both[1..], forms, at, factors)?;
                }
                slots.up = second;
            }
        }
        let by_row = Products {
            table: at.table,
            first: part.first,
            rows,
            used: spec.routing.used,
            x,
            by_place: false,
            weighted: spec.routing.weights_input,
        };
        let ups = if spec.gate.is_some() { slots.up } else { first };
        self.add_changes(&mut space.adapters, &by_row, spec.up_lora, ups)?;
        self.add_changes(&mut space.adapters, &by_row, spec.gate_lora, first)?;
        (slots.x, slots.rows_of, slots.columns, slots.gate) = (first, 0, inner as i32, kind);
        if !spec.down_lora.is_empty() {
            // Adapters of downs read floats.
            self.activate_adapted(spec.activation, first, slots.up, pairs * inner)?;
            (slots.up, slots.gate) = (0, -1);
        }
        let forms = self.slots(space, &slots, spec.down, at)?;
        let results = at_least(&mut space.results, &self.device, pairs * hidden * 4, false)?.pointer();
        self.wide_products(&[(spec.down, 0, results)], forms, at, 0)?;
        let by_place = Products { x: first, by_place: true, weighted: false, ..by_row };
        self.add_changes(&mut space.adapters, &by_place, spec.down_lora, results)?;
        Ok(results)
    }

    /// Makes the forms of all segments' rows for a product with these matrices.
    fn slots(
        &self,
        space: &mut Space,
        slots: &Slots,
        experts: &Experts,
        at: &Segments,
    ) -> Result<Forms, Error> {
        let form = format(experts).and_then(|format| format.many_rows).map_or(0, |form: Form| form as u32);
        let (columns, count) = (slots.columns as usize, at.most * WIDE_ROWS);
        let forms = space.forms(columns);
        forms.room_for(&self.device, count, columns, form)?;
        let forms = forms.describe(columns, form);
        let grid = [count, columns.div_ceil(CHUNK).div_ceil(8), 1];
        let geometry = Geometry { grid, block: 256, shared: 0 };
        let kernel = self.kernels.experts.quantize_slots;
        // SAFETY: the addresses have the rows of all places, and the forms have room for all segments.
        unsafe { self.device.launch(kernel, geometry, arguments![*slots, forms])? };
        Ok(forms)
    }

    /// Multiplies all segments with their experts' matrices, each with its bias and output.
    fn wide_products(
        &self,
        matrices: &[(&Experts, u64, u64)],
        forms: Forms,
        at: &Segments,
        weights: u64,
    ) -> Result<(), Error> {
        let Some(kernel) = self.wide_kernel(matrices[0].0) else {
            return Err(Error::Device("no kernel for a format".into()));
        };
        let stacks: Vec<_> = matrices.iter().map(|&(experts, bias, out)| (&experts.0, bias, out)).collect();
        let (p, blocks) = products::Products::grouped(forms, &stacks, 128);
        let groups = Groups {
            count: at.table.count,
            segments: at.table.segments,
            weights,
            expert_bytes: stacks[0].0.bytes() as u64,
            block: WIDE_ROWS as i32,
        };
        let (.., multiprocessors) = self.device.describe();
        let work = at.most * (WIDE_ROWS / kernel.rows) * blocks;
        let grid = [work.min(multiprocessors as usize), 1, 1];
        let geometry = Geometry { grid, block: 384, shared: kernel.shared };
        let blocks = blocks as i32;
        // SAFETY: shapes were checked, the forms have the rows of all segments, and outputs those of all
        // places.
        unsafe { self.device.launch(kernel.function, geometry, arguments![p, groups, blocks]) }
    }
}
