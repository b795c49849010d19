//! From a GGUF tensor's blocks to panels.
//!
//! This reads the block layouts by itself and not through [`crate::quant`], so that tests can hold one against
//! the other. Layouts: `block_*` in ggml's `ggml-common.h`.

use realm_gguf::TensorType;

use super::format::{BLOCK, Codes, Format, PANEL, SUPER, Scales, put_code};

/// One record's worth of one row: what a block of the file says, before it is woven into a panel.
struct Row {
    /// The two f16 scales as bits; the second is 0 where the type has none.
    d: u16,
    min: u16,
    sub_scales: [u8; 16],
    sub_mins: [u8; 16],
    codes: [u8; SUPER],
}

/// Weaves rows `panel * 16 ..` of a tensor (`bytes` of whole rows, `row_bytes` each) into `out`, one panel's records.
/// Rows past the end are zeros.
pub(crate) fn pack_panel(
    ty: TensorType,
    format: &Format,
    bytes: &[u8],
    row_bytes: usize,
    panel: usize,
    out: &mut [u8],
) {
    let block_bytes = ty.block_bytes();
    let plane_bytes = format.codes.plane_bytes();
    let mut row = Row { d: 0, min: 0, sub_scales: [0; 16], sub_mins: [0; 16], codes: [0; SUPER] };
    out.fill(0);
    for (r, record) in out.chunks_exact_mut(format.record_bytes()).enumerate() {
        for p in 0..PANEL {
            let Some(data) = bytes.get((panel * PANEL + p) * row_bytes..).filter(|b| !b.is_empty()) else {
                break;
            };
            read(ty, &data[r * block_bytes..][..block_bytes], &mut row);
            record[2 * p..][..2].copy_from_slice(&row.d.to_le_bytes());
            let mut at = 2 * PANEL;
            let has_min =
                matches!(format.scales, Scales::Block { min: true } | Scales::Super { min: true, .. });
            if has_min {
                record[at + 2 * p..][..2].copy_from_slice(&row.min.to_le_bytes());
                at += 2 * PANEL;
            }
            if let Scales::Super { sub, min } = format.scales {
                for s in 0..SUPER / sub {
                    record[at + s * PANEL + p] = row.sub_scales[s];
                    if min {
                        record[at + (SUPER / sub + s) * PANEL + p] = row.sub_mins[s];
                    }
                }
            }
            let planes = record[format.header_bytes()..].chunks_exact_mut(plane_bytes);
            for (planes, codes) in planes.zip(row.codes.chunks_exact(BLOCK)) {
                for (column, &code) in codes.iter().enumerate() {
                    put_code(planes, format.codes, p, column, code);
                }
            }
        }
    }
}

