//! Norms of rows: starts the kernels of `norms.cu`.

use super::buffer::{Buffer, Forms};
use super::driver::{Geometry, arguments};
use super::matrix::CHUNK;
use super::{CudaBackend, Vector};
use crate::checks::{self, expect};
use crate::{Error, Norm, NormKind};

/// The weight of an RMS norm that has one and no bias: the kernels for this most common norm do less.
pub(super) fn common<'a>(norm: &Norm<'a, CudaBackend>) -> Option<&'a Vector> {
    norm.weight.filter(|_| norm.kind == NormKind::Rms && norm.bias.is_none())
}

/// Addresses of a norm's weight and bias, 0 for none.
pub(crate) fn parameters(norm: &Norm<'_, CudaBackend>) -> [u64; 2] {
    [norm.weight, norm.bias].map(|vector| vector.map_or(0, |vector| vector.memory.pointer()))
}

/// A block of threads for each row: a warp for every 256 columns, at most 16 warps.
pub(super) fn geometry(rows: usize, columns: usize) -> Geometry {
    Geometry { grid: [rows, 1, 1], block: 32 * columns.div_ceil(CHUNK).clamp(1, 16), shared: 0 }
}

impl CudaBackend {
    /// Implements [`Backend::norm`](crate::Backend::norm).
    pub(super) fn normalize(&self, x: &Buffer, norm: &Norm<'_, Self>, out: &mut Buffer) -> Result<(), Error> {
        checks::norm(norm, x.columns)?;
        expect("the width of a norm's output", out.columns, x.columns)?;
        let _state = self.state()?;
        out.set_rows(x.rows())?;
        if self.norm_may_wait(x, norm, out)? {
            return Ok(());
        }
        let forms = out.fill()?;
        self.start_norm(x, norm, out.pointer(), forms)
    }

    /// Normalizes whole rows in place. The caller holds the state's lock.
    pub(super) fn normalize_in_place(&self, x: &mut Buffer, norm: &Norm<'_, Self>) -> Result<(), Error> {
        x.changed();
        self.start_norm(x, norm, x.pointer(), Forms::default())
    }

    /// Starts the kernel of a norm whose operands were checked. `to` has room for the rows and may be `x`.
    fn start_norm(&self, x: &Buffer, norm: &Norm<'_, Self>, to: u64, forms: Forms) -> Result<(), Error> {
        let (from, columns, eps) = (x.pointer(), x.columns as i32, norm.eps);
        let geometry = geometry(x.rows(), x.columns);
        let ([weight, bias], layer) = (parameters(norm), (norm.kind == NormKind::Layer) as i32);
        // SAFETY: shapes were checked, and the forms have room.
        unsafe {
            if common(norm).is_some() {
                let arguments = arguments![from, weight, eps, columns, to, forms];
                return self.device.launch(self.kernels.rms_norm, geometry, arguments);
            }
            let arguments = arguments![from, weight, bias, layer, eps, columns, to, forms];
            self.device.launch(self.kernels.any_norm, geometry, arguments)
        }
    }

    /// Implements [`Backend::add_norm`](crate::Backend::add_norm).
    pub(super) fn add_normalized(
        &self,
        x: &mut Buffer,
        delta: &Buffer,
        norm: &Norm<'_, Self>,
    ) -> Result<(), Error> {
        checks::norm(norm, x.columns)?;
        checks::same(self, "a norm's input", delta, x)?;
        let _state = self.state()?;
        x.changed();
        let (to, from, eps, columns) = (x.pointer(), delta.pointer(), norm.eps, x.columns as i32);
        let geometry = geometry(x.rows(), x.columns);
        let ([weight, bias], layer) = (parameters(norm), (norm.kind == NormKind::Layer) as i32);
        // SAFETY: shapes were checked.
        unsafe {
            if common(norm).is_some() {
                let arguments = arguments![to, from, weight, eps, columns];
                return self.device.launch(self.kernels.add_rms_norm, geometry, arguments);
            }
            let arguments = arguments![to, from, weight, bias, layer, eps, columns];
            self.device.launch(self.kernels.add_any_norm, geometry, arguments)
        }
    }
}
