//! Weight matrices in the processor's own layouts.

use realm_gguf::{Tensor, TensorInfo, TensorType};

use super::aligned::Aligned;
use super::format::{BLOCK, Format, PANEL, get_code};
use super::pack::{pack_panel, weight};
use super::pool::{Parts, Pool, Share};
use crate::{Error, checks, quant};

/// A weight matrix `[rows, columns]`: `rows` outputs, `columns` inputs.
pub enum Matrix {
    /// Integer codes with scales.
    Packed(Packed),
    /// Floats.
    Float(FloatPanels),
}

/// Returns the bytes that a tensor's weights take in memory, but for the rows that fill up the last panel.
/// For most types that is as much as in the file; those of 1 to 3 bits take up to 2.8 times as much.
///
/// ```
/// use realm_compute::cpu::weight_bytes;
/// use realm_gguf::{TensorInfo, TensorType};
///
/// let tensor = TensorInfo::new("w", vec![256, 16], TensorType::Q4_0).expect("a tensor of this shape");
/// assert_eq!(weight_bytes(&tensor), 16 * 256 / 32 * 18);
/// ```
pub fn weight_bytes(info: &TensorInfo) -> u64 {
    let packed = |format: Format| info.len() / format.record_columns() * format.record_bytes() / PANEL;
    Format::of(info.ty).map_or(info.bytes(), packed) as u64
}

/// Integer codes in panels; see `format.rs`.
pub struct Packed {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) format: Format,
    data: Aligned<u8>,
}

/// Floats in panels of 16 rows: `[rows / 16][columns][16]`.
pub struct FloatPanels {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    data: Floats,
}

/// Floats in the type in which they are kept.
pub(super) enum Floats {
    F32(Aligned<f32>),
    F16(Aligned<u16>),
    BF16(Aligned<u16>),
}

impl Matrix {
    /// Repacks a tensor of GGUF shape `[columns, rows]` on all threads of the pool.
    pub(crate) fn new(pool: &Pool, tensor: &Tensor<'_>) -> Result<Self, Error> {
        let (columns, rows, _) = checks::matrix(tensor, usize::MAX)?;
        Self::stacked(pool, tensor, [columns, rows, 1])
    }

    /// Repacks `count` matrices of a checked tensor of GGUF shape `[columns, rows, count]` as one. Each
    /// begins with a panel of its own.
    pub(crate) fn stacked(
        pool: &Pool,
        tensor: &Tensor<'_>,
        [columns, rows_each, count]: [usize; 3],
    ) -> Result<Self, Error> {
        let info = tensor.info;
        let panels_each = rows_each.div_ceil(PANEL);
        let rows = (count - 1) * panels_each * PANEL + rows_each;
        let row_bytes = columns / info.ty.block_len() * info.ty.block_bytes();
        let matrix_bytes = rows_each * row_bytes;
        let data_of = |panel: usize| {
            (&tensor.data[panel / panels_each * matrix_bytes..][..matrix_bytes], panel % panels_each)
        };
        if let Some(format) = Format::of(info.ty) {
            let panel_bytes = columns / format.record_columns() * format.record_bytes();
            let data = panels(pool, rows, panel_bytes, |panel, out: &mut [u8]| {
                let (data, panel) = data_of(panel);
                pack_panel(info.ty, &format, data, row_bytes, panel, out);
                Ok(())
            })?;
            return Ok(Self::Packed(Packed { rows, columns, format, data }));
        }
        let len = columns * PANEL;
        let row_of = |panel: usize, p: usize| {
            let (data, panel) = data_of(panel);
            let row = panel * PANEL + p;
            (row < rows_each).then(|| &data[row * row_bytes..][..row_bytes])
        };
        let halves = |panel: usize, out: &mut [u16]| {
            for p in 0..PANEL {
                let Some(row) = row_of(panel, p) else { break };
                for (k, b) in row.chunks_exact(2).enumerate() {
                    out[k * PANEL + p] = u16::from_le_bytes([b[0], b[1]]);
                }
            }
            Ok(())
        };
        let data = match info.ty {
            TensorType::F16 => Floats::F16(panels(pool, rows, len, halves)?),
            TensorType::BF16 => Floats::BF16(panels(pool, rows, len, halves)?),
            // F32, and Q8_K, which llama.cpp uses for activations but never in files.
            _ => Floats::F32(panels(pool, rows, len, |panel, out: &mut [f32]| {
                let mut values = vec![0.0; columns];
                for p in 0..PANEL {
                    let Some(row) = row_of(panel, p) else { break };
                    quant::dequantize(info.ty, row, &mut values)
                        .map_err(|e| checks::bad_tensor(tensor, &e.to_string()))?;
                    for (k, &value) in values.iter().enumerate() {
                        out[k * PANEL + p] = value;
                    }
                }
                Ok(())
            })?),
        };
        Ok(Self::Float(FloatPanels { rows, columns, data }))
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        match self {
            Self::Packed(m) => m.rows,
            Self::Float(m) => m.rows,
        }
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        match self {
            Self::Packed(m) => m.columns,
            Self::Float(m) => m.columns,
        }
    }

