//! A mixture of experts: routes rows, and multiplies each with its experts.

use std::ops::Range;
use std::sync::Mutex;

use super::super::aligned::Aligned;
use super::super::format::PANEL;
use super::super::lora::Plan;
use super::super::matmul::{Unpacked, add_panel};
use super::super::matrix::Matrix;
use super::super::pool::{Parts, Pool};
use super::super::{Buffer, CpuBackend, Isa, elementwise};
use super::adapters::{ByExpert, Changes, Input};
use super::inputs::{Inputs, Kinds};
use super::route::{Choice, Group, Grouped, choose};
use super::{Experts, Space, ThreadSpace, share_out};
use crate::Mixture;

/// 16 outputs of a row.
pub(super) type Block = [f32; PANEL];

/// A router of fewer weights than this, over all rows, runs on the calling thread.
const ALONE: usize = 32 * 1024;
/// Most sums that a thread keeps while it goes through the experts: they stay in the first-level cache.
const MOST_SUMS: usize = 256;

/// The choices of all rows.
#[derive(Default)]
pub(super) struct Router {
    /// A row's scores, and room for the ranks of groups, `[rows][experts + groups]`.
    scores: Vec<f32>,
    /// `[rows][used]`
    chosen: Vec<Choice>,
    grouped: Grouped,
    /// The inputs of groups of several rows, for experts of floats.
    gathered: Aligned<f32>,
    /// The activations between the matrices, `[pairs][inner]`.
    hidden: Aligned<f32>,
    /// The products of the adapters' first matrices.
    low_rank: Aligned<f32>,
}

/// What a mixture computes with, beside its work memory.
#[derive(Clone, Copy)]
struct Call<'a> {
    backend: &'a CpuBackend,
    spec: &'a Mixture<'a, CpuBackend>,
    x: &'a Buffer,
    isa: Isa,
    pool: &'a Pool,
}

/// Implements [`Backend::mixture`](crate::Backend::mixture) for operands that were checked.
pub(crate) fn mixture(
    backend: &CpuBackend,
    space: &mut Space,
    x: &Buffer,
    spec: &Mixture<'_, CpuBackend>,
    out: &mut Buffer,
) {
    let rows = x.rows();
    if rows == 0 {
        return;
    }
    let call = Call { backend, spec, x, isa: backend.isa, pool: &backend.pool };
    let Space { router, x: input, hidden, threads } = space;
    let [experts, inner, columns] = spec.up.shape();
    let used = spec.routing.used;
    let of_experts = || [Some(spec.up), spec.gate].into_iter().flatten().map(|e| &e.matrix);
    let kinds = Kinds::of(call.isa, of_experts().chain([spec.router]));
    // One row is a group of its own for all its experts.
    let most = if rows > 1 { rows * (1 + used) } else { 1 };
    input.prepare(call.isa, kinds, most, columns);
    let fills = input.fills(call.isa, kinds);
    fills.each(call.pool, rows, rows * columns, |fills, row| {
        // SAFETY: every row is filled once.
        unsafe { fills.tile(&(row..row + 1), 0, |row| x.row(row)) };
    });
    call.score(router, input, threads);
    call.choose(router);
    let inputs = router.grouped.fill(experts, used, &router.chosen);
    let Router { chosen, grouped, gathered, hidden: between, low_rank, .. } = router;
    if inputs > rows {
        fills.each(call.pool, grouped.tiles.len(), inputs * columns, |fills, item| {
            let [group, tile] = grouped.tiles[item];
            let Group { pairs, input, .. } = &grouped.groups[group as usize];
            if pairs.len() > 1 {
                let row = |at: usize| x.row(grouped.pairs[pairs.start + at - input].row as usize);
                // SAFETY: every tile of every group is filled once.
                unsafe { fills.tile(&(*input..input + pairs.len()), tile as usize, row) };
            }
        });
        if Kinds::of(call.isa, of_experts()).floats {
            call.gather(grouped, gathered, rows, inputs);
        }
    }
    between.reserve(chosen.len() * inner);
    let on = (call.isa, call.pool);
    {
        let adapted = !(spec.gate_lora.is_empty() && spec.up_lora.is_empty());
        let sorted = adapted
            .then(|| [spec.gate_lora, spec.up_lora].map(|l| ByExpert::new(l, grouped, used, Input::Rows)));
        // The products are the groups' gates, and then their ups.
        let plan = sorted.as_ref().and_then(|[gates, ups]| {
            Plan::new(gates.changes(spec.gate_lora).chain(ups.changes(spec.up_lora)))
        });
        let changes = Changes::new(on, plan, (x.data(), columns), low_rank);
        call.inner(grouped, input, gathered, between, changes.as_ref(), threads);
    }
    let kinds = Kinds::of(call.isa, [&spec.down.matrix]);
    hidden.prepare(call.isa, kinds, chosen.len(), inner);
    let fills = hidden.fills(call.isa, kinds);
    fills.each(call.pool, grouped.tiles.len(), chosen.len() * inner, |fills, item| {
        let [group, tile] = grouped.tiles[item];
        let pairs = &grouped.groups[group as usize].pairs;
        // SAFETY: every tile of every group is filled once.
        unsafe { fills.tile(pairs, tile as usize, |pair| &between[pair * inner..][..inner]) };
    });
    let sorted =
        (!spec.down_lora.is_empty()).then(|| ByExpert::new(spec.down_lora, grouped, used, Input::Pairs));
    let plan = sorted.as_ref().and_then(|downs| Plan::new(downs.changes(spec.down_lora)));
    let changes = Changes::new(on, plan, (between, inner), low_rank);
    call.outer(grouped, hidden, between, changes.as_ref(), threads, out);
    call.observe(grouped, between);
}

