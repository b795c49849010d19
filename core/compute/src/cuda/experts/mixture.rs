//! A mixture of experts: routes rows, and multiplies each with its experts.

use super::super::buffer::{Buffer, Forms};
use super::super::driver::{Geometry, arguments};
use super::super::matrix::{Format, Kind};
use super::super::state::at_least;
use super::super::{CudaBackend, Vector, elementwise};
use super::adapters::Products;
use super::kernels::{MOST_EXPERTS, MOST_USED, ROUTE_SHAPES, Shape, row_downs_shared};
use super::launch::{Mode, Product, Segments, Table};
use super::{Experts, Space};
use crate::{Backend, Error, Gating, GroupRank, MatMul, Mixture, checks};

/// Pairs of a row and an expert that go at once; this bounds the work memory.
const MOST_PAIRS: usize = 32_768;

/// The struct `Route` of `route.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Route {
    router: u64,
    x: u64,
    router_bias: u64,
    selection_bias: u64,
    scores: u64,
    tickets: u64,
    table: Table,
    rows: i32,
    experts: i32,
    columns: i32,
    used: i32,
    gating: i32,
    groups: i32,
    groups_used: i32,
    by_two: i32,
    normalize: i32,
    scale: f32,
    block: i32,
}

/// The struct `Downs` of `experts.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Downs {
    weight: u64,
    bias: u64,
    hidden: u64,
    out: u64,
    expert_bytes: u64,
    tile_row_bytes: u64,
    chosen: u64,
    weights: u64,
    factor: f32,
    columns: i32,
    outputs: i32,
    used: i32,
    accumulate: i32,
}

/// Some rows of a mixture.
pub(super) struct Part<'a> {
    pub(super) spec: &'a Mixture<'a, CudaBackend>,
    pub(super) first: usize,
    pub(super) rows: usize,
    /// Addresses of the input's rows, their forms, the scores (if the router is not of floats), and the
    /// output's rows.
    pub(super) x: u64,
    forms: Forms,
    scores: Option<u64>,
    out: u64,
}

/// Returns the address of a vector, or 0.
pub(super) fn address(vector: Option<&Vector>) -> u64 {
    vector.map_or(0, |vector| vector.memory.pointer())
}

/// Returns whether each pair is a segment of its own, which takes fewer launches: for one row or two, and for
/// more where fewer than about a tenth of their experts are the same.
fn alone(rows: usize, used: usize, experts: usize) -> bool {
    rows <= 2 || 5 * (rows - 1) * used <= experts
}

/// Returns the shape of segments for so many pairs: by the rows that an expert has on average. `wide` says
/// whether Hopper's kernels have all types of the mixture; they pay where there is enough to do for all
/// multiprocessors.
fn segment_shape(pairs: usize, experts: usize, wide: bool) -> Shape {
    match Shape::of([3, 9, 24].into_iter().filter(|most| pairs > most * experts).count()) {
        Shape::Many if wide => Shape::Wide,
        Shape::Few(2) if wide && pairs >= 1024 => Shape::Wide,
        shape => shape,
    }
}

impl CudaBackend {
    /// Implements [`Backend::mixture`].
    pub(crate) fn mix(&self, x: &Buffer, spec: &Mixture<'_, Self>, out: &mut Buffer) -> Result<(), Error> {
        checks::mixture(self, x, spec, out)?;
        let ([experts, ..], used) = (spec.up.shape(), spec.routing.used);
        if experts > MOST_EXPERTS || used > MOST_USED {
            return Err(Error::Unsupported(format!(
                "CUDA has mixtures of at most {MOST_EXPERTS} experts, {MOST_USED} for a row, not {used} of \
                 {experts}; load the model on the CPU"
            )));
        }
        out.set_rows(x.rows())?;
        if x.rows() == 0 {
            return Ok(());
        }
        let routed = match spec.router.kind {
            Kind::Floats => None,
            Kind::Tiles { .. } => Some(self.routed(x, spec)?),
        };
        let mut state = self.state()?;
        state.wait_for_weights(&self.device)?;
        // A multiple of the rows that a router takes at once.
        let most = MOST_PAIRS / used / 64 * 64;
        let wide = |rows: usize| self.shape(spec, rows) == Shape::Wide;
        let needed = if wide(x.rows().min(most)) && (x.rows().is_multiple_of(most) || wide(x.rows() % most)) {
            0
        } else {
            spec.up.form() | spec.gate.map_or(0, Experts::form)
        };
        let forms = self.forms_of(x, needed)?;
        for first in (0..x.rows()).step_by(most) {
            let from = |width: usize| (first * width * 4) as u64;
            let part = Part {
                spec,
                first,
                rows: most.min(x.rows() - first),
                x: x.pointer() + from(x.columns),
                forms: forms.skip_rows(first),
                scores: routed.as_ref().map(|scores| scores.pointer() + from(experts)),
                out: out.pointer() + from(out.columns),
            };
            self.part(&mut state.experts, &part)?;
        }
        if routed.is_some() {
            state.experts.routed = routed;
        }
        Ok(())
    }

