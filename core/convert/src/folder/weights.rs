//! Weights as they are stored, made the blocks of a GGUF tensor.

use half::{bf16, f16};
use realm_gguf::TensorType;

use super::part::Part;
use super::safetensors::{Dtype, Files, Stored};

/// Columns of a block of Q4_1.
const BLOCK: usize = 32;

/// A matrix or vector in one or several tensors of a folder.
#[derive(Debug, Clone)]
pub(super) enum Weight {
    /// Floats as they are.
    Plain(Stored),
    /// 8-bit floats, with a factor for each block of rows and columns.
    Scaled { weight: Stored, scale: Stored, block: [usize; 2] },
    /// 4-bit codes, with a scale and a zero for each group of inputs.
    Coded { codes: Stored, zeros: Stored, scales: Stored, groups: Groups, packing: Packing },
    /// MXFP4 as gpt-oss has it: `[experts, rows, blocks, 16]` bytes of two neighbors each, and
    /// `[experts, rows, blocks]` exponents.
    Fours { blocks: Stored, scales: Stored, rows: Every },
    /// A part of a tensor of floats: one of several matrices that are stored together.
    Part { of: Box<Weight>, part: Part },
}

/// All rows, or every second one from the first or the second on: gates and ways up alternate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Every {
    One,
    SecondFrom(usize),
}

impl Every {
    fn step(self) -> (usize, usize) {
        match self {
            Self::One => (0, 1),
            Self::SecondFrom(first) => (first, 2),
        }
    }

    fn of(self, all: usize) -> usize {
        all / self.step().1
    }
}

/// The group that an input belongs to.
#[derive(Debug, Clone)]
pub(super) enum Groups {
    /// As many inputs one after the other.
    Runs(usize),
    /// A tensor that says so.
    Listed(Stored),
}

/// The order of eight codes in 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// AWQ: eight outputs of one input, the even ones first.
    Outputs,
    /// GPTQ: eight inputs of one output in order. Zeros are stored less 1, unless the format says otherwise.
    Inputs { zeros_less_one: bool },
}

/// The places of AWQ's outputs 0 to 7 in 32 bits.
const AWQ_ORDER: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

impl Weight {
    /// The shape, the outermost dimension first.
    pub(super) fn shape(&self) -> Vec<usize> {
        match self {
            Self::Plain(stored) | Self::Scaled { weight: stored, .. } => stored.shape.clone(),
            // Both store inputs first.
            Self::Coded { codes, scales, packing, .. } => {
                let inputs = if *packing == Packing::Outputs { codes.shape[0] } else { codes.shape[0] * 8 };
                vec![scales.shape[1], inputs]
            }
            Self::Fours { blocks, rows, .. } => {
                vec![blocks.shape[0], rows.of(blocks.shape[1]), blocks.shape[2] * BLOCK]
            }
            Self::Part { of, part } => part.shape(&of.shape()),
        }
    }

    /// The type that the numbers get. Codes in runs of whole blocks become Q4_1 with the scales that they
    /// have, so that a model of 4 bits stays one; the low end, scale times zero, is rounded to 11 bits. Codes
    /// in other groups become F16.
    pub(super) fn ty(&self) -> TensorType {
        match self {
            Self::Plain(stored) => match stored.dtype {
                Some(Dtype::BF16) => TensorType::BF16,
                Some(Dtype::F16) => TensorType::F16,
                _ => TensorType::F32,
            },
            Self::Part { of, .. } => match of.ty() {
                ty if ty.block_len() == 1 => ty,
                _ => TensorType::F16,
            },
            Self::Fours { .. } => TensorType::MXFP4,
            Self::Scaled { .. } => TensorType::BF16,
            Self::Coded { groups: Groups::Runs(run), .. }
                if run.is_multiple_of(BLOCK) && self.shape()[1].is_multiple_of(BLOCK) =>
            {
                TensorType::Q4_1
            }
            Self::Coded { .. } => TensorType::F16,
        }
    }

