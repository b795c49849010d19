//! The paged KV cache in memory.
//!
//! A page holds, for every slot (a layer of its group) and key/value head, the keys of its tokens column by column (`[head_dim][32]`: a
//! query multiplies 32 keys at a time, with no sum across lanes) and the values row by row (`[32][padded]`, the
//! head's width rounded up to 32). Pages are zeroed by the operating system and take memory when first written.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use super::aligned::Aligned;
use crate::{CacheLayout, CacheSpec, CacheType, Error, PAGE_TOKENS};

/// A KV cache for all layers of one model.
pub struct Cache {
    layout: CacheLayout,
    pages: usize,
    /// `head_dim` rounded up to a multiple of 32.
    padded: usize,
    slots: Vec<Slot>,
}

/// The pages' parts of one slot.
struct Slot {
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

    /// Bytes that `len` numbers take.
    fn bytes(&self, len: usize) -> usize {
        match self {
            Self::F32(_) => 4 * len,
            Self::F16(_) => 2 * len,
        }
    }

    /// Appends numbers `start .. start + len`, little-endian.
    fn export(&self, start: usize, len: usize, out: &mut Vec<u8>) {
        match self {
            Self::F32(all) => out.extend(all[start..start + len].iter().flat_map(|x| x.to_le_bytes())),
            Self::F16(all) => out.extend(all[start..start + len].iter().flat_map(|x| x.to_le_bytes())),
        }
    }

    /// Writes what `export` made to `start ..`.
    fn import(&mut self, start: usize, bytes: &[u8]) {
        match self {
            Self::F32(all) => {
                let (bytes, _) = bytes.as_chunks();
                for (x, &bytes) in all[start..].iter_mut().zip(bytes) {
                    *x = f32::from_le_bytes(bytes);
                }
            }
            Self::F16(all) => {
                let (bytes, _) = bytes.as_chunks();
                for (x, &bytes) in all[start..].iter_mut().zip(bytes) {
                    *x = u16::from_le_bytes(bytes);
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
        let layout = spec.layout.clone();
        let padded = layout.head_dim.next_multiple_of(32);
        let heads = spec.pages * layout.kv_heads * PAGE_TOKENS;
        let slot = |_| Slot {
            keys: Numbers::new(spec.kind, heads * layout.head_dim),
            values: Numbers::new(spec.kind, heads * padded),
        };
        let slots = (0..layout.slots).map(slot).collect();
        Ok(Self { layout, pages: spec.pages, padded, slots })
    }

    pub(crate) fn layout(&self) -> &CacheLayout {
        &self.layout
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Writes the keys and values of one token, `[kv_heads * head_dim]`, to a layer's slot.
    pub(crate) fn write(&mut self, slot: usize, page: u32, token: usize, keys: &[f32], values: &[f32]) {
        let CacheLayout { kv_heads, head_dim, .. } = self.layout;
        let Slot { keys: key_pages, values: value_pages } = &mut self.slots[slot];
        for head in 0..kv_heads {
            let block = page as usize * kv_heads + head;
            let x = head * head_dim..(head + 1) * head_dim;
            key_pages.write(block * head_dim * PAGE_TOKENS + token, PAGE_TOKENS, &keys[x.clone()]);
            value_pages.write((block * PAGE_TOKENS + token) * self.padded, 1, &values[x]);
        }
    }

    /// The keys of a page, `[head_dim][32]`, and room for them if they have to be widened.
    pub(crate) fn keys<'a>(&'a self, slot: usize, page: u32, head: usize, space: &'a mut [f32]) -> &'a [f32] {
        let len = self.layout.head_dim * PAGE_TOKENS;
        self.slots[slot].keys.read((page as usize * self.layout.kv_heads + head) * len, len, space)
    }

    /// The values of the first `tokens` tokens of a page, `[tokens][padded]`.
    pub(crate) fn values<'a>(
        &'a self,
        slot: usize,
        page: u32,
        head: usize,
        tokens: usize,
        space: &'a mut [f32],
    ) -> &'a [f32] {
        let start = (page as usize * self.layout.kv_heads + head) * self.padded * PAGE_TOKENS;
        self.slots[slot].values.read(start, tokens * self.padded, space)
    }

    /// Copies page `from` over page `to`.
    pub(crate) fn copy_page(&mut self, from: u32, to: u32) {
        let [keys, values] = self.page_lens();
        for slot in &mut self.slots {
            slot.keys.copy(from as usize * keys, to as usize * keys, keys);
            slot.values.copy(from as usize * values, to as usize * values, values);
        }
    }

    /// Appends a page to `out`: slot by slot its keys, then its values.
    pub(crate) fn export_page(&self, page: u32, out: &mut Vec<u8>) {
        let [keys, values] = self.page_lens();
        for slot in &self.slots {
            slot.keys.export(page as usize * keys, keys, out);
            slot.values.export(page as usize * values, values, out);
        }
    }

    /// Fills a page with what [`Cache::export_page`] made.
    pub(crate) fn import_page(&mut self, page: u32, mut bytes: &[u8]) -> Result<(), Error> {
        let [keys, values] = self.page_lens();
        let wanted: usize =
            self.slots.iter().map(|slot| slot.keys.bytes(keys) + slot.values.bytes(values)).sum();
        if bytes.len() != wanted {
            let why = format!("a page of {} bytes where {wanted} are due", bytes.len());
            return Err(Error::InvalidArgument(why));
        }
        for slot in &mut self.slots {
            for (numbers, len) in [(&mut slot.keys, keys), (&mut slot.values, values)] {
                let (now, rest) = bytes.split_at(numbers.bytes(len));
                numbers.import(page as usize * len, now);
                bytes = rest;
            }
        }
        Ok(())
    }

    /// How many numbers of keys and of values a page has in each slot.
    fn page_lens(&self) -> [usize; 2] {
        [self.layout.head_dim, self.padded].map(|width| self.layout.kv_heads * width * PAGE_TOKENS)
    }
}
