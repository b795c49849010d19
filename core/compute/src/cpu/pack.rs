//! Repacks a GGUF tensor's blocks into panels.
//!
//! This reads the block layouts by itself and not through [`crate::quant`], so that tests can compare the
//! two. Layouts: `block_*` in ggml's `ggml-common.h`.

use realm_gguf::TensorType;

use super::format::{BLOCK, Codes, Float, Format, GROUP, PANEL, SUPER, Scales};
use super::pack_iq;

/// One row of one record: the contents of a block of the file before it is woven into a panel.
pub(super) struct Row {
    /// The bits of the float scale as a record keeps it, and of a second f16: the minimum's, or the scale of
    /// columns 16 to 31.
    pub(super) d: u32,
    pub(super) min: u16,
    pub(super) sub_scales: [u8; 16],
    pub(super) sub_mins: [u8; 16],
    pub(super) codes: [u8; SUPER],
}

/// Codes of 32 columns of a panel, a byte each, in groups: row, then column within the four.
type Groups = [[[u8; 4]; PANEL]; BLOCK / 4];

/// Weaves rows `panel * 16 ..` of a tensor (`bytes` of whole rows, `row_bytes` each) into `out`, one panel's
/// records, which must be zeros, because rows past the end are not written.
///
/// A record's codes are unpacked row by row into groups, a 4-byte store at a time; then whole groups are
/// shifted into planes, which the compiler does with vectors.
pub(crate) fn pack_panel(
    ty: TensorType,
    format: &Format,
    bytes: &[u8],
    row_bytes: usize,
    panel: usize,
    out: &mut [u8],
) {
    let block_bytes = ty.block_bytes();
    let parts = ty.block_len() / format.record_columns();
    let mut row = Row { d: 0, min: 0, sub_scales: [0; 16], sub_mins: [0; 16], codes: [0; SUPER] };
    let mut groups: [Groups; SUPER / BLOCK] = [[[[0; 4]; PANEL]; BLOCK / 4]; SUPER / BLOCK];
    let blocks = format.record_columns() / BLOCK;
    let mut rows = bytes[panel * PANEL * row_bytes..].chunks_exact(row_bytes);
    let rows: [Option<&[u8]>; PANEL] = std::array::from_fn(|_| rows.next());
    for (r, record) in out.chunks_exact_mut(format.record_bytes()).enumerate() {
        let (header, planes) = record.split_at_mut(format.header_bytes());
        for (p, data) in rows.iter().enumerate() {
            let Some(data) = data else { break };
            read(ty, &data[r / parts * block_bytes..][..block_bytes], r % parts, &mut row);
            put_scales(format, &row, p, header);
            for (groups, codes) in groups[..blocks].iter_mut().zip(row.codes.chunks_exact(BLOCK)) {
                for (group, codes) in groups.iter_mut().zip(codes.chunks_exact(4)) {
                    group[p].copy_from_slice(codes);
                }
            }
        }
        let planes = planes.chunks_exact_mut(format.codes.plane_bytes());
        for (planes, groups) in planes.zip(&groups) {
            put_groups(planes, format.codes, groups);
        }
    }
}

/// Row `p`'s scales in a record's header.
fn put_scales(format: &Format, row: &Row, p: usize, header: &mut [u8]) {
    let bytes = format.float.bytes();
    header[bytes * p..][..bytes].copy_from_slice(&row.d.to_le_bytes()[..bytes]);
    let mut at = bytes * PANEL;
    if format.has_min() || format.scales == Scales::Twin {
        header[at + 2 * p..][..2].copy_from_slice(&row.min.to_le_bytes());
        at += 2 * PANEL;
    }
    if let Scales::Super { sub, min } = format.scales {
        for s in 0..SUPER / sub {
            header[at + s * PANEL + p] = row.sub_scales[s];
            if min {
                header[at + (SUPER / sub + s) * PANEL + p] = row.sub_mins[s];
            }
        }
    }
}

