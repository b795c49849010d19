//! The paged KV cache in memory.
//!
//! A page is one piece of memory. For every slot (a layer of its group) and key/value head it holds the keys
//! of its 32 tokens column by column (`[head_dim][32]`: a query multiplies 32 keys at a time, with no sum
//! across lanes), then their values row by row (`[32][padded]`, the head's width rounded up to 32). In 8
//! bits, the codes of the keys are followed by their scales, `[blocks][32]` half floats for blocks of 32
//! numbers of a head; the codes of the values likewise. 8-bit keys are stored as differences from the page's
//! first key, which lies as `[padded]` half floats between keys and values. Some models (Qwen) add constants
//! to keys, in the dimensions that rotate slowly, that are a hundred times the differences between keys;
//! without the subtraction, 8 bits would round those differences away.
//!
//! The operating system provides zeroed pages, which take memory when first written.

use std::marker::PhantomData;
use std::ops::Range;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use super::Isa;
use super::aligned::{Aligned, cast, cast_mut};
use super::lanes::{F32x8, LANES, versions};
use super::pool::Parts;
use crate::{CacheLayout, CacheSpec, CacheType, Error, PAGE_TOKENS, PageFormat, PageNumber};

/// Numbers of a head that share a scale in 8 bits.
pub(crate) const BLOCK: usize = 32;

/// A KV cache for all layers of one model.
pub struct Cache {
    layout: CacheLayout,
    shape: Shape,
    data: Aligned<u8>,
}

/// The sizes that addresses are computed from.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    kind: CacheType,
    kv_heads: usize,
    head_dim: usize,
    slots: usize,
    pages: usize,
    page_bytes: usize,
}

impl Shape {
    /// The byte range of one head in a page.
    fn head(&self, slot: usize, page: u32, head: usize) -> Range<usize> {
        assert!(slot < self.slots && (page as usize) < self.pages && head < self.kv_heads);
        let bytes = self.page_bytes / (self.slots * self.kv_heads);
        let start = page as usize * self.page_bytes + (slot * self.kv_heads + head) * bytes;
        start..start + bytes
    }

    fn page(&self, page: u32) -> Range<usize> {
        let start = page as usize * self.page_bytes;
        start..start + self.page_bytes
    }

    /// Numbers per head, with padding.
    fn padded(&self) -> usize {
        self.head_dim.next_multiple_of(BLOCK)
    }

    /// The byte ranges of a head's 8-bit keys with their scales, their offsets, and values with their scales.
    fn q8_parts(&self) -> [Range<usize>; 3] {
        let keys = self.head_dim * PAGE_TOKENS + self.scale_bytes();
        let values = keys + self.padded() * size_of::<u16>();
        [0..keys, keys..values, values..values + self.padded() * PAGE_TOKENS + self.scale_bytes()]
    }

    /// Bytes of a head's 8-bit scales, of keys and of values alike.
    fn scale_bytes(&self) -> usize {
        self.padded() / BLOCK * PAGE_TOKENS * size_of::<u16>()
    }
}

/// The keys or the values of a page's head, row by row.
#[derive(Clone, Copy)]
pub(crate) enum Numbers<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    Q8 {
        codes: &'a [i8],
        /// `[blocks][32]`
        scales: &'a [u16],
        /// The number to add to each row of keys, `[padded]`; empty for values.
        offsets: &'a [u16],
    },
}

impl Cache {
    pub(crate) fn new(spec: &CacheSpec) -> Result<Self, Error> {
        let CacheLayout { kv_heads, head_dim, slots, .. } = spec.layout;
        let (pages, page_bytes) = (spec.pages, spec.page_bytes());
        let bytes = page_bytes.checked_mul(pages).filter(|&b| b < isize::MAX as usize / 2);
        // Pages are large and read from end to end.
        let Some(data) = bytes.and_then(Aligned::try_zeroed_huge) else {
            let why = format!(
                "a KV cache of {pages} pages of {page_bytes} bytes is more than this machine has room for"
            );
            return Err(Error::InvalidArgument(why));
        };
        let shape = Shape { kind: spec.kind, kv_heads, head_dim, slots, pages, page_bytes };
        Ok(Self { layout: spec.layout.clone(), shape, data })
    }

    pub(crate) fn layout(&self) -> &CacheLayout {
        &self.layout
    }

    pub(crate) fn pages(&self) -> usize {
        self.shape.pages
    }

