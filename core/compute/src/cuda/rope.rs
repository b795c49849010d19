//! Rotations, norms of heads, and the cache's new keys and values: starts the kernels of `rope.cu`.

use super::cache::Cache;
use super::driver::{Geometry, arguments};
use super::norms::parameters;
use super::plan::Plan;
use super::{Buffer, CudaBackend, Vector, graph};
use crate::checks::{self, expect};
use crate::{Attention, Batch, CacheType, Error, Norm, NormKind, NormSpan, RopeStyle};

/// Heads of more numbers than this have a kernel of their own.
const MOST_NARROW: usize = 256;

/// The struct `HeadNorm` of `rope.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct HeadNorm {
    weight: u64,
    bias: u64,
    eps: f32,
    step: i32,
    kind: i32,
}

impl HeadNorm {
    const NONE: Self = Self { weight: 0, bias: 0, eps: 0.0, step: 0, kind: 0 };

    /// A norm of heads of `dim` numbers.
    fn new(norm: &Norm<'_, CudaBackend>, dim: usize) -> Self {
        let [weight, bias] = parameters(norm);
        let of_each = norm.weight.or(norm.bias).is_some_and(|vector| vector.len > dim);
        let kind = match norm.kind {
            NormKind::Rms => 1,
            NormKind::Layer => 2,
        };
        Self { weight, bias, eps: norm.eps, step: if of_each { dim as i32 } else { 0 }, kind }
    }

    /// Returns whether the kernel for the most common norms computes this one.
    fn is_common(self) -> bool {
        self.kind == 0 || self.kind == 1 && self.weight != 0 && self.bias == 0 && self.step == 0
    }
}

/// The struct `RopeStore` of `rope.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RopeStore {
    q: u64,
    k: u64,
    v: u64,
    rotations: u64,
    keys: u64,
    values: u64,
    positions: u64,
    tables: u64,
    pages: u64,
    norms: [HeadNorm; 2],
    offset: f32,
    period: f32,
    slope: f32,
    heads: i32,
    kv_heads: i32,
    page_heads: i32,
    dim: i32,
    padded: i32,
    rotated: i32,
    interleaved: i32,
    after_rope: i32,
    kind: i32,
}

/// Kinds that write nothing to the cache: codes come later, or everything does.
const CODES_LATER: i32 = 3;
const NOTHING: i32 = 4;

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
    page_heads: i32,
    dim: i32,
    padded: i32,
}

impl CudaBackend {
    /// Implements [`Backend::rotations`](crate::Backend::rotations).
    pub(super) fn rotate_positions(
        &self,
        frequencies: &Vector,
        magnitude: f32,
        positions: &[u32],
        out: &mut Buffer,
    ) -> Result<(), Error> {
        let count = frequencies.len;
        expect("the width of the rotations", out.columns, 2 * count)?;
        let mut state = self.state()?;
        out.set_rows(positions.len())?;
        let rows = positions.len();
        let positions = state.positions.put(&self.device, positions)?;
        let (frequencies, to) = (frequencies.memory.pointer(), out.pointer());
        let geometry = Geometry { grid: [count.div_ceil(64), rows, 1], block: 64, shared: 0 };
        let count = count as i32;
        // SAFETY: `out` has room for a pair for each frequency and row.
        unsafe {
            let arguments = arguments![frequencies, count, magnitude, positions, to];
            self.device.launch(self.kernels.rotations, geometry, arguments)
        }
    }

