//! Attention: prepares the arguments of the kernels in `attention.cu` and starts them.

use super::cache::Cache;
use super::driver::{Function, Geometry, arguments};
use super::graph;
use super::plan::{Fit, Plan, Tiles};
use super::state::{State, at_least};
use super::{Buffer, CudaBackend};
use crate::checks;
use crate::{Attention, Batch, CacheType, Error, Window};

/// The struct `Attention` of `attention.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Attend {
    q: u64,
    out: u64,
    keys: u64,
    values: u64,
    pages: u64,
    items: u64,
    leaf_sums: u64,
    leaf_values: u64,
    sinks: u64,
    heads: i32,
    page_heads: i32,
    group: i32,
    dim: i32,
    padded: i32,
    queries: i32,
    slots: i32,
    scale: f32,
    cap: f32,
    window: i32,
    chunk: i32,
}

/// Queries of a tile, for the kernels of pages of half floats and of codes.
pub(crate) const QUERIES: [usize; 3] = [16, 32, 64];
/// Queries of a tile of floats, and of a tile of the kernels for Hopper.
const OF_FLOATS: usize = 4;
const HOPPER_QUERIES: usize = 128;

/// Most leaves of the kernel that puts few together.
pub(crate) const FEW_LEAVES: usize = 32;

/// A kernel and how it is started.
struct Kernel {
    function: Function,
    queries: usize,
    threads: usize,
    shared: usize,
}

/// Bytes of shared memory of the kernel for tiles of `queries`; computes the same as `Space` of
/// `attention.cu` and the start of `attend_floats`.
fn shared(kind: CacheType, queries: usize, padded: usize) -> usize {
    // What the queries take, and a stage and the number of stages of the ring.
    let (each, ring) = match kind {
        CacheType::F32 => (4 * padded + 512 + 36, 3 * 16_384),
        CacheType::F16 => (6 * padded + 356, 4 * 8192),
        CacheType::Q8_0 => (6 * padded + 356, 4 * 5120),
    };
    // The ring begins at a multiple of 128.
    queries * each + 127 + ring
}

impl CudaBackend {
    /// Returns what the plan of a layer's attention depends on.
    pub(super) fn fit(&self, spec: &Attention<'_, Self>, cache: &Cache) -> Result<Fit, Error> {
        let (group, padded, kind) = (spec.heads / spec.kv_heads, cache.padded(), cache.kind());
        let [of_block, of_all] = self.device.shared();
        let hopper = self.hopper_kernel(cache).is_some();
        let fits = |queries: &usize| shared(kind, *queries, padded) <= of_block;
        let sizes = if kind == CacheType::F32 { &[OF_FLOATS][..] } else { &QUERIES };
        let few = sizes[0];
        let Some(&most) = sizes.iter().rfind(|queries| fits(queries)) else {
            let needed = shared(kind, few, padded);
            return Err(Error::Unsupported(format!(
                "a {kind} cache of heads of {} numbers: this GPU has {of_block} bytes of shared memory for a block, \
                 and {needed} are needed; choose another type of cache",
                spec.head_dim
            )));
        };
        // A block has at most 1 KiB more than it asks for; registers are enough for a few blocks.
        let most_blocks = if kind == CacheType::Q8_0 { 5 } else { 4 };
        let blocks = (of_all / (shared(kind, few, padded) + 1024)).clamp(1, most_blocks);
        let wave = blocks * self.device.describe().2 as usize;
        let queries = cache.layout().kv_heads * group.next_multiple_of(few.min(group));
        // Measured on an H200.
        let (most, enough) = if hopper { (HOPPER_QUERIES, 16) } else { (most, 48) };
        Ok(Fit { group, few, most, enough, wave, leaf_bytes: queries * (padded + 2) * 4 })
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
        checks::attend(self, spec, batch.rows(), [q, out])?;
        let mut state = self.state()?;
        out.set_rows(q.rows())?;
        let fit = self.fit(spec, cache)?;
        graph::note_attention(cache.layout(), fit);
        let plan = Plan::new(batch, cache.layout(), fit);
        let data = state.plan.put(&self.device, &plan.data)?;
        let layer_group = cache.layout().layers[spec.layer].group;
        let [keys, values] = cache.layer(spec.layer);
        let tokens = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let (window, chunk) = match spec.window {
            None => (0, 0),
            Some(Window::Sliding(n)) => (tokens(n), 0),
            Some(Window::Chunked(n)) => (0, tokens(n)),
        };
        let p = Attend {
            q: q.pointer(),
            out: out.pointer(),
            keys,
            values,
            pages: data + 4 * plan.pages_at as u64,
            items: data,
            leaf_sums: 0,
            leaf_values: 0,
            sinks: spec.sinks.map_or(0, |sinks| sinks.memory.pointer()),
            heads: spec.heads as i32,
            page_heads: cache.layout().kv_heads as i32,
            group: fit.group as i32,
            dim: spec.head_dim as i32,
            padded: cache.padded() as i32,
            queries: 0,
            slots: 0,
            scale: spec.scale,
            cap: spec.soft_cap.unwrap_or(0.0),
            window,
            chunk,
        };
        let kernels = match cache.kind() {
            CacheType::F16 => &self.kernels.attend[..],
            CacheType::Q8_0 => &self.kernels.attend_codes,
            CacheType::F32 => std::slice::from_ref(&self.kernels.attend_floats),
        };
        let kernel = |queries: usize| Kernel {
            function: kernels[QUERIES.iter().position(|&n| n == queries).unwrap_or(0)],
            queries,
            threads: 128,
            shared: shared(cache.kind(), queries, cache.padded()),
        };
        let large = self.hopper_kernel(cache).unwrap_or_else(|| kernel(fit.most));
        let mut start = |tiles: &Tiles, kernel: Kernel| {
            self.over_tiles(&mut state, p, (tiles, layer_group), kernel, spec.kv_heads)
        };
        start(&plan.small, kernel(fit.few))?;
        start(&plan.large, large)
    }