    /// Returns the keys of a page, `[head_dim][32]`, and its values, `[32][padded]`.
    pub(crate) fn read(&self, slot: usize, page: u32, head: usize) -> [Numbers<'_>; 2] {
        let bytes = &self.data[self.shape.head(slot, page, head)];
        let keys = self.shape.head_dim * PAGE_TOKENS;
        match self.shape.kind {
            CacheType::F32 => <[_; 2]>::from(cast(bytes).split_at(keys)).map(Numbers::F32),
            CacheType::F16 => <[_; 2]>::from(cast(bytes).split_at(keys)).map(Numbers::F16),
            CacheType::Q8_0 => {
                let [keys, offsets, values] = self.shape.q8_parts().map(|part| &bytes[part]);
                [(keys, offsets), (values, &[])].map(|(part, offsets)| {
                    let (codes, scales) = part.split_at(part.len() - self.shape.scale_bytes());
                    Numbers::Q8 { codes: cast(codes), scales: cast(scales), offsets: cast(offsets) }
                })
            }
        }
    }

    /// Returns a writer that several threads use at once.
    pub(crate) fn writer(&mut self) -> Writer<'_> {
        Writer { shape: self.shape, parts: Parts::new(&mut self.data), _cache: PhantomData }
    }

    /// Copies page `from` over page `to`.
    pub(crate) fn copy_page(&mut self, from: u32, to: u32) {
        self.data.copy_within(self.shape.page(from), self.shape.page(to).start);
    }

    /// Appends a page's bytes to `out`.
    pub(crate) fn export_page(&self, page: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.data[self.shape.page(page)]);
    }

    /// Returns the layout of a page's bytes.
    pub(crate) fn page_format(&self) -> PageFormat {
        let shape = &self.shape;
        let heads = shape.slots * shape.kv_heads;
        match shape.kind {
            CacheType::F32 => PageFormat::repeated(&[(PageNumber::F32, shape.page_bytes)], 1),
            CacheType::F16 => PageFormat::repeated(&[(PageNumber::F16, shape.page_bytes)], 1),
            CacheType::Q8_0 => {
                let [keys, offsets, values] = shape.q8_parts().map(|part| part.len());
                let scales = shape.scale_bytes();
                let head = [
                    (PageNumber::Code, keys - scales),
                    (PageNumber::F16, scales + offsets),
                    (PageNumber::Code, values - scales),
                    (PageNumber::F16, scales),
                ];
                PageFormat::repeated(&head, heads)
            }
        }
    }

    /// Fills a page with bytes that [`Cache::export_page`] wrote.
    pub(crate) fn import_page(&mut self, page: u32, bytes: &[u8]) -> Result<(), Error> {
        let wanted = self.shape.page_bytes;
        if bytes.len() != wanted {
            let why = format!("a page of {} bytes where {wanted} are due", bytes.len());
            return Err(Error::InvalidArgument(why));
        }
        self.data[self.shape.page(page)].copy_from_slice(bytes);
        Ok(())
    }
}

/// An exclusively borrowed cache that several threads write to.
pub(crate) struct Writer<'a> {
    shape: Shape,
    parts: Parts<u8>,
    _cache: PhantomData<&'a mut Cache>,
}

impl Writer<'_> {
    /// Writes the keys and values of one token, `[heads * head_dim]`, to a layer's slot.
    ///
    /// # Safety
    /// No other thread reads or writes the page meanwhile.
    pub(crate) unsafe fn write(&self, isa: Isa, slot: usize, page: u32, token: usize, rows: [&[f32]; 2]) {
        for head in 0..rows[0].len() / self.shape.head_dim {
            let place = self.shape.head(slot, page, head);
            // SAFETY: the caller's promise.
            let bytes = unsafe { self.parts.part(place.start, place.len()) };
            let [key, value] = rows.map(|row| &row[head * self.shape.head_dim..][..self.shape.head_dim]);
            write(isa, &self.shape, bytes, token, key, value);
        }
    }
}

