//! Integer products with AVX2.
//!
//! Unsigned codes of up to 6 bits: `vpmaddubsw` multiplies 32 weights with 32 activation bytes and adds pairs
//! into 16-bit lanes. Several such results are added in 16 bits before `vpmaddwd` widens them, so that a
//! product costs little more than one multiply and one add for 32 weights (widening each one would double that).
//! It never overflows where it matters: 8 × 2 products of a 4-bit code and a signed byte are at most 30,480; for
//! codes with a center the lanes start at minus the center times the activations' sums, wrap around in between,
//! and end at the true sum of centered products, at most 8 × 2 × 16 × 127 = 32,512.
//!
//! Signed 8-bit codes are widened to 16 bits when the tile is unpacked and multiplied with `vpmaddwd`, which is
//! exact and no slower than splitting signs off for `vpmaddubsw`.

use std::arch::asm;
use std::arch::x86_64::*;

use super::tile::Tile;
use crate::cpu::activations::Activations;
use crate::cpu::format::{BLOCK, Codes, Format, GROUP, PANEL, SUPER, Scales, TABLE};

/// Rows of activations that one pass over a tile serves.
const ROWS: usize = 4;

/// Bytes of unpacked signed codes for 32 columns.
const WIDE_BLOCK: usize = 8 * 2 * GROUP;
/// Bytes of unpacked unsigned codes for 32 columns.
const NARROW_BLOCK: usize = 8 * GROUP;

/// Unpacks `records` of a panel.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn unpack(tile: &mut Tile, format: &Format, records: &[u8]) {
    let bytes = format.record_bytes();
    tile.columns = records.len() / bytes * format.record_columns();
    let stride = if format.codes.signed() { WIDE_BLOCK } else { NARROW_BLOCK };
    assert!(tile.codes.len() >= tile.columns / BLOCK * stride);
    let mut at = 0;
    for (r, record) in records.chunks_exact(bytes).enumerate() {
        tile.unpack_scales(format, r, record, |bytes, out| {
            assert!(bytes.len() >= 32 && out.len() >= 16);
            for h in 0..2 {
                // SAFETY: 32 bytes in, 16 floats out, asserted above; f16c is enabled.
                unsafe {
                    let half = _mm_loadu_si128(bytes.as_ptr().add(16 * h).cast());
                    _mm256_storeu_ps(out.as_mut_ptr().add(8 * h), _mm256_cvtph_ps(half));
                }
            }
        });
        for planes in record[format.header_bytes()..].chunks_exact(format.codes.plane_bytes()) {
            // SAFETY: `planes` holds the planes of 32 columns; the tile has room for all blocks, asserted above.
            unsafe { unpack_block(format.codes, planes.as_ptr(), tile.codes.as_mut_ptr().add(at)) };
            at += stride;
        }
    }
}

