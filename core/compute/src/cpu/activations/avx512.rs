//! Quantizes rows with AVX-512: the same numbers as the portable code.
//!
//! The rows of a tile go together, a block of columns at a time, because their units alternate: a block's
//! codes of all rows are turned once in registers and then stored whole, and so are their scales and sums.
//! (One row at a time, every four codes were a store of their own to another line, which took a fifth of a
//! prompt's time.)

use std::arch::x86_64::*;

use super::{Fill, Place, TILE_ROWS};
use crate::cpu::format::BLOCK;
use crate::cpu::pool::Parts;

/// Quantizes all rows of the tile at `place` from `x`, each `[columns]`.
///
/// # Safety
/// Same contract as [`Fill::tile`]. The tile has as many rows as `x`, at most
/// [`TILE_ROWS`], all of the columns of `fill`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn tile(fill: &Fill, place: Place, x: &[&[f32]]) {
    debug_assert!(x.len() == place.stride && x.len() <= TILE_ROWS);
    let present = ((1u32 << x.len()) - 1) as __mmask8;
    let ones = _mm512_set1_epi8(1);
    for b in 0..fill.columns / fill.block {
        let first = b * fill.block;
        let mut largest = [_mm256_setzero_ps(); TILE_ROWS];
        for (largest, x) in largest.iter_mut().zip(x) {
            let mut most = _mm512_setzero_ps();
            for x in x[first..first + fill.block].chunks_exact(16) {
                // SAFETY: 16 numbers. Of a NaN and a number, the instruction returns its second operand.
                let x = unsafe { _mm512_loadu_ps(x.as_ptr()) };
                most = _mm512_max_ps(_mm512_abs_ps(x), most);
            }
            *largest = _mm256_max_ps(_mm512_castps512_ps256(most), _mm512_extractf32x8_ps::<1>(most));
        }
        let max = across(largest);
        // Numbers so small that the factor would be infinite become 0, as in `inverse`.
        let large = _mm256_cmp_ps_mask::<_CMP_GT_OQ>(max, _mm256_set1_ps(1e-36));
        let inverse = _mm256_maskz_div_ps(large, _mm256_set1_ps(127.0), max);
        let d = _mm256_div_ps(max, _mm256_set1_ps(127.0));
        // SAFETY: every unit of a row belongs to that row, which is this thread's alone.
        unsafe { store(&fill.scales, present, place.at(fill.block, b), _mm256_castps_si256(d)) };
        let mut factors = [0f32; TILE_ROWS];
        // SAFETY: 8 numbers.
        unsafe { _mm256_storeu_ps(factors.as_mut_ptr(), inverse) };
        let mut even = _mm256_setzero_si256();
        for i in 0..fill.block / BLOCK {
            let block = b * fill.block / BLOCK + i;
            let mut sums = [_mm256_setzero_si256(); 2];
            for (half, sum) in sums.iter_mut().enumerate() {
                let mut codes = [_mm_setzero_si128(); TILE_ROWS];
                for ((codes, x), &factor) in codes.iter_mut().zip(x).zip(&factors) {
                    let x = &x[first + i * BLOCK + 16 * half..][..16];
                    // SAFETY: 16 numbers.
                    let x = unsafe { _mm512_loadu_ps(x.as_ptr()) };
                    // Rounded to nearest, ties to even. NaN becomes the lowest integer, whose lowest byte
                    // is 0.
                    let x = _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(factor)));
                    *codes = _mm512_cvtepi32_epi8(x);
                }
                let units = turn(codes);
                let mut four = _mm512_setzero_si512();
                for units in units {
                    four = _mm512_dpbusd_epi32(four, ones, units);
                }
                *sum = _mm256_add_epi32(_mm512_castsi512_si256(four), _mm512_extracti64x4_epi64::<1>(four));
                let unit = 8 * block + 4 * half;
                for (j, units) in units.into_iter().enumerate() {
                    let at = |j: usize| place.at(4, unit + j);
                    // SAFETY: every unit of a row belongs to that row, which is this thread's alone.
                    unsafe {
                        let (low, high) =
                            (_mm512_castsi512_si256(units), _mm512_extracti64x4_epi64::<1>(units));
                        store(&fill.codes, present, at(2 * j), low);
                        store(&fill.codes, present, at(2 * j + 1), high);
                    }
                }
            }
            let sum = _mm256_add_epi32(sums[0], sums[1]);
            let minus = |sum| _mm256_sub_epi32(_mm256_setzero_si256(), sum);
            // SAFETY: every unit of a row belongs to that row, which is this thread's alone.
            unsafe {
                store(&fill.negative32, present, place.at(BLOCK, block), minus(sum));
                store(&fill.negative16, present, place.at(16, 2 * block), minus(sums[0]));
                store(&fill.negative16, present, place.at(16, 2 * block + 1), minus(sums[1]));
                if fill.block == BLOCK {
                    let scaled = _mm256_mul_ps(d, _mm256_cvtepi32_ps(sum));
                    store(&fill.sums, present, place.at(BLOCK, block), _mm256_castps_si256(scaled));
                } else {
                    store(&fill.sums16, present, place.at(32, block), pairs(sums[0], sums[1]));
                    if block % 2 == 1 {
                        store(&fill.sums32, present, place.at(64, block / 2), pairs(even, sum));
                    }
                    even = sum;
                }
            }
        }
    }
}

/// Stores the numbers of the rows that are `present`, four bytes each, as units `unit` of an array.
///
/// # Safety
/// No other thread reads or writes these units meanwhile.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn store<T>(parts: &Parts<T>, present: __mmask8, unit: usize, numbers: __m256i) {
    let each = 4 / size_of::<T>();
    let rows = present.count_ones() as usize;
    // SAFETY: the pointer is checked for all rows that are present.
    unsafe {
        _mm256_mask_storeu_epi32(parts.pointer(unit * each, rows * each).cast(), present, numbers);
    }
}

/// Returns each row's largest number.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn across(rows: [__m256; TILE_ROWS]) -> __m256 {
    // Each step folds two vectors into one: first by pairs of numbers, then by fours, then by halves.
    let two = |a, b| _mm256_max_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let four = |a, b| {
        _mm256_max_ps(_mm256_shuffle_ps::<0b01_00_01_00>(a, b), _mm256_shuffle_ps::<0b11_10_11_10>(a, b))
    };
    let [a, b, c, d, e, f, g, h] = rows;
    let (low, high) = (four(two(a, b), two(c, d)), four(two(e, f), two(g, h)));
    _mm256_max_ps(_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
}

/// Returns the units of 16 codes of eight rows: units 0 and 1 of all rows, and units 2 and 3.
#[inline]
#[target_feature(enable = "avx512f")]
fn turn(rows: [__m128i; TILE_ROWS]) -> [__m512i; 2] {
    let four = |a, b, c, d| {
        let all = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(a), b);
        _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(all, c), d)
    };
    let [a, b, c, d, e, f, g, h] = rows;
    let (low, high) = (four(a, b, c, d), four(e, f, g, h));
    // Unit u of row r is number 4r + u of the eight rows' 32.
    let first = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
    let units = |u| _mm512_permutex2var_epi32(low, _mm512_add_epi32(first, _mm512_set1_epi32(u)), high);
    [units(0), units(2)]
}

/// Returns pairs of 16-bit numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn pairs(first: __m256i, second: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_and_si256(first, _mm256_set1_epi32(0xffff)), _mm256_slli_epi32::<16>(second))
}