#[inline(always)]
fn write_body(shape: &Shape, bytes: &mut [u8], token: usize, key: &[f32], value: &[f32]) {
    let keys = shape.head_dim * PAGE_TOKENS;
    let first_value = token * shape.padded();
    match shape.kind {
        CacheType::F32 => {
            let (keys, values) = cast_mut::<f32>(bytes).split_at_mut(keys);
            scatter(key, &mut keys[token..]);
            values[first_value..][..value.len()].copy_from_slice(value);
        }
        CacheType::F16 => {
            let (keys, values) = cast_mut::<u16>(bytes).split_at_mut(keys);
            for (b, x) in key.chunks(BLOCK).enumerate() {
                let mut halves = [0; BLOCK];
                halves[..x.len()].reinterpret_cast_mut::<f16>().convert_from_f32_slice(x);
                scatter(&halves[..x.len()], &mut keys[b * BLOCK * PAGE_TOKENS + token..]);
            }
            let values = &mut values[first_value..][..value.len()];
            values.reinterpret_cast_mut::<f16>().convert_from_f32_slice(value);
        }
        CacheType::Q8_0 => {
            let [_, offsets, values] = shape.q8_parts();
            let (bytes, value_bytes) = bytes.split_at_mut(values.start);
            let (key_bytes, offsets) = bytes.split_at_mut(offsets.start);
            let offsets = cast_mut::<u16>(offsets);
            if token == 0 {
                for (offset, x) in offsets.iter_mut().zip(key) {
                    *offset = f16::from_f32(x.clamp(-65504.0, 65504.0)).to_bits();
                }
            }
            let (codes, scales_of) = key_bytes.split_at_mut(keys);
            for (b, (x, offsets)) in key.chunks(BLOCK).zip(offsets.chunks(BLOCK)).enumerate() {
                let mut differences = [0.0; BLOCK];
                offsets.reinterpret_cast::<f16>().convert_to_f32_slice(&mut differences);
                differences.iter_mut().zip(x).for_each(|(d, x)| *d = x - *d);
                let (block, scale) = quantize(&differences[..x.len()]);
                scatter(&block[..x.len()], &mut cast_mut(codes)[b * BLOCK * PAGE_TOKENS + token..]);
                cast_mut(scales_of)[b * PAGE_TOKENS + token] = scale;
            }
            let scales = shape.scale_bytes();
            let (codes, scales_of) = value_bytes.split_at_mut(value_bytes.len() - scales);
            for (b, x) in value.chunks(BLOCK).enumerate() {
                let (block, scale) = quantize(x);
                cast_mut(codes)[first_value + b * BLOCK..][..BLOCK].copy_from_slice(&block);
                cast_mut(scales_of)[b * PAGE_TOKENS + token] = scale;
            }
        }
    }
}
versions! {
    /// Writes one token to a head's bytes.
    fn write(shape: &Shape, bytes: &mut [u8], token: usize, key: &[f32], value: &[f32]) = write_body
}

/// Writes `x` into one column of rows of 32.
#[inline(always)]
fn scatter<T: Copy>(x: &[T], column: &mut [T]) {
    for (to, &x) in column.iter_mut().step_by(PAGE_TOKENS).zip(x) {
        *to = x;
    }
}

/// Quantizes up to 32 numbers to 8 bits, and returns the codes and the scale as a half float.
#[inline(always)]
fn quantize(x: &[f32]) -> ([i8; BLOCK], u16) {
    let mut padded = [0.0; BLOCK];
    padded[..x.len()].copy_from_slice(x);
    let mut largest = F32x8::ZERO;
    for x in padded.chunks_exact(LANES) {
        largest = F32x8::load(x).map(f32::abs).max(largest);
    }
    // Round the scale first, because codes are relative to the scale that is multiplied back. The largest
    // half float is 65504.
    let scale = f16::from_f32((largest.largest() / 127.0).min(65504.0));
    let scale_f32 = scale.to_f32();
    let inverse = if scale_f32 > 0.0 { 1.0 / scale_f32 } else { 0.0 };
    let mut codes = [0; BLOCK];
    for (code, x) in codes.iter_mut().zip(padded) {
        // Codes beyond 127, which the scale's rounding can cause, are clamped; a NaN becomes 0.
        *code = (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
    }
    (codes, scale.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_a_number_to_half_a_step() {
        for (i, largest) in [1e-3f32, 0.5, 1.0, 300.0, 1e5].into_iter().enumerate() {
            let x: Vec<f32> = (0..27).map(|j| ((j * 7 + i) % 27) as f32 / 13.0 * largest - largest).collect();
            let (codes, scale) = quantize(&x);
            let scale = f16::from_bits(scale).to_f32();
            for (&x, code) in x.iter().zip(codes) {
                let error = (x - code as f32 * scale).abs();
                assert!(error <= largest / 127.0 * 0.57, "{x} became {code} of {scale}");
            }
        }
        assert_eq!(quantize(&[0.0; 3]), ([0; BLOCK], 0));
    }
}