/// # Safety
/// `planes` points to `codes.plane_bytes()` bytes, `out` to a block's unpacked size, aligned to 32 bytes.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn unpack_block(codes: Codes, planes: *const u8, out: *mut u8) {
    // SAFETY: every offset below lies inside the planes or the block, by the caller's promise.
    unsafe {
        // Weights are used once a pass and then not again: ask for what comes a few blocks later.
        _mm_prefetch::<_MM_HINT_T0>(planes.wrapping_add(2048).cast());
        let load = |at: usize| _mm256_loadu_si256(planes.add(at).cast());
        let store = |at: usize, v| _mm256_store_si256(out.add(at).cast(), v);
        let nibble = _mm256_set1_epi8(15);
        let two = _mm256_set1_epi8(3);
        // Bits `from .. from + n` of every byte moved to bit `to`, the rest masked off.
        macro_rules! bits {
            ($v:expr, $from:expr, $to:expr, $mask:expr) => {{
                let v = if $from >= $to {
                    _mm256_srl_epi16($v, _mm_cvtsi32_si128($from - $to))
                } else {
                    _mm256_sll_epi16($v, _mm_cvtsi32_si128($to - $from))
                };
                _mm256_and_si256(v, $mask)
            }};
        }
        match codes {
            Codes::U4 => {
                for at in (0..4 * GROUP).step_by(32) {
                    let p = load(at);
                    store(at, _mm256_and_si256(p, nibble));
                    store(at + 4 * GROUP, _mm256_and_si256(_mm256_srli_epi16::<4>(p), nibble));
                }
            }
            Codes::U5 => {
                let bit = _mm256_set1_epi8(16);
                for h in [0, 32] {
                    let high = load(4 * GROUP + h);
                    for g in 0..4 {
                        let p = load(g * GROUP + h);
                        let low = _mm256_and_si256(p, nibble);
                        store(g * GROUP + h, _mm256_or_si256(low, bits!(high, g as i32, 4, bit)));
                        let low = _mm256_and_si256(_mm256_srli_epi16::<4>(p), nibble);
                        store((g + 4) * GROUP + h, _mm256_or_si256(low, bits!(high, g as i32 + 4, 4, bit)));
                    }
                }
            }
            Codes::U6 => {
                let mask = _mm256_set1_epi8(0x30);
                for h in [0, 32] {
                    let high = [load(4 * GROUP + h), load(5 * GROUP + h)];
                    for g in 0..4 {
                        let p = load(g * GROUP + h);
                        let low = _mm256_and_si256(p, nibble);
                        store(g * GROUP + h, _mm256_or_si256(low, bits!(high[0], 2 * g as i32, 4, mask)));
                        let low = _mm256_and_si256(_mm256_srli_epi16::<4>(p), nibble);
                        store(
                            (g + 4) * GROUP + h,
                            _mm256_or_si256(low, bits!(high[1], 2 * g as i32, 4, mask)),
                        );
                    }
                }
            }
            Codes::U2 => {
                for at in (0..2 * GROUP).step_by(32) {
                    let (p, group, h) = (load(at), at / GROUP * 4, at % GROUP);
                    for i in 0..4 {
                        store((group + i) * GROUP + h, bits!(p, 2 * i as i32, 0, two));
                    }
                }
            }
            Codes::U3 => {
                let bit = _mm256_set1_epi8(4);
                for at in (0..2 * GROUP).step_by(32) {
                    let (p, group, h) = (load(at), at / GROUP * 4, at % GROUP);
                    let high = load(2 * GROUP + h);
                    for i in 0..4 {
                        let low = bits!(p, 2 * i as i32, 0, two);
                        let g = group + i;
                        store(g * GROUP + h, _mm256_or_si256(low, bits!(high, g as i32, 2, bit)));
                    }
                }
            }
            Codes::I8 => {
                for at in (0..8 * GROUP).step_by(32) {
                    store_wide(load(at), out.add(at / GROUP * 2 * GROUP + at % GROUP));
                }
            }
            Codes::Table => {
                let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(TABLE.as_ptr().cast()));
                for at in (0..4 * GROUP).step_by(32) {
                    let (p, out) = (load(at), out.add(at / GROUP * 2 * GROUP + at % GROUP));
                    store_wide(_mm256_shuffle_epi8(table, _mm256_and_si256(p, nibble)), out);
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(p), nibble);
                    store_wide(_mm256_shuffle_epi8(table, high), out.add(4 * 2 * GROUP));
                }
            }
        }
    }
}

/// Widens 8 rows × 4 columns of signed bytes: columns 0 and 2 to `out`, columns 1 and 3 a group further.
///
/// # Safety
/// 32 aligned bytes can be written at `out` and at `out + 64`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn store_wide(v: __m256i, out: *mut u8) {
    let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(v));
    let odd = _mm256_srai_epi16::<8>(v);
    // SAFETY: by the caller's promise.
    unsafe {
        _mm256_store_si256(out.cast(), even);
        _mm256_store_si256(out.add(GROUP).cast(), odd);
    }
}

