//! Hugging Face's SmolLM 3: every fourth layer has no rope.

use realm_compute::RopeStyle;

use super::reader::Reader;
use super::shape::Shape;
use crate::Error;

pub(super) fn smollm3(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Interleaved)?;
    shape.no_rope(|i, _| (i + 1).is_multiple_of(4));
    Ok(shape)
}