/// The columns of a panel of `outputs`.
fn columns(panel: usize, outputs: usize) -> Range<usize> {
    panel * PANEL..outputs.min((panel + 1) * PANEL)
}

/// A panel's products with `count` rows.
fn product(
    isa: Isa,
    matrix: &Matrix,
    panel: usize,
    rows: super::super::matmul::Rows<'_>,
    count: usize,
    unpacked: &mut Unpacked,
    sums: &mut Vec<Block>,
) {
    sums.clear();
    sums.resize(count, [0.0; PANEL]);
    add_panel(isa, matrix, panel, rows, unpacked, sums);
}

/// Adds an expert's part of a vector of all experts, `[experts * outputs]`, to the columns of a row.
fn add_bias(x: &mut [f32], bias: Option<&Vec<f32>>, expert: usize, outputs: usize, columns: &Range<usize>) {
    if let Some(bias) = bias {
        let bias = &bias[expert * outputs..][columns.clone()];
        x.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
    }
}

impl Call<'_> {
    /// Adds up the inputs of all matrices, if the backend observes them.
    fn observe(&self, grouped: &Grouped, between: &[f32]) {
        let (spec, x) = (self.spec, self.x);
        let Some(inputs) = &self.backend.inputs else { return };
        let [experts, inner, columns] = spec.up.shape();
        inputs.add(spec.router.address(), [1, columns], (0..x.rows()).map(|row| (0, x.row(row))));
        let pairs = || {
            grouped.groups.iter().flat_map(|group| {
                let expert = group.expert;
                group.pairs.clone().map(move |pair| (expert, pair))
            })
        };
        for matrices in [spec.gate, Some(spec.up)].into_iter().flatten() {
            let rows = pairs().map(|(expert, pair)| (expert, x.row(grouped.pairs[pair].row as usize)));
            inputs.add(matrices.address(), [experts, columns], rows);
        }
        let rows = pairs().map(|(expert, pair)| (expert, &between[pair * inner..][..inner]));
        inputs.add(spec.down.address(), [experts, inner], rows);
    }

    /// Computes every row's scores.
    fn score(&self, router: &mut Router, input: &Inputs, threads: &[Mutex<ThreadSpace>]) {
        let Self { spec, x, isa, .. } = *self;
        let (rows, experts) = (x.rows(), spec.router.rows());
        let width = experts + spec.routing.groups.map_or(0, |groups| groups.count);
        router.scores.resize(rows * width, 0.0);
        let scores = Parts::new(&mut router.scores);
        // Each quantized row is a group of its own.
        let together = if spec.router.packed().is_some() { 1 } else { rows };
        let some = |panels: Range<usize>, space: &mut ThreadSpace| {
            for panel in panels {
                let columns = columns(panel, experts);
                for first in (0..rows).step_by(together) {
                    let of = input.rows(first, &x.data()[first * x.columns()..], x.columns());
                    product(isa, spec.router, panel, of, together, &mut space.unpacked, &mut space.sums);
                    for (row, sums) in (first..).zip(&space.sums) {
                        // SAFETY: a panel's scores are this thread's alone.
                        let out = unsafe { scores.part(row * width + columns.start, columns.len()) };
                        out.copy_from_slice(&sums[..columns.len()]);
                        add_bias(out, spec.router_bias, 0, 0, &columns);
                    }
                }
            }
        };
        let panels = experts.div_ceil(PANEL);
        if rows * experts * x.columns() < ALONE {
            some(0..panels, &mut threads[0].lock().unwrap_or_else(|e| e.into_inner()));
        } else {
            share_out(self.pool, threads, panels, 64, some);
        }
    }

    /// Chooses every row's experts.
    fn choose(&self, router: &mut Router) {
        let Self { spec, isa, .. } = *self;
        let (rows, experts, used) = (self.x.rows(), spec.router.rows(), spec.routing.used);
        let width = router.scores.len() / rows;
        router.chosen.resize(rows * used, Choice::default());
        let (scores, chosen) = (Parts::new(&mut router.scores), Parts::new(&mut router.chosen));
        self.backend.rows(rows, 8 * width, |row| {
            // SAFETY: every row is handed out once.
            let (scores, chosen) =
                unsafe { (scores.part(row * width, width), chosen.part(row * used, used)) };
            let (scores, ranks) = scores.split_at_mut(experts);
            choose(isa, &spec.routing, scores, spec.selection_bias.map(Vec::as_slice), ranks, chosen);
        });
    }

    /// Copies the floats of groups of several rows to where they lie together.
    fn gather(&self, grouped: &Grouped, to: &mut Aligned<f32>, rows: usize, inputs: usize) {
        let columns = self.x.columns();
        to.reserve((inputs - rows) * columns);
        let to = Parts::new(to);
        self.backend.rows(grouped.groups.len(), columns * (inputs - rows), |group| {
            let Group { pairs, input, .. } = &grouped.groups[group];
            if pairs.len() > 1 {
                for (i, pair) in grouped.pairs[pairs.clone()].iter().enumerate() {
                    // SAFETY: every pair is copied once.
                    let to = unsafe { to.part((input - rows + i) * columns, columns) };
                    to.copy_from_slice(self.x.row(pair.row as usize));
                }
            }
        });
    }

    /// Computes `activation(gate, up)` of every pair, `[pairs][inner]`.
    fn inner(
        &self,
        grouped: &Grouped,
        input: &Inputs,
        gathered: &Aligned<f32>,
        out: &mut Aligned<f32>,
        changes: Option<&Changes<'_>>,
        threads: &[Mutex<ThreadSpace>],
    ) {
        let Self { spec, x, isa, .. } = *self;
        let (inner, panels, groups) = (spec.up.outputs, spec.up.panels(), grouped.groups.len());
        let out = Parts::new(out);
        share_out(self.pool, threads, groups * panels, 64, |items, space| {
            for item in items {
                let index = grouped.largest_first[item / panels] as usize;
                let group = &grouped.groups[index];
                let (panel, pairs) = (item % panels, &grouped.pairs[group.pairs.clone()]);
                let floats = match pairs {
                    [pair] => x.row(pair.row as usize),
                    _ => gathered.get((group.input - x.rows()) * x.columns()..).unwrap_or_default(),
                };
                let rows = input.rows(group.input, floats, x.columns());
                let columns = columns(panel, inner);
                let ThreadSpace { unpacked, gate, up, .. } = &mut *space;
                let mut multiply = |experts: &Experts, bias, of: usize, sums: &mut Vec<Block>| {
                    let at = group.expert * panels + panel;
                    product(isa, &experts.matrix, at, rows, pairs.len(), unpacked, sums);
                    if let Some(changes) = changes {
                        changes.add(isa, of * groups + index, panel, sums);
                    }
                    for (sums, pair) in sums.iter_mut().zip(pairs) {
                        if spec.routing.weights_input {
                            sums.iter_mut().for_each(|x| *x *= pair.weight);
                        }
                        add_bias(sums, bias, group.expert, inner, &columns);
                    }
                };
                multiply(spec.up, spec.up_bias, 1, up);
                let active = match spec.gate {
                    Some(experts) => {
                        multiply(experts, spec.gate_bias, 0, gate);
                        let (gate_sums, up_sums) = (gate.as_flattened_mut(), up.as_flattened());
                        elementwise::gated_activation(isa, spec.activation, gate_sums, up_sums);
                        &*gate
                    }
                    None => {
                        elementwise::activation(isa, spec.activation, up.as_flattened_mut());
                        &*up
                    }
                };
                for (active, pair) in active.iter().zip(group.pairs.clone()) {
                    // SAFETY: a panel's columns of a pair are this thread's alone.
                    let out = unsafe { out.part(pair * inner + columns.start, columns.len()) };
                    out.copy_from_slice(&active[..columns.len()]);
                }
            }
        });
    }

    /// Computes the weighted sums of the downs.
    fn outer(
        &self,
        grouped: &Grouped,
        hidden: &Inputs,
        between: &[f32],
        changes: Option<&Changes<'_>>,
        threads: &[Mutex<ThreadSpace>],
        out: &mut Buffer,
    ) {
        let Self { spec, isa, .. } = *self;
        let (inner, panels, rows) = (spec.up.outputs, spec.down.panels(), self.x.rows());
        let outputs = spec.down.outputs;
        let out = Parts::new(out.data_mut());
        share_out(self.pool, threads, panels, MOST_SUMS / rows, |piece, space| {
            let ThreadSpace { unpacked, up: products, sums, .. } = &mut *space;
            sums.clear();
            sums.resize(piece.len() * rows, [0.0; PANEL]);
            for (index, group) in grouped.groups.iter().enumerate() {
                let pairs = &grouped.pairs[group.pairs.clone()];
                let input = hidden.rows(group.pairs.start, &between[group.pairs.start * inner..], inner);
                for (panel, sums) in piece.clone().zip(sums.chunks_exact_mut(rows)) {
                    let of = group.expert * panels + panel;
                    product(isa, &spec.down.matrix, of, input, pairs.len(), unpacked, products);
                    if let Some(changes) = changes {
                        changes.add(isa, index, panel, products);
                    }
                    for (product, pair) in products.iter_mut().zip(pairs) {
                        add_bias(product, spec.down_bias, group.expert, outputs, &columns(panel, outputs));
                        let weight = if spec.routing.weights_input { 1.0 } else { pair.weight };
                        let sums = &mut sums[pair.row as usize];
                        sums.iter_mut().zip(&*product).for_each(|(sum, x)| *sum += weight * x);
                    }
                }
            }
            for (panel, sums) in piece.zip(sums.chunks_exact(rows)) {
                let columns = columns(panel, outputs);
                for (row, sums) in sums.iter().enumerate() {
                    // SAFETY: a panel's columns of the output are this thread's alone.
                    let out = unsafe { out.part(row * outputs + columns.start, columns.len()) };
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = if spec.accumulate { *out + sum } else { *sum };
                    }
                }
            }
        });
    }
}
