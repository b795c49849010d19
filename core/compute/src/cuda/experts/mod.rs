//! Products in which every row has matrices of its own: mixtures of experts, and a matrix for each head.
//!
//! A mixture is a few launches, however many experts there are, and the host learns nothing of the rows'
//! choices, so that a pass can be recorded. `kernels/route.cu` scores the experts, chooses each row's and
//! sorts the rows by expert; `kernels/experts.cu` (few rows of an expert) and `kernels/experts_gemm.cu`
//! (many; on Hopper `kernels/experts_hopper.cu`) multiply gates and ups and apply the activation, then
//! multiply the downs; the last step adds up a row's results in the order of the experts' numbers. For one
//! row or two, where launches take longest, the downs and their sum are one launch.
//!
//! Sums are those of all other products, chunk by chunk, so a row's results depend neither on the kernels nor
//! on the rows that chose the same experts.

mod adapters;
mod heads;
mod kernels;
mod launch;
mod mixture;
mod wide;

use super::buffer::FormSet;
use super::driver::Memory;
use super::matrix::{Kind, Stack};
use super::{Buffer, CudaBackend, LowRank, Matrix, Vector};
use crate::checks::Sizes;
pub(crate) use kernels::ExpertKernels;

/// Matrices of one shape on the GPU, one for each expert or head.
pub struct Experts(Stack);

impl Experts {
    pub(super) fn new(stack: Stack) -> Self {
        Self(stack)
    }

    /// Their number, outputs and inputs.
    fn shape(&self) -> [usize; 3] {
        [self.0.count, self.0.rows, self.0.columns]
    }

    /// The form in which kernels read activations, as a bit; 0 for floats.
    fn form(&self) -> u32 {
        match self.0.kind {
            Kind::Tiles { format, .. } => format.form as u32,
            Kind::Floats => 0,
        }
    }
}

/// Work memory, kept from call to call.
#[derive(Default)]
pub(crate) struct Space {
    /// The scores of routers that are not floats.
    routed: Option<Buffer>,
    scores: Option<Memory>,
    /// Zeros between launches.
    tickets: Option<Memory>,
    table: Option<Memory>,
    gate: Option<Memory>,
    up: Option<Memory>,
    results: Option<Memory>,
    adapters: adapters::Space,
    /// Forms of the rows of places, by their width.
    forms: Vec<(usize, FormSet)>,
}

impl Space {
    /// Returns the forms of places of `columns`.
    fn forms(&mut self, columns: usize) -> &mut FormSet {
        let at = self.forms.iter().position(|(width, _)| *width == columns).unwrap_or_else(|| {
            self.forms.push((columns, FormSet::default()));
            self.forms.len() - 1
        });
        &mut self.forms[at].1
    }
}

impl Sizes for CudaBackend {
    fn vector_len(vector: &Vector) -> usize {
        vector.len
    }

    fn matrix_shape(matrix: &Matrix) -> [usize; 2] {
        [matrix.rows, matrix.columns]
    }

    fn experts_shape(experts: &Experts) -> [usize; 3] {
        experts.shape()
    }

    fn low_rank_shape(pair: &LowRank) -> [usize; 3] {
        pair.shape()
    }
}
