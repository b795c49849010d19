//! Baidu's ERNIE 4.5, dense and with experts.

use realm_compute::{Gating, RopeStyle};

use super::reader::Reader;
use super::shape::{Experts, Shape};
use crate::Error;

pub(super) fn ernie4_5(r: &Reader<'_>) -> Result<Shape, Error> {
    Shape::plain(r, RopeStyle::Interleaved)
}

pub(super) fn ernie4_5_moe(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = ernie4_5(r)?;
    let shared = r.dim_or_none("expert_shared_feed_forward_length")?;
    shape.experts(r, &Experts { normalize: true, ..Experts::plain(Gating::Softmax) }, shared)?;
    Ok(shape)
}
