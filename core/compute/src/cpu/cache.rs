//! The paged KV cache in memory.
//!
//! A page of a layer holds, for every key/value head, the keys of its tokens column by column (`[head_dim][32]`: a
//! query multiplies 32 keys at a time, with no sum across lanes) and the values row by row (`[32][padded]`, the
//! head's width rounded up to 32). Pages are zeroed by the operating system and take memory when first written.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use super::aligned::Aligned;
use crate::{CacheSpec, CacheType, Error, PAGE_TOKENS};

/// A KV cache for all layers of one model.
pub struct Cache {
    layers: Vec<Layer>,
    pages: usize,
}

struct Layer {
    kv_heads: usize,
    head_dim: usize,
    /// `head_dim` rounded up to a multiple of 32.
    padded: usize,
    keys: Numbers,
    values: Numbers,
}

enum Numbers {
    F32(Aligned<f32>),
    F16(Aligned<u16>),
}

impl Numbers {
    fn new(kind: CacheType, len: usize) -> Self {
        match kind {
            CacheType::F32 => Self::F32(Aligned::zeroed(len)),
            CacheType::F16 => Self::F16(Aligned::zeroed(len)),
        }
    }

    /// Numbers `start .. start + len` as f32: in place if they are, else through `space`.
    fn read<'a>(&'a self, start: usize, len: usize, space: &'a mut [f32]) -> &'a [f32] {
        match self {
            Self::F32(all) => &all[start..start + len],
            Self::F16(all) => {
                let out = &mut space[..len];
                all[start..start + len].reinterpret_cast::<f16>().convert_to_f32_slice(out);
                out
            }
        }
    }

    /// Writes `x` to `start`, `start + stride`, …
    fn write(&mut self, start: usize, stride: usize, x: &[f32]) {
        match self {
            Self::F32(all) => x.iter().enumerate().for_each(|(i, &x)| all[start + i * stride] = x),
            Self::F16(all) => {
                let mut row = [f16::ZERO; 64];
                for (c, x) in x.chunks(row.len()).enumerate() {
                    row[..x.len()].convert_from_f32_slice(x);
                    for (i, half) in row[..x.len()].iter().enumerate() {
                        all[start + (c * row.len() + i) * stride] = half.to_bits();
                    }
                }
            }
        }
    }

    fn copy(&mut self, from: usize, to: usize, len: usize) {
        match self {
            Self::F32(all) => all.copy_within(from..from + len, to),
            Self::F16(all) => all.copy_within(from..from + len, to),
        }
    }
}

impl Cache {
    pub(crate) fn new(spec: &CacheSpec) -> Result<Self, Error> {
        let layers = spec
            .layers
            .iter()
            .map(|l| {
                let padded = l.head_dim.next_multiple_of(32);
                let keys = spec.pages * l.kv_heads * l.head_dim * PAGE_TOKENS;
                let values = spec.pages * l.kv_heads * padded * PAGE_TOKENS;
                Layer {
                    kv_heads: l.kv_heads,
                    head_dim: l.head_dim,
                    padded,
                    keys: Numbers::new(spec.kind, keys),
                    values: Numbers::new(spec.kind, values),
                }
            })
            .collect();
        Ok(Self { layers, pages: spec.pages })
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Key/value heads and numbers a head of a layer.
    pub(crate) fn shape(&self, layer: usize) -> Option<(usize, usize)> {
        self.layers.get(layer).map(|l| (l.kv_heads, l.head_dim))
    }

    /// Writes the keys and values of one token, `[kv_heads * head_dim]`.
    pub(crate) fn write(&mut self, layer: usize, page: u32, slot: usize, keys: &[f32], values: &[f32]) {
        let l = &mut self.layers[layer];
        for head in 0..l.kv_heads {
            let block = page as usize * l.kv_heads + head;
            let x = head * l.head_dim..(head + 1) * l.head_dim;
            l.keys.write(block * l.head_dim * PAGE_TOKENS + slot, PAGE_TOKENS, &keys[x.clone()]);
            l.values.write((block * PAGE_TOKENS + slot) * l.padded, 1, &values[x]);
        }
    }

    /// The keys of a page, `[head_dim][32]`, and room for them if they have to be widened.
    pub(crate) fn keys<'a>(
        &'a self,
        layer: usize,
        page: u32,
        head: usize,
        space: &'a mut [f32],
    ) -> &'a [f32] {
        let l = &self.layers[layer];
        let len = l.head_dim * PAGE_TOKENS;
        l.keys.read((page as usize * l.kv_heads + head) * len, len, space)
    }

    /// The values of the first `tokens` tokens of a page, `[tokens][padded]`.
    pub(crate) fn values<'a>(
        &'a self,
        layer: usize,
        page: u32,
        head: usize,
        tokens: usize,
        space: &'a mut [f32],
    ) -> &'a [f32] {
        let l = &self.layers[layer];
        let start = (page as usize * l.kv_heads + head) * l.padded * PAGE_TOKENS;
        l.values.read(start, tokens * l.padded, space)
    }

    /// Copies page `from` over page `to` in every layer.
    pub(crate) fn copy_page(&mut self, from: u32, to: u32) {
        for l in &mut self.layers {
            for (numbers, width) in [(&mut l.keys, l.head_dim), (&mut l.values, l.padded)] {
                let len = l.kv_heads * width * PAGE_TOKENS;
                numbers.copy(from as usize * len, to as usize * len, len);
            }
        }
    }
}
