//! Attention: prepares the arguments of the kernels in `attention.cu` and starts them.

use super::cache::Cache;
use super::driver::{Geometry, arguments};
use super::graph;
use super::kernels::{HEAD_DIMS, MOST_SHARED};
use super::plan::{MOST_TILED, Plan, SPAN_BLOCKS, TILE_QUERIES};
use super::state::{State, at_least};
use super::{Buffer, CudaBackend};
use crate::checks;
use crate::{Attention, Batch, CacheType, Error, Window};

/// Most bytes of attention's partial sums; rows beyond go into another launch.
const MOST_PARTIAL: usize = 256 << 20;

/// The struct `Attention` of `attention.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Attend {
    q: u64,
    out: u64,
    keys: u64,
    values: u64,
    positions: u64,
    tables: u64,
    pages: u64,
    rows: u64,
    partial: u64,
    ready: u64,
    tiles: u64,
    sinks: u64,
    heads: i32,
    page_heads: i32,
    group: i32,
    dim: i32,
    blocks: i32,
    scale: f32,
    cap: f32,
    window: i32,
    chunk: i32,
}

impl CudaBackend {
    /// Implements [`Backend::attention`](crate::Backend::attention).
    pub(crate) fn attend(
        &self,
        spec: &Attention<'_, Self>,
        batch: &Batch,
        q: &Buffer,
        cache: &Cache,
        out: &mut Buffer,
    ) -> Result<(), Error> {
        checks::attention(spec, batch, cache.layout(), cache.pages())?;
        checks::attend(self, spec, batch.rows(), [q, out])?;
        let mut state = self.state()?;
        out.set_rows(q.rows())?;
        graph::note_attention(cache.layout());
        let plan = Plan::new(batch, cache.layout(), spec.heads / spec.kv_heads);
        let data = state.plan.put(&self.device, &plan.data)?;
        let group = cache.layout().layers[spec.layer].group;
        let [keys, values] = cache.layer(spec.layer);
        let tokens = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let (window, chunk) = match spec.window {
            None => (0, 0),
            Some(Window::Sliding(n)) => (tokens(n), 0),
            Some(Window::Chunked(n)) => (0, tokens(n)),
        };
        let mut p = Attend {
            q: q.pointer(),
            out: out.pointer(),
            keys,
            values,
            positions: data,
            tables: data + 4 * (plan.tables_at + group * batch.rows()) as u64,
            pages: data + 4 * plan.pages_at as u64,
            rows: data + 4 * plan.single_at as u64,
            partial: 0,
            ready: 0,
            tiles: data + 4 * plan.tiles_at as u64,
            sinks: spec.sinks.map_or(0, |sinks| sinks.memory.pointer()),
            heads: spec.heads as i32,
            page_heads: cache.layout().kv_heads as i32,
            group: (spec.heads / spec.kv_heads) as i32,
            dim: spec.head_dim as i32,
            blocks: 0,
            scale: spec.scale,
            cap: spec.soft_cap.unwrap_or(0.0),
            window,
            chunk,
        };
        match cache.kind() {
            CacheType::F16 | CacheType::Q8_0 => {
                self.over_pages(&mut state, &plan, &mut p, spec.kv_heads, cache)
            }
            CacheType::F32 => {
                let geometry = Geometry { grid: [spec.heads, batch.rows(), 1], block: 32, shared: 0 };
                let padded = cache.padded() as i32;
                // SAFETY: shapes, positions and pages were checked.
                unsafe {
                    let kernel = self.kernels.attend_f32[(spec.head_dim > MOST_TILED) as usize];
                    self.device.launch(kernel, geometry, arguments![p, padded])
                }
            }
        }
    }

    /// Attention over pages of half floats or codes.
    fn over_pages(
        &self,
        state: &mut State,
        plan: &Plan,
        p: &mut Attend,
        kv_heads: usize,
        cache: &Cache,
    ) -> Result<(), Error> {
        let (padded, kind) = (cache.padded(), (cache.kind() == CacheType::Q8_0) as usize);
        let any = (p.sinks != 0 || p.chunk != 0 || padded > MOST_TILED) as usize;
        let kernels = [&self.kernels.attend_row, &self.kernels.attend_tiles].map(|all| {
            let index = HEAD_DIMS.iter().position(|&dim| dim == padded)?;
            all[any][kind].get(index).copied()
        });
        let [Some(by_row), by_tiles] = kernels else {
            return Err(Error::Unsupported(format!("pages of heads of {padded} numbers")));
        };
        let group = p.group as usize;
        if plan.single > 0 {
            let window = [p.window, p.chunk].into_iter().find(|&n| n > 0).map(|n| n as usize);
            let blocks = SPAN_BLOCKS * plan.spans(window);
            let tiles = kv_heads * group.div_ceil(TILE_QUERIES);
            let queries = group.min(TILE_QUERIES);
            let row_bytes = tiles * blocks * queries * (padded + 2) * 4;
            let at_once = (MOST_PARTIAL / row_bytes).clamp(1, plan.single);
            p.partial = at_least(&mut state.partial, &self.device, at_once * row_bytes, false)?.pointer();
            p.ready = at_least(&mut state.ready, &self.device, at_once * tiles * 4, true)?.pointer();
            p.blocks = blocks as i32;
            let rows = p.rows;
            for first in (0..plan.single).step_by(at_once) {
                p.rows = rows + 4 * first as u64;
                let count = at_once.min(plan.single - first);
                let geometry = Geometry { grid: [blocks, count, tiles], block: 128, shared: 0 };
                // SAFETY: rows, pages and work memory were checked or made for this batch.
                unsafe {
                    self.device.launch(by_row, geometry, arguments![*p])?;
                    if padded > MOST_TILED {
                        let geometry = Geometry { grid: [queries, count, tiles], block: 192, shared: 0 };
                        self.device.launch(self.kernels.attend_merge, geometry, arguments![*p])?;
                    }
                }
            }
        }
        let Some(by_tiles) = by_tiles else { return Ok(()) };
        let tiles = plan.tiles as i32;
        let grid = [plan.tiles.div_ceil(4), kv_heads, 1];
        let geometry = Geometry { grid, block: 128, shared: 4 * TILE_QUERIES * padded * 4 };
        // SAFETY: rows, pages and work memory were checked or made for this batch.
        unsafe { self.device.launch(by_tiles, geometry, arguments![*p, tiles]) }
    }
}

// The kernels for tiles keep the sums of whole spans in shared memory.
const _: () = assert!(4 * TILE_QUERIES * MOST_TILED * 4 <= MOST_SHARED);
