//! Unpacks codes and scales from packed records into a tile.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::cpu::format::{BLOCK, Codes, Float, Format, GROUP, PANEL, SUPER, Scales};
use crate::cpu::matmul::tile::Tile;

/// Bytes of the unpacked codes of 32 columns.
const BLOCK_BYTES: usize = 8 * GROUP;

/// Unpacks `records` of a panel: codes become signed bytes with the center subtracted, in the groups of the
/// packed matrix.
pub(in super::super) fn unpack(tile: &mut Tile, format: &Format, records: &[u8]) {
    let bytes = format.record_bytes();
    tile.columns = records.len() / bytes * format.record_columns();
    assert!(tile.codes.len() >= tile.columns / BLOCK * BLOCK_BYTES);
    let mut at = 0;
    for (r, record) in records.chunks_exact(bytes).enumerate() {
        unpack_scales(tile, format, r, record);
        for planes in record[format.header_bytes()..].chunks_exact(format.codes.plane_bytes()) {
            // SAFETY: `planes` holds the planes of 32 columns; the tile has room for all blocks, asserted
            // above.
            unsafe {
                let out = tile.codes.as_mut_ptr().add(at);
                if format.center == 0 {
                    unpack_block::<false>(format, planes.as_ptr(), out);
                } else {
                    unpack_block::<true>(format, planes.as_ptr(), out);
                }
            }
            at += BLOCK_BYTES;
        }
    }
}

/// Same result as [`Tile::unpack_scales`], in half as many instructions as the products of a single row with
/// Q4_K. The compiler turns the interleaved minimums of the portable code into 64 moves of single numbers for
/// every pair.
fn unpack_scales(tile: &mut Tile, format: &Format, r: usize, record: &[u8]) {
    let (floats, record) = record.split_at(format.float.bytes() * PANEL);
    let scales = &mut tile.scales[r * PANEL..][..PANEL];
    match format.float {
        Float::F16 => widen(floats, scales),
        other => scales.iter_mut().enumerate().for_each(|(p, scale)| *scale = other.get(floats, p)),
    }
    let second = format.has_min() || format.scales == Scales::Twin;
    let (floats, record) = record.split_at(if second { 2 * PANEL } else { 0 });
    if second {
        widen(floats, &mut tile.mins[r * PANEL..][..PANEL]);
    }
    let Scales::Super { sub, min } = format.scales else { return };
    let subs = SUPER / sub;
    let (scales, mins) = record.split_at(subs * PANEL);
    let out = &mut tile.sub_scales[r * subs * 2 * PANEL..][..subs * 2 * PANEL];
    for (out, scales) in out.chunks_exact_mut(2 * PANEL).zip(scales.chunks_exact(PANEL)) {
        interleave::<true>(scales, scales, out);
    }
    if min {
        let out = &mut tile.sub_mins[r * subs * PANEL..][..subs * PANEL];
        for (out, mins) in out.chunks_exact_mut(2 * PANEL).zip(mins.chunks_exact(2 * PANEL)) {
            let (even, odd) = mins.split_at(PANEL);
            interleave::<false>(even, odd, out);
        }
    }
}

/// `out[2 i] = even[i]`, `out[2 i + 1] = odd[i]` for 16 bytes each, signed or unsigned.
#[inline(always)]
fn interleave<const SIGNED: bool>(even: &[u8], odd: &[u8], out: &mut [i16]) {
    assert!(even.len() >= PANEL && odd.len() >= PANEL && out.len() >= 2 * PANEL);
    // SAFETY: 16 bytes each are read and 32 numbers written, asserted above.
    unsafe {
        let (even, odd) = (vld1q_u8(even.as_ptr()), vld1q_u8(odd.as_ptr()));
        for (i, v) in [vzip1q_u8(even, odd), vzip2q_u8(even, odd)].into_iter().enumerate() {
            let [low, high] = if SIGNED {
                let v = vreinterpretq_s8_u8(v);
                [vmovl_s8(vget_low_s8(v)), vmovl_high_s8(v)]
            } else {
                [vmovl_u8(vget_low_u8(v)), vmovl_high_u8(v)].map(|v| vreinterpretq_s16_u16(v))
            };
            vst1q_s16(out.as_mut_ptr().add(16 * i), low);
            vst1q_s16(out.as_mut_ptr().add(16 * i + 8), high);
        }
    }
}

