//! The inner loops: some records of a panel against up to [`TILE_ROWS`](crate::cpu::matmul::TILE_ROWS) rows
//! of activations.
//!
//! A group of weights is one register, and `vpdpbusd` multiplies it with four activation bytes, broadcast
//! from memory by the instruction itself, and adds up in 32-bit lanes, one for each of the 16 outputs. With M
//! rows that is M + 1 loads for M products, and 2 M registers of integer and float sums.
//!
//! Kernels do not subtract a center from the codes; instead, sums start at minus the center times the sum of
//! the activations.

use std::arch::x86_64::*;

use super::planes::{Planes, prefetch, table};
use crate::cpu::activations::Activations;
use crate::cpu::format::{BLOCK, Codes, Float, Format, PANEL, SUPER};

/// The weights of a pass: some records of a panel.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    records: *const u8,
    count: usize,
    /// Bytes of a record, and of its header.
    record_bytes: usize,
    header_bytes: usize,
    codes: Codes,
}

impl Weights {
    /// `records` in `format`.
    pub(super) fn new(format: &Format, records: &[u8]) -> Self {
        let (record_bytes, header_bytes) = (format.record_bytes(), format.header_bytes());
        Self {
            records: records.as_ptr(),
            count: records.len() / record_bytes,
            record_bytes,
            header_bytes,
            codes: format.codes,
        }
    }
}

/// The activations of a pass: M interleaved rows, from the pass's first column on.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    codes: *const i8,
    scales: *const f32,
    sums: *const f32,
    negative16: *const i32,
    negative32: *const i32,
    sums16: *const i16,
    sums32: *const i16,
}

impl Rows {
    /// Returns columns `first ..` of the tile of `m` rows that begins with row `row`.
    pub(super) fn new(a: &Activations, row: usize, m: usize, first: usize) -> Self {
        // Start of a tile's numbers in an array with one for every `every` columns, plus the offset of column
        // `first`. Pointers to arrays that this kind of block lacks dangle; kernels that read them do not
        // run.
        let at = |every: usize| row * (a.columns / every) + first / every * m;
        Self {
            codes: a.codes.as_ptr().wrapping_add(at(4) * 4),
            scales: a.scales.as_ptr().wrapping_add(at(a.block)),
            sums: a.sums.as_ptr().wrapping_add(at(BLOCK)),
            negative16: a.negative16.as_ptr().wrapping_add(at(16)),
            negative32: a.negative32.as_ptr().wrapping_add(at(BLOCK)),
            sums16: a.sums16.as_ptr().wrapping_add(at(32) * 2),
            sums32: a.sums32.as_ptr().wrapping_add(at(64) * 2),
        }
    }
}

/// Loads four bytes into every lane.
///
/// # Safety
/// Element `i` can be read at `p`.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn splat(p: *const i32, i: usize) -> __m512i {
    // SAFETY: by the caller's promise.
    unsafe { _mm512_set1_epi32(p.add(i).read_unaligned()) }
}

/// Same as [`splat`], for a float.
///
/// # Safety
/// Element `i` can be read at `p`.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn splat_ps(p: *const f32, i: usize) -> __m512 {
    // SAFETY: by the caller's promise.
    unsafe { _mm512_set1_ps(*p.add(i)) }
}

/// Converts 16 half floats to floats.
///
/// # Safety
/// 32 bytes can be read at `p`.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn halves(p: *const u8) -> __m512 {
    // SAFETY: by the caller's promise.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
}

/// Loads the 16 scales at the start of a record of planes `P`.
///
/// # Safety
/// They can be read at `p`.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn scales<P: Planes>(p: *const u8) -> __m512 {
    // SAFETY: by the caller's promise.
    unsafe {
        match P::FLOAT {
            Float::F16 => halves(p),
            Float::BF16 => {
                let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
            }
            Float::F32 => _mm512_loadu_ps(p.cast()),
        }
    }
}

/// Sums at the start of a block: minus the center times the sum of its activations.
///
/// # Safety
/// M numbers can be read at `negative`, unless there is no center.
// Not compiled for AVX-512 by itself but into kernels that are: only such a function can be `inline(always)`,
// and a call in the inner loop would pass all sums through memory.
#[inline(always)]
unsafe fn start<P: Planes, const M: usize, const MIN: bool>(negative: *const i32) -> [__m512i; M] {
    // SAFETY: by the caller's promise; callers are compiled for AVX-512.
    unsafe {
        let mut sums = [_mm512_setzero_si512(); M];
        if !MIN {
            for (m, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_sll_epi32(splat(negative, m), _mm_cvtsi32_si128(P::CENTER_BITS as i32));
            }
        }
        sums
    }
}

