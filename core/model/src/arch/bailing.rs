//! Ling 2 and Ring (`bailingmoe2`) and dots.llm1: experts with a selection bias beside a shared one.

use realm_compute::{Gating, RopeStyle};

use super::reader::Reader;
use super::shape::{Experts, Shape};
use crate::Error;
use crate::spec::QkNorms;

pub(super) fn bailingmoe2(r: &Reader<'_>) -> Result<Shape, Error> {
    let width = r.dim_or_none("expert_shared_feed_forward_length")?;
    experts(r, width)
}

pub(super) fn dots1(r: &Reader<'_>) -> Result<Shape, Error> {
    experts(r, None)
}

/// Reads experts beside shared ones, each of `width` numbers per hidden state or as many as an expert.
fn experts(r: &Reader<'_>, width: Option<usize>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Half)?;
    shape.qk_norms(QkNorms::OF_HEADS);
    shape.experts(r, &Experts::plain(Gating::Sigmoid), r.shared_experts(width)?)?;
    Ok(shape)
}
