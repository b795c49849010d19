//! Qwen 2, 2.5 and 3, with and without experts, and the language part of Qwen 3 VL.

use realm_compute::{Gating, RopeStyle};

use super::reader::Reader;
use super::shape::{Experts, Shape};
use crate::Error;
use crate::spec::QkNorms;

pub(super) fn qwen2(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Half)?;
    if let Some(window) = r.dim_or_none("attention.sliding_window")? {
        shape.windows(r, window, 0);
    }
    Ok(shape)
}

pub(super) fn qwen3(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = qwen2(r)?;
    shape.qk_norms(QkNorms::OF_HEADS);
    Ok(shape)
}

pub(super) fn qwen2moe(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = qwen2(r)?;
    let shared = match r.dim_or_none("expert_shared_feed_forward_length")? {
        Some(width) => width,
        None => r.dim("feed_forward_length")?,
    };
    shape.experts(r, &experts(r, false)?, Some(shared))?;
    Ok(shape)
}

pub(super) fn qwen3moe(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = qwen3(r)?;
    shape.experts(r, &experts(r, true)?, None)?;
    Ok(shape)
}

/// The defaults of Qwen's experts: a row's experts together are as wide as a dense network.
fn experts(r: &Reader<'_>, normalize: bool) -> Result<Experts, Error> {
    let width = r.dim("feed_forward_length")? / r.dim("expert_used_count")?;
    Ok(Experts { normalize, width: Some(width.max(1)), ..Experts::plain(Gating::Softmax) })
}

/// ByteDance's Seed-OSS, which names the norm before the feed-forward network otherwise.
pub(super) fn seed_oss(r: &Reader<'_>) -> Result<Shape, Error> {
    Shape::plain(r, RopeStyle::Half)
}