/// Adds the products of groups `from .. from + 4` of 32 columns; `x` are the activations of group `from`.
///
/// # Safety
/// `P::BYTES` can be read at `planes`, 16 M at `x`.
#[inline(always)]
unsafe fn four_groups<P: Planes, const M: usize>(
    sums: &mut [__m512i; M],
    table: __m512i,
    planes: *const u8,
    from: usize,
    x: *const i8,
) {
    macro_rules! group {
        ($g:literal) => {
            // SAFETY: by the caller's promise.
            unsafe {
                let w = P::group(planes, from + $g, table);
                for (m, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_dpbusd_epi32(*sum, w, splat(x.cast(), $g * M + m));
                }
            }
        };
    }
    group!(0);
    group!(1);
    group!(2);
    group!(3);
}

/// Multiplies blocks with a scale for 32 weights: `acc[m] += Σ d_w d_a (w · x) (+ min_w sum_a)`.
///
/// # Safety
/// `weights` holds whole records of planes `P`, and `rows` M rows with the columns of those records.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn block<P: Planes, const M: usize, const MIN: bool>(
    weights: Weights,
    rows: Rows,
    acc: &mut [[f32; PANEL]],
) {
    assert!(acc.len() == M);
    // SAFETY: by the caller's promise.
    unsafe {
        let mut floats: [__m512; M] = std::array::from_fn(|m| _mm512_loadu_ps(acc[m].as_ptr()));
        let (mut records, table) = (weights.records, table(weights.codes));
        for b in 0..weights.count {
            let planes = records.add(weights.header_bytes);
            prefetch::<P>(planes);
            let x = rows.codes.add(b * BLOCK * M);
            let mut sums = start::<P, M, MIN>(rows.negative32.wrapping_add(b * M));
            four_groups::<P, M>(&mut sums, table, planes, 0, x);
            four_groups::<P, M>(&mut sums, table, planes, 4, x.add(16 * M));
            let d = scales::<P>(records);
            let min = if MIN { halves(records.add(2 * PANEL)) } else { d };
            for m in 0..M {
                let scale = _mm512_mul_ps(d, splat_ps(rows.scales, b * M + m));
                floats[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[m]), scale, floats[m]);
                if MIN {
                    floats[m] = _mm512_fmadd_ps(min, splat_ps(rows.sums, b * M + m), floats[m]);
                }
            }
            records = records.add(weights.record_bytes);
        }
        for (acc, floats) in acc.iter_mut().zip(floats) {
            _mm512_storeu_ps(acc.as_mut_ptr(), floats);
        }
    }
}

/// Multiplies blocks with two scales, each for 16 weights: `acc[m] += Σ d_a (d_1 (w_1 · x_1) + d_2 (w_2 ·
/// x_2))`.
///
/// # Safety
/// Same contract as [`block`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn twin<P: Planes, const M: usize>(weights: Weights, rows: Rows, acc: &mut [[f32; PANEL]]) {
    assert!(acc.len() == M);
    // SAFETY: by the caller's promise.
    unsafe {
        let mut floats: [__m512; M] = std::array::from_fn(|m| _mm512_loadu_ps(acc[m].as_ptr()));
        let (mut records, table) = (weights.records, table(weights.codes));
        for b in 0..weights.count {
            let planes = records.add(weights.header_bytes);
            prefetch::<P>(planes);
            let x = rows.codes.add(b * BLOCK * M);
            let mut sums = start::<P, M, false>(rows.negative16.wrapping_add(2 * b * M));
            four_groups::<P, M>(&mut sums, table, planes, 0, x);
            let d = halves(records);
            let mut scaled = [_mm512_setzero_ps(); M];
            for (scaled, sum) in scaled.iter_mut().zip(sums) {
                *scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), d);
            }
            let mut sums = start::<P, M, false>(rows.negative16.wrapping_add((2 * b + 1) * M));
            four_groups::<P, M>(&mut sums, table, planes, 4, x.add(16 * M));
            let d = halves(records.add(2 * PANEL));
            for m in 0..M {
                let scaled = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[m]), d, scaled[m]);
                floats[m] = _mm512_fmadd_ps(scaled, splat_ps(rows.scales, b * M + m), floats[m]);
            }
            records = records.add(weights.record_bytes);
        }
        for (acc, floats) in acc.iter_mut().zip(floats) {
            _mm512_storeu_ps(acc.as_mut_ptr(), floats);
        }
    }
}

