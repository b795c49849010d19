//! Attention over the paged KV cache with a running softmax: memory is one page of scores, however long the
//! context (Milakov and Gimelshein, arXiv:1805.02867; Dao et al., arXiv:2205.14135).
//!
//! Work is cut into tasks of one key/value head and some rows of one sequence. All queries of a task, several
//! rows times the query heads that share the key/value head, go over a page together, so that a page is read (and
//! widened from f16) once for them. Both products are the same small kernel. What happens to one query does
//! not depend on which others are in its task: pages come in order, and a query that may not see a page
//! skips it. So a row's result is the same in any batch.

use std::sync::Mutex;

use super::cache::Cache;
use super::lanes::{F32x8, LANES, versions};
use super::pool::{Parts, Pool, Share};
use super::{Buffer, CpuBackend, Isa};
use crate::{Attention, Batch, PAGE_TOKENS};

/// Queries of a task: enough to share a page's cost, few enough for the scores to stay in the first-level cache.
const QUERIES: usize = 48;

/// Work memory of one thread.
#[derive(Default)]
pub(crate) struct Space {
    page: Vec<f32>,
    queries: Vec<f32>,
    /// `[queries][32]`
    scores: Vec<f32>,
    /// `[queries][padded]`
    out: Vec<f32>,
    running: Vec<Running>,
}

/// The running softmax of a query.
#[derive(Clone, Copy)]
struct Running {
    /// The row's position.
    position: usize,
    /// The largest score so far.
    max: f32,
    /// What earlier sums must be multiplied with after this page.
    factor: f32,
    /// Sum of the exponentials.
    sum: F32x8,
}

/// One key/value head and some rows of one sequence.
pub(crate) struct Task<'a> {
    rows: std::ops::Range<usize>,
    pages: &'a [u32],
    slot: usize,
    kv_head: usize,
    /// Query heads within the group.
    heads: std::ops::Range<usize>,
}

/// Runs the attention of every span of the batch.
#[allow(clippy::too_many_arguments, reason = "kernels have many operands")]
pub(crate) fn run(
    pool: &Pool,
    isa: Isa,
    spaces: &[Mutex<Space>],
    spec: &Attention<'_, CpuBackend>,
    batch: &Batch,
    q: &Buffer,
    cache: &Cache,
    out: &mut Buffer,
) {
    let group = spec.heads / spec.kv_heads;
    let place = cache.layout().layers[spec.layer];
    // A lone row has few tasks: split the heads of a group too if threads would idle.
    let few = batch.spans.len() * spec.kv_heads < 2 * pool.threads() && pool.threads() > 1;
    let heads_a_task = if few && batch.rows() == batch.spans.len() { group.div_ceil(2) } else { group };
    let rows_a_task = (QUERIES / group).max(1);
    let mut tasks = Vec::new();
    for span in &batch.spans {
        for start in span.rows.clone().step_by(rows_a_task) {
            for kv_head in 0..spec.kv_heads {
                for head in (0..group).step_by(heads_a_task) {
                    tasks.push(Task {
                        rows: start..(start + rows_a_task).min(span.rows.end),
                        pages: batch.table(span, place.group),
                        slot: place.slot,
                        kv_head,
                        heads: head..(head + heads_a_task).min(group),
                    });
                }
            }
        }
    }
    // Later rows see more pages: start with the longest tasks.
    tasks.reverse();
    let parts = Parts::new(out.data_mut());
    let share = Share::new(tasks.len(), 1);
    pool.run(&|thread| {
        let mut space = spaces[thread].lock().unwrap_or_else(|e| e.into_inner());
        while let Some(piece) = share.next() {
            for task in &tasks[piece] {
                attend(isa, spec, batch, q, cache, task, &mut space, &parts);
            }
        }
    });
}

#[inline(always)]
fn attend_body(
    spec: &Attention<'_, CpuBackend>,
    batch: &Batch,
    q: &Buffer,
    cache: &Cache,
    task: &Task<'_>,
    space: &mut Space,
    out: &Parts<f32>,
) {
    let Space { page: page_space, queries: q_rows, scores, out: sums, running } = space;
    let dim = spec.head_dim;
    let padded = dim.next_multiple_of(32);
    let group = spec.heads / spec.kv_heads;
    let first_head = task.kv_head * group + task.heads.start;
    let queries = task.rows.len() * task.heads.len();
    page_space.resize(padded * PAGE_TOKENS, 0.0);
    scores.resize(queries * PAGE_TOKENS, 0.0);
    sums.clear();
    sums.resize(queries * padded, 0.0);
    q_rows.clear();
    running.clear();
    for row in task.rows.clone() {
        q_rows.extend_from_slice(&q.row(row)[first_head * dim..(first_head + task.heads.len()) * dim]);
        let position = batch.positions[row] as usize;
        let start = Running { position, max: f32::NEG_INFINITY, factor: 1.0, sum: F32x8::ZERO };
        running.extend(std::iter::repeat_n(start, task.heads.len()));
    }
    let last = batch.positions[task.rows.end - 1] as usize;
    let lowest = |position: usize| spec.window.map_or(0, |w| (position + 1).saturating_sub(w));
    let first_page = lowest(batch.positions[task.rows.start] as usize) / PAGE_TOKENS;
    for (page, &id) in task.pages[..=last / PAGE_TOKENS].iter().enumerate().skip(first_page) {
        let start = page * PAGE_TOKENS;
        let keys = cache.keys(task.slot, id, task.kv_head, page_space);
        scores.fill(0.0);
        products(q_rows, dim, keys, PAGE_TOKENS, scores, PAGE_TOKENS, None);
        for (scores, running) in scores.chunks_exact_mut(PAGE_TOKENS).zip(running.iter_mut()) {
            let from = lowest(running.position).clamp(start, start + PAGE_TOKENS) - start;
            let to = (running.position + 1).clamp(start, start + PAGE_TOKENS) - start;
            softmax_page(spec, scores, running, from, to);
        }
        let tokens = (last + 1 - start).min(PAGE_TOKENS);
        let values = cache.values(task.slot, id, task.kv_head, tokens, page_space);
        products(scores, PAGE_TOKENS, values, padded, sums, padded, Some(running));
    }
    for (r, row) in task.rows.clone().enumerate() {
        for h in 0..task.heads.len() {
            let query = r * task.heads.len() + h;
            let inverse = 1.0 / running[query].sum.sum();
            let at = (row * spec.heads + first_head + h) * dim;
            // SAFETY: rows and heads of different tasks are disjoint.
            let out = unsafe { out.part(at, dim) };
            for (out, &x) in out.iter_mut().zip(&sums[query * padded..]) {
                *out = x * inverse;
            }
        }
    }
}
versions! {
    /// Runs one task.
    fn attend(
        spec: &Attention<'_, CpuBackend>,
        batch: &Batch,
        q: &Buffer,
        cache: &Cache,
        task: &Task<'_>,
        space: &mut Space,
        out: &Parts<f32>,
    ) = attend_body
}

