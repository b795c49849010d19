//! The product of each head with a matrix of its own.

use super::super::driver::{Geometry, arguments};
use super::super::{Buffer, CudaBackend};
use super::kernels::{SEGMENT_ROWS, Shape};
use super::launch::{Mode, Product, Segments, Table};
use super::{Experts, Space};
use crate::{Error, checks};

/// Heads of all rows that go at once.
const MOST_PLACES: usize = 32_768;

impl CudaBackend {
    /// Implements [`Backend::each_head`](crate::Backend::each_head).
    pub(crate) fn heads(&self, x: &Buffer, w: &Experts, out: &mut Buffer) -> Result<(), Error> {
        checks::each_head(self, x, w, out)?;
        out.set_rows(x.rows())?;
        let [heads, outputs, inputs] = w.shape();
        let mut state = self.state()?;
        state.wait_for_weights(&self.device)?;
        let most = (MOST_PLACES / heads).max(1);
        for first in (0..x.rows()).step_by(most) {
            let rows = most.min(x.rows() - first);
            let from = x.pointer() + (first * heads * inputs * 4) as u64;
            let to = out.pointer() + (first * heads * outputs * 4) as u64;
            self.some_heads(&mut state.experts, w, rows, from, to)?;
        }
        Ok(())
    }

    fn some_heads(
        &self,
        space: &mut Space,
        w: &Experts,
        rows: usize,
        from: u64,
        to: u64,
    ) -> Result<(), Error> {
        let [heads, _, inputs] = w.shape();
        let index = SEGMENT_ROWS.into_iter().position(|most| rows <= most).unwrap_or(SEGMENT_ROWS.len() - 1);
        let shape = if rows == 1 { Shape::One } else { Shape::of(index) };
        let block = shape.rows();
        let (places, most) = (heads * rows, heads * rows.div_ceil(block));
        let table = Table::new(&mut space.table, &self.device, places, most)?;
        let geometry = Geometry { grid: [places.div_ceil(256), 1, 1], block: 256, shared: 0 };
        let (count, all, block) = (heads as i32, rows as i32, block as i32);
        // SAFETY: the table has room for the places and segments.
        unsafe {
            let arguments = arguments![table, count, all, block];
            self.device.launch(self.kernels.experts.heads_table, geometry, arguments)?;
        }
        let form = w.form();
        let forms = space.forms(inputs);
        forms.room_for(&self.device, places, inputs, form)?;
        let forms = forms.describe(inputs, form);
        if form != 0 {
            self.quantize_places(from, places, inputs, forms)?;
        }
        let product = Product {
            weights: [w, w],
            bias: [0; 2],
            mode: Mode::Plain,
            activation: (0, 0.0, 0.0),
            factors: 0,
            rows_of: table.row_of,
            outs_of: table.row_of,
            share: 1,
            out: to,
        };
        self.grouped(&product, &Segments { table, shape, most, known: true }, from, forms)
    }
}