    /// Checks that the tensors have types and shapes that belong together.
    pub(super) fn check(&self) -> Result<(), String> {
        let two = |stored: &Stored| <[usize; 2]>::try_from(&stored.shape[..]).ok();
        match self {
            Self::Fours { blocks, scales, rows } => {
                let types = [blocks.dtype, scales.dtype] == [Some(Dtype::U8); 2];
                let [.., 16] = blocks.shape[..] else {
                    return Err("has blocks of other than 16 bytes".into());
                };
                let even = blocks.shape.len() == 4 && blocks.shape[1].is_multiple_of(rows.step().1);
                if types && even && blocks.shape[..3] == scales.shape[..] {
                    return Ok(());
                }
                let shapes = (&blocks.shape, &scales.shape);
                Err(format!("has blocks and scales of shapes {shapes:?} that do not belong together"))
            }
            Self::Part { of, part } => of.check().and_then(|()| part.check(&of.shape())),
            Self::Plain(stored) => match stored.dtype {
                Some(Dtype::F32 | Dtype::F16 | Dtype::BF16) => Ok(()),
                _ => {
                    Err(format!("is {}; F32, F16, BF16 and F8_E4M3 with scales are read", stored.dtype_name))
                }
            },
            Self::Scaled { weight, scale, block } => {
                let known = matches!(scale.dtype, Some(Dtype::F32 | Dtype::BF16 | Dtype::F16));
                let ([rows, columns], scales) =
                    (two(weight).ok_or("is no matrix")?, scale.shape.iter().product::<usize>());
                if !known
                    || block.contains(&0)
                    || rows.div_ceil(block[0]) * columns.div_ceil(block[1]) != scales
                {
                    let shape = &scale.shape;
                    return Err(format!(
                        "of {rows} × {columns} has scales of shape {shape:?} for blocks of {block:?}"
                    ));
                }
                Ok(())
            }
            Self::Coded { codes, zeros, scales, groups, packing } => {
                let all = (two(codes), two(zeros), two(scales));
                let (Some(c), Some(z), Some(s)) = all else {
                    return Err("has codes that are no matrix".into());
                };
                let types = codes.dtype == Some(Dtype::I32)
                    && zeros.dtype == Some(Dtype::I32)
                    && matches!(scales.dtype, Some(Dtype::F16 | Dtype::BF16 | Dtype::F32));
                let (outputs, inputs) =
                    if *packing == Packing::Outputs { (c[1] * 8, c[0]) } else { (c[1], c[0] * 8) };
                let listed = match groups {
                    Groups::Runs(run) => *run > 0 && inputs.div_ceil(*run) == s[0],
                    Groups::Listed(list) => list.dtype == Some(Dtype::I32) && list.shape == [inputs],
                };
                let fits = s[1] == outputs && z == [s[0], outputs / 8] && outputs.is_multiple_of(8) && listed;
                if types && fits {
                    return Ok(());
                }
                Err(format!(
                    "has codes {c:?}, zeros {z:?} and scales {s:?} that do not belong together; only 4 bits are read"
                ))
            }
        }
    }

    /// Replaces `out` with the numbers, as blocks of `ty`, which is [`ty`](Self::ty) or F32.
    pub(super) fn read(&self, files: &Files, ty: TensorType, out: &mut Vec<u8>) -> Result<(), Failure> {
        match self {
            Self::Plain(stored) => {
                files.read(stored, out)?;
                if ty != self.ty() {
                    let floats = floats(stored, out);
                    out.clear();
                    floats.iter().for_each(|x| out.extend(x.to_le_bytes()));
                }
                Ok(())
            }
            Self::Scaled { weight, scale, block } => {
                let mut bytes = Vec::new();
                files.read(scale, &mut bytes)?;
                let scales = floats(scale, &bytes);
                files.read(weight, &mut bytes)?;
                let columns = weight.shape[1];
                let across = columns.div_ceil(block[1]);
                out.clear();
                for (i, &byte) in bytes.iter().enumerate() {
                    let scale = scales[i / columns / block[0] * across + i % columns / block[1]];
                    out.extend(bf16::from_f32(e4m3(byte) * scale).to_le_bytes());
                }
                Ok(())
            }
            Self::Part { of, part } => {
                let mut all = Vec::new();
                of.read(files, ty, &mut all)?;
                let number = ty.block_bytes();
                out.clear();
                out.reserve(all.len());
                part.each(&of.shape(), |at| out.extend_from_slice(&all[at * number..][..number]));
                Ok(())
            }
            Self::Fours { blocks, scales, rows } => {
                let (mut bytes, mut exponents) = (Vec::new(), Vec::new());
                files.read(blocks, &mut bytes)?;
                files.read(scales, &mut exponents)?;
                let (first, step) = rows.step();
                let across = blocks.shape[2];
                out.clear();
                let rows = bytes.chunks_exact(16 * across).zip(exponents.chunks_exact(across));
                for (row, exponents) in rows.skip(first).step_by(step) {
                    for (block, &exponent) in row.as_chunks::<16>().0.iter().zip(exponents) {
                        // A byte has two neighbors; in GGUF it has numbers 16 apart.
                        let code = |i: usize| block[i / 2] >> (i % 2 * 4) & 15;
                        out.push(exponent);
                        out.extend((0..16).map(|i| code(i) | code(i + 16) << 4));
                    }
                }
                Ok(())
            }
            Self::Coded { codes, zeros, scales, groups, packing } => {
                Coded::read(files, [codes, zeros, scales], groups, *packing)?.write(ty, out)
            }
        }
    }
}

