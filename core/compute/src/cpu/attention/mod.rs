//! Attention over the paged KV cache with a running softmax: memory is one page of scores, for any length of
//! context (Milakov and Gimelshein, arXiv:1805.02867; Dao et al., arXiv:2205.14135).
//!
//! Work is cut into tasks of one key/value head and some rows of one sequence. All queries of a task (its
//! rows times the query heads that share the key/value head, or some of them) go over a page together, so a
//! page is read and widened once for them. A query's result does not depend on the other queries of its task:
//! pages come in order, and a query skips pages that it may not see. So a row's result is the same in any
//! batch.
//!
//! The softmax runs within chunks of a fixed number of pages, and the results of the chunks are merged in
//! order. If there are too few tasks for the threads, as when one long sequence decodes, each chunk becomes a
//! task of its own, which does not change the result.

mod page;
mod store;

use std::ops::Range;
use std::sync::Mutex;

use super::cache::Cache;
use super::pool::{Parts, Pool, Share};
use super::wide::{Kernel, WIDTH, Wide, dispatch};
use super::{Buffer, CpuBackend, Isa};
use crate::{Attention, Batch, PAGE_TOKENS, Window};
use page::{Running, common_score, product};
pub(crate) use store::store;

/// Queries per task: enough to share a page's cost, few enough for the scores to stay in the first-level
/// cache.
const QUERIES: usize = 48;

/// Pages per chunk.
const CHUNK: usize = 8;

/// A task of fewer multiplications than this runs on the calling thread, which is done before it could wake
/// another.
const ALONE: usize = 128 * 1024;

/// Work memory of one thread.
#[derive(Default)]
pub(crate) struct Space {
    page: Vec<f32>,
    queries: Vec<f32>,
    /// `[queries][32]`
    scores: Vec<f32>,
    running: Vec<Running>,
    /// Results of the current chunk, and of the chunks before it.
    chunk: Partial,
    total: Partial,
}

/// Unfinished results of some queries.
#[derive(Default)]
struct Partial {
    /// Sums of values weighted with exponentials, `[queries][padded]`.
    out: Vec<f32>,
    states: Vec<State>,
}

/// The reference point of a query's sums.
#[derive(Clone, Copy)]
struct State {
    /// The largest score; -∞ if the query has seen no key.
    max: f32,
    /// Sum of the exponentials.
    sum: f32,
}

impl State {
    const NOTHING: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };
}

impl Partial {
    /// Resets to queries that have seen no key.
    fn clear(&mut self, queries: usize, padded: usize) {
        self.out.clear();
        self.out.resize(queries * padded, 0.0);
        self.states.clear();
        self.states.resize(queries, State::NOTHING);
    }
}

/// Some query heads of one key/value head, and some rows of one sequence.
struct Task<'a> {
    rows: Range<usize>,
    table: &'a [u32],
    kv_head: usize,
    heads: Range<usize>,
    /// The pages that the rows see: all of them, or one chunk's.
    pages: Range<usize>,
    /// Where to put the result of a single chunk.
    part: Option<&'a Mutex<Partial>>,
}

impl Task<'_> {
    fn queries(&self) -> usize {
        self.rows.len() * self.heads.len()
    }

    fn cost(&self) -> usize {
        self.pages.len() * self.queries()
    }
}

