//! The kinds of parts, and the buffers and weights that belong to each kind: the one place that lists
//! backends.
//!
//! A further backend is a variant of [`Part`] and [`Either`], a line of `member!`, and an arm of both macros.
//! Activations cross to and from it through the host unless [`Part::take_rows`] knows a shorter way.

use std::sync::Arc;

use realm_gguf::Tensor;

use crate::cpu::{self, CpuBackend};
use crate::cuda::{self, CudaBackend};
use crate::{Backend, CacheSpec, Error};

/// A processor that computes some of a model's layers.
#[derive(Clone)]
pub enum Part {
    /// This machine's processor.
    Cpu(Arc<CpuBackend>),
    /// One GPU.
    Cuda(Arc<CudaBackend>),
}

/// A value of one kind of part or the other.
pub(crate) enum Either<C, G> {
    Cpu(C),
    Cuda(G),
}

pub(crate) type AnyBuffer = Either<cpu::Buffer, cuda::Buffer>;
pub(crate) type AnyVector = Either<Vec<f32>, cuda::Vector>;
pub(crate) type AnyMatrix = Either<cpu::Matrix, cuda::Matrix>;
pub(crate) type AnyExperts = Either<cpu::Experts, cuda::Experts>;
pub(crate) type AnyLowRank = Either<cpu::LowRank, cuda::LowRank>;
pub(crate) type AnyCache = Either<cpu::Cache, cuda::Cache>;

/// A backend that can be a part: it finds its own values among [`Either`]s.
pub(crate) trait Member: Backend {
    fn buffer_in<'a>(&self, any: &'a AnyBuffer) -> Result<&'a Self::Buffer, Error>;
    fn buffer_in_mut<'a>(&self, any: &'a mut AnyBuffer) -> Result<&'a mut Self::Buffer, Error>;
    fn vector_in<'a>(&self, any: &'a AnyVector) -> Result<&'a Self::Vector, Error>;
    fn matrix_in<'a>(&self, any: &'a AnyMatrix) -> Result<&'a Self::Matrix, Error>;
    fn experts_in<'a>(&self, any: &'a AnyExperts) -> Result<&'a Self::Experts, Error>;
    fn low_rank_in<'a>(&self, any: &'a AnyLowRank) -> Result<&'a Self::LowRank, Error>;
    fn cache_in<'a>(&self, any: &'a AnyCache) -> Result<&'a Self::Cache, Error>;
    fn cache_in_mut<'a>(&self, any: &'a mut AnyCache) -> Result<&'a mut Self::Cache, Error>;
}

fn elsewhere() -> Error {
    Error::InvalidArgument("what an operation needs is on another part".into())
}

macro_rules! member {
    ($backend:ty, $kind:ident: $($name:ident $any:ident $own:ident $(($mut:tt))?,)*) => {
        impl Member for $backend {
            $(fn $name<'a>(&self, any: &'a $($mut)? $any) -> Result<&'a $($mut)? Self::$own, Error> {
                match any {
                    Either::$kind(own) => Ok(own),
                    _ => Err(elsewhere()),
                }
            })*
        }
    };
    ($backend:ty, $kind:ident) => {
        member! {
            $backend, $kind:
            buffer_in AnyBuffer Buffer,
            buffer_in_mut AnyBuffer Buffer (mut),
            vector_in AnyVector Vector,
            matrix_in AnyMatrix Matrix,
            experts_in AnyExperts Experts,
            low_rank_in AnyLowRank LowRank,
            cache_in AnyCache Cache,
            cache_in_mut AnyCache Cache (mut),
        }
    };
}
member!(CpuBackend, Cpu);
member!(CudaBackend, Cuda);

/// Runs the same expression on a part of either kind.
macro_rules! on {
    ($part:expr, |$b:ident| $body:expr) => {
        match $part {
            Part::Cpu($b) => $body,
            Part::Cuda($b) => $body,
        }
    };
}
pub(crate) use on;

/// Runs the same expression on a part of either kind and wraps the result for that kind.
macro_rules! made_by {
    ($part:expr, |$b:ident| $body:expr) => {
        match $part {
            Part::Cpu($b) => Either::Cpu($body?),
            Part::Cuda($b) => Either::Cuda($body?),
        }
    };
}

impl Part {
    /// Returns whether the part computes on the host's own threads.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self, Self::Cpu(_))
    }

    /// Copies rows from another part without the host; `None` if the two have no way to do so.
    pub(crate) fn take_rows(
        &self,
        to: &mut AnyBuffer,
        from: (&Self, &AnyBuffer),
    ) -> Option<Result<(), Error>> {
        match ((self, to), from) {
            ((Self::Cuda(own), Either::Cuda(to)), (Self::Cuda(other), Either::Cuda(from))) => {
                Some(own.take_rows(other, from, to))
            }
            _ => None,
        }
    }

    pub(crate) fn description(&self) -> String {
        on!(self, |b| b.description())
    }

    pub(crate) fn buffer(&self, rows: usize, columns: usize) -> Result<AnyBuffer, Error> {
        Ok(made_by!(self, |b| b.buffer(rows, columns)))
    }

    pub(crate) fn vector(&self, values: &[f32]) -> Result<AnyVector, Error> {
        Ok(made_by!(self, |b| b.vector(values)))
    }

    pub(crate) fn matrix(&self, tensor: &Tensor<'_>) -> Result<AnyMatrix, Error> {
        Ok(made_by!(self, |b| b.matrix(tensor)))
    }

    pub(crate) fn experts(&self, tensor: &Tensor<'_>) -> Result<AnyExperts, Error> {
        Ok(made_by!(self, |b| b.experts(tensor)))
    }

    pub(crate) fn low_rank(&self, a: &Tensor<'_>, b: &Tensor<'_>) -> Result<AnyLowRank, Error> {
        Ok(made_by!(self, |backend| backend.low_rank(a, b)))
    }

    pub(crate) fn cache(&self, spec: &CacheSpec) -> Result<AnyCache, Error> {
        Ok(made_by!(self, |b| b.cache(spec)))
    }
}
