//! Phi 3, 3.5 and 4.

use realm_compute::{Gating, NormKind, RopeStyle};

use super::reader::Reader;
use super::shape::{Experts, Shape};
use crate::Error;

pub(super) fn phi3(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Half)?;
    // Exporters write 0 for a model of the family without a window (Phi-4).
    if let Some(window) = r.dim_or_none("attention.sliding_window")? {
        shape.windows(r, window, 0);
    }
    Ok(shape)
}

/// Phi-3.5 MoE: layer norms, whose epsilon has the name of that of RMS norms.
pub(super) fn phimoe(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Half)?;
    shape.norm = NormKind::Layer;
    shape.experts(r, &Experts { normalize: true, ..Experts::plain(Gating::Softmax) }, None)?;
    Ok(shape)
}