    /// Implements [`Backend::rope_store`](crate::Backend::rope_store).
    pub(super) fn store_rotated(
        &self,
        spec: &Attention<'_, Self>,
        batch: &Batch,
        q: &mut Buffer,
        k: &mut Buffer,
        v: &Buffer,
        cache: &mut Cache,
    ) -> Result<(), Error> {
        checks::attention(spec, batch, cache.layout(), cache.pages())?;
        checks::rope_store(self, spec, batch.rows(), [q, k, v])?;
        let mut state = self.state()?;
        q.changed();
        k.changed();
        let fit = self.fit(spec, cache)?;
        graph::note_attention(cache.layout(), fit);
        let plan = Plan::new(batch, cache.layout(), fit);
        let data = state.plan.put(&self.device, &plan.data)?;
        let group = cache.layout().layers[spec.layer].group;
        let [keys, values] = cache.layer(spec.layer);
        let norms = [spec.q_norm, spec.k_norm];
        let of_rows = spec.norm_span == NormSpan::Row && norms.iter().any(Option::is_some);
        let temperature = spec.temperature.map_or([0.0; 3], |t| [t.offset, t.period, t.scale]);
        let mut p = RopeStore {
            q: q.pointer(),
            k: k.pointer(),
            v: v.pointer(),
            rotations: spec.rotations.map_or(0, Buffer::pointer),
            keys,
            values,
            positions: data,
            tables: data + 4 * (plan.tables_at + group * batch.rows()) as u64,
            pages: data + 4 * plan.pages_at as u64,
            norms: norms.map(|norm| match norm {
                Some(norm) if !of_rows => HeadNorm::new(&norm, spec.head_dim),
                _ => HeadNorm::NONE,
            }),
            offset: temperature[0],
            period: temperature[1],
            slope: temperature[2],
            heads: spec.heads as i32,
            kv_heads: spec.kv_heads as i32,
            page_heads: cache.layout().kv_heads as i32,
            dim: spec.head_dim as i32,
            padded: cache.padded() as i32,
            rotated: spec.rotations.map_or(0, |rotations| rotations.columns) as i32,
            interleaved: (spec.style == RopeStyle::Interleaved) as i32,
            after_rope: spec.norm_after_rope as i32,
            kind: match cache.kind() {
                CacheType::F16 => 0,
                CacheType::F32 => 1,
                CacheType::Q8_0 if batch.spans.len() == batch.rows() => 2,
                CacheType::Q8_0 => CODES_LATER,
            },
        };
        let heads = spec.heads + 2 * spec.kv_heads;
        let geometry = Geometry { grid: [heads.div_ceil(4), batch.rows(), 1], block: 128, shared: 0 };
        if of_rows {
            if spec.norm_after_rope {
                // Rotate now, and store when whole rows are rotated and normalized.
                let rotate = RopeStore { kind: NOTHING, period: 0.0, ..p };
                self.start_rope(rotate, geometry)?;
                p.rotated = 0;
            }
            for (x, norm) in [&mut *q, &mut *k].into_iter().zip(&norms) {
                norm.iter().try_for_each(|norm| self.normalize_in_place(x, norm))?;
            }
        }
        self.start_rope(p, geometry)?;
        if p.kind != CODES_LATER {
            return Ok(());
        }
        let RopeStore { k, v, keys, values, positions, tables, pages, .. } = p;
        let RopeStore { kv_heads, page_heads, dim, padded, .. } = p;
        let codes =
            StoreCodes { k, v, keys, values, positions, tables, pages, kv_heads, page_heads, dim, padded };
        let grid = [(2 * spec.kv_heads).div_ceil(4), batch.rows(), 1];
        let geometry = Geometry { grid, block: 128, shared: 0 };
        // SAFETY: shapes, positions and pages were checked.
        unsafe { self.device.launch(self.kernels.store_codes, geometry, arguments![codes]) }
    }

    /// Starts the kernel that computes what `p` asks for, for operands that were checked.
    fn start_rope(&self, p: RopeStore, geometry: Geometry) -> Result<(), Error> {
        let common = p.norms.iter().all(|norm| norm.is_common()) && p.after_rope == 0 && p.period == 0.0;
        let kernel = if p.dim as usize > MOST_NARROW {
            self.kernels.rope_store_wide
        } else if common {
            self.kernels.rope_store
        } else {
            self.kernels.rope_store_any
        };
        // SAFETY: shapes, positions and pages were checked.
        unsafe { self.device.launch(kernel, geometry, arguments![p]) }
    }
}