/// Shifts the codes of 32 columns into their planes; see the table in [`super::format`].
fn put_groups(planes: &mut [u8], codes: Codes, groups: &Groups) {
    let group = |g: usize| groups[g].as_flattened();

    /// `plane[i] = Σ (code[i] >> from & mask) << to`, over parts `(code, to)`; eight bytes at a time, since
    /// the masked bits never cross into the next byte.
    fn plane<const N: usize>(out: &mut [u8], parts: [(&[u8], u32); N], from: u32, mask: u8) {
        let mask = mask as u64 * 0x0101_0101_0101_0101;
        for (i, out) in out[..GROUP].chunks_exact_mut(8).enumerate() {
            let word = |codes: &[u8]| u64::from_le_bytes(codes[8 * i..][..8].try_into().expect("8 bytes"));
            let all = parts.iter().fold(0, |all, &(codes, to)| all | (((word(codes) >> from) & mask) << to));
            out.copy_from_slice(&all.to_le_bytes());
        }
    }
    let low4 = |planes: &mut [u8]| {
        for g in 0..4 {
            plane(&mut planes[g * GROUP..], [(group(g), 0), (group(g + 4), 4)], 0, 15);
        }
    };
    let two_bits = |planes: &mut [u8], from: u32| {
        for h in 0..2 {
            let parts = std::array::from_fn::<_, 4, _>(|i| (group(4 * h + i), 2 * i as u32));
            plane(&mut planes[h * GROUP..], parts, from, 3);
        }
    };
    let bit = |planes: &mut [u8], from: u32| {
        plane(planes, std::array::from_fn::<_, 8, _>(|g| (group(g), g as u32)), from, 1);
    };
    match codes {
        Codes::I8 => planes.copy_from_slice(groups.as_flattened().as_flattened()),
        Codes::U4 | Codes::Table(_) | Codes::Float4 => low4(planes),
        Codes::U5 => {
            low4(planes);
            bit(&mut planes[4 * GROUP..], 4);
        }
        Codes::U6 => {
            low4(planes);
            two_bits(&mut planes[4 * GROUP..], 4);
        }
        Codes::U2 => two_bits(planes, 0),
        Codes::U3 => {
            two_bits(planes, 0);
            bit(&mut planes[2 * GROUP..], 2);
        }
    }
}