    /// Computes the scores of a router that is not of floats.
    fn routed(&self, x: &Buffer, spec: &Mixture<'_, Self>) -> Result<Buffer, Error> {
        let kept = self.state()?.experts.routed.take();
        let mut scores = match kept {
            Some(scores) if scores.columns == spec.router.rows => scores,
            _ => self.buffer(x.rows(), spec.router.rows)?,
        };
        let (weight, bias) = (spec.router, spec.router_bias);
        self.matmul(x, &mut [MatMul { weight, bias, out: &mut scores, accumulate: false, lora: &[] }])?;
        Ok(scores)
    }

    /// Returns the shape of the segments of so many rows.
    fn shape(&self, spec: &Mixture<'_, Self>, rows: usize) -> Shape {
        let ([experts, ..], used) = (spec.up.shape(), spec.routing.used);
        if alone(rows, used, experts) {
            Shape::One
        } else {
            segment_shape(rows * used, experts, self.has_wide(spec))
        }
    }

    fn part(&self, space: &mut Space, part: &Part<'_>) -> Result<(), Error> {
        let Part { spec, rows, .. } = *part;
        let ([experts, inner, hidden], used) = (spec.up.shape(), spec.routing.used);
        let pairs = rows * used;
        let alone = alone(rows, used, experts);
        let shape = self.shape(spec, rows);
        let most = if alone { pairs } else { pairs.min(pairs / shape.rows() + experts) };
        let table = Table::new(&mut space.table, &self.device, pairs, most)?;
        let at = Segments { table, shape, most, known: alone };
        self.route(space, part, table, if alone { 0 } else { shape.rows() })?;
        let factors = if spec.routing.weights_input { 0 } else { table.weights };
        if shape == Shape::Wide {
            let results = self.wide(space, part, &at)?;
            return self.combine(part, table, results, factors);
        }
        let between = self.inner(space, part, &at)?;
        if let Kind::Tiles { format, tile_row_bytes, factor } = spec.down.0.kind
            && alone
            && spec.down_lora.is_empty()
            && let Some(shared) = row_downs_shared(format, used, inner)
        {
            let p = Downs {
                weight: spec.down.0.memory.pointer(),
                bias: address(spec.down_bias),
                hidden: between,
                out: part.out,
                expert_bytes: spec.down.0.bytes() as u64,
                tile_row_bytes: tile_row_bytes as u64,
                chosen: table.chosen,
                weights: factors,
                factor,
                columns: inner as i32,
                outputs: hidden as i32,
                used: used as i32,
                accumulate: spec.accumulate as i32,
            };
            let grid = [hidden.div_ceil(16), rows, 1];
            let (.., multiprocessors) = self.device.describe();
            // Twice as many warps, where each block has a multiprocessor for itself.
            let block = if grid[0] * rows <= multiprocessors as usize { 512 } else { 256 };
            let geometry = Geometry { grid, block, shared };
            let kernel = self.kernels.experts.row_downs[format.index as usize];
            // SAFETY: shapes were checked, and pairs are in the order of rows.
            return unsafe { self.device.launch(kernel, geometry, arguments![p]) };
        }
        let form = spec.down.form();
        let forms = space.forms(inner);
        forms.room_for(&self.device, pairs, inner, form)?;
        let forms = forms.describe(inner, form);
        if form != 0 {
            self.quantize_places(between, pairs, inner, forms)?;
        }
        let results = at_least(&mut space.results, &self.device, pairs * hidden * 4, false)?.pointer();
        let product = Product {
            weights: [spec.down; 2],
            bias: [0; 2],
            mode: Mode::Plain,
            activation: (0, 0.0, 0.0),
            factors: 0,
            rows_of: 0,
            outs_of: 0,
            share: 1,
            out: results,
        };
        self.grouped(&product, &at, between, forms)?;
        let changed =
            Products { table, first: part.first, rows, used, x: between, by_place: true, weighted: false };
        self.add_changes(&mut space.adapters, &changed, spec.down_lora, results)?;
        self.combine(part, table, results, factors)
    }

