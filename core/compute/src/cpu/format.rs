//! The layout of weights on the CPU: panels of 16 rows, for every GGUF type.
//!
//! A matrix product reads weights far more often than anything else, so a matrix is rearranged once, when it
//! is loaded, into the order in which kernels read it:
//!
//! - 16 output rows form a *panel*; a panel is a run of *records*, each 32 columns (types with a float scale
//!   for 16 or 32 weights) or 256 columns (K-quants, whose small integer scales share a float one) of all 16
//!   rows.
//! - Inside a record, codes come in *groups* of 4 columns: 64 bytes, 4 consecutive columns of row 0, of row
//!   1, … of row 15. The byte multiply-add instructions of AVX2 (two registers), AVX-512 VNNI (one) and NEON
//!   (four) take this order: every 32-bit lane accumulates one row, and the activations' 4 bytes are
//!   broadcast. No horizontal sums, and rows never mix.
//! - Points of the IQ types' codebooks are taken apart: their 16 magnitudes with signs make a table for 4-bit
//!   codes.
//! - Codes of 2 to 6 bits are kept in bit planes over the 8 groups of 32 columns, so that a packed matrix is
//!   as large as in the file (K-quants grow by 0 to 4 %, for scales widened from 6 to 8 bits).
//!
//! | plane | bytes for 32 columns | byte `p` of it (`p = 4 * row + column % 4`) holds |
//! |---|---|---|
//! | low 4 bits | 4 × 64 | byte `g`: group `g` in bits 0..4, group `g + 4` in bits 4..8 |
//! | low 2 bits | 2 × 64 | byte `h`: group `4h + i` in bits `2i..2i+2` |
//! | high 1 bit | 64 | group `g` in bit `g` |
//! | high 2 bits | 2 × 64 | as low 2 bits |
//! | 8 bits | 8 × 64 | byte `g`: group `g` |

use realm_gguf::TensorType;

/// Rows per panel.
pub(crate) const PANEL: usize = 16;
/// Columns that share one float scale in the smaller family, and one unpacking step in both.
pub(crate) const BLOCK: usize = 32;
/// Columns of a K-quant record.
pub(crate) const SUPER: usize = 256;
/// Bytes of one group: 16 rows × 4 columns.
pub(crate) const GROUP: usize = 4 * PANEL;

/// The storage of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codes {
    U2,
    U3,
    U4,
    U5,
    U6,
    I8,
    /// 4-bit indices into 16 signed values.
    Table(&'static [i8; 16]),
    /// 4-bit floats (E2M1), unpacked as twice their value plus 16: unsigned codes are faster with AVX2.
    Float4,
}

impl Codes {
    /// Bytes that 32 columns of a panel take.
    pub(crate) const fn plane_bytes(self) -> usize {
        PANEL
            * match self {
                Codes::U2 => 8,
                Codes::U3 => 12,
                Codes::U4 | Codes::Table(_) | Codes::Float4 => 16,
                Codes::U5 => 20,
                Codes::U6 => 24,
                Codes::I8 => 32,
            }
    }

    /// Returns whether unpacked codes are signed bytes, rather than small unsigned ones.
    pub(crate) const fn signed(self) -> bool {
        matches!(self, Codes::I8 | Codes::Table(_))
    }

    /// The unpacked codes for 4-bit indices; without a meaning for other codes.
    pub(crate) const fn table(self) -> &'static [i8; 16] {
        if let Codes::Table(values) = self { values } else { &FLOAT4_UP }
    }
}

/// The storage of a record's float scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Float {
    F16,
    /// Has the range of the powers of two that scale MXFP4.
    BF16,
    /// For an f16 times a small power of two.
    F32,
}

impl Float {
    /// Bytes of one.
    pub(crate) const fn bytes(self) -> usize {
        if matches!(self, Float::F32) { 4 } else { 2 }
    }

    /// Reads number `i` of `bytes`.
    #[inline(always)]
    pub(crate) fn get(self, bytes: &[u8], i: usize) -> f32 {
        let short = || u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]);
        match self {
            Float::F16 => half::f16::from_bits(short()).to_f32(),
            Float::BF16 => f32::from_bits((short() as u32) << 16),
            Float::F32 => f32::from_le_bytes(std::array::from_fn(|byte| bytes[4 * i + byte])),
        }
    }
}