/// Adds the products of a tile, whose first column is `first`, with rows `row .. row + M` of the activations to
/// `acc`.
#[target_feature(enable = "avx2,fma,f16c")]
fn product<const M: usize>(
    format: &Format,
    tile: &Tile,
    a: &Activations,
    row: usize,
    first: usize,
    acc: &mut [[f32; PANEL]],
) {
    assert!(acc.len() == M && row + M <= a.rows && first + tile.columns <= a.columns);
    assert!(tile.columns.is_multiple_of(format.record_columns()) && a.block == format.record_columns());
    // SAFETY: the kernels read `tile.columns` columns of the tile and of M rows of the activations; both were
    // prepared for as many, and the assertions above hold for the rows and the columns.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; M];
        for (sum, acc) in sums.iter_mut().zip(&*acc) {
            *sum = [_mm256_loadu_ps(acc.as_ptr()), _mm256_loadu_ps(acc.as_ptr().add(8))];
        }
        let job = Job { tile, a, row, first };
        match (format.codes, format.scales) {
            (Codes::I8 | Codes::Table, Scales::Block { .. }) => job.signed_block(&mut sums),
            (Codes::I8 | Codes::Table, Scales::Super { .. }) => job.signed_super(&mut sums),
            (Codes::U5, Scales::Block { min: false }) => job.unsigned_block::<M, 16, 8, false>(&mut sums),
            (Codes::U5, Scales::Block { min: true }) => job.unsigned_block::<M, 0, 4, true>(&mut sums),
            (_, Scales::Block { min: false }) => job.unsigned_block::<M, 8, 8, false>(&mut sums),
            (_, Scales::Block { min: true }) => job.unsigned_block::<M, 0, 8, true>(&mut sums),
            (Codes::U6, Scales::Super { .. }) => job.unsigned_super::<M, 32, 4, 16, false>(&mut sums),
            (Codes::U3, Scales::Super { .. }) => job.unsigned_super::<M, 4, 4, 16, false>(&mut sums),
            (Codes::U5, Scales::Super { .. }) => job.unsigned_super::<M, 0, 4, 32, true>(&mut sums),
            (Codes::U2, Scales::Super { .. }) => job.unsigned_super::<M, 0, 4, 16, true>(&mut sums),
            (_, Scales::Super { .. }) => job.unsigned_super::<M, 0, 8, 32, true>(&mut sums),
        }
        for (sum, acc) in sums.iter().zip(acc) {
            _mm256_storeu_ps(acc.as_mut_ptr(), sum[0]);
            _mm256_storeu_ps(acc.as_mut_ptr().add(8), sum[1]);
        }
    }
}

/// M rows by 16 outputs.
type Sums<const M: usize> = [[__m256; 2]; M];

struct Job<'a> {
    tile: &'a Tile,
    a: &'a Activations,
    row: usize,
    first: usize,
}

/// Four activation bytes, or two 16-bit ones, in every lane.
///
/// # Safety
/// Four bytes can be read at `p`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn broadcast<T>(p: *const T) -> __m256i {
    // SAFETY: by the caller's promise.
    unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
}

/// `acc[h] += w[h] · x`: one group of four columns. `OP` 0 multiplies unsigned with signed bytes into 16-bit
/// lanes, `OP` 1 signed 16-bit numbers into 32-bit lanes. `x` is read at `x + OFFSET` bytes and broadcast.
///
/// Assembly, because LLVM, given intrinsics, unrolls the groups of a block, loads all weights first, adds up
/// in a tree and spills: measured at half the speed. Here sums stay where they are.
///
/// # Safety
/// Four bytes can be read at `x + OFFSET`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn step<const OP: usize, const OFFSET: usize>(acc: &mut [__m256i; 2], w: [__m256i; 2], x: *const u8) {
    macro_rules! step {
        ($multiply:literal, $add:literal) => {
            // SAFETY: reads four bytes at `x + OFFSET`, the caller's promise, and changes only its operands.
            unsafe {
                asm!(
                    "vpbroadcastd {x}, dword ptr [{p} + {offset}]",
                    concat!($multiply, " {t}, {w0}, {x}"),
                    concat!($multiply, " {x}, {w1}, {x}"),
                    concat!($add, " {a0}, {a0}, {t}"),
                    concat!($add, " {a1}, {a1}, {x}"),
                    p = in(reg) x,
                    offset = const OFFSET,
                    x = out(ymm_reg) _,
                    t = out(ymm_reg) _,
                    w0 = in(ymm_reg) w[0],
                    w1 = in(ymm_reg) w[1],
                    a0 = inout(ymm_reg) acc[0],
                    a1 = inout(ymm_reg) acc[1],
                    options(pure, readonly, nostack, preserves_flags),
                )
            }
        };
    }
    if OP == 0 { step!("vpmaddubsw", "vpaddw") } else { step!("vpmaddwd", "vpaddd") }
}

/// Four groups of weights from `w` on against the activations from `x[m]` on.
///
/// # Safety
/// Four groups can be read at `w`, 16 bytes at each `x`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn four_steps<const M: usize, const OP: usize>(
    acc: &mut [[__m256i; 2]; M],
    w: *const u8,
    x: &[*const u8; M],
) {
    macro_rules! group {
        ($g:literal) => {
            // SAFETY: by the caller's promise.
            unsafe {
                let w = w.add($g * GROUP).cast::<__m256i>();
                let w = [_mm256_load_si256(w), _mm256_load_si256(w.add(1))];
                for m in 0..M {
                    step::<OP, { 4 * $g }>(&mut acc[m], w, x[m]);
                }
            }
        };
    }
    group!(0);
    group!(1);
    group!(2);
    group!(3);
}

