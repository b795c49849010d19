//! LG's EXAONE 4: norms behind blocks; the 32B has windows, and rope only in layers with one.

use realm_compute::RopeStyle;

use super::reader::Reader;
use super::shape::Shape;
use crate::Error;
use crate::spec::{NormPlaces, QkNorms};

pub(super) fn exaone4(r: &Reader<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::plain(r, RopeStyle::Half)?;
    shape.norms(NormPlaces::After);
    shape.qk_norms(QkNorms::OF_HEADS);
    if let Some(window) = r.dim_or_none("attention.sliding_window")? {
        shape.windows(r, window, 4);
        shape.no_rope(|_, attention| attention.window.is_none());
    }
    Ok(shape)
}