/// The conversion of codes to weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scales {
    /// `w = d * (code - center) + m`, `d` a float (and `m`, if `min`, an f16) for 32 weights.
    /// A record is `d[16]`, `m[16]` if `min`, planes.
    Block { min: bool },
    /// `w = d * code`, `d` an f16 for 16 weights. A record is `d[16]` of columns 0 to 15, `d[16]` of columns
    /// 16 to 31, planes.
    Twin,
    /// `w = d * scale * (code - center) - dmin * min`, `d` a float and `dmin` an f16 for 256 weights, `scale`
    /// an i8 and `min` a u8 for `sub` weights. A record is `d[16]`, `dmin[16]` if `min`, `scale[256 /
    /// sub][16]`, `min[256 / sub][16]` if `min`, then the planes of 8 × 32 columns.
    Super { sub: usize, min: bool },
}

/// The layout of one quantized matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) codes: Codes,
    pub(crate) scales: Scales,
    /// Subtracted from every code.
    pub(crate) center: u8,
    /// The kind of `d`.
    pub(crate) float: Float,
}

impl Format {
    /// The layout for a GGUF type, if it is an integer one.
    pub(crate) fn of(ty: TensorType) -> Option<Self> {
        let new = |codes, scales, center, float| Some(Self { codes, scales, center, float });
        let block = |codes, min, center| new(codes, Scales::Block { min }, center, Float::F16);
        let super_ = |codes, sub, min, center| new(codes, Scales::Super { sub, min }, center, Float::F16);
        let book = |table, sub| new(Codes::Table(table), Scales::Super { sub, min: false }, 0, Float::F32);
        match ty {
            TensorType::Q4_0 => block(Codes::U4, false, 8),
            TensorType::Q4_1 => block(Codes::U4, true, 0),
            TensorType::Q5_0 => block(Codes::U5, false, 16),
            TensorType::Q5_1 => block(Codes::U5, true, 0),
            TensorType::Q8_0 => block(Codes::I8, false, 0),
            TensorType::IQ4_NL => block(Codes::Table(&IQ4), false, 0),
            TensorType::Q2_K => super_(Codes::U2, 16, true, 0),
            TensorType::Q3_K => super_(Codes::U3, 16, false, 4),
            TensorType::Q4_K => super_(Codes::U4, 32, true, 0),
            TensorType::Q5_K => super_(Codes::U5, 32, true, 0),
            TensorType::Q6_K => super_(Codes::U6, 16, false, 32),
            TensorType::IQ4_XS => super_(Codes::Table(&IQ4), 32, false, 0),
            TensorType::IQ2_XXS => book(&IQ2, 32),
            TensorType::IQ2_XS | TensorType::IQ2_S => book(&IQ2, 16),
            TensorType::IQ3_XXS => book(&IQ3_XXS, 32),
            TensorType::IQ3_S => book(&IQ3_S, 32),
            TensorType::IQ1_S => book(&IQ1, 32),
            TensorType::IQ1_M => book(&IQ1, 16),
            TensorType::TQ1_0 | TensorType::TQ2_0 => super_(Codes::U2, 32, false, 1),
            TensorType::Q1_0 | TensorType::Q2_0 => block(Codes::U2, false, 1),
            TensorType::MXFP4 => new(Codes::Float4, Scales::Block { min: false }, 16, Float::BF16),
            TensorType::NVFP4 => new(Codes::Table(&FLOAT4), Scales::Twin, 0, Float::F16),
            _ => None,
        }
    }

    /// Returns whether weights have a minimum; otherwise codes have a center or are signed.
    pub(crate) const fn has_min(&self) -> bool {
        match self.scales {
            Scales::Block { min } | Scales::Super { min, .. } => min,
            Scales::Twin => false,
        }
    }

    /// Columns of a record.
    pub(crate) const fn record_columns(&self) -> usize {
        match self.scales {
            Scales::Block { .. } | Scales::Twin => BLOCK,
            Scales::Super { .. } => SUPER,
        }
    }

