//! Activations, sums and copies of rows: starts the kernels of `elementwise.cu`.

use super::buffer::Buffer;
use super::driver::{Geometry, arguments};
use super::matrix::CHUNK;
use super::{CudaBackend, Function};
use crate::checks::{self, expect};
use crate::{Activation, Columns, Error};

/// Threads of a block in kernels of one number for each thread.
const BLOCK: usize = 256;

/// The number of an activation in `gates.cuh`, and its `alpha` and `limit`.
pub(super) fn gate(activation: Activation) -> (i32, [f32; 2]) {
    match activation {
        Activation::Silu => (0, [0.0; 2]),
        Activation::GeluTanh => (1, [0.0; 2]),
        Activation::Gelu => (2, [0.0; 2]),
        Activation::ReluSquared => (3, [0.0; 2]),
        Activation::Sigmoid => (4, [0.0; 2]),
        Activation::ClampedSwiglu { alpha, limit } => (5, [alpha, limit]),
    }
}

/// The struct `CopyColumns` of `elementwise.cu`.
#[repr(C)]
struct CopyColumns {
    x: u64,
    out: u64,
    columns: i32,
    out_columns: i32,
    count: i32,
    width: i32,
    from: i32,
    from_step: i32,
    to: i32,
    to_step: i32,
}

/// A warp for each 256 columns of each row.
fn chunks(x: &Buffer) -> Geometry {
    Geometry { grid: [x.columns.div_ceil(CHUNK).div_ceil(4), x.rows(), 1], block: 128, shared: 0 }
}

/// A thread for each number of each row.
fn numbers(columns: usize, rows: usize) -> Geometry {
    Geometry { grid: [columns.div_ceil(BLOCK), rows, 1], block: BLOCK, shared: 0 }
}

impl CudaBackend {
    /// Implements [`Backend::gated_activation`](crate::Backend::gated_activation) and, without `up`,
    /// [`Backend::activation`](crate::Backend::activation).
    pub(super) fn activate(
        &self,
        activation: Activation,
        x: &mut Buffer,
        up: Option<&Buffer>,
    ) -> Result<(), Error> {
        match up {
            Some(up) => checks::same(self, "a gate", x, up)?,
            None => checks::ungated(activation)?,
        }
        let _state = self.locked()?;
        if let Some(up) = up
            && self.activate_pair(activation, x, up)?
        {
            x.changed();
            return Ok(());
        }
        self.start_all()?;
        let forms = x.fill()?;
        let (to, other, columns) = (x.pointer(), up.map_or(0, Buffer::pointer), x.columns as i32);
        let (kind, [alpha, limit]) = gate(activation);
        let geometry = chunks(x);
        // SAFETY: shapes were checked, and the forms have room.
        unsafe {
            if up.is_some() && matches!(activation, Activation::Silu | Activation::GeluTanh) {
                let arguments = arguments![to, other, columns, kind, forms];
                return self.device.launch(self.kernels.gated_activation, geometry, arguments);
            }
            let arguments = arguments![to, other, columns, kind, alpha, limit, forms];
            self.device.launch(self.kernels.activation, geometry, arguments)
        }
    }

    /// Implements [`Backend::add`](crate::Backend::add).
    pub(super) fn add_scaled(&self, x: &mut Buffer, delta: &Buffer, scale: f32) -> Result<(), Error> {
        checks::same(self, "a summand", delta, x)?;
        let _state = self.state()?;
        x.changed();
        let (to, from, len) = (x.pointer(), delta.pointer(), (x.rows() * x.columns) as u64);
        let geometry = numbers(len as usize, 1);
        // SAFETY: both have `len` numbers.
        unsafe { self.device.launch(self.kernels.add, geometry, arguments![to, from, len, scale]) }
    }

    /// Starts a kernel that changes every number of `x` with the same factor.
    pub(super) fn change_all(&self, kernel: Function, x: &mut Buffer, factor: f32) -> Result<(), Error> {
        let _state = self.state()?;
        x.changed();
        let (to, len) = (x.pointer(), (x.rows() * x.columns) as u64);
        // SAFETY: `x` has `len` numbers.
        unsafe { self.device.launch(kernel, numbers(len as usize, 1), arguments![to, len, factor]) }
    }

    /// Implements [`Backend::scale_rows`](crate::Backend::scale_rows).
    pub(super) fn scale_by_gates(&self, gate: &Buffer, x: &mut Buffer) -> Result<(), Error> {
        expect("the width of the rows' gate", gate.columns, 1)?;
        expect("the rows of the rows' gate", gate.rows(), x.rows())?;
        let _state = self.state()?;
        x.changed();
        let (gate, to, columns) = (gate.pointer(), x.pointer(), x.columns as i32);
        let geometry = numbers(x.columns, x.rows());
        // SAFETY: `gate` has a number for each row.
        unsafe { self.device.launch(self.kernels.scale_rows, geometry, arguments![gate, to, columns]) }
    }

    /// Implements [`Backend::copy_columns`](crate::Backend::copy_columns).
    pub(super) fn copy_pieces(&self, x: &Buffer, columns: &Columns, out: &mut Buffer) -> Result<(), Error> {
        checks::columns(columns, x.columns, out.columns)?;
        let _state = self.state()?;
        out.set_rows(x.rows())?;
        let Columns { count, width, from, from_step, to, to_step } = *columns;
        let p = CopyColumns {
            x: x.pointer(),
            out: out.pointer(),
            columns: x.columns as i32,
            out_columns: out.columns as i32,
            count: count as i32,
            width: width as i32,
            from: from as i32,
            from_step: from_step as i32,
            to: to as i32,
            to_step: to_step as i32,
        };
        // SAFETY: pieces lie inside the rows, and `out` has room for as many rows as `x` has.
        unsafe {
            self.device.launch(self.kernels.copy_columns, numbers(count * width, x.rows()), arguments![p])
        }
    }

    /// Implements [`Backend::gather`](crate::Backend::gather).
    pub(super) fn gather_rows(&self, x: &Buffer, rows: &[u32], out: &mut Buffer) -> Result<(), Error> {
        expect("the width of gathered rows", out.columns, x.columns)?;
        rows.iter().try_for_each(|&row| checks::row(row as usize, x.rows()))?;
        let mut state = self.state()?;
        out.set_rows(rows.len())?;
        let geometry = numbers(x.columns, rows.len());
        let rows = state.rows.put(&self.device, rows)?;
        let (from, to, columns) = (x.pointer(), out.pointer(), x.columns as i32);
        // SAFETY: rows were checked, and `out` has room for them.
        unsafe { self.device.launch(self.kernels.gather, geometry, arguments![from, rows, columns, to]) }
    }
}