impl Job<'_> {
    /// # Safety
    /// The tile and the activations hold what [`product`] asserts; here and in the functions below.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn unsigned_block<const M: usize, const CENTER: i16, const CHAIN: usize, const MIN: bool>(
        &self,
        sums: &mut Sums<M>,
    ) {
        let Job { tile, a, row, first } = *self;
        let ones = _mm256_set1_epi16(1);
        // SAFETY: by the caller's promise.
        unsafe {
            for b in 0..tile.columns / BLOCK {
                let w = tile.codes.as_ptr().add(b * NARROW_BLOCK);
                let at = |m: usize| (row + m) * a.columns + first + b * BLOCK;
                let mut total = [[_mm256_setzero_si256(); 2]; M];
                for chain in 0..8 / CHAIN {
                    let mut acc = [[_mm256_setzero_si256(); 2]; M];
                    if CENTER != 0 {
                        for (m, acc) in acc.iter_mut().enumerate() {
                            let lanes = broadcast(a.lane_sums.as_ptr().add(at(m) / BLOCK * 2));
                            *acc = [_mm256_mullo_epi16(lanes, _mm256_set1_epi16(-CENTER)); 2];
                        }
                    }
                    for g in (chain * CHAIN..(chain + 1) * CHAIN).step_by(4) {
                        let x = std::array::from_fn(|m| a.codes.as_ptr().add(at(m) + 4 * g).cast());
                        four_steps::<M, 0>(&mut acc, w.add(g * GROUP), &x);
                    }
                    for (total, acc) in total.iter_mut().zip(&acc) {
                        for h in 0..2 {
                            let wide = _mm256_madd_epi16(acc[h], ones);
                            total[h] = if chain == 0 { wide } else { _mm256_add_epi32(total[h], wide) };
                        }
                    }
                }
                self.finish_block::<M, MIN>(b, &total, sums);
            }
        }
    }

    /// `sums += total * d_w * d_a (+ min_w * sum_a)` for block `b` of the tile.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn finish_block<const M: usize, const MIN: bool>(
        &self,
        b: usize,
        total: &[[__m256i; 2]; M],
        sums: &mut Sums<M>,
    ) {
        let Job { tile, a, row, first } = *self;
        // SAFETY: by the promise of `unsigned_block`.
        unsafe {
            for h in 0..2 {
                let d = _mm256_load_ps(tile.scales.as_ptr().add(b * PANEL + 8 * h));
                let min = _mm256_load_ps(tile.mins.as_ptr().add(b * PANEL + 8 * h));
                for m in 0..M {
                    let at = ((row + m) * a.columns + first) / BLOCK + b;
                    let scale = _mm256_mul_ps(d, _mm256_broadcast_ss(&*a.scales.as_ptr().add(at)));
                    sums[m][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(total[m][h]), scale, sums[m][h]);
                    if MIN {
                        let sum = _mm256_broadcast_ss(&*a.sums.as_ptr().add(at));
                        sums[m][h] = _mm256_fmadd_ps(min, sum, sums[m][h]);
                    }
                }
            }
        }
    }

    /// The products of 32 columns of widened signed codes.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn signed_dot<const M: usize>(&self, b: usize) -> [[__m256i; 2]; M] {
        let Job { tile, a, row, first } = *self;
        let mut acc = [[_mm256_setzero_si256(); 2]; M];
        // SAFETY: by the promise of `unsigned_block`; `wide` was filled for signed codes.
        unsafe {
            let w = tile.codes.as_ptr().add(b * WIDE_BLOCK);
            for g in (0..16).step_by(4) {
                let x = std::array::from_fn(|m| {
                    a.wide.as_ptr().add((row + m) * a.columns + first + b * BLOCK + 2 * g).cast()
                });
                four_steps::<M, 1>(&mut acc, w.add(g * GROUP), &x);
            }
        }
        acc
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn signed_block<const M: usize>(&self, sums: &mut Sums<M>) {
        for b in 0..self.tile.columns / BLOCK {
            // SAFETY: by the promise of `unsigned_block`.
            unsafe {
                let total = self.signed_dot::<M>(b);
                self.finish_block::<M, false>(b, &total, sums);
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn signed_super<const M: usize>(&self, sums: &mut Sums<M>) {
        for s in 0..self.tile.columns / SUPER {
            // SAFETY: by the promise of `unsigned_block`.
            unsafe {
                let mut total = [[_mm256_setzero_si256(); 2]; M];
                for b in s * 8..s * 8 + 8 {
                    let dot = self.signed_dot::<M>(b);
                    for h in 0..2 {
                        // Each row's scale stands twice in 16 bits; one of the two, widened with its sign.
                        let scale = self.tile.sub_scales.as_ptr().add((b * PANEL + 8 * h) * 2);
                        let scale = _mm256_srai_epi32::<16>(_mm256_load_si256(scale.cast()));
                        for m in 0..M {
                            let product = _mm256_mullo_epi32(dot[m][h], scale);
                            total[m][h] = _mm256_add_epi32(total[m][h], product);
                        }
                    }
                }
                self.finish_super::<M>(s, &total, sums);
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn unsigned_super<
        const M: usize,
        const CENTER: i16,
        const CHAIN: usize,
        const SUB: usize,
        const MIN: bool,
    >(
        &self,
        sums: &mut Sums<M>,
    ) {
        let Job { tile, a, row, first } = *self;
        // SAFETY: by the promise of `unsigned_block`.
        unsafe {
            for s in 0..tile.columns / SUPER {
                let at = |m: usize| (row + m) * a.columns + first + s * SUPER;
                let mut total = [[_mm256_setzero_si256(); 2]; M];
                for chain in 0..SUPER / 4 / CHAIN {
                    let mut acc = [[_mm256_setzero_si256(); 2]; M];
                    if CENTER != 0 {
                        for (m, acc) in acc.iter_mut().enumerate() {
                            let lanes = broadcast(a.lane_sums.as_ptr().add((at(m) / 16 + chain) * 2));
                            *acc = [_mm256_mullo_epi16(lanes, _mm256_set1_epi16(-CENTER)); 2];
                        }
                    }
                    for g in (chain * CHAIN..(chain + 1) * CHAIN).step_by(4) {
                        let x = std::array::from_fn(|m| a.codes.as_ptr().add(at(m) + 4 * g).cast());
                        let w = tile.codes.as_ptr().add((s * (SUPER / 4) + g) * GROUP);
                        four_steps::<M, 0>(&mut acc, w, &x);
                    }
                    let sub = s * (SUPER / SUB) + chain * CHAIN * 4 / SUB;
                    let scale = tile.sub_scales.as_ptr().add(sub * PANEL * 2).cast::<__m256i>();
                    let scale = [_mm256_load_si256(scale), _mm256_load_si256(scale.add(1))];
                    for (total, acc) in total.iter_mut().zip(&acc) {
                        for h in 0..2 {
                            total[h] = _mm256_add_epi32(total[h], _mm256_madd_epi16(acc[h], scale[h]));
                        }
                    }
                }
                self.finish_super::<M>(s, &total, sums);
                if MIN {
                    self.finish_mins::<M, SUB>(s, sums);
                }
            }
        }
    }

    /// `sums += total * d_w * d_a` for the tile's 256 columns `s`.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn finish_super<const M: usize>(&self, s: usize, total: &[[__m256i; 2]; M], sums: &mut Sums<M>) {
        let Job { tile, a, row, first } = *self;
        // SAFETY: by the promise of `unsigned_block`.
        unsafe {
            for h in 0..2 {
                let d = _mm256_load_ps(tile.scales.as_ptr().add(s * PANEL + 8 * h));
                for m in 0..M {
                    let at = ((row + m) * a.columns + first) / SUPER + s;
                    let scale = _mm256_mul_ps(d, _mm256_broadcast_ss(&*a.scales.as_ptr().add(at)));
                    sums[m][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(total[m][h]), scale, sums[m][h]);
                }
            }
        }
    }

    /// `sums -= (Σ min · Σ a) * dmin_w * d_a` for the tile's 256 columns `s`.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn finish_mins<const M: usize, const SUB: usize>(&self, s: usize, sums: &mut Sums<M>) {
        let Job { tile, a, row, first } = *self;
        let sub_sums = if SUB == 16 { &a.sums16 } else { &a.sums32 };
        let pairs = SUPER / SUB / 2;
        // SAFETY: by the promise of `unsigned_block`.
        unsafe {
            for h in 0..2 {
                let mut total = [_mm256_setzero_si256(); M];
                for pair in 0..pairs {
                    let min = tile.sub_mins.as_ptr().add(((s * pairs + pair) * PANEL + 8 * h) * 2);
                    let min = _mm256_load_si256(min.cast());
                    for (m, total) in total.iter_mut().enumerate() {
                        let at = ((row + m) * a.columns + first + s * SUPER) / SUB + 2 * pair;
                        let sums = broadcast(sub_sums.as_ptr().add(at));
                        *total = _mm256_add_epi32(*total, _mm256_madd_epi16(min, sums));
                    }
                }
                let d = _mm256_load_ps(tile.mins.as_ptr().add(s * PANEL + 8 * h));
                for m in 0..M {
                    let at = ((row + m) * a.columns + first) / SUPER + s;
                    let scale = _mm256_mul_ps(d, _mm256_broadcast_ss(&*a.scales.as_ptr().add(at)));
                    sums[m][h] = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(total[m]), scale, sums[m][h]);
                }
            }
        }
    }
}

/// Adds the products of a tile with all rows of the activations to `acc`, `[rows][16]`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn products(
    format: &Format,
    tile: &Tile,
    a: &Activations,
    first: usize,
    acc: &mut [[f32; PANEL]],
) {
    for (i, acc) in acc.chunks_mut(ROWS).enumerate() {
        let row = i * ROWS;
        match acc.len() {
            4 => product::<4>(format, tile, a, row, first, acc),
            3 => product::<3>(format, tile, a, row, first, acc),
            2 => product::<2>(format, tile, a, row, first, acc),
            _ => product::<1>(format, tile, a, row, first, acc),
        }
    }
}

/// `acc[m][p] += Σ_k x[m][k] · weights[k][p]` for `columns` columns of a float panel, rows of `x` `stride` apart.
#[target_feature(enable = "avx2,fma")]
pub(crate) fn float_products(weights: &[f32], x: &[f32], stride: usize, acc: &mut [[f32; PANEL]]) {
    let columns = weights.len() / PANEL;
    assert!(acc.is_empty() || x.len() >= (acc.len() - 1) * stride + columns);
    let mut row = 0;
    for acc in acc.chunks_mut(6) {
        // SAFETY: the assertion above bounds every row of `x`.
        unsafe {
            let x = x.as_ptr().add(row * stride);
            match acc.len() {
                6 => float_product::<6>(weights, x, stride, acc),
                5 => float_product::<5>(weights, x, stride, acc),
                4 => float_product::<4>(weights, x, stride, acc),
                3 => float_product::<3>(weights, x, stride, acc),
                2 => float_product::<2>(weights, x, stride, acc),
                _ => float_product::<1>(weights, x, stride, acc),
            }
        }
        row += acc.len();
    }
}

/// # Safety
/// `x` points to M rows of `weights.len() / 16` numbers, `stride` apart.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn float_product<const M: usize>(
    weights: &[f32],
    x: *const f32,
    stride: usize,
    acc: &mut [[f32; PANEL]],
) {
    // SAFETY: by the caller's promise; `acc` has M rows.
    unsafe {
        let mut sums: Sums<M> = [[_mm256_setzero_ps(); 2]; M];
        for (sum, acc) in sums.iter_mut().zip(&*acc) {
            *sum = [_mm256_loadu_ps(acc.as_ptr()), _mm256_loadu_ps(acc.as_ptr().add(8))];
        }
        for (k, w) in weights.chunks_exact(PANEL).enumerate() {
            let (w0, w1) = (_mm256_loadu_ps(w.as_ptr()), _mm256_loadu_ps(w.as_ptr().add(8)));
            for (m, sum) in sums.iter_mut().enumerate() {
                let x = _mm256_broadcast_ss(&*x.add(m * stride + k));
                *sum = [_mm256_fmadd_ps(w0, x, sum[0]), _mm256_fmadd_ps(w1, x, sum[1])];
            }
        }
        for (sum, acc) in sums.iter().zip(acc) {
            _mm256_storeu_ps(acc.as_mut_ptr(), sum[0]);
            _mm256_storeu_ps(acc.as_mut_ptr().add(8), sum[1]);
        }
    }
}
