//! BigCode's StarCoder 2: layer norms with biases, and a feed-forward network without a gate.

use realm_compute::{Activation, RopeStyle};

use super::reader::Reader;
use super::shape::Shape;
use crate::Error;

pub(super) fn starcoder2(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Half)?;
    shape.layer_norms(r)?;
    shape.dense(false, Activation::GeluTanh);
    Ok(shape)
}
