//! Ling 2 and Ring (`bailingmoe2`) and dots.llm1: experts with a selection bias beside a shared one.

use realm_compute::{Gating, NormSpan, RopeStyle};

use super::reader::Reader;
use super::shape::{Experts, Shape};
use crate::Error;

pub(super) fn bailingmoe2(r: &Reader<'_>) -> Result<Shape, Error> {
    let width = r.dim_or_none("expert_shared_feed_forward_length")?;
    experts(r, width)
}

pub(super) fn dots1(r: &Reader<'_>) -> Result<Shape, Error> {
    experts(r, None)
}

/// Reads experts beside as many shared ones as the metadata have, each of `width` numbers per hidden state or
/// as many as an expert.
fn experts(r: &Reader<'_>, width: Option<usize>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Half)?;
    shape.qk_norms(NormSpan::Head);
    let shared = match (r.dim_or_none("expert_shared_count")?, width) {
        (Some(count), Some(width)) => Some(count * width),
        (Some(count), None) => Some(count * r.dim("expert_feed_forward_length")?),
        (None, _) => None,
    };
    shape.experts(r, &Experts::plain(Gating::Sigmoid), shared)?;
    Ok(shape)
}