/// The reason why a tensor cannot be made.
pub(super) enum Failure {
    Gguf(realm_gguf::Error),
    Reason(String),
}

impl From<realm_gguf::Error> for Failure {
    fn from(error: realm_gguf::Error) -> Self {
        Self::Gguf(error)
    }
}

/// The numbers of a tensor of floats.
fn floats(stored: &Stored, bytes: &[u8]) -> Vec<f32> {
    match stored.dtype {
        Some(Dtype::F16) => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        Some(Dtype::BF16) => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        _ => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
    }
}

/// The value of an 8-bit float with 4 bits of exponent and neither infinities nor a negative zero's meaning.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if byte & 128 == 0 { magnitude } else { -magnitude }
}

/// A matrix of codes in memory.
struct Coded {
    inputs: usize,
    outputs: usize,
    codes: Vec<u32>,
    zeros: Vec<u32>,
    scales: Vec<f32>,
    /// The group of each input.
    groups: Vec<usize>,
    packing: Packing,
}

impl Coded {
    fn read(
        files: &Files,
        [codes, zeros, scales]: [&Stored; 3],
        groups: &Groups,
        packing: Packing,
    ) -> Result<Self, Failure> {
        let mut bytes = Vec::new();
        let mut words = |stored: &Stored| -> Result<Vec<u32>, Failure> {
            files.read(stored, &mut bytes)?;
            Ok(bytes.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect())
        };
        let (words_of_codes, words_of_zeros) = (words(codes)?, words(zeros)?);
        let inputs = if packing == Packing::Outputs { codes.shape[0] } else { codes.shape[0] * 8 };
        let groups = match groups {
            Groups::Runs(run) => (0..inputs).map(|i| i / run).collect(),
            Groups::Listed(list) => words(list)?.into_iter().map(|group| group as usize).collect::<Vec<_>>(),
        };
        if let Some(wrong) = groups.iter().find(|group| **group >= scales.shape[0]) {
            return Err(Failure::Reason(format!("has group {wrong} of {}", scales.shape[0])));
        }
        files.read(scales, &mut bytes)?;
        let floats = floats(scales, &bytes);
        let outputs = scales.shape[1];
        Ok(Self {
            inputs,
            outputs,
            codes: words_of_codes,
            zeros: words_of_zeros,
            scales: floats,
            groups,
            packing,
        })
    }

    fn code(&self, output: usize, input: usize) -> u32 {
        match self.packing {
            Packing::Outputs => {
                self.codes[input * self.outputs / 8 + output / 8] >> (4 * AWQ_ORDER[output % 8]) & 15
            }
            Packing::Inputs { .. } => self.codes[input / 8 * self.outputs + output] >> (4 * (input % 8)) & 15,
        }
    }

    fn scale_and_zero(&self, output: usize, group: usize) -> (f32, f32) {
        let word = self.zeros[group * self.outputs / 8 + output / 8];
        let zero = match self.packing {
            Packing::Outputs => word >> (4 * AWQ_ORDER[output % 8]) & 15,
            Packing::Inputs { zeros_less_one } => {
                (word >> (4 * (output % 8)) & 15) + u32::from(zeros_less_one)
            }
        };
        (self.scales[group * self.outputs + output], zero as f32)
    }

    fn write(&self, ty: TensorType, out: &mut Vec<u8>) -> Result<(), Failure> {
        out.clear();
        for output in 0..self.outputs {
            if ty != TensorType::Q4_1 {
                for (input, &group) in self.groups.iter().enumerate() {
                    let (scale, zero) = self.scale_and_zero(output, group);
                    let value = scale * (self.code(output, input) as f32 - zero);
                    match ty {
                        TensorType::F32 => out.extend(value.to_le_bytes()),
                        _ => out.extend(f16::from_f32(value).to_le_bytes()),
                    }
                }
                continue;
            }
            for first in (0..self.inputs).step_by(BLOCK) {
                let (scale, zero) = self.scale_and_zero(output, self.groups[first]);
                out.extend(f16::from_f32(scale).to_le_bytes());
                out.extend(f16::from_f32(-scale * zero).to_le_bytes());
                let code = |i: usize| self.code(output, first + i) as u8;
                out.extend((0..16).map(|i| code(i) | code(i + 16) << 4));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_floats_are_read_as_they_are_written() {
        let values = [
            (0x00, 0.0),
            (0x01, 1.0 / 512.0),
            (0x08, 1.0 / 64.0),
            (0x38, 1.0),
            (0x3c, 1.5),
            (0x7e, 448.0),
            (0xb8, -1.0),
        ];
        for (byte, value) in values {
            assert_eq!(e4m3(byte), value, "{byte:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
    }
}