    /// Returns the kernel of `attention_hopper.cu` for large tiles, if there is one.
    fn hopper_kernel(&self, cache: &Cache) -> Option<Kernel> {
        let padded = cache.padded();
        let at = [64, 128].iter().position(|&dim| dim == padded && dim == cache.layout().head_dim)?;
        let function = self.kernels.attend_hopper.filter(|_| cache.kind() == CacheType::F16)?[at];
        // `Stages` of `attention_hopper.cu`: queries, and two stages of keys and values.
        Some(Kernel { function, queries: HOPPER_QUERIES, threads: 384, shared: 1280 * padded + 64 + 128 })
    }

    /// Attention of the tiles of one size, in a group of layers.
    fn over_tiles(
        &self,
        state: &mut State,
        mut p: Attend,
        (tiles, layer_group): (&Tiles, usize),
        kernel: Kernel,
        kv_heads: usize,
    ) -> Result<(), Error> {
        let [items, firsts] = tiles.of_group(layer_group).map(|at| p.items + 4 * at as u64);
        p.items = items;
        let (group, most) = (p.group as usize, kernel.queries);
        let (blocks, queries) = (kv_heads * group.div_ceil(most), tiles.rows * group.min(most));
        let slots = tiles.slots[layer_group];
        if slots > 0 {
            let leaves = slots * blocks * queries;
            let bytes = leaves * (p.padded as usize + 2) * 4;
            p.leaf_values = at_least(&mut state.partial, &self.device, bytes, false)?.pointer();
            p.leaf_sums = p.leaf_values + (leaves * p.padded as usize * 4) as u64;
            (p.queries, p.slots) = (queries as i32, slots as i32);
        }
        let grid = [tiles.items, blocks, 1];
        let geometry = Geometry { grid, block: kernel.threads, shared: kernel.shared };
        // SAFETY: rows, pages and work memory were checked or made for this batch.
        unsafe { self.device.launch(kernel.function, geometry, arguments![p]) }?;
        if slots == 0 {
            return Ok(());
        }
        p.items = firsts;
        let (merge, blocks_of_query) = if tiles.longest <= FEW_LEAVES {
            (self.kernels.attend_merge_few, 1)
        } else {
            (self.kernels.attend_merge, p.padded as usize / 32)
        };
        let grid = [tiles.tiles, blocks, queries * blocks_of_query];
        let (geometry, most) = (Geometry { grid, block: 128, shared: 0 }, most as i32);
        // SAFETY: as above; the kernel reads what the one before has written.
        unsafe { self.device.launch(merge, geometry, arguments![p, most]) }
    }
}