/// Multiplies records with integer scales for `SUB` weights under a float scale for 256.
///
/// # Safety
/// Same contract as [`block`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn super_block<P: Planes, const M: usize, const SUB: usize, const MIN: bool>(
    weights: Weights,
    rows: Rows,
    acc: &mut [[f32; PANEL]],
) {
    assert!(acc.len() == M && (SUB == 16 || SUB == 32));
    let (mut records, table) = (weights.records, table(weights.codes));
    let float_bytes = PANEL * (P::FLOAT.bytes() + 2 * MIN as usize);
    for s in 0..weights.count {
        // SAFETY: by the caller's promise.
        unsafe {
            let scales = records.add(float_bytes);
            let mut total = [_mm512_setzero_si512(); M];
            for b in 0..SUPER / BLOCK {
                let planes = records.add(weights.header_bytes + b * P::BYTES);
                prefetch::<P>(planes);
                let x = rows.codes.add((s * SUPER + b * BLOCK) * M);
                let scale = |i: usize| {
                    _mm512_cvtepi8_epi32(_mm_loadu_si128(scales.add((b * (BLOCK / SUB) + i) * PANEL).cast()))
                };
                let mut add = |sums: [__m512i; M], scale: __m512i| {
                    for (total, sum) in total.iter_mut().zip(sums) {
                        *total = _mm512_add_epi32(*total, _mm512_mullo_epi32(sum, scale));
                    }
                };
                let at = s * (SUPER / SUB) + b * (BLOCK / SUB);
                if SUB == 32 {
                    let mut sums = start::<P, M, MIN>(rows.negative32.wrapping_add(at * M));
                    four_groups::<P, M>(&mut sums, table, planes, 0, x);
                    four_groups::<P, M>(&mut sums, table, planes, 4, x.add(16 * M));
                    add(sums, scale(0));
                } else {
                    let mut sums = start::<P, M, MIN>(rows.negative16.wrapping_add(at * M));
                    four_groups::<P, M>(&mut sums, table, planes, 0, x);
                    add(sums, scale(0));
                    let mut sums = start::<P, M, MIN>(rows.negative16.wrapping_add((at + 1) * M));
                    four_groups::<P, M>(&mut sums, table, planes, 4, x.add(16 * M));
                    add(sums, scale(1));
                }
            }
            let d = self::scales::<P>(records);
            for m in 0..M {
                let scale = _mm512_mul_ps(d, splat_ps(rows.scales, s * M + m));
                let old = _mm512_loadu_ps(acc[m].as_ptr());
                let new = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total[m]), scale, old);
                _mm512_storeu_ps(acc[m].as_mut_ptr(), new);
            }
            if MIN {
                subtract_mins::<M, SUB>(records, rows, s, acc);
            }
        }
        records = records.wrapping_add(weights.record_bytes);
    }
}

/// `acc[m] -= (Σ min · Σ a) * dmin_w * d_a` for record `s` of a pass.
///
/// # Safety
/// Same contract as [`block`], and `record` is that record.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
unsafe fn subtract_mins<const M: usize, const SUB: usize>(
    record: *const u8,
    rows: Rows,
    s: usize,
    acc: &mut [[f32; PANEL]],
) {
    let sub_sums = if SUB == 16 { rows.sums16 } else { rows.sums32 }.cast::<i32>();
    let pairs = SUPER / SUB / 2;
    // SAFETY: by the caller's promise; two neighbors' sums are read at once, because they lie side by side.
    unsafe {
        let mins = record.add(4 * PANEL + SUPER / SUB * PANEL);
        let mut total = [_mm512_setzero_si512(); M];
        for pair in 0..pairs {
            let of =
                |i: usize| _mm512_cvtepu8_epi32(_mm_loadu_si128(mins.add((2 * pair + i) * PANEL).cast()));
            let both = _mm512_or_si512(of(0), _mm512_slli_epi32::<16>(of(1)));
            for (m, total) in total.iter_mut().enumerate() {
                *total = _mm512_dpwssd_epi32(*total, both, splat(sub_sums, (s * pairs + pair) * M + m));
            }
        }
        let d = halves(record.add(2 * PANEL));
        for m in 0..M {
            let scale = _mm512_mul_ps(d, splat_ps(rows.scales, s * M + m));
            let old = _mm512_loadu_ps(acc[m].as_ptr());
            let new = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(total[m]), scale, old);
            _mm512_storeu_ps(acc[m].as_mut_ptr(), new);
        }
    }
}
