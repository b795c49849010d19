//! Unpacks codes from bit planes to bytes, or to 16-bit numbers if they are signed.

use std::arch::x86_64::*;

use super::{NARROW_BLOCK, WIDE_BLOCK};
use crate::cpu::format::{BLOCK, Codes, Format, GROUP};
use crate::cpu::matmul::tile::Tile;

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
            // SAFETY: `planes` holds the planes of 32 columns; the tile has room for all blocks, asserted
            // above.
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
        // Weights are used once per pass: prefetch those of a later block.
        for line in (0..codes.plane_bytes()).step_by(64) {
            _mm_prefetch::<_MM_HINT_T0>(planes.wrapping_add(4096 + line).cast());
        }
        let load = |at: usize| _mm256_loadu_si256(planes.add(at).cast());
        let store = |at: usize, v| _mm256_store_si256(out.add(at).cast(), v);
        let nibble = _mm256_set1_epi8(15);
        let two = _mm256_set1_epi8(3);
        // Moves bits `from .. from + n` of every byte to bit `to` and masks off the rest.
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
            Codes::Float4 => {
                let table = lookup(codes);
                for at in (0..4 * GROUP).step_by(32) {
                    let p = load(at);
                    store(at, _mm256_shuffle_epi8(table, _mm256_and_si256(p, nibble)));
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(p), nibble);
                    store(at + 4 * GROUP, _mm256_shuffle_epi8(table, high));
                }
            }
            Codes::Table(_) => {
                let table = lookup(codes);
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

/// The table of 4-bit indices, once in each half of a register.
#[target_feature(enable = "avx2")]
#[inline]
fn lookup(codes: Codes) -> __m256i {
    // SAFETY: a table has 16 bytes.
    unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(codes.table().as_ptr().cast())) }
}

/// Widens 8 rows × 4 columns of signed bytes: columns 0 and 2 to `out`, columns 1 and 3 one group further.
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