    /// Adds up each row's results.
    fn combine(&self, part: &Part<'_>, table: Table, results: u64, factors: u64) -> Result<(), Error> {
        let Part { spec, rows, .. } = *part;
        let ([.., hidden], used) = (spec.up.shape(), spec.routing.used);
        let geometry = Geometry { grid: [hidden.div_ceil(256), rows, 1], block: 256, shared: 0 };
        let (bias, out) = (address(spec.down_bias), part.out);
        let (outputs, used, accumulate) = (hidden as i32, used as i32, spec.accumulate as i32);
        let (place_of, chosen) = (table.place_of, table.chosen);
        let arguments = arguments![results, bias, place_of, chosen, factors, out, outputs, used, accumulate];
        // SAFETY: shapes were checked, and the table holds the rows' places.
        unsafe { self.device.launch(self.kernels.experts.combine, geometry, arguments) }
    }

    /// Chooses each row's experts, and makes the table.
    fn route(&self, space: &mut Space, part: &Part<'_>, table: Table, block: usize) -> Result<(), Error> {
        let Part { spec, rows, x, .. } = *part;
        let [experts, _, columns] = spec.up.shape();
        let shape = [2, 64].into_iter().filter(|&most| rows > most).count();
        let (group, wide) = ROUTE_SHAPES[shape];
        let groups = rows.div_ceil(group);
        let tickets = at_least(&mut space.tickets, &self.device, 4 * (1 + groups), true)?.pointer();
        let scores = match part.scores {
            Some(scores) => scores,
            None => at_least(&mut space.scores, &self.device, rows * experts * 4, false)?.pointer(),
        };
        let routing = &spec.routing;
        let p = Route {
            router: if part.scores.is_some() { 0 } else { spec.router.memory.pointer() },
            x,
            router_bias: address(spec.router_bias),
            selection_bias: address(spec.selection_bias),
            scores,
            tickets,
            table,
            rows: rows as i32,
            experts: experts as i32,
            columns: columns as i32,
            used: routing.used as i32,
            gating: match routing.gating {
                Gating::Softmax => 0,
                Gating::Sigmoid => 1,
                Gating::SoftmaxOfChosen => 2,
            },
            groups: routing.groups.map_or(0, |groups| groups.count as i32),
            groups_used: routing.groups.map_or(0, |groups| groups.used as i32),
            by_two: routing.groups.is_some_and(|groups| groups.rank == GroupRank::BestTwo) as i32,
            normalize: routing.normalize as i32,
            scale: routing.scale,
            block: block as i32,
        };
        let across = if part.scores.is_some() { 1 } else { experts.div_ceil(wide) };
        let geometry = Geometry { grid: [across, groups, 1], block: 256, shared: 0 };
        // SAFETY: shapes were checked, and the table has room for all pairs and segments.
        unsafe { self.device.launch(self.kernels.experts.route[shape], geometry, arguments![p]) }
    }

