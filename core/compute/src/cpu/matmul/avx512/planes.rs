//! Weight codes in registers: one group, 16 rows × 4 columns, from the planes of 32 columns.

use std::arch::x86_64::*;

use crate::cpu::format::{Codes, Float, GROUP};

/// The storage of the codes of 32 columns, and access to them.
///
/// `vpdpbusd` multiplies unsigned with signed bytes, so signed weights get 128 added and count as codes with
/// a center of 128. That leaves one kind of product for all types.
pub(super) trait Planes {
    /// Bytes for 32 columns of a panel.
    const BYTES: usize;
    /// Logarithm to base 2 of the center, for types without a minimum.
    const CENTER_BITS: u32;
    /// The kind of a record's scales.
    const FLOAT: Float = Float::F16;

    /// Loads group `g` (0..8) as unsigned codes; 4-bit indices are looked up in `table`.
    ///
    /// # Safety
    /// `BYTES` bytes can be read at `planes`.
    unsafe fn group(planes: *const u8, g: usize, table: __m512i) -> __m512i;
}

/// # Safety
/// Byte groups `0 ..= g` can be read at `planes`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn load(planes: *const u8, g: usize) -> __m512i {
    // SAFETY: by the caller's promise.
    unsafe { _mm512_loadu_si512(planes.add(g * GROUP).cast()) }
}

/// Moves bits `from ..` of every byte to bit `to`; bits of the neighboring byte come along and must be
/// masked.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn shift(v: __m512i, from: usize, to: usize) -> __m512i {
    // The counts are constants once the groups are unrolled, so these become immediate shifts, or nothing.
    if from >= to {
        _mm512_srl_epi16(v, _mm_cvtsi32_si128((from - to) as i32))
    } else {
        _mm512_sll_epi16(v, _mm_cvtsi32_si128((to - from) as i32))
    }
}

/// Returns `low` with the bits of `high` that are set in `mask`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn with_bits(low: __m512i, high: __m512i, mask: i8) -> __m512i {
    _mm512_ternarylogic_epi32::<0xf8>(low, high, _mm512_set1_epi8(mask))
}

/// Loads group `g` of a plane of 4 bits.
///
/// # Safety
/// 4 groups can be read at `planes`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn nibbles(planes: *const u8, g: usize) -> __m512i {
    // SAFETY: by the caller's promise.
    let v = unsafe { load(planes, g % 4) };
    _mm512_and_si512(shift(v, g / 4 * 4, 0), _mm512_set1_epi8(15))
}

/// The unsigned codes of 4-bit indices, in each quarter of a register.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn table(codes: Codes) -> __m512i {
    // SAFETY: a table has 16 bytes.
    let table = unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(codes.table().as_ptr().cast())) };
    if codes.signed() { _mm512_xor_si512(table, _mm512_set1_epi8(-128)) } else { table }
}

/// Stands for the codes of all tables, which have the same planes.
const ANY_TABLE: Codes = Codes::Table(&[0; 16]);

/// Declares the planes of one kind of codes.
macro_rules! planes {
    ($name:ident, $codes:expr, $center_bits:literal $(in $float:expr)?, |$planes:ident, $g:ident, $table:ident| $group:expr) => {
        pub(super) struct $name;
        impl Planes for $name {
            const BYTES: usize = $codes.plane_bytes();
            const CENTER_BITS: u32 = $center_bits;
            $(const FLOAT: Float = $float;)?
            #[target_feature(enable = "avx512f,avx512bw")]
            #[inline]
            unsafe fn group($planes: *const u8, $g: usize, $table: __m512i) -> __m512i {
                // SAFETY: every group that is read lies inside `BYTES`, by the layout of the planes.
                unsafe { $group }
            }
        }
    };
}

planes!(U2, Codes::U2, 0, |p, g, _table| {
    _mm512_and_si512(shift(load(p, g / 4), g % 4 * 2, 0), _mm512_set1_epi8(3))
});
planes!(U3, Codes::U3, 2, |p, g, _table| {
    let low = _mm512_and_si512(shift(load(p, g / 4), g % 4 * 2, 0), _mm512_set1_epi8(3));
    with_bits(low, shift(load(p, 2), g, 2), 4)
});
planes!(U4, Codes::U4, 3, |p, g, _table| nibbles(p, g));
planes!(U5, Codes::U5, 4, |p, g, _table| with_bits(nibbles(p, g), shift(load(p, 4), g, 4), 16));
planes!(U6, Codes::U6, 5, |p, g, _table| with_bits(
    nibbles(p, g),
    shift(load(p, 4 + g / 4), g % 4 * 2, 4),
    0x30
));
planes!(I8, Codes::I8, 7, |p, g, _table| _mm512_xor_si512(load(p, g), _mm512_set1_epi8(-128)));
planes!(Table, ANY_TABLE, 7, |p, g, table| _mm512_shuffle_epi8(table, nibbles(p, g)));
planes!(Book, ANY_TABLE, 7 in Float::F32, |p, g, table| _mm512_shuffle_epi8(table, nibbles(p, g)));
planes!(Float4, Codes::Float4, 4 in Float::BF16, |p, g, table| _mm512_shuffle_epi8(table, nibbles(p, g)));

/// Bytes between the kernels' reads and the prefetched weights. Weights come from memory once per product;
/// the processor's own prefetching stops at the end of a page and starts late in a record with gaps for
/// scales.
const AHEAD: usize = 4096;

/// Prefetches the planes of 32 columns that are [`AHEAD`] bytes after `planes`.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn prefetch<P: Planes>(planes: *const u8) {
    for line in (0..P::BYTES).step_by(64) {
        _mm_prefetch::<_MM_HINT_T0>(planes.wrapping_add(AHEAD + line).cast());
    }
}
