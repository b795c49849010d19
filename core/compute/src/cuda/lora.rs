//! Adapters on the GPU: `b · (a · x)` on top of a product, for the rows that use them.

use std::sync::Arc;

use realm_gguf::{Tensor, TensorType};

use super::driver::{Device, Geometry, Memory, arguments};
use super::kernels::Kernels;
use super::matrix::{Stack, Uploader};
use super::state::{State, at_least};
use super::{Buffer, CudaBackend};
use crate::checks::expect;
use crate::{Error, Lora, MatMul};

/// A low-rank change of a matrix, or of one matrix for each expert: `a` is `[experts, rank, inputs]`, `b` is
/// `[experts, outputs, rank]`.
pub struct LowRank {
    pub(super) a: Stack,
    pub(super) b: Stack,
}

impl LowRank {
    pub(crate) fn new(
        uploader: &mut Uploader,
        device: &Arc<Device>,
        kernels: &Kernels,
        a: &Tensor<'_>,
        b: &Tensor<'_>,
    ) -> Result<Self, Error> {
        for tensor in [a, b] {
            if !matches!(tensor.info.ty, TensorType::F32 | TensorType::F16 | TensorType::BF16) {
                let (name, ty) = (&tensor.info.name, tensor.info.ty);
                return Err(Error::InvalidModel(format!("tensor `{name}` is {ty}, not F32, F16 or BF16")));
            }
        }
        let (a, b) = (uploader.floats(device, kernels, a)?, uploader.floats(device, kernels, b)?);
        if b.columns != a.rows || b.count != a.count {
            let why = format!("an adapter's `b` has {} columns for an `a` of rank {}", b.columns, a.rows);
            return Err(Error::InvalidModel(why));
        }
        Ok(Self { a, b })
    }

    /// Number of changed matrices, their outputs and inputs.
    pub(super) fn shape(&self) -> [usize; 3] {
        [self.b.count, self.b.rows, self.a.columns]
    }
}

/// Checks every number that the kernels index with.
pub(crate) fn check(job: &MatMul<'_, CudaBackend>, rows: usize) -> Result<(), Error> {
    for lora in job.lora {
        expect("the inputs of an adapter", lora.pair.a.columns, job.weight.columns)?;
        expect("the outputs of an adapter", lora.pair.b.rows, job.weight.rows)?;
        if let Some(bad) = lora.rows.iter().find(|r| r.row as usize >= rows) {
            return Err(Error::InvalidArgument(format!("row {} of {rows}", bad.row)));
        }
    }
    Ok(())
}

/// Adds an adapter's change to the product of `x` in `out`.
pub(crate) fn add(
    device: &Arc<Device>,
    kernels: &Kernels,
    state: &mut State,
    x: &Buffer,
    lora: &Lora<'_, CudaBackend>,
    out: &Buffer,
) -> Result<(), Error> {
    let LowRank { a, b } = lora.pair;
    let (rank, count) = (a.rows, lora.rows.len());
    let rows: Vec<u32> =
        lora.rows.iter().flat_map(|row| [row.row, (lora.scale * row.scale).to_bits()]).collect();
    let rows = state.adapter_rows.put(device, &rows)?;
    let hidden = at_least(&mut state.hidden, device, count * rank * 4, false)?.pointer();
    let address = |memory: &Memory| memory.pointer();
    let (a_at, b_at, from, to) = (address(&a.memory), address(&b.memory), x.pointer(), out.pointer());
    let (ranks, inputs, outputs) = (rank as i32, a.columns as i32, b.rows as i32);
    let inner = Geometry { grid: [rank.div_ceil(4), count, 1], block: 128, shared: 0 };
    let outer = Geometry { grid: [b.rows.div_ceil(128), count, 1], block: 128, shared: 0 };
    // SAFETY: shapes and rows were checked, and there is room for the hidden numbers.
    unsafe {
        device.launch(kernels.lora_inner, inner, arguments![a_at, from, rows, ranks, inputs, hidden])?;
        device.launch(kernels.lora_outer, outer, arguments![b_at, hidden, rows, ranks, outputs, to])
    }
}
