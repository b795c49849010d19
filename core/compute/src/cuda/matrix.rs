//! Weight matrices on the GPU.
//!
//! `kernels/format.cuh` defines the layout of tiles in memory. A tensor is uploaded in slabs of whole rows:
//! from the memory map into pinned memory, from there to the GPU, where a kernel packs it. Two slabs are
//! under way at a time, and the host never holds a second copy.

use std::sync::Arc;

use realm_gguf::{Tensor, TensorType};

use super::driver::{Device, Event, Geometry, Memory, Pinned, arguments};
use super::kernels::Kernels;
use crate::{Error, checks, quant};

/// Outputs per tile.
const TILE: usize = 16;
/// Outputs of the tiles that are stored together.
const TOGETHER: usize = 4 * TILE;
/// Columns per tile.
pub(crate) const CHUNK: usize = 256;
/// Multiple to which the columns of rows are padded.
pub(crate) const QUARTER: usize = 64;

/// Number of tile layouts.
pub(crate) const FORMATS: usize = 13;

/// Bytes per slab, unless 64 rows take more.
const SLAB: usize = 16 << 20;

/// The form in which kernels read activations; see `kernels/activations.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Bytes with a scale for 256 columns.
    Q256 = 1,
    /// Bytes with a scale for 32 columns.
    Q32 = 2,
    /// Half floats.
    F16 = 4,
    /// The bytes of `Q256` as half floats, 64 columns of all rows together.
    T256 = 8,
    /// Half floats, 64 columns of all rows together.
    T16 = 16,
}

/// A layout of tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    /// The format's number in the kernels.
    pub(crate) index: i32,
    pub(crate) form: Form,
    /// The form for the kernels of `hopper.cu`, if they support the format.
    pub(crate) many_rows: Option<Form>,
    /// Bytes of a tile for every 64 columns, and bytes in addition.
    quarter_bytes: usize,
    other_bytes: usize,
}

impl Format {
    /// Returns the layout for a GGUF type; `None` for types that are stored as single-precision floats, or
    /// only on the CPU.
    pub(crate) fn of(ty: TensorType) -> Option<Self> {
        // Index, form, bytes of planes by quarter, of the 2-bit and 1-bit planes, of scales, of minimums, of
        // float scales.
        let (index, form, quarter_bytes, others): (i32, Form, usize, [usize; 5]) = match ty {
            TensorType::Q4_0 => (0, Form::Q32, 512, [0, 0, 256, 0, 0]),
            TensorType::Q4_1 => (1, Form::Q32, 512, [0, 0, 256, 256, 0]),
            TensorType::Q5_0 => (2, Form::Q32, 512, [0, 512, 256, 0, 0]),
            TensorType::Q5_1 => (3, Form::Q32, 512, [0, 512, 256, 256, 0]),
            TensorType::Q8_0 => (4, Form::Q32, 1024, [0, 0, 256, 0, 0]),
            TensorType::IQ4_NL => (5, Form::Q32, 512, [0, 0, 256, 0, 0]),
            TensorType::Q2_K => (6, Form::Q256, 0, [1024, 0, 256, 256, 64]),
            TensorType::Q3_K => (7, Form::Q256, 0, [1024, 512, 256, 0, 32]),
            TensorType::Q4_K => (8, Form::Q256, 512, [0, 0, 128, 128, 64]),
            TensorType::Q5_K => (9, Form::Q256, 512, [0, 512, 128, 128, 64]),
            TensorType::Q6_K => (10, Form::Q256, 512, [1024, 0, 256, 0, 32]),
            TensorType::IQ4_XS => (11, Form::Q256, 512, [0, 0, 128, 0, 32]),
            TensorType::F16 | TensorType::BF16 => (12, Form::F16, 2048, [0; 5]),
            _ => return None,
        };
        let many_rows = match index {
            8 | 10 => Some(Form::T256),
            12 => Some(Form::T16),
            _ => None,
        };
        Some(Self { index, form, many_rows, quarter_bytes, other_bytes: others.iter().sum() })
    }

    /// Bytes of a tile of `quarters` × 64 columns.
    fn tile_bytes(&self, quarters: usize) -> usize {
        quarters * self.quarter_bytes + self.other_bytes
    }

    /// Bytes of 16 rows of `columns` columns.
    pub(crate) fn tile_row_bytes(&self, columns: usize) -> usize {
        let tail = (columns % CHUNK).div_ceil(QUARTER);
        let whole = columns / CHUNK * self.tile_bytes(4);
        if tail == 0 { whole } else { whole + self.tile_bytes(tail) }
    }
}

