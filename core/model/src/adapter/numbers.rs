//! The numbers of an adapter's matrices, in types that backends support.

use std::borrow::Cow;

use half::f16;
use realm_compute::quant;
use realm_gguf::{Tensor, TensorInfo, TensorType};

use super::invalid;
use crate::Error;

/// A matrix in a type that backends support: the numbers multiplied by `1 / factor`.
pub(super) struct Numbers<'a> {
    pub(super) info: TensorInfo,
    pub(super) data: Cow<'a, [u8]>,
    pub(super) factor: f32,
}

impl<'a> Numbers<'a> {
    /// Reads the numbers; `narrow` rounds F32 to 16 bits.
    pub(super) fn read(tensor: &Tensor<'a>, narrow: bool) -> Result<Self, Error> {
        let name = || super::show(&tensor.info.name);
        let retyped = |ty| {
            TensorInfo::new(&*tensor.info.name, tensor.info.shape.clone(), ty)
                .ok_or_else(|| invalid(format!("`{}` is too large", name())))
        };
        let infinite = || invalid(format!("`{}` holds a number that is not finite", name()));
        let (ty, keep) = (tensor.info.ty, Cow::Borrowed(tensor.data));
        let exponents = match ty {
            TensorType::F16 => 0x7c00,
            TensorType::BF16 => 0x7f80,
            _ => {
                let mut values = vec![0.0; tensor.info.len()];
                quant::dequantize(ty, tensor.data, &mut values)?;
                if values.iter().any(|v| !v.is_finite()) {
                    return Err(infinite());
                }
                if narrow {
                    let (data, factor) = halves(&values);
                    return Ok(Self { info: retyped(TensorType::F16)?, data: data.into(), factor });
                }
                let data = match ty {
                    TensorType::F32 => keep,
                    _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                };
                return Ok(Self { info: retyped(TensorType::F32)?, data, factor: 1.0 });
            }
        };
        let finite = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]) & exponents != exponents;
        if !tensor.data.chunks_exact(2).all(finite) {
            return Err(infinite());
        }
        Ok(Self { info: tensor.info.clone(), data: keep, factor: 1.0 })
    }

    pub(super) fn tensor(&self) -> Tensor<'_> {
        Tensor { info: &self.info, data: &self.data }
    }

    /// Puts the rows of every head in the order of llama's GGUF files: rows `i` and `i + dim / 2`, which rope
    /// rotates together, become neighbors.
    pub(super) fn interleave(&mut self, heads: usize) {
        let rows = self.info.shape.get(1).map_or(0, |&r| r as usize);
        let (row_bytes, dim) = (self.data.len() / rows.max(1), rows / heads);
        let mut out = Vec::with_capacity(self.data.len());
        for head in self.data.chunks_exact(dim * row_bytes) {
            let (pairs, last) = head.split_at(dim / 2 * 2 * row_bytes);
            let (first, second) = pairs.split_at(pairs.len() / 2);
            for (a, b) in first.chunks_exact(row_bytes).zip(second.chunks_exact(row_bytes)) {
                out.extend_from_slice(a);
                out.extend_from_slice(b);
            }
            out.extend_from_slice(last);
        }
        self.data = out.into();
    }
}

/// Rounds to half floats. The numbers are scaled by a power of two, so that the largest come near the end of
/// the range and none that matters near its beginning; returns the factor that undoes the scaling.
fn halves(values: &[f32]) -> (Vec<u8>, f32) {
    let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
    // The largest number comes to 2^14 to 2^15. Numbers below 2^-40 are as good as 0, so the scale is at most
    // 2^54.
    let exponent = if largest > 0.0 { 14 - largest.log2().floor().clamp(-40.0, 127.0) as i32 } else { 0 };
    let scale = 2f32.powi(exponent);
    let data = values.iter().flat_map(|v| f16::from_f32(v * scale).to_le_bytes()).collect();
    (data, 1.0 / scale)
}
