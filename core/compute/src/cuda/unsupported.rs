//! The features that have no kernels here.

use super::kernels::HEAD_DIMS;
use super::matrix::takes;
use crate::{Error, Feature};

/// Expert matrices on the GPU. There are none: [`Backend::experts`](crate::Backend::experts) refuses them.
#[derive(Debug)]
pub enum Experts {}

/// Returns whether there are kernels for a feature.
pub(crate) fn supports(feature: Feature) -> bool {
    match feature {
        Feature::Experts | Feature::HeadMatrices => false,
        Feature::Weights(ty) => takes(ty),
        Feature::HeadDim(dim) => dim <= HEAD_DIMS[HEAD_DIMS.len() - 1],
        _ => true,
    }
}

/// The error for a feature without kernels.
pub(crate) fn refuse<T>(feature: Feature) -> Result<T, Error> {
    Err(Error::Unsupported(format!("CUDA doesn't compute {feature} yet; load the model on the CPU")))
}