/// A weight matrix `[rows, columns]` on the GPU: `rows` outputs, `columns` inputs.
pub struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) kind: Kind,
    pub(crate) memory: Memory,
}

/// The storage of a matrix.
pub(crate) enum Kind {
    /// Stored in tiles. The weights were multiplied with 1 / `factor`, a power of two.
    Tiles { format: Format, tile_row_bytes: usize, factor: f32 },
    /// Stored row by row, as single-precision floats.
    Floats,
}

/// The struct `Source` of `pack.cu`.
#[repr(C)]
struct Source {
    data: u64,
    row_bytes: u64,
    rows: i32,
    columns: i32,
    ty: i32,
    factor: f32,
}

/// Uploads tensors to the GPU; kept between tensors to reuse its memory.
pub(crate) struct Uploader {
    slots: [Slot; 2],
    next: usize,
}

struct Slot {
    host: Pinned,
    device: Memory,
    /// Marks the end of packing the slab that last used this slot.
    done: Event,
}

impl Slot {
    fn new(device: &Arc<Device>, bytes: usize) -> Result<Self, Error> {
        let memory = Memory::new(device, bytes, "weights on their way")?;
        Ok(Self { host: Pinned::new(device, bytes)?, device: memory, done: Event::new(device)? })
    }
}

impl Uploader {
    pub(crate) fn new(device: &Arc<Device>) -> Result<Self, Error> {
        Ok(Self { slots: [Slot::new(device, SLAB)?, Slot::new(device, SLAB)?], next: 0 })
    }

    /// Returns the next slot, free and of at least `bytes`.
    fn slot(&mut self, device: &Arc<Device>, bytes: usize) -> Result<&mut Slot, Error> {
        self.next = 1 - self.next;
        let slot = &mut self.slots[self.next];
        slot.done.wait()?;
        if slot.host.bytes() < bytes {
            *slot = Slot::new(device, bytes)?;
        }
        Ok(slot)
    }

    /// Uploads a tensor of GGUF shape `[columns, rows]`.
    pub(crate) fn matrix(
        &mut self,
        device: &Arc<Device>,
        kernels: &Kernels,
        tensor: &Tensor<'_>,
    ) -> Result<Matrix, Error> {
        self.upload(device, kernels, tensor, layout(tensor)?)
    }

    /// Uploads a tensor as single-precision floats, whatever its type.
    pub(crate) fn floats(
        &mut self,
        device: &Arc<Device>,
        kernels: &Kernels,
        tensor: &Tensor<'_>,
    ) -> Result<Matrix, Error> {
        self.upload(device, kernels, tensor, None)
    }

    fn upload(
        &mut self,
        device: &Arc<Device>,
        kernels: &Kernels,
        tensor: &Tensor<'_>,
        format: Option<Format>,
    ) -> Result<Matrix, Error> {
        let info = tensor.info;
        // Kernels index with 32 bits.
        let (columns, rows, row_bytes) = checks::matrix(tensor, i32::MAX as usize)?;
        device.bind()?;
        let what = format!("tensor `{}`", info.name);
        let Some(format) = format else {
            let mut memory = Memory::new(device, rows * columns * 4, &what)?;
            let slab = (SLAB / (4 * columns)).max(1);
            for first in (0..rows).step_by(slab) {
                let count = slab.min(rows - first);
                let slot = self.slot(device, count * columns * 4)?;
                let floats = slot.host.slice::<f32>(count * columns);
                quant::dequantize(info.ty, &tensor.data[first * row_bytes..][..count * row_bytes], floats)
                    .map_err(|e| checks::bad_tensor(tensor, &e.to_string()))?;
                memory.write(first * columns * 4, floats)?;
                slot.done.record()?;
            }
            return Ok(Matrix { rows, columns, kind: Kind::Floats, memory });
        };
        let tile_row_bytes = format.tile_row_bytes(columns);
        let memory = Memory::new(device, rows.div_ceil(TOGETHER) * 4 * tile_row_bytes, &what)?;
        let up = if info.ty == TensorType::BF16 { headroom(tensor.data) } else { 1.0 };
        let slab = (SLAB / row_bytes / TOGETHER).max(1) * TOGETHER;
        for first in (0..rows).step_by(slab) {
            let count = slab.min(rows - first);
            let bytes = &tensor.data[first * row_bytes..][..count * row_bytes];
            let slot = self.slot(device, bytes.len())?;
            let host = slot.host.slice::<u8>(bytes.len());
            host.copy_from_slice(bytes);
            slot.device.write(0, host)?;
            let source = Source {
                data: slot.device.pointer(),
                row_bytes: row_bytes as u64,
                rows: count as i32,
                columns: columns as i32,
                ty: info.ty.id() as i32,
                factor: up,
            };
            let out = memory.pointer() + (first / TILE * tile_row_bytes) as u64;
            // Rows beyond the last output are zeros.
            let tiles = count.div_ceil(TOGETHER) * 4;
            let y = tiles.min(32_768);
            let grid = [columns.div_ceil(CHUNK), y, tiles.div_ceil(y)];
            let geometry = Geometry { grid, block: 128, shared: 0 };
            let (stride, tiles) = (tile_row_bytes as u64, tiles as i32);
            // SAFETY: the slab holds `count` rows, and the matrix has room for their tiles.
            unsafe {
                let arguments = arguments![source, out, stride, format.index, tiles];
                device.launch(kernels.pack, geometry, arguments)?;
            }
            slot.done.record()?;
        }
        let kind = Kind::Tiles { format, tile_row_bytes, factor: 1.0 / up };
        Ok(Matrix { rows, columns, kind, memory })
    }
}