    /// Where the weights lie, which tells matrices apart.
    pub(super) fn address(&self) -> usize {
        match self {
            Self::Packed(m) => m.data.as_ptr().addr(),
            Self::Float(m) => match &m.data {
                Floats::F32(data) => data.as_ptr().addr(),
                Floats::F16(data) | Floats::BF16(data) => data.as_ptr().addr(),
            },
        }
    }

    /// The matrix, if it is of integer codes.
    pub(crate) fn packed(&self) -> Option<&Packed> {
        match self {
            Self::Packed(m) => Some(m),
            Self::Float(_) => None,
        }
    }

    /// Dequantizes row `row` into `out`, `[columns]`.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        let (panel, p) = (row / PANEL, row % PANEL);
        match self {
            Self::Packed(m) => {
                let width = m.format.record_columns();
                for (first, out) in (0..m.columns).step_by(width).zip(out.chunks_exact_mut(width)) {
                    let (header, planes) = m.records(panel, first, width).split_at(m.format.header_bytes());
                    for (column, out) in out.iter_mut().enumerate() {
                        let planes = &planes[column / BLOCK * m.format.codes.plane_bytes()..];
                        let code = get_code(planes, m.format.codes, p, column % BLOCK);
                        *out = weight(&m.format, header, p, column, code);
                    }
                }
            }
            Self::Float(m) => {
                for (k, out) in out.iter_mut().enumerate() {
                    *out = m.value((panel * m.columns + k) * PANEL + p);
                }
            }
        }
    }
}

/// Fills all panels, `len` elements each, on all threads; returns the first error.
fn panels<T: super::aligned::Plain + Send + Sync>(
    pool: &Pool,
    rows: usize,
    len: usize,
    fill: impl Fn(usize, &mut [T]) -> Result<(), Error> + Sync,
) -> Result<Aligned<T>, Error> {
    let count = rows.div_ceil(PANEL);
    let mut data = Aligned::zeroed_huge(count * len);
    let (parts, share) = (Parts::new(&mut data), Share::new(count, 4));
    let failure = std::sync::Mutex::new(None);
    pool.run(&|_| {
        while let Some(piece) = share.next() {
            for panel in piece {
                // SAFETY: every panel is handed out once.
                let out = unsafe { parts.part(panel * len, len) };
                if let Err(error) = fill(panel, out) {
                    *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
                }
            }
        }
    });
    match failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(error) => Err(error),
        None => Ok(data),
    }
}

impl Packed {
    /// The records of a panel that hold columns `first .. first + columns`.
    pub(crate) fn records(&self, panel: usize, first: usize, columns: usize) -> &[u8] {
        let (width, bytes) = (self.format.record_columns(), self.format.record_bytes());
        let start = (panel * (self.columns / width) + first / width) * bytes;
        &self.data[start..start + columns / width * bytes]
    }
}

/// Columns of a float panel, 16 rows each, in the type in which they are kept.
#[derive(Clone, Copy)]
pub(crate) enum FloatSlice<'a> {
    F32(&'a [f32]),
    /// The bits of half floats.
    F16(&'a [u16]),
    /// The upper halves of the bits of floats.
    BF16(&'a [u16]),
}

impl FloatSlice<'_> {
    /// Number of weights.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::F32(w) => w.len(),
            Self::F16(w) | Self::BF16(w) => w.len(),
        }
    }

    /// Converts to f32, `[columns][16]`.
    pub(crate) fn widen(self, out: &mut Vec<f32>) {
        use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
        out.resize(self.len(), 0.0);
        match self {
            Self::F32(w) => out.copy_from_slice(w),
            Self::F16(w) => w.reinterpret_cast::<half::f16>().convert_to_f32_slice(out),
            Self::BF16(w) => {
                for (out, &bits) in out.iter_mut().zip(w) {
                    *out = f32::from_bits((bits as u32) << 16);
                }
            }
        }
    }
}

impl FloatPanels {
    fn value(&self, at: usize) -> f32 {
        match &self.data {
            Floats::F32(d) => d[at],
            Floats::F16(d) => half::f16::from_bits(d[at]).to_f32(),
            Floats::BF16(d) => half::bf16::from_bits(d[at]).to_f32(),
        }
    }

    /// Columns `first .. first + columns` of a panel.
    pub(crate) fn slice(&self, panel: usize, first: usize, columns: usize) -> FloatSlice<'_> {
        let start = (panel * self.columns + first) * PANEL;
        let range = start..start + columns * PANEL;
        match &self.data {
            Floats::F32(d) => FloatSlice::F32(&d[range]),
            Floats::F16(d) => FloatSlice::F16(&d[range]),
            Floats::BF16(d) => FloatSlice::BF16(&d[range]),
        }
    }
}
