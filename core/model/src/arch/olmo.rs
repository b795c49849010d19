//! AI2's OLMo 2 and 3, and OLMoE: norms over whole rows of queries and keys.

use realm_compute::{Gating, NormSpan, RopeStyle};

use super::reader::Reader;
use super::shape::{Experts, Shape};
use crate::Error;
use crate::spec::{NormPlaces, QkNorms};

/// OLMo 2, and OLMo 3, which has sliding windows.
pub(super) fn olmo2(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Half)?;
    shape.norms(NormPlaces::After);
    shape.qk_norms(QkNorms { span: NormSpan::Row, ..QkNorms::OF_HEADS });
    if let Some(window) = r.dim_or_none("attention.sliding_window")? {
        shape.windows(r, window, 4);
        // Only layers that see everything stretch their rope.
        shape.rope_in_windows(r)?;
    }
    Ok(shape)
}

pub(super) fn olmoe(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Half)?;
    shape.qk_norms(QkNorms { span: NormSpan::Row, ..QkNorms::OF_HEADS });
    shape.experts(r, &Experts::plain(Gating::Softmax), None)?;
    Ok(shape)
}
