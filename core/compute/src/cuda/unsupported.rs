//! The features that have no kernels here.

use super::kernels::HEAD_DIMS;
use super::{Buffer, CudaBackend, Vector};
use crate::checks::expect;
use crate::{Activation, Attention, CacheLayout, Error, Feature, Norm, NormKind, NormSpan, Window};

/// Returns whether there are kernels for a feature.
pub(crate) fn supports(feature: Feature) -> bool {
    match feature {
        Feature::Weights(_) | Feature::Experts | Feature::HeadMatrices => true,
        Feature::HeadDim(dim) => dim <= HEAD_DIMS[HEAD_DIMS.len() - 1],
        Feature::Gated(activation) => matches!(activation, Activation::Silu | Activation::GeluTanh),
        _ => false,
    }
}

/// The error for a feature without kernels.
pub(crate) fn refuse<T>(feature: Feature) -> Result<T, Error> {
    Err(Error::Unsupported(format!("CUDA doesn't compute {feature} yet; load the model on the CPU")))
}

/// Returns the weight of an RMS norm, and refuses other norms.
pub(crate) fn norm_weight<'a>(norm: &Norm<'a, CudaBackend>) -> Result<&'a Vector, Error> {
    if norm.kind != NormKind::Rms || norm.bias.is_some() {
        return refuse(Feature::LayerNorm);
    }
    norm.weight.map_or_else(|| refuse(Feature::PlainNorm), Ok)
}

/// Returns the rotations, weights of the norms of queries and keys, and their epsilon; refuses attention
/// that the kernels don't compute.
#[allow(clippy::type_complexity, reason = "the operands of one kernel")]
pub(crate) fn rope<'a>(
    spec: &Attention<'a, CudaBackend>,
) -> Result<(&'a Buffer, [Option<&'a Vector>; 2], f32), Error> {
    let norms = [spec.q_norm, spec.k_norm];
    let mut eps = norms.iter().flatten().map(|norm| norm.eps);
    let first = eps.next().unwrap_or(0.0);
    if eps.any(|eps| eps != first) {
        return Err(Error::Unsupported("CUDA has one epsilon for the norms of queries and keys".into()));
    }
    if norms.iter().flatten().next().is_some() {
        if spec.norm_span == NormSpan::Row {
            return refuse(Feature::RowNorms);
        }
        if spec.norm_after_rope {
            return refuse(Feature::NormAfterRope);
        }
    }
    if spec.temperature.is_some() {
        return refuse(Feature::Temperature);
    }
    let Some(rotations) = spec.rotations else { return refuse(Feature::NoRope) };
    let mut weights = [None; 2];
    for (weight, norm) in weights.iter_mut().zip(&norms) {
        *weight = norm.as_ref().map(norm_weight).transpose()?;
        match weight {
            Some(weight) if weight.len > spec.head_dim => return refuse(Feature::HeadNorms),
            Some(weight) => expect("the length of a norm", weight.len, spec.head_dim)?,
            None => {}
        }
    }
    Ok((rotations, weights, first))
}

/// Refuses layers that have fewer key/value heads than others of their model.
pub(crate) fn heads(spec: &Attention<'_, CudaBackend>, layout: &CacheLayout) -> Result<(), Error> {
    if spec.kv_heads == layout.kv_heads { Ok(()) } else { refuse(Feature::UnequalHeads) }
}

/// Returns the window in tokens, or 0; refuses attention that the kernels don't compute.
pub(crate) fn window(spec: &Attention<'_, CudaBackend>) -> Result<i32, Error> {
    if spec.sinks.is_some() {
        return refuse(Feature::Sinks);
    }
    match spec.window {
        None => Ok(0),
        Some(Window::Sliding(tokens)) => Ok(i32::try_from(tokens).unwrap_or(i32::MAX)),
        Some(Window::Chunked(_)) => refuse(Feature::ChunkedWindow),
    }
}
