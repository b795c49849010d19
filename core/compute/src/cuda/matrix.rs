//! Weight matrices on the GPU.
//!
//! `kernels/format.cuh` defines the layout of tiles in memory. A tensor is uploaded in slabs of whole rows:
//! from the memory map into pinned memory, from there to the GPU, where a kernel packs it. Two slabs are
//! under way at a time, and the host never holds a second copy.

use std::sync::Arc;

use realm_gguf::{Tensor, TensorType};

use super::driver::{Device, Event, Geometry, Memory, Pinned, arguments};
use super::kernels::Kernels;
use crate::quant::grids::ENTRIES;
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
pub(crate) const FORMATS: usize = 21;

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
    /// The bytes of `Q32` as half floats, 64 columns of all rows together.
    T32 = 32,
}

/// A layout of tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    /// The format's number in the kernels.
    pub(crate) index: i32,
    pub(crate) form: Form,
    /// The form for the kernels of `hopper_gemm.cuh`, if they support the format.
    pub(crate) many_rows: Option<Form>,
    /// Bytes of a tile for every 64 columns, and bytes in addition.
    quarter_bytes: usize,
    other_bytes: usize,
}

impl Format {
    /// Returns the layout for a GGUF type; `None` for types that are stored as single-precision floats.
    /// Ternary types are stored as Q2_K, with codes one larger and a minimum of 1; Q1_0 and Q2_0 as Q4_0.
    pub(crate) fn of(ty: TensorType) -> Option<Self> {
        // Index, form, bytes of planes by quarter, of the 2-bit and 1-bit planes, of scales, of minimums, of
        // float scales.
        let (index, form, quarter_bytes, others): (i32, Form, usize, [usize; 5]) = match ty {
            TensorType::Q4_0 | TensorType::Q1_0 | TensorType::Q2_0 => (0, Form::Q32, 512, [0, 0, 256, 0, 0]),
            TensorType::Q4_1 => (1, Form::Q32, 512, [0, 0, 256, 256, 0]),
            TensorType::Q5_0 => (2, Form::Q32, 512, [0, 512, 256, 0, 0]),
            TensorType::Q5_1 => (3, Form::Q32, 512, [0, 512, 256, 256, 0]),
            TensorType::Q8_0 => (4, Form::Q32, 1024, [0, 0, 256, 0, 0]),
            TensorType::IQ4_NL => (5, Form::Q32, 512, [0, 0, 256, 0, 0]),
            TensorType::Q2_K | TensorType::TQ1_0 | TensorType::TQ2_0 => {
                (6, Form::Q256, 0, [1024, 0, 256, 256, 64])
            }
            TensorType::Q3_K => (7, Form::Q256, 0, [1024, 512, 256, 0, 32]),
            TensorType::Q4_K => (8, Form::Q256, 512, [0, 0, 128, 128, 64]),
            TensorType::Q5_K => (9, Form::Q256, 512, [0, 512, 128, 128, 64]),
            TensorType::Q6_K => (10, Form::Q256, 512, [1024, 0, 256, 0, 32]),
            TensorType::IQ4_XS => (11, Form::Q256, 512, [0, 0, 128, 0, 32]),
            TensorType::F16 | TensorType::BF16 => (12, Form::F16, 2048, [0; 5]),
            TensorType::MXFP4 => (13, Form::Q32, 512, [0, 0, 256, 0, 0]),
            TensorType::NVFP4 => (14, Form::Q32, 512, [0, 0, 512, 0, 0]),
            TensorType::IQ2_XXS => (15, Form::Q256, 512, [0, 0, 128, 0, 32]),
            TensorType::IQ2_XS | TensorType::IQ2_S => (16, Form::Q256, 512, [0, 0, 256, 0, 32]),
            TensorType::IQ3_XXS => (17, Form::Q256, 512, [0, 0, 128, 0, 32]),
            TensorType::IQ3_S => (18, Form::Q256, 512, [0, 0, 128, 0, 32]),
            TensorType::IQ1_S => (19, Form::Q256, 512, [0, 0, 128, 0, 32]),
            TensorType::IQ1_M => (20, Form::Q256, 512, [0, 0, 256, 0, 32]),
            TensorType::F32 | TensorType::Q8_K => return None,
        };
        let many_rows = match index {
            8 | 10 => Some(Form::T256),
            12 => Some(Form::T16),
            4 | 13 => Some(Form::T32),
            _ => None,
        };
        Some(Self { index, form, many_rows, quarter_bytes, other_bytes: others.iter().sum() })
    }