/// Returns whether there are kernels for matrices of a type.
pub(super) fn takes(ty: TensorType) -> bool {
    Format::of(ty).is_some() || matches!(ty, TensorType::F32 | TensorType::Q8_K)
}

/// Returns the layout of a matrix; refuses types that only the CPU multiplies with.
fn layout(tensor: &Tensor<'_>) -> Result<Option<Format>, Error> {
    let (ty, format) = (tensor.info.ty, Format::of(tensor.info.ty));
    if !takes(ty) {
        let why = format!("is {ty}, which only the CPU multiplies with: choose the device `cpu`");
        return Err(checks::bad_tensor(tensor, &why));
    }
    Ok(format)
}

/// Returns the power of two that brings the largest of these bfloat16 numbers just below 2¹⁵. As half floats
/// they then keep all their bits, except for numbers so small beside the largest that they do not matter
/// (below 2⁻²⁹ of it).
fn headroom(data: &[u8]) -> f32 {
    let largest = data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]) & 0x7fff).max().unwrap_or(0);
    // The exponent, biased by 127. Infinities and NaNs, and numbers too small to matter, are not scaled.
    match largest >> 7 {
        0 | 255 => 1.0,
        exponent => f32::from_bits(((127 + 14 + 127 - exponent as u32).clamp(1, 254)) << 23),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_about_as_large_as_in_the_file() {
        for ty in TensorType::ALL {
            let Some(format) = Format::of(ty) else { continue };
            let columns = 11_008;
            let file = columns / ty.block_len() * ty.block_bytes() * TILE;
            let ours = format.tile_row_bytes(columns);
            // The 4-bit scales and minimums of Q2_K take whole bytes here.
            let most = if ty == TensorType::Q2_K { 1.2 } else { 1.04 };
            assert!(ours >= file && ours as f64 <= most * file as f64, "{ty}: {ours} for {file}");
            // Kernels read rows 16 bytes at a time.
            assert_eq!(ours % 16, 0);
        }
    }

    #[test]
    fn types_for_the_cpu_alone_are_refused_by_name() {
        for ty in TensorType::ALL {
            let info = realm_gguf::TensorInfo::new("w", vec![256, 2], ty).unwrap();
            let refused = layout(&Tensor { info: &info, data: &[] }).err().map(|error| error.to_string());
            let here = Format::of(ty).is_some() || [TensorType::F32, TensorType::Q8_K].contains(&ty);
            assert_eq!(refused.is_none(), here, "{ty}");
            let why = format!("tensor `w` of shape [256, 2] is {ty}, which only the CPU multiplies with");
            assert!(refused.is_none_or(|refused| refused.contains(&why)), "{ty}");
        }
    }

    #[test]
    fn a_last_chunk_that_is_not_whole_takes_less() {
        let format = Format::of(TensorType::Q4_1).unwrap();
        assert_eq!(format.tile_row_bytes(576), 2 * format.tile_bytes(4) + format.tile_bytes(1));
        assert_eq!(format.tile_row_bytes(512 + 96), 2 * format.tile_bytes(4) + format.tile_bytes(2));
    }

    #[test]
    fn bfloat16_is_brought_just_below_the_largest_half_float() {
        let data = |x: f32| half::bf16::from_f32(x).to_le_bytes();
        for x in [1.0f32, 0.37, -0.02, 3e-5, 7e4, 1e30] {
            let scaled = x.abs() * headroom(&data(x));
            assert!((16384.0..32768.0).contains(&scaled), "{x}: {scaled}");
        }
        assert_eq!(headroom(&data(0.0)), 1.0);
        assert_eq!(headroom(&data(f32::INFINITY)), 1.0);
    }
}