    /// Computes `activation(gate, up)` of every place, and returns the address.
    fn inner(&self, space: &mut Space, part: &Part<'_>, at: &Segments) -> Result<u64, Error> {
        let Part { spec, rows, x, forms, .. } = *part;
        let ([_, inner, _], pairs) = (spec.up.shape(), rows * spec.routing.used);
        let (kind, [alpha, limit]) = elementwise::gate(spec.activation);
        let biases = [address(spec.gate_bias), address(spec.up_bias)];
        let between = at_least(&mut space.gate, &self.device, pairs * inner * 4, false)?.pointer();
        let product = |weights, bias, mode, out| Product {
            weights,
            bias,
            mode,
            activation: (kind, alpha, limit),
            factors: if spec.routing.weights_input { at.table.weight_of } else { 0 },
            rows_of: if at.known { 0 } else { at.table.row_of },
            outs_of: 0,
            share: if at.known { spec.routing.used } else { 1 },
            out,
        };
        if !(spec.gate_lora.is_empty() && spec.up_lora.is_empty()) {
            let changed = Products {
                table: at.table,
                first: part.first,
                rows,
                used: spec.routing.used,
                x,
                by_place: false,
                weighted: spec.routing.weights_input,
            };
            let up = match spec.gate {
                Some(_) => at_least(&mut space.up, &self.device, pairs * inner * 4, false)?.pointer(),
                None => between,
            };
            self.grouped(&product([spec.up; 2], [biases[1]; 2], Mode::Plain, up), at, x, forms)?;
            self.add_changes(&mut space.adapters, &changed, spec.up_lora, up)?;
            if let Some(gate) = spec.gate {
                self.grouped(&product([gate; 2], [biases[0]; 2], Mode::Plain, between), at, x, forms)?;
                self.add_changes(&mut space.adapters, &changed, spec.gate_lora, between)?;
            }
            let up = if spec.gate.is_some() { up } else { 0 };
            self.activate_adapted(spec.activation, between, up, pairs * inner)?;
            return Ok(between);
        }
        let Some(gate) = spec.gate else {
            let product = product([spec.up; 2], [biases[1]; 2], Mode::Ungated, between);
            self.grouped(&product, at, x, forms)?;
            return Ok(between);
        };
        if format(gate).is_some() && format(gate) == format(spec.up) {
            self.grouped(&product([gate, spec.up], biases, Mode::Gated, between), at, x, forms)?;
            return Ok(between);
        }
        // Different types, or floats.
        let up = at_least(&mut space.up, &self.device, pairs * inner * 4, false)?.pointer();
        self.grouped(&product([gate; 2], [biases[0]; 2], Mode::Plain, between), at, x, forms)?;
        self.grouped(&product([spec.up; 2], [biases[1]; 2], Mode::Plain, up), at, x, forms)?;
        let len = pairs * inner;
        let geometry = Geometry { grid: [len.div_ceil(256), 1, 1], block: 256, shared: 0 };
        let len = len as u64;
        // SAFETY: both have `len` numbers.
        unsafe {
            let arguments = arguments![between, up, len, kind, alpha, limit];
            self.device.launch(self.kernels.experts.activate_places, geometry, arguments)?;
        }
        Ok(between)
    }
}

/// Returns the layout of tiles; `None` for floats.
pub(super) fn format(experts: &Experts) -> Option<Format> {
    match experts.0.kind {
        Kind::Tiles { format, .. } => Some(format),
        Kind::Floats => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_grow_with_the_rows_of_an_expert() {
        let rows =
            |rows: usize, used: usize, experts: usize| segment_shape(rows * used, experts, false).rows();
        let wide =
            |rows: usize, used: usize, experts: usize| segment_shape(rows * used, experts, true).rows();
        // Qwen3-30B-A3B and gpt-oss-20b.
        assert_eq!([1, 2, 4, 5].map(|n| alone(n, 8, 128)), [true, true, true, false]);
        assert_eq!([1, 2, 3].map(|n| alone(n, 4, 32)), [true, true, false]);
        assert_eq!([16, 64, 256, 2048].map(|n| rows(n, 8, 128)), [8, 16, 32, 64]);
        assert_eq!([8, 16, 64, 2048].map(|n| rows(n, 4, 32)), [8, 8, 16, 64]);
        assert_eq!([64, 128, 256, 2048].map(|n| wide(n, 8, 128)), [16, 16, 128, 128]);
        assert_eq!([64, 128, 256, 2048].map(|n| wide(n, 4, 32)), [16, 32, 128, 128]);
    }
}
