//! The paged KV cache on the GPU.
//!
//! For every slot (a layer of a page's group), keys and values each have one piece of memory, page after
//! page; `cache.cuh` defines the layout of a page in it.

use std::sync::Arc;

use super::driver::{Device, Memory};
use super::kernels::{HEAD_DIMS, MOST_HEAD_DIM};
use crate::{CacheLayout, CacheSpec, CacheType, Error, PAGE_TOKENS, PageFormat, PageNumber};

/// A KV cache for all layers of one model.
pub struct Cache {
    layout: CacheLayout,
    pages: usize,
    kind: CacheType,
    /// `head_dim`, padded as in a page.
    padded: usize,
    /// Memory of the keys and values of each slot.
    slots: Vec<[Memory; 2]>,
}

impl Cache {
    pub(crate) fn new(device: &Arc<Device>, spec: &CacheSpec) -> Result<Self, Error> {
        let CacheLayout { kv_heads, head_dim, slots, .. } = spec.layout;
        let Some(padded) = HEAD_DIMS.into_iter().find(|&dim| dim >= head_dim) else {
            let why = format!("heads of {head_dim} numbers; a GPU takes up to {MOST_HEAD_DIM}");
            return Err(Error::Unsupported(why));
        };
        // Bytes of the keys, or values, of a head; see `kernels/cache.cuh`.
        let head = match spec.kind {
            CacheType::F32 => 4 * PAGE_TOKENS * padded,
            CacheType::F16 => 2 * PAGE_TOKENS * padded,
            CacheType::Q8_0 => 36 * padded,
        };
        let bytes = spec.pages * kv_heads * head;
        // Zeros, so that masked tokens, which are multiplied with 0, are never infinite.
        let memory = || Memory::zeroed(device, bytes, "the KV cache");
        let slots = (0..slots).map(|_| Ok([memory()?, memory()?])).collect::<Result<_, Error>>()?;
        Ok(Self { layout: spec.layout.clone(), pages: spec.pages, kind: spec.kind, padded, slots })
    }

    pub(crate) fn layout(&self) -> &CacheLayout {
        &self.layout
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    pub(crate) fn kind(&self) -> CacheType {
        self.kind
    }

    pub(crate) fn padded(&self) -> usize {
        self.padded
    }

    /// Addresses of a layer's keys and values.
    pub(crate) fn layer(&self, layer: usize) -> [u64; 2] {
        let [keys, values] = &self.slots[self.layout.layers[layer].slot];
        [keys.pointer(), values.pointer()]
    }

    /// Addresses of each slot's keys and values.
    pub(crate) fn all(&self) -> impl Iterator<Item = [u64; 2]> {
        self.slots.iter().map(|[keys, values]| [keys.pointer(), values.pointer()])
    }

    /// Bytes of a page in a slot's keys; its values take the same.
    pub(crate) fn part_bytes(&self) -> usize {
        match self.slots.first() {
            Some([keys, _]) if self.pages > 0 => keys.bytes() / self.pages,
            _ => 0,
        }
    }

    /// Appends a page's contents to `out`.
    pub(crate) fn export(&self, page: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        let part = self.part_bytes();
        for memory in self.slots.iter().flatten() {
            let start = out.len();
            out.resize(start + part, 0);
            memory.read(page as usize * part, &mut out[start..])?;
        }
        Ok(())
    }

    /// Returns the layout of a page's bytes.
    pub(crate) fn page_format(&self) -> PageFormat {
        let (slots, part) = (self.slots.len(), self.part_bytes());
        match self.kind {
            CacheType::F32 => PageFormat::repeated(&[(PageNumber::F32, part)], 2 * slots),
            CacheType::F16 => PageFormat::repeated(&[(PageNumber::F16, part)], 2 * slots),
            CacheType::Q8_0 => {
                // The layout of `kernels/cache.cuh`: codes, factors, and for keys the page's first key.
                let (codes, factors) = ((PageNumber::Code, PAGE_TOKENS * 32), 2 * PAGE_TOKENS);
                let keys = [codes, (PageNumber::F16, 2 * factors)];
                let values = [codes, (PageNumber::F16, factors), (PageNumber::Code, factors)];
                let pieces = self.layout.kv_heads * self.padded / 32;
                let mut slot = PageFormat::repeated(&keys, pieces);
                slot.append(&PageFormat::repeated(&values, pieces));
                let mut format = PageFormat::default();
                (0..slots).for_each(|_| format.append(&slot));
                format
            }
        }
    }

    /// Fills a page with bytes that `export` wrote.
    pub(crate) fn import(&mut self, page: u32, bytes: &[u8]) -> Result<(), Error> {
        let part = self.part_bytes();
        crate::checks::expect("the bytes of a page", bytes.len(), part * 2 * self.slots.len())?;
        for (memory, bytes) in self.slots.iter_mut().flatten().zip(bytes.chunks_exact(part.max(1))) {
            memory.write(page as usize * part, bytes)?;
        }
        Ok(())
    }
}