fn half(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

/// 32 nibbles: the low ones first, then the high ones.
fn nibbles(bytes: &[u8], out: &mut [u8]) {
    for (i, &b) in bytes[..16].iter().enumerate() {
        (out[i], out[i + 16]) = (b & 15, b >> 4);
    }
}

/// Adds bit `i` of `bits` to code `i` at bit 4.
fn fifth_bits(bits: &[u8], out: &mut [u8]) {
    for (i, code) in out[..32].iter_mut().enumerate() {
        *code |= (bits[i / 8] >> (i % 8) & 1) << 4;
    }
}

/// The 6-bit scales and minimums of Q4_K and Q5_K, packed in 12 bytes.
fn six_bits(b: &[u8], row: &mut Row) {
    for s in 0..4 {
        row.sub_scales[s] = b[s] & 63;
        row.sub_mins[s] = b[s + 4] & 63;
        row.sub_scales[s + 4] = b[s + 8] & 15 | b[s] >> 6 << 4;
        row.sub_mins[s + 4] = b[s + 8] >> 4 | b[s + 4] >> 6 << 4;
    }
}

fn read(ty: TensorType, b: &[u8], row: &mut Row) {
    match ty {
        TensorType::Q4_0 | TensorType::IQ4_NL => {
            row.d = half(b, 0);
            nibbles(&b[2..], &mut row.codes);
        }
        TensorType::Q4_1 => {
            (row.d, row.min) = (half(b, 0), half(b, 2));
            nibbles(&b[4..], &mut row.codes);
        }
        TensorType::Q5_0 => {
            row.d = half(b, 0);
            nibbles(&b[6..], &mut row.codes);
            fifth_bits(&b[2..6], &mut row.codes);
        }
        TensorType::Q5_1 => {
            (row.d, row.min) = (half(b, 0), half(b, 2));
            nibbles(&b[8..], &mut row.codes);
            fifth_bits(&b[4..8], &mut row.codes);
        }
        TensorType::Q8_0 => {
            row.d = half(b, 0);
            row.codes[..32].copy_from_slice(&b[2..34]);
        }
        TensorType::Q2_K => {
            for s in 0..16 {
                (row.sub_scales[s], row.sub_mins[s]) = (b[s] & 15, b[s] >> 4);
            }
            two_bits(&b[16..80], &mut row.codes);
            (row.d, row.min) = (half(b, 80), half(b, 82));
        }
        TensorType::Q3_K => {
            two_bits(&b[32..96], &mut row.codes);
            for (i, code) in row.codes.iter_mut().enumerate() {
                *code |= (b[i % 32] >> (i / 32) & 1) << 2;
            }
            let packed = &b[96..108];
            for s in 0..16 {
                let low = packed[s % 8] >> (s / 8 * 4) & 15;
                let high = packed[8 + s % 4] >> (s / 4 * 2) & 3;
                row.sub_scales[s] = (low | high << 4).wrapping_sub(32);
            }
            row.d = half(b, 108);
        }
        TensorType::Q4_K => {
            (row.d, row.min) = (half(b, 0), half(b, 2));
            six_bits(&b[4..16], row);
            for c in 0..4 {
                let (codes, bytes) = (&mut row.codes[64 * c..], &b[16 + 32 * c..]);
                for i in 0..32 {
                    (codes[i], codes[i + 32]) = (bytes[i] & 15, bytes[i] >> 4);
                }
            }
        }
        TensorType::Q5_K => {
            (row.d, row.min) = (half(b, 0), half(b, 2));
            six_bits(&b[4..16], row);
            for c in 0..4 {
                let (codes, bytes, high) = (&mut row.codes[64 * c..], &b[48 + 32 * c..], &b[16..48]);
                for i in 0..32 {
                    codes[i] = bytes[i] & 15 | (high[i] >> (2 * c) & 1) << 4;
                    codes[i + 32] = bytes[i] >> 4 | (high[i] >> (2 * c + 1) & 1) << 4;
                }
            }
        }
        TensorType::Q6_K => {
            for c in 0..2 {
                let (codes, low, high) = (&mut row.codes[128 * c..], &b[64 * c..], &b[128 + 32 * c..]);
                for i in 0..32 {
                    codes[i] = low[i] & 15 | (high[i] & 3) << 4;
                    codes[i + 32] = low[i + 32] & 15 | (high[i] >> 2 & 3) << 4;
                    codes[i + 64] = low[i] >> 4 | (high[i] >> 4 & 3) << 4;
                    codes[i + 96] = low[i + 32] >> 4 | (high[i] >> 6) << 4;
                }
            }
            row.sub_scales.copy_from_slice(&b[192..208]);
            row.d = half(b, 208);
        }
        TensorType::IQ4_XS => {
            row.d = half(b, 0);
            let high = half(b, 2);
            for s in 0..8 {
                let low = b[4 + s / 2] >> (s % 2 * 4) & 15;
                row.sub_scales[s] = (low | (high >> (2 * s) & 3) as u8 * 16).wrapping_sub(32);
                nibbles(&b[8 + 16 * s..], &mut row.codes[32 * s..]);
            }
        }
        // `Format::of` knows no other type.
        _ => unreachable!("{ty} has no integer format"),
    }
}

/// The 2-bit codes of Q2_K and Q3_K: 2 × 32 bytes, four codes 32 apart in each byte.
fn two_bits(bytes: &[u8], codes: &mut [u8; SUPER]) {
    for (i, code) in codes.iter_mut().enumerate() {
        *code = bytes[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
    }
}

/// What one weight of a packed record is worth, as f32: `codes` as [`super::format::get_code`] gives them.
pub(crate) fn weight(format: &Format, header: &[u8], p: usize, column: usize, code: u8) -> f32 {
    let float = |at: usize| half::f16::from_bits(half(header, at + 2 * p)).to_f32();
    let centered = match format.codes {
        Codes::I8 | Codes::Table => code as i8 as f32,
        _ => code as f32 - format.center as f32,
    };
    match format.scales {
        Scales::Block { min } => float(0) * centered + if min { float(2 * PANEL) } else { 0.0 },
        Scales::Super { sub, min } => {
            let first = 2 * PANEL * (1 + min as usize);
            let at = first + column / sub * PANEL + p;
            let scaled = float(0) * header[at] as i8 as f32 * centered;
            if min { scaled - float(2 * PANEL) * header[at + SUPER / sub * PANEL] as f32 } else { scaled }
        }
    }
}
