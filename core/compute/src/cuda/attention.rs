//! Rotation, the KV cache and attention: prepares the arguments of the kernels in `attention.cu` and starts
//! them.

use super::cache::Cache;
use super::driver::{Geometry, arguments};
use super::graph;
use super::kernels::HEAD_DIMS;
use super::plan::{Plan, SPAN_BLOCKS, TILE_QUERIES};
use super::state::{State, at_least};
use super::{Buffer, CudaBackend, unsupported};
use crate::checks::{self, expect};
use crate::{Attention, Batch, CacheType, Error, RopeStyle};

/// Most bytes of attention's partial sums; rows beyond go into another launch.
const MOST_PARTIAL: usize = 256 << 20;

/// The struct `RopeStore` of `elementwise.cu`.
#[repr(C)]
struct RopeStore {
    q: u64,
    k: u64,
    v: u64,
    q_norm: u64,
    k_norm: u64,
    rotations: u64,
    keys: u64,
    values: u64,
    positions: u64,
    tables: u64,
    pages: u64,
    eps: f32,
    heads: i32,
    kv_heads: i32,
    dim: i32,
    padded: i32,
    rotated: i32,
    interleaved: i32,
    kind: i32,
}

/// The struct `StoreCodes` of `cache.cu`.
#[repr(C)]
struct StoreCodes {
    k: u64,
    v: u64,
    keys: u64,
    values: u64,
    positions: u64,
    tables: u64,
    pages: u64,
    kv_heads: i32,
    dim: i32,
    padded: i32,
}

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
    heads: i32,
    kv_heads: i32,
    group: i32,
    dim: i32,
    blocks: i32,
    scale: f32,
    cap: f32,
    window: i32,
}