    /// Bytes of a tile of `quarters` × 64 columns.
    pub(crate) fn tile_bytes(&self, quarters: usize) -> usize {
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
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Stored in tiles. The weights were multiplied with 1 / `factor`, a power of two.
    Tiles { format: Format, tile_row_bytes: usize, factor: f32 },
    /// Stored row by row, as single-precision floats.
    Floats,
}

impl Kind {
    /// The layout of tiles; `None` for floats.
    pub(crate) fn format(&self) -> Option<Format> {
        match *self {
            Self::Tiles { format, .. } => Some(format),
            Self::Floats => None,
        }
    }
}

/// The struct `Source` of `pack.cu`.
#[repr(C)]
struct Source {
    data: u64,
    grid: u64,
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
    /// The codebooks of the IQ types.
    grids: Memory,
}

/// Matrices of one shape, one after the other.
pub(crate) struct Stack {
    pub(crate) count: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) kind: Kind,
    pub(crate) memory: Memory,
}

impl Stack {
    /// Bytes of each matrix.
    pub(crate) fn bytes(&self) -> usize {
        match self.kind {
            Kind::Tiles { tile_row_bytes, .. } => self.rows.div_ceil(TOGETHER) * 4 * tile_row_bytes,
            Kind::Floats => self.rows * self.columns * 4,
        }
    }
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
        let mut grids = Memory::new(device, ENTRIES.len(), "codebooks")?;
        grids.write(0, ENTRIES)?;
        Ok(Self { slots: [Slot::new(device, SLAB)?, Slot::new(device, SLAB)?], next: 0, grids })
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
        checks::matrix(tensor, i32::MAX as usize)?;
        let Stack { rows, columns, kind, memory, .. } = self.stack(device, kernels, tensor)?;
        Ok(Matrix { rows, columns, kind, memory })
    }

    /// Uploads a tensor of GGUF shape `[columns, rows, count]` as single-precision floats, whatever its type.
    pub(crate) fn floats(
        &mut self,
        device: &Arc<Device>,
        kernels: &Kernels,
        tensor: &Tensor<'_>,
    ) -> Result<Stack, Error> {
        self.upload(device, kernels, tensor, None)
    }

    /// Uploads a tensor of GGUF shape `[columns, rows, count]`.
    pub(crate) fn stack(
        &mut self,
        device: &Arc<Device>,
        kernels: &Kernels,
        tensor: &Tensor<'_>,
    ) -> Result<Stack, Error> {
        self.upload(device, kernels, tensor, Format::of(tensor.info.ty))
    }

    fn upload(
        &mut self,
        device: &Arc<Device>,
        kernels: &Kernels,
        tensor: &Tensor<'_>,
        format: Option<Format>,
    ) -> Result<Stack, Error> {
        let info = tensor.info;
        // Kernels index with 32 bits.
        let ([columns, rows, count], row_bytes) = checks::matrices(tensor, i32::MAX as usize)?;
        if rows * count > i32::MAX as usize {
            return Err(checks::bad_tensor(tensor, "is too large"));
        }
        device.bind()?;
        let what = format!("tensor `{}`", info.name);
        let Some(format) = format else {
            let all = rows * count;
            let mut memory = Memory::new(device, all * columns * 4, &what)?;
            let slab = (SLAB / (4 * columns)).max(1);
            for first in (0..all).step_by(slab) {
                let some = slab.min(all - first);
                let slot = self.slot(device, some * columns * 4)?;
                let floats = slot.host.slice::<f32>(some * columns);
                quant::dequantize(info.ty, &tensor.data[first * row_bytes..][..some * row_bytes], floats)
                    .map_err(|e| checks::bad_tensor(tensor, &e.to_string()))?;
                memory.write(first * columns * 4, floats)?;
                slot.done.record()?;
            }
            return Ok(Stack { count, rows, columns, kind: Kind::Floats, memory });
        };
        let up = if info.ty == TensorType::BF16 { headroom(tensor.data) } else { 1.0 };
        let kind = Kind::Tiles { format, tile_row_bytes: format.tile_row_bytes(columns), factor: 1.0 / up };
        let memory = Memory::new(device, 0, &what)?;
        let mut stack = Stack { count, rows, columns, kind, memory };
        let bytes = stack.bytes();
        stack.memory = Memory::new(device, bytes * count, &what)?;
        // Matrices of whole groups of tiles lie as one matrix of all their rows.
        let (count, rows) = if rows.is_multiple_of(TOGETHER) { (1, rows * count) } else { (count, rows) };
        for (i, data) in tensor.data.chunks_exact(rows * row_bytes).enumerate().take(count) {
            let out = stack.memory.pointer() + (i * bytes) as u64;
            self.pack(device, kernels, info.ty, (data, row_bytes), (columns, format, up), out)?;
        }
        Ok(stack)
    }

    /// Packs the rows of a matrix, `row_bytes` each, to `out`.
    fn pack(
        &mut self,
        device: &Arc<Device>,
        kernels: &Kernels,
        ty: TensorType,
        (data, row_bytes): (&[u8], usize),
        (columns, format, factor): (usize, Format, f32),
        out: u64,
    ) -> Result<(), Error> {
        let tile_row_bytes = format.tile_row_bytes(columns);
        let slab = (SLAB / row_bytes / TOGETHER).max(1) * TOGETHER;
        let grid = self.grids.pointer();
        for (i, bytes) in data.chunks(slab * row_bytes).enumerate() {
            let (first, count) = (i * slab, bytes.len() / row_bytes);
            let slot = self.slot(device, bytes.len())?;
            let host = slot.host.slice::<u8>(bytes.len());
            host.copy_from_slice(bytes);
            slot.device.write(0, host)?;
            let source = Source {
                data: slot.device.pointer(),
                grid,
                row_bytes: row_bytes as u64,
                rows: count as i32,
                columns: columns as i32,
                ty: ty.id() as i32,
                factor,
            };
            let out = out + (first / TILE * tile_row_bytes) as u64;
            // Rows beyond the last output are zeros.
            let tiles = count.div_ceil(TOGETHER) * 4;
            let y = tiles.min(32_768);
            let grid = [columns.div_ceil(CHUNK), y, tiles.div_ceil(y)];
            let geometry = Geometry { grid, block: 128, shared: 0 };
            let (stride, tiles) = (tile_row_bytes as u64, tiles as i32);
            // SAFETY: the slab holds `count` rows, and there is room for their tiles.
            unsafe {
                let arguments = arguments![source, out, stride, format.index, tiles];
                device.launch(kernels.pack, geometry, arguments)?;
            }
            slot.done.record()?;
        }
        Ok(())
    }
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
            let most = match ty {
                // The 4-bit scales and minimums of Q2_K take whole bytes here.
                TensorType::Q2_K => 1.2,
                // Points of codebooks are taken apart, so 2 to 3.4 bits become 4.3 to 4.6; ternary numbers
                // become 3.1, and a bit 4.5.
                TensorType::IQ3_S => 1.26,
                TensorType::IQ3_XXS => 1.42,
                TensorType::IQ2_S => 1.79,
                TensorType::IQ2_XS => 1.98,
                TensorType::IQ2_XXS => 2.1,
                TensorType::IQ1_M => 2.61,
                TensorType::IQ1_S => 2.77,
                TensorType::TQ1_0 => 1.86,
                TensorType::TQ2_0 => 1.52,
                TensorType::Q1_0 => 4.01,
                TensorType::Q2_0 => 2.01,
                // Their scales have 16 bits instead of 8.
                TensorType::MXFP4 => 1.07,
                TensorType::NVFP4 => 1.12,
                _ => 1.04,
            };
            assert!(ours >= file && ours as f64 <= most * file as f64, "{ty}: {ours} for {file}");
            // Kernels read rows 16 bytes at a time.
            assert_eq!(ours % 16, 0);
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
