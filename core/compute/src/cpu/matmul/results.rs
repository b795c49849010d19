//! The end of a product: bias, residual, and the output's rows.

use crate::cpu::format::PANEL;
use crate::cpu::lanes::versions;
use crate::cpu::pool::Parts;

/// A panel's columns of an output.
pub(crate) struct Columns<'a> {
    out: &'a Parts<f32>,
    outputs: usize,
    first: usize,
    len: usize,
}

impl<'a> Columns<'a> {
    /// # Safety
    /// No other thread touches the panel's columns of `out`, which has `outputs` columns and outlives this.
    pub(super) unsafe fn new(out: &'a Parts<f32>, outputs: usize, panel: usize) -> Self {
        let first = panel * PANEL;
        Self { out, outputs, first, len: PANEL.min(outputs - first) }
    }

    #[inline(always)]
    fn row(&mut self, row: usize) -> &mut [f32] {
        // SAFETY: by the promise made to `new`; the reference borrows this alone.
        unsafe { self.out.part(row * self.outputs + self.first, self.len) }
    }
}

versions! {
    /// Adds bias and residual and writes a panel's results. With wide registers a row is one store, and the
    /// processor waits for as many more lines of the output at a time.
    fn finish(
        acc: &[[f32; PANEL]],
        bias: Option<&[f32]>,
        accumulate: bool,
        out: &mut Columns<'_>,
    ) = finish_body
}

#[inline(always)]
fn finish_body(acc: &[[f32; PANEL]], bias: Option<&[f32]>, accumulate: bool, out: &mut Columns<'_>) {
    let mut added = [0.0; PANEL];
    if let Some(bias) = bias {
        added[..out.len].copy_from_slice(&bias[out.first..out.first + out.len]);
    }
    for (row, acc) in acc.iter().enumerate() {
        let out = out.row(row);
        let values: [f32; PANEL] = std::array::from_fn(|i| acc[i] + added[i]);
        match (<&mut [f32; PANEL]>::try_from(&mut *out), accumulate) {
            (Ok(out), false) => *out = values,
            (Ok(out), true) => *out = std::array::from_fn(|i| out[i] + values[i]),
            (Err(_), false) => out.iter_mut().zip(values).for_each(|(out, value)| *out = value),
            (Err(_), true) => out.iter_mut().zip(values).for_each(|(out, value)| *out += value),
        }
    }
}