impl CudaBackend {
    /// Implements [`Backend::rope_store`](crate::Backend::rope_store).
    pub(crate) fn store_rotated(
        &self,
        spec: &Attention<'_, Self>,
        batch: &Batch,
        q: &mut Buffer,
        k: &mut Buffer,
        v: &Buffer,
        cache: &mut Cache,
    ) -> Result<(), Error> {
        checks::attention(spec, batch, cache.layout(), cache.pages())?;
        unsupported::heads(spec, cache.layout())?;
        for (what, buffer, heads) in
            [("queries", &*q, spec.heads), ("keys", &*k, spec.kv_heads), ("values", v, spec.kv_heads)]
        {
            expect(&format!("the width of the {what}"), buffer.columns, heads * spec.head_dim)?;
            expect(&format!("the rows of the {what}"), buffer.rows(), batch.rows())?;
        }
        let (rotations, [q_norm, k_norm], eps) = unsupported::rope(spec)?;
        if rotations.columns > spec.head_dim {
            expect("the rotated width of a head", rotations.columns, spec.head_dim)?;
        }
        expect("the rows of the rotations", rotations.rows(), batch.rows())?;
        let mut state = self.state()?;
        q.changed();
        k.changed();
        graph::note_attention(cache.layout(), spec.heads / spec.kv_heads);
        let plan = Plan::new(batch, cache.layout(), spec.heads / spec.kv_heads);
        let data = state.plan.put(&self.device, &plan.data)?;
        let group = cache.layout().layers[spec.layer].group;
        let [keys, values] = cache.layer(spec.layer);
        let p = RopeStore {
            q: q.pointer(),
            k: k.pointer(),
            v: v.pointer(),
            q_norm: q_norm.map_or(0, |n| n.memory.pointer()),
            k_norm: k_norm.map_or(0, |n| n.memory.pointer()),
            rotations: rotations.pointer(),
            keys,
            values,
            positions: data,
            tables: data + 4 * (plan.tables_at + group * batch.rows()) as u64,
            pages: data + 4 * plan.pages_at as u64,
            eps,
            heads: spec.heads as i32,
            kv_heads: spec.kv_heads as i32,
            dim: spec.head_dim as i32,
            padded: cache.padded() as i32,
            rotated: rotations.columns as i32,
            interleaved: (spec.style == RopeStyle::Interleaved) as i32,
            kind: match cache.kind() {
                CacheType::F16 => 0,
                CacheType::F32 => 1,
                CacheType::Q8_0 => 2,
            },
        };
        let heads = spec.heads + 2 * spec.kv_heads;
        let geometry = Geometry { grid: [heads.div_ceil(4), batch.rows(), 1], block: 128, shared: 0 };
        // SAFETY: shapes, positions and pages were checked.
        unsafe { self.device.launch(self.kernels.rope_store, geometry, arguments![p])? };
        if cache.kind() != CacheType::Q8_0 {
            return Ok(());
        }
        let RopeStore { k, v, keys, values, positions, tables, pages, kv_heads, dim, padded, .. } = p;
        let codes = StoreCodes { k, v, keys, values, positions, tables, pages, kv_heads, dim, padded };
        let grid = [(2 * spec.kv_heads).div_ceil(4), batch.rows(), 1];
        let geometry = Geometry { grid, block: 128, shared: 0 };
        // SAFETY: shapes, positions and pages were checked.
        unsafe { self.device.launch(self.kernels.store_codes, geometry, arguments![codes]) }
    }

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
        unsupported::heads(spec, cache.layout())?;
        expect("the width of the queries", q.columns, spec.heads * spec.head_dim)?;
        expect("the rows of the queries", q.rows(), batch.rows())?;
        expect("the width of the attention's output", out.columns, q.columns)?;
        let mut state = self.state()?;
        out.set_rows(q.rows())?;
        graph::note_attention(cache.layout(), spec.heads / spec.kv_heads);
        let plan = Plan::new(batch, cache.layout(), spec.heads / spec.kv_heads);
        let data = state.plan.put(&self.device, &plan.data)?;
        let group = cache.layout().layers[spec.layer].group;
        let [keys, values] = cache.layer(spec.layer);
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
            heads: spec.heads as i32,
            kv_heads: spec.kv_heads as i32,
            group: (spec.heads / spec.kv_heads) as i32,
            dim: spec.head_dim as i32,
            blocks: 0,
            scale: spec.scale,
            cap: spec.soft_cap.unwrap_or(0.0),
            window: unsupported::window(spec)?,
        };
        match cache.kind() {
            CacheType::F16 | CacheType::Q8_0 => self.over_pages(&mut state, &plan, &mut p, cache),
            CacheType::F32 => {
                let geometry = Geometry { grid: [spec.heads, batch.rows(), 1], block: 32, shared: 0 };
                let padded = cache.padded() as i32;
                // SAFETY: shapes, positions and pages were checked.
                unsafe { self.device.launch(self.kernels.attend_f32, geometry, arguments![p, padded]) }
            }
        }
    }

    /// Attention over pages of half floats or codes.
    fn over_pages(&self, state: &mut State, plan: &Plan, p: &mut Attend, cache: &Cache) -> Result<(), Error> {
        let (padded, kind) = (cache.padded(), (cache.kind() == CacheType::Q8_0) as usize);
        let Some(index) = HEAD_DIMS.iter().position(|&dim| dim == padded) else {
            return Err(Error::Unsupported(format!("pages of heads of {padded} numbers")));
        };
        let (kv_heads, group) = (p.kv_heads as usize, p.group as usize);
        if plan.single > 0 {
            let window = (p.window > 0).then_some(p.window as usize);
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
                let grid = [blocks, at_once.min(plan.single - first), tiles];
                let geometry = Geometry { grid, block: 128, shared: 0 };
                // SAFETY: rows, pages and work memory were checked or made for this batch.
                unsafe {
                    self.device.launch(self.kernels.attend_row[kind][index], geometry, arguments![*p])?
                };
            }
        }
        let tiles = plan.tiles as i32;
        let grid = [plan.tiles.div_ceil(4), kv_heads, 1];
        let geometry = Geometry { grid, block: 128, shared: 4 * TILE_QUERIES * padded * 4 };
        // SAFETY: rows, pages and work memory were checked or made for this batch.
        unsafe { self.device.launch(self.kernels.attend_tiles[kind][index], geometry, arguments![*p, tiles]) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernels;
    use super::*;

    #[test]
    fn attention_fits_into_shared_memory() {
        let padded = HEAD_DIMS[HEAD_DIMS.len() - 1];
        assert!(4 * TILE_QUERIES * padded * 4 <= kernels::MOST_SHARED);
    }
}
