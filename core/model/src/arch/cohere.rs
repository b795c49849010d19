//! Cohere's Command R and R7B: attention and feed-forward network side by side behind one layer norm.

use realm_compute::{NormKind, RopeStyle};

use super::reader::Reader;
use super::shape::Shape;
use crate::Error;
use crate::spec::{NormPlaces, QkNormWeights, QkNorms};

pub(super) fn command_r(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Interleaved)?;
    shape.layer_norms(r)?;
    shape.norms(NormPlaces::Shared);
    shape.logit_scale = r.float_or_none("logit_scale")?.unwrap_or(1.0);
    // Command R+ alone has them, with weights for each head.
    shape.qk_norms(QkNorms { kind: NormKind::Layer, weights: QkNormWeights::Optional, ..QkNorms::OF_HEADS });
    Ok(shape)
}

/// Command R7B and Command A: windows, and rope only in layers with a window.
pub(super) fn cohere2(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = command_r(r)?;
    shape.attention(|_, attention| attention.qk_norms = None);
    shape.windows(r, r.dim("attention.sliding_window")?, 4);
    shape.no_rope(|_, attention| attention.window.is_none());
    Ok(shape)
}
