//! Prepares queries and keys, and writes keys and values to the cache.

use std::ops::Range;

use super::super::cache::Cache;
use super::super::pool::{Parts, Pool, Share};
use super::super::{ALONE, Buffer, CpuBackend, Isa, elementwise, norms};
use crate::{Attention, Batch, Norm, NormSpan, PAGE_TOKENS, Temperature};

/// Implements [`Backend::rope_store`](crate::Backend::rope_store) for operands that were checked.
pub(crate) fn store(
    pool: &Pool,
    isa: Isa,
    spec: &Attention<'_, CpuBackend>,
    batch: &Batch,
    [q, k]: [&mut Buffer; 2],
    v: &Buffer,
    cache: &mut Cache,
) {
    let place = cache.layout().layers[spec.layer];
    let pieces = pieces(batch, place.group);
    let work = batch.rows() * (q.columns + k.columns + v.columns);
    let mut pages: Vec<u32> = pieces.iter().map(|(_, page)| *page).collect();
    pages.sort_unstable();
    let shared = pages.windows(2).any(|p| p[0] == p[1]);
    let (q_columns, k_columns) = (q.columns, k.columns);
    let (q, k, writer) = (Parts::new(q.data_mut()), Parts::new(k.data_mut()), cache.writer());
    let store = |piece: &(Range<usize>, u32)| {
        for row in piece.0.clone() {
            // SAFETY: every row is in one piece.
            let (q, k) = unsafe { (q.part(row * q_columns, q_columns), k.part(row * k_columns, k_columns)) };
            prepare(isa, spec, row, q, spec.q_norm.as_ref());
            prepare(isa, spec, row, k, spec.k_norm.as_ref());
            if let Some(temperature) = spec.temperature {
                elementwise::scale(isa, q, temperature.at(batch.positions[row]));
            }
            let token = batch.positions[row] as usize % PAGE_TOKENS;
            // SAFETY: all rows of a page are in one piece, or this is the only thread.
            unsafe { writer.write(isa, place.slot, piece.1, token, [k, v.row(row)]) };
        }
    };
    if work < ALONE || shared {
        pieces.iter().for_each(store);
    } else {
        let share = Share::new(pieces.len(), 1);
        pool.run(&|_| {
            while let Some(some) = share.next() {
                pieces[some].iter().for_each(store);
            }
        });
    }
}

/// Normalizes and rotates the heads of a row.
fn prepare(
    isa: Isa,
    spec: &Attention<'_, CpuBackend>,
    row: usize,
    x: &mut [f32],
    norm: Option<&Norm<'_, CpuBackend>>,
) {
    let dim = spec.head_dim;
    if let Some(norm) = norm.filter(|_| !spec.norm_after_rope) {
        normalize(isa, spec, x, norm);
    }
    if let Some(rotations) = spec.rotations {
        for head in x.chunks_exact_mut(dim) {
            elementwise::rotate(isa, head, rotations.row(row), spec.style);
        }
    }
    if let Some(norm) = norm.filter(|_| spec.norm_after_rope) {
        normalize(isa, spec, x, norm);
    }
}

fn normalize(isa: Isa, spec: &Attention<'_, CpuBackend>, x: &mut [f32], norm: &Norm<'_, CpuBackend>) {
    if spec.norm_span == NormSpan::Row {
        return norms::norm_in_place(isa, x, norm, 0);
    }
    let dim = spec.head_dim;
    // Each head has parameters of its own, or all share one head's.
    let step = if norm.weight.or(norm.bias).is_some_and(|p| p.len() > dim) { dim } else { 0 };
    for (i, head) in x.chunks_exact_mut(dim).enumerate() {
        norms::norm_in_place(isa, head, norm, i * step);
    }
}

impl Temperature {
    /// The factor at a position.
    fn at(self, position: u32) -> f32 {
        let periods = ((f64::from(position) + f64::from(self.offset)) / f64::from(self.period)).floor();
        ((periods + 1.0).ln() * f64::from(self.scale) + 1.0) as f32
    }
}

/// Cuts the rows of a batch by the pages of a group's tables: each piece is the rows of one sequence that are
/// written to the same page.
fn pieces(batch: &Batch, group: usize) -> Vec<(Range<usize>, u32)> {
    let mut pieces = Vec::new();
    for span in &batch.spans {
        let pages = batch.table(span, group);
        let page = |row: usize| pages[batch.positions[row] as usize / PAGE_TOKENS];
        let mut start = span.rows.start;
        for row in span.rows.clone() {
            if row + 1 == span.rows.end || page(row + 1) != page(row) {
                pieces.push((start..row + 1, page(row)));
                start = row + 1;
            }
        }
    }
    pieces
}