/// Turns 16 f16 into 16 f32. Written in assembly, because the intrinsic needs a type that is not stable.
#[inline(always)]
fn widen(bytes: &[u8], out: &mut [f32]) {
    assert!(bytes.len() >= 2 * PANEL && out.len() >= PANEL);
    for h in 0..2 {
        // SAFETY: 32 bytes in, 16 floats out, asserted above; every 64-bit Arm processor converts f16.
        unsafe {
            let halves = vld1q_u8(bytes.as_ptr().add(16 * h));
            let (low, high): (float32x4_t, float32x4_t);
            asm!(
                "fcvtl {low:v}.4s, {halves:v}.4h",
                "fcvtl2 {high:v}.4s, {halves:v}.8h",
                halves = in(vreg) halves,
                low = out(vreg) low,
                high = lateout(vreg) high,
                options(pure, nomem, nostack, preserves_flags),
            );
            vst1q_f32(out.as_mut_ptr().add(8 * h), low);
            vst1q_f32(out.as_mut_ptr().add(8 * h + 4), high);
        }
    }
}

/// Moves bits `from ..` of every byte to bit `to`.
#[inline(always)]
fn shift(v: uint8x16_t, from: usize, to: usize) -> uint8x16_t {
    // The counts are constants once the loops are unrolled, so these become immediate shifts, or nothing.
    // SAFETY: every 64-bit Arm processor has NEON.
    unsafe { vshlq_u8(v, vdupq_n_s8(to as i8 - from as i8)) }
}

/// # Safety
/// `planes` points to `format.codes.plane_bytes()` bytes, `out` to [`BLOCK_BYTES`].
unsafe fn unpack_block<const CENTERED: bool>(format: &Format, planes: *const u8, out: *mut u8) {
    for at in (0..GROUP).step_by(16) {
        // SAFETY: every offset below lies inside the planes or the block, by the caller's promise.
        unsafe {
            // Loads 16 bytes of a group: 4 rows.
            let load = |g: usize| vld1q_u8(planes.add(g * GROUP + at));
            let store = |g: usize, v: uint8x16_t| {
                let v = if CENTERED { vsubq_u8(v, vdupq_n_u8(format.center)) } else { v };
                vst1q_u8(out.add(g * GROUP + at), v);
            };
            let nibbles = |g: usize| {
                let v = load(g);
                (vandq_u8(v, vdupq_n_u8(15)), vshrq_n_u8::<4>(v))
            };
            let bits = |v, from, to, mask| vandq_u8(shift(v, from, to), vdupq_n_u8(mask));
            match format.codes {
                Codes::U4 => {
                    for g in 0..4 {
                        let (low, high) = nibbles(g);
                        store(g, low);
                        store(g + 4, high);
                    }
                }
                Codes::U5 => {
                    let bit = load(4);
                    for g in 0..4 {
                        let (low, high) = nibbles(g);
                        store(g, vorrq_u8(low, bits(bit, g, 4, 16)));
                        store(g + 4, vorrq_u8(high, bits(bit, g + 4, 4, 16)));
                    }
                }
                Codes::U6 => {
                    let two = [load(4), load(5)];
                    for g in 0..4 {
                        let (low, high) = nibbles(g);
                        store(g, vorrq_u8(low, bits(two[0], 2 * g, 4, 0x30)));
                        store(g + 4, vorrq_u8(high, bits(two[1], 2 * g, 4, 0x30)));
                    }
                }
                Codes::U2 => {
                    for half in 0..2 {
                        let two = load(half);
                        for i in 0..4 {
                            store(4 * half + i, bits(two, 2 * i, 0, 3));
                        }
                    }
                }
                Codes::U3 => {
                    let bit = load(2);
                    for half in 0..2 {
                        let two = load(half);
                        for i in 0..4 {
                            let g = 4 * half + i;
                            store(g, vorrq_u8(bits(two, 2 * i, 0, 3), bits(bit, g, 2, 4)));
                        }
                    }
                }
                Codes::I8 => {
                    for g in 0..8 {
                        store(g, load(g));
                    }
                }
                Codes::Table(_) | Codes::Float4 => {
                    let table = vreinterpretq_u8_s8(vld1q_s8(format.codes.table().as_ptr()));
                    for g in 0..4 {
                        let (low, high) = nibbles(g);
                        store(g, vqtbl1q_u8(table, low));
                        store(g + 4, vqtbl1q_u8(table, high));
                    }
                }
            }
        }
    }
}