/// The first position that a row at `position` attends to.
fn lowest(window: Option<Window>, position: usize) -> usize {
    window.map_or(0, |w| w.first(position))
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
    let rows_a_task = (QUERIES / group).max(1);
    let head_pieces = group.div_ceil(QUERIES);
    let mut tasks = Vec::new();
    for span in &batch.spans {
        for start in span.rows.clone().step_by(rows_a_task) {
            let rows = start..(start + rows_a_task).min(span.rows.end);
            let first = lowest(spec.window, batch.positions[start] as usize);
            let last = batch.positions[rows.end - 1] as usize;
            for piece in 0..spec.kv_heads * head_pieces {
                let kv_head = piece / head_pieces;
                let end = |piece: usize| kv_head * group + piece * group / head_pieces;
                tasks.push(Task {
                    rows: rows.clone(),
                    table: batch.table(span, place.group),
                    kv_head,
                    heads: end(piece % head_pieces)..end(piece % head_pieces + 1),
                    pages: first / PAGE_TOKENS..last / PAGE_TOKENS + 1,
                    part: None,
                });
            }
        }
    }
    let call = Call { spec, batch, q, cache, slot: place.slot, out: Parts::new(out.data_mut()) };
    let cost: usize = tasks.iter().map(Task::cost).sum();
    if pool.threads() == 1 || cost * 2 * PAGE_TOKENS * spec.head_dim < ALONE {
        let mut space = lock(&spaces[0]);
        return tasks.iter().for_each(|task| dispatch(isa, Attend { call, task, space: &mut space }));
    }
    // Tasks that would keep one thread busy while the others are idle are cut into chunks.
    let (long, mut tasks): (Vec<_>, Vec<_>) = tasks
        .into_iter()
        .partition(|task| task.cost() * 4 * pool.threads() > cost && chunks(&task.pages).len() > 1);
    let parts: Vec<Vec<Mutex<Partial>>> =
        long.iter().map(|task| chunks(&task.pages).map(|_| Mutex::default()).collect()).collect();
    for (task, parts) in long.iter().zip(&parts) {
        for (chunk, part) in chunks(&task.pages).zip(parts) {
            tasks.push(Task {
                rows: task.rows.clone(),
                heads: task.heads.clone(),
                pages: chunk_pages(&task.pages, chunk),
                part: Some(part),
                ..*task
            });
        }
    }
    // Start with the longest task.
    tasks.sort_by_key(|task| std::cmp::Reverse(task.cost()));
    let share = Share::new(tasks.len(), 1);
    pool.run(&|thread| {
        let mut space = lock(&spaces[thread]);
        while let Some(piece) = share.next() {
            for task in &tasks[piece] {
                dispatch(isa, Attend { call, task, space: &mut space });
            }
        }
    });
    let mut space = lock(&spaces[0]);
    for (task, parts) in long.iter().zip(&parts) {
        dispatch(isa, Combine { call, task, parts, total: &mut space.total });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// The chunks that these pages lie in.
fn chunks(pages: &Range<usize>) -> Range<usize> {
    pages.start / CHUNK..pages.end.div_ceil(CHUNK)
}

/// The pages that lie in a chunk.
fn chunk_pages(pages: &Range<usize>, chunk: usize) -> Range<usize> {
    pages.start.max(chunk * CHUNK)..pages.end.min((chunk + 1) * CHUNK)
}

/// The parameters that all tasks share.
#[derive(Clone, Copy)]
struct Call<'a> {
    spec: &'a Attention<'a, CpuBackend>,
    batch: &'a Batch,
    q: &'a Buffer,
    cache: &'a Cache,
    slot: usize,
    out: Parts<f32>,
}

impl Call<'_> {
    fn padded(&self) -> usize {
        self.spec.head_dim.next_multiple_of(32)
    }

    /// Writes the results of a task's queries. A sink joins last, so that its place in the sum is fixed.
    #[inline(always)]
    fn finish<V: Wide>(&self, task: &Task<'_>, total: &Partial) {
        let (dim, heads) = (self.spec.head_dim, task.heads.len());
        for (query, (sums, state)) in total.out.chunks_exact(self.padded()).zip(&total.states).enumerate() {
            let (row, head) = (task.rows.start + query / heads, task.heads.start + query % heads);
            // SAFETY: rows and heads of different tasks are disjoint.
            let out = unsafe { self.out.part((row * self.spec.heads + head) * dim, dim) };
            let inverse = match self.spec.sinks {
                None => 1.0 / state.sum,
                Some(sinks) => {
                    let max = if sinks[head] > state.max { sinks[head] } else { state.max };
                    let factor = V::splat(state.max - max).exp().lanes()[0];
                    let sink = V::splat(sinks[head] - max).exp().lanes()[0];
                    factor / state.sum.mul_add(factor, sink)
                }
            };
            for (out, &x) in out.iter_mut().zip(sums) {
                *out = x * inverse;
            }
        }
    }
}

/// Runs one task.
struct Attend<'a> {
    call: Call<'a>,
    task: &'a Task<'a>,
    space: &'a mut Space,
}

impl Kernel for Attend<'_> {
    #[inline(always)]
    fn run<V: Wide>(self) {
        let Self { call, task, space } = self;
        let Space { page, queries, scores, running, chunk, total } = space;
        let (dim, padded, count) = (call.spec.head_dim, call.padded(), task.queries());
        page.resize(padded * PAGE_TOKENS, 0.0);
        scores.resize(count * PAGE_TOKENS, 0.0);
        queries.clear();
        for row in task.rows.clone() {
            let heads = &call.q.row(row)[task.heads.start * dim..task.heads.end * dim];
            queries.extend(heads.iter().map(|x| x * call.spec.scale));
        }
        if let Some(part) = task.part {
            let mut part = lock(part);
            return attend_chunk::<V>(&call, task, &task.pages, queries, scores, running, &mut part, page);
        }
        total.clear(count, padded);
        for c in chunks(&task.pages) {
            let pages = chunk_pages(&task.pages, c);
            attend_chunk::<V>(&call, task, &pages, queries, scores, running, chunk, page);
            merge::<V>(total, chunk, padded);
        }
        call.finish::<V>(task, total);
    }
}