/// Turns a page's raw scores into exponentials and advances the running softmax. Slots outside `from..to` are
/// masked.
#[inline(always)]
fn softmax_page(
    spec: &Attention<'_, CpuBackend>,
    scores: &mut [f32],
    running: &mut Running,
    from: usize,
    to: usize,
) {
    running.factor = 1.0;
    if from >= to {
        scores.fill(0.0);
        return;
    }
    let mut lanes = [F32x8::ZERO; PAGE_TOKENS / LANES];
    for (lane, scores) in lanes.iter_mut().zip(scores.chunks_exact(LANES)) {
        *lane = F32x8::load(scores).mul(F32x8::splat(spec.scale));
        if let Some(cap) = spec.soft_cap {
            *lane = lane.map(|x| x / cap).tanh().mul(F32x8::splat(cap));
        }
    }
    let whole = from == 0 && to == PAGE_TOKENS;
    if !whole {
        for (i, x) in lanes.iter_mut().flat_map(|l| &mut l.0).enumerate() {
            if i < from || i >= to {
                *x = f32::NEG_INFINITY;
            }
        }
    }
    let page_max = lanes.iter().skip(1).fold(lanes[0], |a, &b| a.max(b)).largest();
    if page_max > running.max {
        // The first page's factor multiplies sums that are still 0; e^-inf is 0, not NaN, by `F32x8::exp`.
        running.factor = F32x8::splat(running.max - page_max).exp().0[0];
        running.max = page_max;
    }
    let max = F32x8::splat(running.max);
    let mut sum = running.sum.mul(F32x8::splat(running.factor));
    for (lane, scores) in lanes.iter().zip(scores.chunks_exact_mut(LANES)) {
        let e = lane.sub(max).exp();
        sum = sum.add(e);
        e.store(scores);
    }
    running.sum = sum;
}

/// `c[q] = factor[q] * c[q] + a[q] · b`: `a` is `[queries][inner]`, `b` `[n][width]` with `n ≤ inner`, `c`
/// `[queries][width]`; `width` is a multiple of 32.
#[inline(always)]
fn products(
    a: &[f32],
    inner: usize,
    b: &[f32],
    width: usize,
    c: &mut [f32],
    c_width: usize,
    running: Option<&[Running]>,
) {
    let queries = a.len() / inner;
    let mut first = 0;
    while first < queries {
        let (a, c) = (&a[first * inner..], &mut c[first * c_width..]);
        let factors = |q: usize| running.map_or(1.0, |r| r[first + q].factor);
        match queries - first {
            1 => product::<1>(a, inner, b, width, c, factors),
            2 => product::<2>(a, inner, b, width, c, factors),
            _ => product::<3>(a, inner, b, width, c, factors),
        }
        first += 3;
    }
}

/// [`products`] for T queries: 4 T registers of sums.
#[inline(always)]
fn product<const T: usize>(
    a: &[f32],
    inner: usize,
    b: &[f32],
    width: usize,
    c: &mut [f32],
    factor: impl Fn(usize) -> f32,
) {
    const STRIP: usize = 4 * LANES;
    let rows = b.len() / width;
    let a: [&[f32]; T] = std::array::from_fn(|q| &a[q * inner..][..rows]);
    for strip in (0..width).step_by(STRIP) {
        let mut sums = [[F32x8::ZERO; 4]; T];
        for (q, sums) in sums.iter_mut().enumerate() {
            for (i, sum) in sums.iter_mut().enumerate() {
                let old = F32x8::load(&c[q * width + strip + i * LANES..]);
                *sum = old.mul(F32x8::splat(factor(q)));
            }
        }
        for row in 0..rows {
            let b = &b[row * width + strip..][..STRIP];
            for i in 0..4 {
                let b = F32x8::load(&b[i * LANES..]);
                for q in 0..T {
                    sums[q][i] = F32x8::splat(a[q][row]).mul_add(b, sums[q][i]);
                }
            }
        }
        for (q, sums) in sums.iter().enumerate() {
            for (i, sum) in sums.iter().enumerate() {
                sum.store(&mut c[q * width + strip + i * LANES..]);
            }
        }
    }
}