pub(super) fn half(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

/// Unpacks 32 nibbles: the low ones first, then the high ones.
fn nibbles(bytes: &[u8], out: &mut [u8]) {
    for (i, &b) in bytes[..16].iter().enumerate() {
        (out[i], out[i + 16]) = (b & 15, b >> 4);
    }
}

/// Makes 32 codes, each from a byte of `a` and one of `b`.
#[inline(always)]
fn weave(out: &mut [u8], a: &[u8], from_a: impl Fn(u8) -> u8, b: &[u8], from_b: impl Fn(u8) -> u8) {
    for ((out, &a), &b) in out[..32].iter_mut().zip(&a[..32]).zip(&b[..32]) {
        *out = from_a(a) | from_b(b);
    }
}

/// Adds bit `i` of `bits` to code `i` at bit 4.
fn fifth_bits(bits: &[u8], out: &mut [u8]) {
    for (&bits, codes) in bits[..4].iter().zip(out[..32].chunks_exact_mut(8)) {
        // Put bit i alone in byte i; move any bit to the top bit of its byte, and from there to bit 4.
        let apart = (bits as u64 * 0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
        let fifth = ((apart + 0x7f7f_7f7f_7f7f_7f7f) >> 3) & 0x1010_1010_1010_1010;
        for (code, fifth) in codes.iter_mut().zip(fifth.to_le_bytes()) {
            *code |= fifth;
        }
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

/// Reads what record number `part` of a block holds; only blocks of 64 and 128 have several.
fn read(ty: TensorType, b: &[u8], part: usize, row: &mut Row) {
    match ty {
        TensorType::Q4_0 | TensorType::IQ4_NL => {
            row.d = half(b, 0).into();
            nibbles(&b[2..], &mut row.codes);
        }
        TensorType::Q4_1 => {
            (row.d, row.min) = (half(b, 0).into(), half(b, 2));
            nibbles(&b[4..], &mut row.codes);
        }
        TensorType::Q5_0 => {
            row.d = half(b, 0).into();
            nibbles(&b[6..], &mut row.codes);
            fifth_bits(&b[2..6], &mut row.codes);
        }
        TensorType::Q5_1 => {
            (row.d, row.min) = (half(b, 0).into(), half(b, 2));
            nibbles(&b[8..], &mut row.codes);
            fifth_bits(&b[4..8], &mut row.codes);
        }
        TensorType::Q8_0 => {
            row.d = half(b, 0).into();
            row.codes[..32].copy_from_slice(&b[2..34]);
        }
        TensorType::Q2_K => {
            for (s, &both) in b[..16].iter().enumerate() {
                (row.sub_scales[s], row.sub_mins[s]) = (both & 15, both >> 4);
            }
            two_bits(&b[16..80], &mut row.codes);
            (row.d, row.min) = (half(b, 80).into(), half(b, 82));
        }
        TensorType::Q3_K => {
            two_bits(&b[32..96], &mut row.codes);
            for (bit, codes) in row.codes.chunks_exact_mut(32).enumerate() {
                for (code, high) in codes.iter_mut().zip(&b[..32]) {
                    *code |= (high >> bit & 1) << 2;
                }
            }
            let packed = &b[96..108];
            for s in 0..16 {
                let low = packed[s % 8] >> (s / 8 * 4) & 15;
                let high = packed[8 + s % 4] >> (s / 4 * 2) & 3;
                row.sub_scales[s] = (low | high << 4).wrapping_sub(32);
            }
            row.d = half(b, 108).into();
        }
        TensorType::Q4_K => {
            (row.d, row.min) = (half(b, 0).into(), half(b, 2));
            six_bits(&b[4..16], row);
            for c in 0..4 {
                let (codes, bytes) = (&mut row.codes[64 * c..], &b[16 + 32 * c..]);
                weave(&mut codes[..32], bytes, |byte| byte & 15, bytes, |_| 0);
                weave(&mut codes[32..], bytes, |byte| byte >> 4, bytes, |_| 0);
            }
        }
        TensorType::Q5_K => {
            (row.d, row.min) = (half(b, 0).into(), half(b, 2));
            six_bits(&b[4..16], row);
            for c in 0..4 {
                let (codes, bytes, high) = (&mut row.codes[64 * c..], &b[48 + 32 * c..], &b[16..48]);
                weave(&mut codes[..32], bytes, |byte| byte & 15, high, |h| (h >> (2 * c) & 1) << 4);
                weave(&mut codes[32..], bytes, |byte| byte >> 4, high, |h| (h >> (2 * c + 1) & 1) << 4);
            }
        }
        TensorType::Q6_K => {
            for c in 0..2 {
                let (codes, low, high) = (&mut row.codes[128 * c..], &b[64 * c..], &b[128 + 32 * c..]);
                weave(&mut codes[..32], low, |l| l & 15, high, |h| (h & 3) << 4);
                weave(&mut codes[32..], &low[32..], |l| l & 15, high, |h| (h >> 2 & 3) << 4);
                weave(&mut codes[64..], low, |l| l >> 4, high, |h| (h >> 4 & 3) << 4);
                weave(&mut codes[96..], &low[32..], |l| l >> 4, high, |h| (h >> 6) << 4);
            }
            row.sub_scales.copy_from_slice(&b[192..208]);
            row.d = half(b, 208).into();
        }
        TensorType::IQ4_XS => {
            row.d = half(b, 0).into();
            let high = half(b, 2);
            for s in 0..8 {
                let low = b[4 + s / 2] >> (s % 2 * 4) & 15;
                row.sub_scales[s] = (low | (((high >> (2 * s)) & 3) as u8 * 16)).wrapping_sub(32);
                nibbles(&b[8 + 16 * s..], &mut row.codes[32 * s..]);
            }
        }
        TensorType::MXFP4 => {
            // The upper half of the float 2^(e - 128), whose lower half is 0.
            row.d = if b[0] < 2 { 0x20 << b[0] } else { (b[0] as u32 - 1) << 7 };
            nibbles(&b[1..], &mut row.codes);
        }
        TensorType::NVFP4 => {
            row.d = half_e4m3(b[2 * part]).into();
            row.min = half_e4m3(b[2 * part + 1]);
            for (b, codes) in b[4 + 16 * part..][..16].chunks_exact(8).zip(row.codes.chunks_exact_mut(16)) {
                for (i, b) in b.iter().enumerate() {
                    (codes[i], codes[i + 8]) = (b & 15, b >> 4);
                }
            }
        }
        TensorType::Q1_0 => {
            row.d = half(b, 0).into();
            for (i, code) in row.codes[..32].iter_mut().enumerate() {
                *code = (b[2 + 4 * part + i / 8] >> (i % 8) & 1) * 2;
            }
        }
        TensorType::Q2_0 => {
            row.d = half(b, 0).into();
            for (i, code) in row.codes[..32].iter_mut().enumerate() {
                *code = b[2 + 8 * part + i / 4] >> (i % 4 * 2) & 3;
            }
        }
        TensorType::TQ1_0 => {
            // Bytes hold five digits of base 3 as a fraction: multiplied with 3, the next one is carried out.
            let mut codes = row.codes.iter_mut();
            for (bytes, digits) in [(&b[..32], 5), (&b[32..48], 5), (&b[48..52], 4)] {
                let mut fractions = [0u8; 32];
                fractions[..bytes.len()].copy_from_slice(bytes);
                for _ in 0..digits {
                    for fraction in &mut fractions[..bytes.len()] {
                        let [rest, digit] = (*fraction as u16 * 3).to_le_bytes();
                        *fraction = rest;
                        *codes.next().expect("256 digits") = digit;
                    }
                }
            }
            (row.d, row.sub_scales) = (half(b, 52).into(), [1; 16]);
        }
        TensorType::TQ2_0 => {
            two_bits(&b[..64], &mut row.codes);
            (row.d, row.sub_scales) = (half(b, 64).into(), [1; 16]);
        }
        TensorType::IQ2_XXS
        | TensorType::IQ2_XS
        | TensorType::IQ2_S
        | TensorType::IQ3_XXS
        | TensorType::IQ3_S
        | TensorType::IQ1_S
        | TensorType::IQ1_M => pack_iq::read(ty, b, row),
        // `Format::of` returns no other type.
        _ => unreachable!("{ty} has no integer format"),
    }
}

/// The f16 that is half of a scale of NVFP4.
fn half_e4m3(x: u8) -> u16 {
    let magnitude = x & 0x7f;
    match magnitude {
        // ggml takes the code of NaN for 0, unless its unused sign is set.
        0x7f if x == 0x7f => 0,
        // An exponent of 0: no leading 1.
        0..8 => half::f16::from_f32(magnitude as f32 / 1024.0).to_bits(),
        _ => ((magnitude as u16) << 7) + (7 << 10),
    }
}

/// Unpacks the 2-bit codes of Q2_K, Q3_K and TQ2_0: 2 × 32 bytes, four codes 32 apart in each byte.
fn two_bits(bytes: &[u8], codes: &mut [u8; SUPER]) {
    for (i, codes) in codes.chunks_exact_mut(32).enumerate() {
        for (code, byte) in codes.iter_mut().zip(&bytes[i / 4 * 32..][..32]) {
            *code = byte >> (i % 4 * 2) & 3;
        }
    }
}

/// The value of one weight of a packed record as f32; `code` is the value that [`super::format::get_code`]
/// returns.
pub(crate) fn weight(format: &Format, header: &[u8], p: usize, column: usize, code: u8) -> f32 {
    let d = format.float.get(header, p);
    let after = format.float.bytes() * PANEL;
    let second = || Float::F16.get(&header[after..], p);
    let centered = if format.codes.signed() { code as i8 as f32 } else { code as f32 - format.center as f32 };
    match format.scales {
        Scales::Block { min: false } => d * centered,
        Scales::Block { min: true } => d * centered + second(),
        Scales::Twin => centered * if column < BLOCK / 2 { d } else { second() },
        Scales::Super { sub, min } => {
            let at = after + 2 * PANEL * min as usize + column / sub * PANEL + p;
            let scaled = d * header[at] as i8 as f32 * centered;
            if min { scaled - second() * header[at + SUPER / sub * PANEL] as f32 } else { scaled }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::put_code;
    use super::*;

    #[test]
    fn panels_are_what_putting_every_code_by_itself_gives() {
        for ty in TensorType::ALL {
            let Some(format) = Format::of(ty) else { continue };
            let (rows, records) = (PANEL + 5, 3);
            let parts = ty.block_len() / format.record_columns();
            let row_bytes = records * ty.block_bytes();
            let mut state = 1u32;
            let data: Vec<u8> = (0..rows * row_bytes)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            for panel in 0..2 {
                let bytes = format.record_bytes();
                let mut got = vec![0; records * parts * bytes];
                pack_panel(ty, &format, &data, row_bytes, panel, &mut got);
                let mut want = vec![0; records * parts * bytes];
                for (r, record) in want.chunks_exact_mut(bytes).enumerate() {
                    let (header, planes) = record.split_at_mut(format.header_bytes());
                    for p in 0..PANEL.min(rows - panel * PANEL) {
                        let mut row =
                            Row { d: 0, min: 0, sub_scales: [0; 16], sub_mins: [0; 16], codes: [0; SUPER] };
                        let at = (panel * PANEL + p) * row_bytes + r / parts * ty.block_bytes();
                        read(ty, &data[at..][..ty.block_bytes()], r % parts, &mut row);
                        put_scales(&format, &row, p, header);
                        for (i, &code) in row.codes[..format.record_columns()].iter().enumerate() {
                            let planes = &mut planes[i / BLOCK * format.codes.plane_bytes()..];
                            put_code(planes, format.codes, p, i % BLOCK, code);
                        }
                    }
                }
                assert!(got == want, "{ty}, panel {panel}");
            }
        }
    }
}
