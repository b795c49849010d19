//! OpenAI's gpt-oss: sinks, windows in every other layer, experts with biases and a clamped activation.

use realm_compute::{Activation, Gating, RopeStyle};

use super::reader::Reader;
use super::shape::{Experts, Shape};
use crate::Error;

pub(super) fn gpt_oss(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Half)?;
    shape.attention(|_, attention| attention.sinks = true);
    shape.windows(r, r.dim("attention.sliding_window")?, 2);
    shape.dense(true, Activation::ClampedSwiglu { alpha: 1.702, limit: 7.0 });
    shape.experts(r, &Experts::plain(Gating::SoftmaxOfChosen), None)?;
    Ok(shape)
}
