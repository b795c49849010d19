//! Phi 3, 3.5 and 4.

use realm_compute::RopeStyle;

use super::reader::Reader;
use super::shape::Shape;
use crate::Error;

pub(super) fn phi3(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Half)?;
    // Exporters write 0 for a model of the family without a window (Phi-4).
    if let Some(window) = r.dim_or_none("attention.sliding_window")? {
        shape.windows(r, window, 0);
    }
    Ok(shape)
}