/// Computes the results of all queries over some pages of one chunk.
#[allow(clippy::too_many_arguments, reason = "all of a thread's work memory")]
#[inline(always)]
fn attend_chunk<V: Wide>(
    call: &Call<'_>,
    task: &Task<'_>,
    pages: &Range<usize>,
    queries: &[f32],
    scores: &mut [f32],
    running: &mut Vec<Running>,
    out: &mut Partial,
    space: &mut [f32],
) {
    let (dim, padded, window) = (call.spec.head_dim, call.padded(), call.spec.window);
    let position = |row: usize| call.batch.positions[row] as usize;
    out.clear(task.queries(), padded);
    running.clear();
    for row in task.rows.clone() {
        running.extend(std::iter::repeat_n(Running::new(position(row)), task.heads.len()));
    }
    let last = position(task.rows.end - 1);
    let read = |page: usize| call.cache.read(call.slot, task.table[page], task.kv_head);
    for page in pages.clone() {
        let start = page * PAGE_TOKENS;
        let [keys, values] = read(page);
        let [next_keys, next_values] = read(if page + 1 < task.pages.end { page + 1 } else { page });
        product::<V, true>([dim, dim, PAGE_TOKENS], queries, keys, next_keys, scores, None, space);
        let of_queries = scores.chunks_exact_mut(PAGE_TOKENS).zip(queries.chunks_exact(dim));
        for ((scores, query), running) in of_queries.zip(running.iter_mut()) {
            let from = lowest(window, running.position).clamp(start, start + PAGE_TOKENS) - start;
            let to = (running.position + 1).clamp(start, start + PAGE_TOKENS) - start;
            let common = common_score::<V>(query, keys);
            running.softmax::<V>(scores, common, call.spec.soft_cap, from, to);
        }
        let tokens = (last + 1 - start).min(PAGE_TOKENS);
        let size = [PAGE_TOKENS, tokens, padded];
        product::<V, false>(size, scores, values, next_values, &mut out.out, Some(running), space);
    }
    for (state, running) in out.states.iter_mut().zip(running) {
        *state = running.state::<V>();
    }
}

/// Adds the next chunk's results to those of the chunks before it.
#[inline(always)]
fn merge<V: Wide>(total: &mut Partial, chunk: &Partial, padded: usize) {
    let sums = total.out.chunks_exact_mut(padded).zip(chunk.out.chunks_exact(padded));
    for ((sums, new_sums), (state, new)) in sums.zip(total.states.iter_mut().zip(&chunk.states)) {
        if new.max == f32::NEG_INFINITY {
            continue;
        }
        if state.max == f32::NEG_INFINITY {
            sums.copy_from_slice(new_sums);
            *state = *new;
            continue;
        }
        let max = if new.max > state.max { new.max } else { state.max };
        let (old_factor, new_factor) = (V::splat(state.max - max).exp(), V::splat(new.max - max).exp());
        for (sums, new) in sums.chunks_exact_mut(WIDTH).zip(new_sums.chunks_exact(WIDTH)) {
            // SAFETY: 16 numbers each.
            unsafe {
                let (old, new) = (V::load(sums.as_ptr()), V::load(new.as_ptr()));
                new.mul_add(new_factor, old.mul(old_factor)).store(sums.as_mut_ptr());
            }
        }
        let (old_factor, new_factor) = (old_factor.lanes()[0], new_factor.lanes()[0]);
        *state = State { max, sum: new.sum.mul_add(new_factor, state.sum * old_factor) };
    }
}

/// Merges the chunks of a task that was cut into chunks.
struct Combine<'a> {
    call: Call<'a>,
    task: &'a Task<'a>,
    parts: &'a [Mutex<Partial>],
    total: &'a mut Partial,
}

impl Kernel for Combine<'_> {
    #[inline(always)]
    fn run<V: Wide>(self) {
        let padded = self.call.padded();
        self.total.clear(self.task.queries(), padded);
        for part in self.parts {
            merge::<V>(self.total, &lock(part), padded);
        }
        self.call.finish::<V>(self.task, self.total);
    }
}
