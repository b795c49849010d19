//! A tile: some columns of a panel, unpacked to the first-level cache for the inner loops.
//!
//! Unpacking costs several instructions per weight, shared by all rows of activations. The inner loops then
//! see only two kinds of codes (small unsigned bytes and signed ones) and two kinds of scales, for every GGUF
//! type. For a single row of activations, unpacking through the cache costs about half as much as the
//! product, and both together are several times faster than memory delivers weights, so that case needs no
//! path of its own.

use crate::cpu::aligned::Aligned;
use crate::cpu::format::{BLOCK, Float, Format, GROUP, PANEL, SUPER, Scales, get_code};

/// Columns of a tile when few rows of activations use it: the tile stays in the first-level cache.
const FEW_ROWS_COLUMNS: usize = 512;
/// Columns of a tile when many rows use it; the tile may take half of a second-level cache.
const MANY_ROWS_COLUMNS: usize = 4096;
/// From this many rows on, reading a tile again costs less than adding up partial sums.
const MANY_ROWS: usize = 16;

/// Unpacked columns of one panel.
#[derive(Default)]
pub(crate) struct Tile {
    /// Columns held.
    pub(crate) columns: usize,
    /// `[columns / 4]` groups. Unsigned codes: 64 bytes, as in the packed matrix. Signed codes: the layout
    /// depends on the instruction set (64 bytes; AVX2 widens them to 128).
    pub(crate) codes: Aligned<u8>,
    /// `[columns / 32][16]` for block scales, `[columns / 256][16]` for super ones.
    pub(crate) scales: Aligned<f32>,
    /// Same layout as `scales`: the number to add (block) or subtract (super), or the scale of the later 16
    /// of 32 columns (twin).
    pub(crate) mins: Aligned<f32>,
    /// Super scales: `[columns / sub][16][2]`, each row's integer scale twice, for `vpmaddwd`.
    pub(crate) sub_scales: Aligned<i16>,
    /// Super scales with a minimum: `[columns / sub / 2][16][2]`, two neighbors' integer minimums.
    pub(crate) sub_mins: Aligned<i16>,
}

impl Tile {
    /// Returns how many columns to unpack at a time for `rows` rows of activations over `columns` columns.
    pub(crate) fn width(rows: usize, columns: usize) -> usize {
        columns.min(if rows < MANY_ROWS { FEW_ROWS_COLUMNS } else { MANY_ROWS_COLUMNS })
    }

    /// Makes room for `columns` columns of `format`.
    pub(crate) fn prepare(&mut self, format: &Format, columns: usize) {
        self.codes.reserve(columns / 4 * GROUP * if format.codes.signed() { 2 } else { 1 });
        self.scales.reserve(columns / BLOCK * PANEL);
        self.mins.reserve(columns / BLOCK * PANEL);
        if let Scales::Super { sub, .. } = format.scales {
            self.sub_scales.reserve(columns / sub * PANEL * 2);
            self.sub_mins.reserve(columns / sub * PANEL);
        }
    }

    /// Unpacks the scales of record `r` of the tile; `halves` turns 16 f16 (32 bytes) into 16 f32.
    #[inline(always)]
    pub(crate) fn unpack_scales(
        &mut self,
        format: &Format,
        r: usize,
        record: &[u8],
        halves: impl Fn(&[u8], &mut [f32]),
    ) {
        let (floats, record) = record.split_at(format.float.bytes() * PANEL);
        let scales = &mut self.scales[r * PANEL..][..PANEL];
        match format.float {
            Float::F16 => halves(floats, scales),
            other => scales.iter_mut().enumerate().for_each(|(p, scale)| *scale = other.get(floats, p)),
        }
        match format.scales {
            Scales::Block { min: false } => {}
            Scales::Block { min: true } | Scales::Twin => {
                halves(&record[..2 * PANEL], &mut self.mins[r * PANEL..][..PANEL]);
            }
            Scales::Super { sub, min } => {
                let (mins, record) = record.split_at(2 * PANEL * min as usize);
                if min {
                    halves(mins, &mut self.mins[r * PANEL..][..PANEL]);
                }
                self.unpack_sub_scales(r, sub, min, record);
            }
        }
    }

    #[inline(always)]
    fn unpack_sub_scales(&mut self, record: usize, sub: usize, min: bool, bytes: &[u8]) {
        let subs = SUPER / sub;
        let (scales, mins) = bytes.split_at(subs * PANEL);
        let out = &mut self.sub_scales[record * subs * PANEL * 2..][..subs * PANEL * 2];
        for (out, &scale) in out.chunks_exact_mut(2).zip(scales) {
            out.fill(scale as i8 as i16);
        }
        if min {
            let out = &mut self.sub_mins[record * subs * PANEL..][..subs * PANEL];
            for (out, mins) in out.chunks_exact_mut(2 * PANEL).zip(mins.chunks_exact(2 * PANEL)) {
                let (even, odd) = mins.split_at(PANEL);
                for (out, (&even, &odd)) in out.chunks_exact_mut(2).zip(even.iter().zip(odd)) {
                    (out[0], out[1]) = (even as i16, odd as i16);
                }
            }
        }
    }

    /// Unpacks `records` in plain code. The instruction sets' own versions must give the same result, except
    /// for the layout of signed codes.
    pub(crate) fn unpack_scalar(&mut self, format: &Format, records: &[u8]) {
        let bytes = format.record_bytes();
        self.columns = records.len() / bytes * format.record_columns();
        for (r, record) in records.chunks_exact(bytes).enumerate() {
            self.unpack_scales(format, r, record, |bytes, out| {
                out.iter_mut().enumerate().for_each(|(p, out)| *out = Float::F16.get(bytes, p));
            });
            let planes = record[format.header_bytes()..].chunks_exact(format.codes.plane_bytes());
            for (p, planes) in planes.enumerate() {
                let first = r * format.record_columns() + p * BLOCK;
                for column in 0..BLOCK {
                    for row in 0..PANEL {
                        let at = (first + column) / 4 * GROUP + 4 * row + column % 4;
                        self.codes[at] = get_code(planes, format.codes, row, column);
                    }
                }
            }
        }
    }
}