    /// Bytes of a record before its planes.
    pub(crate) const fn header_bytes(&self) -> usize {
        match self.scales {
            Scales::Block { min } => PANEL * (self.float.bytes() + 2 * min as usize),
            Scales::Twin => PANEL * 2 * self.float.bytes(),
            Scales::Super { sub, min } => {
                PANEL * (self.float.bytes() + SUPER / sub + (2 + SUPER / sub) * min as usize)
            }
        }
    }

    /// Bytes of a record.
    pub(crate) const fn record_bytes(&self) -> usize {
        self.header_bytes() + self.record_columns() / BLOCK * self.codes.plane_bytes()
    }
}

/// The 16 values of IQ4_NL and IQ4_XS.
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// Twice the 16 values of E2M1.
const FLOAT4: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
/// The same plus 16.
const FLOAT4_UP: [i8; 16] = [16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4];
/// The magnitudes of the codebooks of IQ2_XXS, IQ2_XS and IQ2_S, then minus these.
const IQ2: [i8; 16] = [8, 25, 43, 0, 0, 0, 0, 0, -8, -25, -43, 0, 0, 0, 0, 0];
/// The same for IQ3_XXS.
const IQ3_XXS: [i8; 16] = [4, 12, 20, 28, 36, 44, 52, 62, -4, -12, -20, -28, -36, -44, -52, -62];
/// The same for IQ3_S.
const IQ3_S: [i8; 16] = [1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15];
/// Eight times -1, 0 and 1, plus 1, then minus 1, for IQ1_S and IQ1_M.
const IQ1: [i8; 16] = [-7, 1, 9, 0, 0, 0, 0, 0, -9, -1, 7, 0, 0, 0, 0, 0];

/// Defines where a code sits in the planes of 32 columns: writes `code` of `row` and `column` (0..32). The
/// planes must be zero there. Packing itself writes whole groups at a time.
#[cfg(test)]
pub(crate) fn put_code(planes: &mut [u8], codes: Codes, row: usize, column: usize, code: u8) {
    let (group, byte) = (column / 4, 4 * row + column % 4);
    let mut low4 = |code: u8| planes[group % 4 * GROUP + byte] |= (code & 15) << (group / 4 * 4);
    match codes {
        Codes::I8 => planes[group * GROUP + byte] = code,
        Codes::U4 | Codes::Table(_) | Codes::Float4 => low4(code),
        Codes::U5 => {
            low4(code);
            planes[4 * GROUP + byte] |= (code >> 4 & 1) << group;
        }
        Codes::U6 => {
            low4(code);
            planes[(4 + group / 4) * GROUP + byte] |= (code >> 4 & 3) << (group % 4 * 2);
        }
        Codes::U2 => planes[group / 4 * GROUP + byte] |= (code & 3) << (group % 4 * 2),
        Codes::U3 => {
            planes[group / 4 * GROUP + byte] |= (code & 3) << (group % 4 * 2);
            planes[2 * GROUP + byte] |= (code >> 2 & 1) << group;
        }
    }
}

/// Reads a code back: the unsigned code, or the byte of a signed one (for an index of a table, the value
/// there).
pub(crate) fn get_code(planes: &[u8], codes: Codes, row: usize, column: usize) -> u8 {
    let (group, byte) = (column / 4, 4 * row + column % 4);
    let low4 = || planes[group % 4 * GROUP + byte] >> (group / 4 * 4) & 15;
    let low2 = |first: usize| planes[first + group / 4 * GROUP + byte] >> (group % 4 * 2) & 3;
    let bit = |first: usize| planes[first + byte] >> group & 1;
    match codes {
        Codes::I8 => planes[group * GROUP + byte],
        Codes::U4 => low4(),
        Codes::Table(_) | Codes::Float4 => codes.table()[low4() as usize] as u8,
        Codes::U5 => low4() | bit(4 * GROUP) << 4,
        Codes::U6 => low4() | low2(4 * GROUP) << 4,
        Codes::U2 => low2(0),
        Codes::U3 => low2(0) | bit(2 * GROUP) << 2,
    }
}
