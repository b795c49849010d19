//! Adapters of experts on the GPU: they add to the products of the rows that use them, before activations.
//!
//! With adapters of gates or ups, these products and the activation are launches of their own, and so are the
//! downs and their sum. They do the same float operations as the fused kernels, so rows without an adapter
//! keep their bits.

use super::super::CudaBackend;
use super::super::driver::{Geometry, Memory, arguments};
use super::super::elementwise;
use super::super::state::{Upload, at_least};
use super::launch::Table;
use crate::{Activation, Error, Lora};

/// Work memory of adapters.
#[derive(Default)]
pub(super) struct Space {
    rows: Upload,
    hidden: Option<Memory>,
}

/// The struct `Adapted` of `experts_lora.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Adapted {
    a: u64,
    b: u64,
    rows: u64,
    chosen: u64,
    place_of: u64,
    weights: u64,
    x: u64,
    hidden: u64,
    out: u64,
    rank: i32,
    inputs: i32,
    outputs: i32,
    used: i32,
    by_place: i32,
}

/// The products that adapters change: of `rows` rows of the batch from row `first` on, `used` each.
#[derive(Clone, Copy)]
pub(super) struct Products {
    pub(super) table: Table,
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) used: usize,
    /// The address of the input, and whether it has a row for each place instead of one for each row.
    pub(super) x: u64,
    pub(super) by_place: bool,
    /// The products are multiplied with the experts' weights.
    pub(super) weighted: bool,
}

impl CudaBackend {
    /// Adds the changes of `loras` to the products in `out`, which has a row for each place.
    pub(super) fn add_changes(
        &self,
        space: &mut Space,
        of: &Products,
        loras: &[Lora<'_, Self>],
        out: u64,
    ) -> Result<(), Error> {
        let kernels = &self.kernels.experts;
        for lora in loras {
            let here =
                lora.rows.iter().filter(|row| (of.first..of.first + of.rows).contains(&(row.row as usize)));
            let rows: Vec<u32> = here
                .flat_map(|row| [row.row - of.first as u32, (lora.scale * row.scale).to_bits()])
                .collect();
            let pairs = rows.len() / 2 * of.used;
            if pairs == 0 {
                continue;
            }
            let ([_, outputs, inputs], rank) = (lora.pair.shape(), lora.pair.a.rows);
            let rows = space.rows.put(&self.device, &rows)?;
            let hidden = at_least(&mut space.hidden, &self.device, pairs * rank * 4, false)?.pointer();
            let p = Adapted {
                a: lora.pair.a.memory.pointer(),
                b: lora.pair.b.memory.pointer(),
                rows,
                chosen: of.table.chosen,
                place_of: of.table.place_of,
                weights: if of.weighted { of.table.weights } else { 0 },
                x: of.x,
                hidden,
                out,
                rank: rank as i32,
                inputs: inputs as i32,
                outputs: outputs as i32,
                used: of.used as i32,
                by_place: of.by_place as i32,
            };
            let inner = Geometry { grid: [rank.div_ceil(4), pairs, 1], block: 128, shared: 0 };
            let outer = Geometry { grid: [outputs.div_ceil(128), pairs, 1], block: 128, shared: 0 };
            // SAFETY: shapes and rows were checked, the table has the rows' places, and there is room for the
            // hidden numbers.
            unsafe {
                self.device.launch(kernels.lora_inner, inner, arguments![p])?;
                self.device.launch(kernels.lora_outer, outer, arguments![p])?;
            }
        }
        Ok(())
    }

    /// Computes `x = activation(x) * up` of `len` numbers, or `x = activation(x)` if `up` is 0.
    pub(super) fn activate_adapted(
        &self,
        activation: Activation,
        x: u64,
        up: u64,
        len: usize,
    ) -> Result<(), Error> {
        let (kind, [alpha, limit]) = elementwise::gate(activation);
        let geometry = Geometry { grid: [len.div_ceil(256), 1, 1], block: 256, shared: 0 };
        let len = len as u64;
        // SAFETY: both have `len` numbers.
        unsafe {
            let arguments = arguments![x, up, len, kind, alpha, limit];
            self.device.launch(self.kernels.experts.activate_adapted, geometry, arguments)
        }
    }
}
